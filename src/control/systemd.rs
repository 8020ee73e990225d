//! What systemd passes to the gateway (sockets), and what the gateway tells systemd (ready, reloading, stopping).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use listenfd::ListenFd;

/// Listening sockets by the name that `FileDescriptorName=` gives them; see sd_listen_fds(3).
#[derive(Debug, Default)]
pub struct PassedSockets {
    sockets: BTreeMap<String, TcpListener>,
}

impl PassedSockets {
    /// Takes what was passed to this process. Call it once, before anything else opens a descriptor or starts a
    /// thread.
    ///
    /// # Errors
    /// A sentence on a socket that cannot be used.
    pub fn take() -> Result<PassedSockets, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut sockets = BTreeMap::new();
        for (index, name) in names_of(&names, passed.len()).into_iter().enumerate() {
            let socket = passed
                .take_tcp_listener(index)
                .map_err(|error| format!("the socket `{name}` that systemd passed is not a TCP listener: {error}"))?;
            if let Some(socket) = socket
                && sockets.insert(name.clone(), socket).is_some()
            {
                return Err(format!(
                    "systemd passed two sockets named `{name}`: give each its own .socket unit with its own \
                     FileDescriptorName="
                ));
            }
        }
        Ok(PassedSockets { sockets })
    }

    pub fn get(&self, name: &str) -> Option<&TcpListener> {
        self.sockets.get(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.sockets.keys().cloned().collect()
    }
}

/// The names of `count` descriptors; systemd calls "unknown" what it has no name for.
fn names_of(names: &str, count: usize) -> Vec<String> {
    let known = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
    known.chain(std::iter::repeat_with(|| "unknown".to_owned())).take(count).collect()
}

/// A state of the service, as `Type=notify` and `Type=notify-reload` want it told; see sd_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Begun at this time of the monotonic clock.
    Reloading(Duration),
    Stopping,
}

/// Tells the service manager, if there is one.
pub fn notify(state: State) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, &message(state))
    {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn message(state: State) -> String {
    match state {
        State::Ready => "READY=1\n".to_owned(),
        State::Reloading(since) => format!("RELOADING=1\nMONOTONIC_USEC={}\n", since.as_micros()),
        State::Stopping => "STOPPING=1\n".to_owned(),
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// The time of the monotonic clock, which `RELOADING=1` must carry.
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or_default());
    seconds.saturating_add(Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_up() {
        assert_eq!(names_of("https:http", 2), ["https", "http"]);
        assert_eq!(names_of("", 1), ["unknown"]);
        assert_eq!(names_of("https", 2), ["https", "unknown"]);
        assert!(names_of("left:over", 0).is_empty());
    }

    #[test]
    fn tells_through_a_path_and_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), &message(State::Ready)).unwrap();
        let mut told = [0; 64];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1\n");

        let name = format!("passerelle-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), &message(State::Stopping)).unwrap();
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"STOPPING=1\n");
    }

    #[test]
    fn reloading_carries_a_time() {
        assert_eq!(message(State::Reloading(Duration::from_millis(5))), "RELOADING=1\nMONOTONIC_USEC=5000\n");
        assert!(monotonic() > Duration::ZERO);
    }
}
