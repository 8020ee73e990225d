//! Which addresses are listened to: all new ones are bound before anything changes, old ones are given up after.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::Listening;
use super::systemd::PassedSockets;
use crate::gateway::Gateway;
use crate::server::bind::{self, Bound, Probe, SocketKey};
use crate::server::threads::Workers;

/// The listening sockets of the data plane, as the control plane knows them; the workers own them.
pub(super) struct Sockets {
    workers: usize,
    passed: PassedSockets,
    /// Those that were bound before there was a snapshot.
    early: Arc<[TcpListener]>,
    held: BTreeMap<SocketKey, SocketAddr>,
}

/// What a snapshot needs beyond what is held. Dropped uncommitted, it closes its sockets, to which nobody has
/// connected to stay: they were never accepted from.
pub(super) struct Opened {
    new: Vec<(SocketKey, Bound)>,
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindFailure {
    pub listener: Arc<str>,
    pub key: SocketKey,
    pub error: BindError,
}

#[derive(Debug)]
pub enum BindError {
    System(io::Error),
    /// systemd passed no socket of this name; those that it did.
    NotPassed(Vec<String>),
}

impl fmt::Display for BindFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindFailure { listener, key, error } = self;
        write!(f, "[listener.{listener}] cannot listen to `{key}`: ")?;
        match error {
            BindError::System(error) => write!(f, "{error}; {}", bind::advice(error)),
            BindError::NotPassed(names) if names.is_empty() => write!(
                f,
                "systemd passed no sockets; start the service through its .socket unit, with ListenStream= and \
                 FileDescriptorName= in it"
            ),
            BindError::NotPassed(names) => write!(
                f,
                "systemd passed no socket of that name, only `{}`; set FileDescriptorName= in the .socket unit",
                names.join("`, `")
            ),
        }
    }
}

impl Opened {
    /// Their addresses, as in the file.
    pub(super) fn names(&self) -> Vec<String> {
        self.new.iter().map(|(key, _)| key.to_string()).collect()
    }
}

impl Sockets {
    pub(super) fn new(workers: usize, passed: PassedSockets, early: Arc<[TcpListener]>) -> Sockets {
        Sockets { workers, passed, early, held: BTreeMap::new() }
    }

    /// Binds what `gateway` needs and is not held yet. Connections queue in the kernel until the commit.
    pub(super) fn open(&self, gateway: &Gateway) -> Result<Opened, BindFailure> {
        let mut new = Vec::new();
        for (key, listener) in gateway.sockets() {
            if !self.held.contains_key(key) {
                let bound = self.bind(key).map_err(|error| BindFailure {
                    listener: Arc::clone(&listener.name),
                    key: key.clone(),
                    error,
                })?;
                new.push((key.clone(), bound));
            }
        }
        Ok(Opened { new })
    }

    fn bind(&self, key: &SocketKey) -> Result<Bound, BindError> {
        match key {
            SocketKey::Address(address) | SocketKey::Ephemeral { address, .. } => {
                if let Some(socket) = bind::among(&self.early, *address) {
                    return bind::share(socket, self.workers).map_err(BindError::System);
                }
                let beside_own = self.held.keys().any(|held| held.overlaps(key));
                let probe = if beside_own { Probe::BesideOwn } else { Probe::Alone };
                bind::bind(*address, self.workers, probe).map_err(BindError::System)
            }
            SocketKey::Systemd(name) => match self.passed.get(name) {
                Some(socket) => bind::share(socket, self.workers).map_err(BindError::System),
                None => Err(BindError::NotPassed(self.passed.names())),
            },
        }
    }

    /// Hands new sockets to the workers. `gateway` must be in force already. Returns what is listened to now, what is
    /// to be given up included no more.
    pub(super) fn commit(&mut self, opened: Opened, gateway: &Gateway, workers: &Workers) -> Listening {
        for (key, bound) in opened.new {
            if let Some(listener) = gateway.listener_of(&key) {
                workers.listen(&key, listener, bound.sockets);
                tracing::info!(listener = &*listener.name, address = %bound.address, "listening");
            }
            self.held.insert(key, bound.address);
        }
        // The workers have them, and close them when nobody is to connect any more.
        self.early = Arc::default();
        let mut listening = Listening::new();
        for (key, listener) in gateway.sockets() {
            if let Some(address) = self.held.get(key) {
                listening.entry(Arc::clone(&listener.name)).or_default().push(*address);
            }
        }
        listening.values_mut().for_each(|addresses| addresses.sort_unstable());
        listening
    }

    /// Forgets what `gateway` does not need, for the caller to have it closed.
    pub(super) fn superfluous(&mut self, gateway: &Gateway) -> Vec<SocketKey> {
        let keys: Vec<_> = self.held.keys().filter(|key| gateway.listener_of(key).is_none()).cloned().collect();
        for key in &keys {
            self.held.remove(key);
        }
        keys
    }
}
