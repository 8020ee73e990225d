//! The sockets of `[admin]`, from one configuration to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::Shared;
use super::answer::Surface;
use super::control::{ControlError, ControlSocket};
use super::listener;
use crate::config::settings::AdminSettings;
use crate::server::bind::among;

/// What `[admin]` asks for, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Endpoint {
    Admin(SocketAddr),
    Probes(SocketAddr),
    Control(PathBuf),
}

impl Endpoint {
    fn all(settings: &AdminSettings) -> impl Iterator<Item = Endpoint> {
        let admin = Endpoint::Admin(settings.address.value);
        let probes = settings.probe_address.as_ref().map(|address| Endpoint::Probes(address.value));
        let control = settings.control.as_ref().map(|path| Endpoint::Control(path.value.clone()));
        [Some(admin), probes, control].into_iter().flatten()
    }
}

/// Why a socket of `[admin]` cannot be had.
#[derive(Debug)]
pub enum Unavailable {
    /// `key` of `[admin]` and the address that it names.
    Address {
        key: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    Control(ControlError),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Address { key, address, error } => {
                let advice = crate::server::bind::advice(error);
                write!(f, "{key} of [admin]: {address} cannot be listened to: {error}; {advice}")
            }
            Unavailable::Control(error) => write!(f, "control of [admin]: {error}"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unavailable::Address { error, .. } => Some(error),
            Unavailable::Control(error) => Some(error),
        }
    }
}

/// Everything that is served now. To be used within the control runtime; dropped, it closes its sockets and removes
/// the control socket's file.
pub struct Endpoints {
    shared: Arc<Shared>,
    /// Sockets that listen already, for the addresses that they have.
    held: Arc<[std::net::TcpListener]>,
    serving: BTreeMap<Endpoint, Serving>,
}

struct Serving {
    /// With the port that the kernel gave; none for the control socket.
    address: Option<SocketAddr>,
    task: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sockets that a new configuration needs beyond those that are there. Dropped, it gives them up again.
pub struct Prepared {
    wanted: Vec<Endpoint>,
    bound: Vec<(Endpoint, Socket)>,
}

enum Socket {
    Http(Surface, TcpListener),
    Control(ControlSocket),
}

impl Endpoints {
    pub fn new(shared: Arc<Shared>, held: Arc<[std::net::TcpListener]>) -> Endpoints {
        Endpoints { shared, held, serving: BTreeMap::new() }
    }

    /// Binds what `settings` add, and serves nothing of it yet: the first half of a reload, which may still fail.
    ///
    /// # Errors
    /// The first socket that cannot be had.
    pub fn prepare(&self, settings: &AdminSettings) -> Result<Prepared, Unavailable> {
        let wanted: Vec<Endpoint> = Endpoint::all(settings).collect();
        let mut bound = Vec::new();
        for endpoint in wanted.iter().filter(|endpoint| !self.serving.contains_key(endpoint)) {
            bound.push((endpoint.clone(), bind(endpoint, &self.held)?));
        }
        Ok(Prepared { wanted, bound })
    }

    /// Serves what was prepared, and gives up what is no longer wanted.
    pub fn commit(&mut self, prepared: Prepared) {
        let Prepared { wanted, bound } = prepared;
        self.held = Arc::default();
        self.serving.retain(|endpoint, _| wanted.contains(endpoint));
        for (endpoint, socket) in bound {
            let shared = Arc::clone(&self.shared);
            let serving = match socket {
                Socket::Http(surface, socket) => Serving {
                    address: socket.local_addr().ok(),
                    task: tokio::spawn(listener::serve(socket, surface, shared)).abort_handle(),
                },
                Socket::Control(socket) => {
                    Serving { address: None, task: tokio::spawn(socket.serve(shared)).abort_handle() }
                }
            };
            self.serving.insert(endpoint, serving);
        }
    }

    /// Where the admin listener is, with the port that the kernel gave.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.serving.iter().find_map(|(endpoint, serving)| match endpoint {
            Endpoint::Admin(_) => serving.address,
            Endpoint::Probes(_) | Endpoint::Control(_) => None,
        })
    }

    /// Where the probe listener is, likewise.
    pub fn probe_address(&self) -> Option<SocketAddr> {
        self.serving.iter().find_map(|(endpoint, serving)| match endpoint {
            Endpoint::Probes(_) => serving.address,
            Endpoint::Admin(_) | Endpoint::Control(_) => None,
        })
    }
}

fn bind(endpoint: &Endpoint, held: &[std::net::TcpListener]) -> Result<Socket, Unavailable> {
    let http = |key, address: SocketAddr, surface| {
        let socket = match among(held, address) {
            Some(socket) => socket.try_clone(),
            None => std::net::TcpListener::bind(address),
        };
        let socket = socket.and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        match socket {
            Ok(socket) => Ok(Socket::Http(surface, socket)),
            Err(error) => Err(Unavailable::Address { key, address, error }),
        }
    };
    match endpoint {
        Endpoint::Admin(address) => http("address", *address, Surface::Admin),
        Endpoint::Probes(address) => http("probe_address", *address, Surface::Probes),
        Endpoint::Control(path) => ControlSocket::bind(path).map(Socket::Control).map_err(Unavailable::Control),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::admin::testing;

    async fn live(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn sockets_come_stay_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control.sock");
        let mut settings = testing::with_token(None).admin;
        let mut endpoints = Endpoints::new(testing::shared(testing::with_token(None)), Arc::default());

        endpoints.commit(endpoints.prepare(&settings).unwrap());
        let admin = endpoints.admin_address().unwrap();
        assert!(live(admin).await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(endpoints.probe_address(), None);

        settings.probe_address = Some(settings.address.clone());
        settings.control = Some(testing::at(control.clone()));
        endpoints.commit(endpoints.prepare(&settings).unwrap());
        assert_eq!(endpoints.admin_address(), Some(admin));
        assert!(live(endpoints.probe_address().unwrap()).await.starts_with("HTTP/1.1 200 OK"));
        assert!(control.exists());

        // A configuration that fails elsewhere takes nothing with it.
        drop(endpoints.prepare(&settings).unwrap());
        assert!(control.exists());

        settings.control = None;
        endpoints.commit(endpoints.prepare(&settings).unwrap());
        while control.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(endpoints.admin_address(), Some(admin));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = testing::with_token(None).admin;
        settings.address = testing::at(taken.local_addr().unwrap());
        let endpoints = Endpoints::new(testing::shared(testing::with_token(None)), Arc::default());
        let Err(error) = endpoints.prepare(&settings) else { panic!("bound twice") };
        let told = error.to_string();
        assert!(told.starts_with(&format!("address of [admin]: {} cannot be", settings.address.value)), "{told}");
        assert!(told.contains("another process holds this address"), "{told}");
    }
}
