//! Listening sockets: one for each worker and address, all on one port through `SO_REUSEPORT`.
//!
//! `SO_REUSEPORT` would also let another process of the same user share the port in silence, so an address is first
//! tried without it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::settings::ListenAddress;

/// Connections that the kernel holds for one socket until they are accepted; it takes the less of this and
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A client that vanished without a word is found out after this silence and a few unanswered probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Bytes that the kernel takes for a client beyond those that are on their way. With its own bound of some megabytes
/// it would report progress so seldom that a slow client looked like one that has stopped.
const UNSENT: u32 = 128 * 1024;

/// What tells one listening socket from another, from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketKey {
    Address(SocketAddr),
    /// Port 0, a port that the kernel gives: two of them differ by the listener and their place in its list.
    Ephemeral {
        address: SocketAddr,
        listener: String,
        index: usize,
    },
    /// The name that systemd passes a socket under.
    Systemd(String),
}

impl SocketKey {
    /// The key of a listener's address, the `index`th in its list.
    pub fn new(address: &ListenAddress, listener: &str, index: usize) -> SocketKey {
        match address {
            ListenAddress::Systemd(name) => SocketKey::Systemd(name.clone()),
            ListenAddress::Socket(address) if address.port() == 0 => {
                SocketKey::Ephemeral { address: *address, listener: listener.to_owned(), index }
            }
            ListenAddress::Socket(address) => SocketKey::Address(*address),
        }
    }

    /// Whether a socket of `self` keeps one of `other` from being bound: the same port of the same family, where
    /// either takes every address.
    pub fn overlaps(&self, other: &SocketKey) -> bool {
        match (self, other) {
            (SocketKey::Address(one), SocketKey::Address(two)) => {
                one.port() == two.port()
                    && one.is_ipv4() == two.is_ipv4()
                    && (one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified())
            }
            (SocketKey::Address(_) | SocketKey::Ephemeral { .. } | SocketKey::Systemd(_), _) => self == other,
        }
    }
}

/// As in the file.
impl fmt::Display for SocketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketKey::Address(address) | SocketKey::Ephemeral { address, .. } => write!(f, "{address}"),
            SocketKey::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// The sockets of one key, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// With the port that the kernel gave.
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// Whether an address is first tried without `SO_REUSEPORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nobody else may hold the address.
    Alone,
    /// This process itself still holds an address that overlaps, and will give it up.
    BesideOwn,
}

/// Binds `address` once for each of `workers`.
///
/// # Errors
/// What the system says; see [`advice`] for what to do about it.
pub fn bind(address: SocketAddr, workers: usize, probe: Probe) -> io::Result<Bound> {
    if probe == Probe::Alone && address.port() != 0 {
        let alone = new_socket(address)?;
        alone.bind(&address.into())?;
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = new_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        prepare(SockRef::from(&socket))?;
        let socket = TcpListener::from(socket);
        // The first one's port holds for all.
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Bound { address, sockets })
}

/// Listens at `address` alone and at once, so that nobody else can come between: for whoever must know that it has an
/// address before it can say what is to be served there.
///
/// # Errors
/// What the system says; see [`advice`] for what to do about it.
pub fn hold(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The one among `held` that listens at `address`.
pub fn among(held: &[TcpListener], address: SocketAddr) -> Option<&TcpListener> {
    held.iter().find(|socket| socket.local_addr().is_ok_and(|held| held == address))
}

/// The same socket for each of `workers`: one that came from outside has one queue, whoever takes from it.
///
/// # Errors
/// What the system says when the socket cannot be duplicated.
pub fn share(socket: &TcpListener, workers: usize) -> io::Result<Bound> {
    prepare(SockRef::from(socket))?;
    let sockets = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
    Ok(Bound { address: socket.local_addr()?, sockets })
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` are two addresses, whatever the system's default.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// What accepted connections inherit from their listening socket on Linux is set once here, not for each of them.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}

/// What to change when an address cannot be bound.
pub fn advice(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "another process holds this address: stop it, or choose another port (`ss -ltnp` shows who it is)"
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need the capability CAP_NET_BIND_SERVICE, or a socket from systemd \
         (address = \"systemd:NAME\"), or choose a higher port"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "no interface of this machine has this address: use one that `ip address` shows, or 0.0.0.0 or [::] for all"
    } else {
        "check the address"
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn workers_share_the_port_that_the_kernel_gave() {
        let bound = bind(local(), 3, Probe::Alone).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert!(bound.sockets.iter().all(|socket| socket.local_addr().unwrap() == bound.address));
        TcpStream::connect(bound.address).unwrap();
    }

    #[test]
    fn an_address_held_by_somebody_is_refused_though_it_could_be_shared() {
        let theirs = bind(local(), 1, Probe::Alone).unwrap();
        let error = bind(theirs.address, 1, Probe::Alone).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(bind(theirs.address, 1, Probe::BesideOwn).is_ok());
    }

    #[test]
    fn accepted_connections_inherit_no_delay() {
        let bound = bind(local(), 1, Probe::Alone).unwrap();
        let _client = TcpStream::connect(bound.address).unwrap();
        let socket = &bound.sockets[0];
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }

    #[test]
    fn accepted_connections_inherit_what_was_set_once() {
        let bound = bind(local(), 1, Probe::Alone).unwrap();
        let _client = TcpStream::connect(bound.address).unwrap();
        bound.sockets[0].set_nonblocking(false).unwrap();
        let (accepted, _) = bound.sockets[0].accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), UNSENT);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
    }

    #[test]
    fn a_shared_socket_has_one_queue() {
        let theirs = TcpListener::bind(local()).unwrap();
        let bound = share(&theirs, 2).unwrap();
        let _client = TcpStream::connect(bound.address).unwrap();
        // Readiness is a matter of the kernel's, so either clone may have to wait a moment.
        let socket = &bound.sockets[1];
        socket.set_nonblocking(false).unwrap();
        socket.accept().unwrap();
    }

    #[test]
    fn an_address_that_is_held_is_nobody_else_s() {
        let held = hold(local()).unwrap();
        let address = held.local_addr().unwrap();
        assert_eq!(hold(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(address, 1, Probe::Alone).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let held = [held];
        assert!(among(&held, address).is_some() && among(&held, local()).is_none());
    }

    #[test]
    fn overlaps() {
        let key = |text: &str| SocketKey::Address(text.parse().unwrap());
        assert!(key("0.0.0.0:80").overlaps(&key("127.0.0.1:80")));
        assert!(key("127.0.0.1:80").overlaps(&key("127.0.0.1:80")));
        assert!(!key("127.0.0.1:80").overlaps(&key("127.0.0.1:81")));
        assert!(!key("127.0.0.1:80").overlaps(&key("127.0.0.2:80")));
        assert!(!key("0.0.0.0:80").overlaps(&key("[::]:80")));
        assert!(!SocketKey::Systemd("a".into()).overlaps(&SocketKey::Systemd("b".into())));
    }

    #[test]
    fn ports_of_the_kernel_are_told_apart_by_listener_and_place() {
        let address = ListenAddress::Socket(local());
        assert_ne!(SocketKey::new(&address, "a", 0), SocketKey::new(&address, "a", 1));
        assert_ne!(SocketKey::new(&address, "a", 0), SocketKey::new(&address, "b", 0));
    }
}
