//! The control plane: everything that is not a request. Binding, reload, files that change, signals, shutdown.
//!
//! It runs on the main thread with a runtime of its own, so that nothing here can delay a request.

mod reload;
mod shutdown;
mod sockets;
pub mod systemd;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, mpsc, watch as latest};

pub use reload::{ReloadFailure, ReloadReport, Trigger};
pub use shutdown::{Outcome, Signals, run_to_end};
pub use sockets::BindFailure;

use crate::gateway::Gateway;
use crate::observe::log::Log;
use crate::observe::metrics::Metrics;
use crate::server::threads::{Ended, Workers};
use sockets::Sockets;
use systemd::PassedSockets;

/// The running gateway, as the admin listener, the control socket and the signals see it.
pub struct Control {
    /// The file that a reload reads.
    config: PathBuf,
    pub metrics: Arc<Metrics>,
    newest: Arc<ArcSwap<Gateway>>,
    phase: latest::Sender<Phase>,
    /// Whose holder may change what is listened to: one reload at a time.
    plane: Mutex<Plane>,
    listening: ArcSwap<Vec<Listening>>,
    /// What to watch for changes.
    files: latest::Sender<Vec<PathBuf>>,
    log: Log,
}

/// Where the process is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every address is bound and accepted from.
    Serving,
    /// Told to end: still accepting until `drain_delay` is over, but not ready.
    Leaving,
    /// Nothing is accepted any more; connections come to their end.
    Draining,
}

/// An address that is listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    pub listener: Arc<str>,
    /// With the port that the kernel gave.
    pub address: SocketAddr,
}

/// The data plane, as it is commanded.
struct Plane {
    sockets: Sockets,
    workers: Workers,
}

/// Why the gateway could not start.
#[derive(Debug)]
pub enum StartFailure {
    Bind(BindFailure),
    Thread(io::Error),
    Signals(io::Error),
}

impl std::fmt::Display for StartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartFailure::Bind(failure) => failure.fmt(f),
            StartFailure::Thread(error) => write!(f, "a worker thread could not be started: {error}"),
            StartFailure::Signals(error) => write!(f, "signals cannot be handled: {error}"),
        }
    }
}

impl Control {
    /// Binds every address, then starts the workers and lets them accept. `files` are what the snapshot was made of.
    /// What comes second tells of workers that end.
    ///
    /// # Errors
    /// An address that cannot be bound, or a thread that cannot be started; nothing is listened to then.
    pub fn start(
        config: &Path,
        gateway: Gateway,
        files: Vec<PathBuf>,
        metrics: Arc<Metrics>,
        passed: PassedSockets,
        log: Log,
    ) -> Result<(Arc<Control>, mpsc::UnboundedReceiver<Ended>), StartFailure> {
        let workers = gateway.settings.server.workers.get();
        let mut sockets = Sockets::new(workers, passed);
        let opened = sockets.open(&gateway).map_err(StartFailure::Bind)?;
        let newest = Arc::new(ArcSwap::from_pointee(gateway));
        let (workers, ended) = Workers::start(workers, &newest, &metrics).map_err(StartFailure::Thread)?;
        let listening = sockets.commit(opened, &newest.load(), &workers);
        let control = Control {
            config: config.to_owned(),
            metrics,
            newest,
            phase: latest::Sender::new(Phase::Serving),
            plane: Mutex::new(Plane { sockets, workers }),
            listening: ArcSwap::from_pointee(listening),
            files: latest::Sender::new(files),
            log,
        };
        Ok((Arc::new(control), ended))
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Gateway> {
        self.newest.load_full()
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The addresses that are listened to, by listener.
    pub fn listening(&self) -> Arc<Vec<Listening>> {
        self.listening.load_full()
    }

    /// The file that a reload reads.
    pub fn config(&self) -> &Path {
        &self.config
    }
}
