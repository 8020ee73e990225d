//! The control plane: everything that is not a request. Binding, reload, files that change, signals, shutdown.
//!
//! It runs on the main thread with a runtime of its own, so that nothing here can delay a request.

mod open_files;
mod reload;
mod shutdown;
mod sockets;
pub mod systemd;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, mpsc, watch as latest};

pub use reload::Trigger;
pub use shutdown::{HangUp, Outcome, Signals, run_to_end};
pub use sockets::BindFailure;
pub(crate) use watch::{matters, settle};

use crate::admin::{Endpoints, Lifecycle, ReloadRequest, Shared, Unavailable};
use crate::app::background::Apps;
use crate::aside::Aside;
use crate::config::{self, Loaded, Outside};
use crate::gateway::Gateway;
use crate::observe::log::Log;
use crate::observe::metrics::Metrics;
use crate::server::threads::{Ended, Workers};
use crate::{admit, app, upstream, validate};
use sockets::Sockets;
use systemd::PassedSockets;

/// The running gateway, as signals, changing files and the control socket command it.
pub struct Control {
    /// What a reload reads.
    source: Source,
    metrics: Arc<Metrics>,
    newest: Arc<ArcSwap<Gateway>>,
    lifecycle: Arc<Lifecycle>,
    /// Whoever holds it reads the configuration again: one reload at a time.
    reloading: Mutex<()>,
    /// Whoever holds it may change what runs. Not held while files are read, since the end waits for it.
    plane: Mutex<Plane>,
    /// Where snapshots are compiled and taken apart.
    aside: Aside,
    /// What to watch for changes.
    files: latest::Sender<watch::MadeOf>,
    log: Log,
    /// The apps that run.
    pub apps: Apps,
}

/// Everything that a new snapshot may change.
struct Plane {
    sockets: Sockets,
    workers: Workers,
    endpoints: Endpoints,
    tasks: Tasks,
}

/// What runs beside requests, each part following the snapshots by itself.
#[derive(Default)]
struct Tasks {
    upstreams: upstream::background::Background,
    auths: admit::background::Background,
    documents: validate::background::Background,
    apps: app::background::Background,
}

impl Tasks {
    /// Makes everything fit a snapshot that is about to be put into force.
    async fn apply(&mut self, gateway: &Arc<Gateway>) {
        self.documents.apply(gateway).await;
        tokio::join!(self.upstreams.apply(gateway), self.auths.apply(gateway));
        self.apps.apply(gateway).await;
    }
}

/// Where the configuration is from.
#[derive(Clone, Debug)]
pub enum Source {
    File(PathBuf),
    /// What a file of this name in this directory would say.
    Text {
        name: String,
        base: PathBuf,
        text: String,
    },
}

impl Source {
    /// Reads it, with the environment of this process.
    pub fn load(&self) -> Loaded {
        match self {
            Source::File(path) => config::load(path),
            Source::Text { name, base, text } => {
                config::load_text(name, text, base, &Outside::new(&|name| std::env::var_os(name)))
            }
        }
    }
}

/// What the first snapshot was made of.
pub struct First {
    pub gateway: Gateway,
    /// What a reload reads.
    pub source: Source,
    /// Every file that the snapshot was made of.
    pub files: Vec<PathBuf>,
    pub metrics: Arc<Metrics>,
    pub log: Log,
    /// Whether apps are started with what is in their directories now, instead of what served last.
    pub fresh: bool,
    /// Sockets that listen already, for the addresses that they have.
    pub held: Vec<TcpListener>,
}

/// What happens to a running gateway by itself.
pub struct Events {
    /// Workers that ended.
    ended: mpsc::UnboundedReceiver<Ended>,
    /// Reloads that the control socket asks for.
    reloads: mpsc::Receiver<ReloadRequest>,
}

/// Why the gateway could not start.
#[derive(Debug)]
pub enum StartFailure {
    Bind(BindFailure),
    Admin(Unavailable),
    Thread(io::Error),
    /// The directory of apps cannot be made.
    State(io::Error),
    Signals(io::Error),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFailure::Bind(failure) => failure.fmt(f),
            StartFailure::Admin(unavailable) => unavailable.fmt(f),
            StartFailure::State(error) => write!(f, "state_directory of [server] cannot be made: {error}"),
            StartFailure::Thread(error) => write!(f, "a thread could not be started: {error}"),
            StartFailure::Signals(error) => write!(f, "signals cannot be handled: {error}"),
        }
    }
}

impl Control {
    /// Binds every address, resolves every name, then starts the workers and lets them accept.
    ///
    /// # Errors
    /// An address that cannot be bound, or a thread that cannot be started; nothing was accepted then.
    pub async fn start(first: First, passed: PassedSockets) -> Result<(Arc<Control>, Events), StartFailure> {
        let First { gateway, source, files, metrics, log, fresh, held } = first;
        let held: Arc<[TcpListener]> = held.into();
        open_files::raise(&gateway.settings);
        let workers = gateway.settings.server.workers.get();
        let mut sockets = Sockets::new(workers, passed, Arc::clone(&held));
        let opened = sockets.open(&gateway).map_err(StartFailure::Bind)?;
        let newest = Arc::new(ArcSwap::from_pointee(gateway));
        let gateway = newest.load_full();
        let lifecycle = Arc::new(Lifecycle::new());
        let apps = Apps::default();
        let (newest_read, counted) = (Arc::clone(&newest), Arc::clone(&metrics));
        let scrapes = Aside::start("metrics").map_err(StartFailure::Thread)?;
        let (shared, reloads) = Shared::new(newest_read, counted, Arc::clone(&lifecycle), apps.clone(), scrapes);
        app::prepare_state(&gateway).map_err(StartFailure::State)?;
        let mut endpoints = Endpoints::new(shared, held);
        // Probes are answered from here on, while names are resolved: live, but not ready.
        let prepared = endpoints.prepare(&gateway.settings.admin).map_err(StartFailure::Admin)?;
        endpoints.commit(prepared);
        tell_admin(&endpoints);
        let mut tasks = Tasks { apps: app::background::Background::new(apps.clone(), fresh), ..Tasks::default() };
        tasks.apply(&gateway).await;

        let (workers, ended) = Workers::start(workers, &newest, &metrics).map_err(StartFailure::Thread)?;
        lifecycle.bound(sockets.commit(opened, &gateway, &workers));
        let plane = Mutex::new(Plane { sockets, workers, endpoints, tasks });
        let files = latest::Sender::new(watch::MadeOf { files, ..Default::default() });
        let reloading = Mutex::default();
        let aside = Aside::start("aside").map_err(StartFailure::Thread)?;
        let control = Control { source, metrics, newest, lifecycle, reloading, plane, aside, files, log, apps };
        Ok((Arc::new(control), Events { ended, reloads }))
    }

    /// From here on what apps write is logged: see [`Log::hush`].
    pub fn unhush(&self) {
        self.log.hush(false);
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Gateway> {
        self.newest.load_full()
    }
}

/// The addresses of each listener, with the ports that the kernel gave.
type Listening = BTreeMap<Arc<str>, Vec<SocketAddr>>;

fn tell_admin(endpoints: &Endpoints) {
    for (listener, address) in [("admin", endpoints.admin_address()), ("probes", endpoints.probe_address())] {
        if let Some(address) = address {
            tracing::info!(listener, %address, "listening");
        }
    }
}
