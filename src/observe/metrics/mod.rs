//! What the gateway counts.
//!
//! Handles are resolved when a snapshot is built. A worker counts in cells of its own, with plain loads and stores;
//! a `Collector` sums the cells when `/metrics` is scraped. So nothing that a request counts is shared or locked.
//! Every name and label stands in `catalogue`.

mod app;
mod auth;
mod catalogue;
mod cells;
mod collector;
mod compression;
mod document;
mod histogram;
mod kept;
mod limit;
mod listener;
mod process;
mod route;
mod rule;
mod spool;
mod store;
mod upstream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Registry, TextEncoder};

use self::cells::Cells;
use self::collector::Gatherer;
use self::kept::Kept;
use self::limit::LimitReadings;
use self::process::ProcessCollector;
use crate::request::rejection::Cause;

pub use self::app::{AppReading, AppWorkerReading};
pub use self::auth::{FetchResult, Introspected, IntrospectionMetrics, KeysMetrics};
pub use self::cells::WorkerId;
pub use self::collector::{Readings, ServerReading};
pub use self::compression::{CodedWith, CompressionMetrics};
pub use self::document::{DocumentFetch, DocumentMetrics};
pub use self::limit::LimitReading;
pub use self::listener::{HandshakeFailure, ListenerMetrics, Protocol};
pub use self::route::{Finished, RouteMetrics};
pub use self::rule::RuleMetrics;
pub use self::spool::{Direction, SpoolMetrics};
pub use self::store::{Asked, Standing, StoreMetrics, Turn};
pub use self::upstream::{Dropped, ServerMetrics, UpstreamMetrics};

/// The label of requests that matched no route: no route can have this name.
const NO_ROUTE: &str = "";

/// Every counter of the process. Created once, before the workers.
pub struct Metrics {
    workers: usize,
    registry: Registry,
    routes: Kept<RouteMetrics>,
    /// By route and rule, with a blank between.
    rules: Kept<RuleMetrics>,
    /// Likewise, of rules that only report.
    reported: Kept<RuleMetrics>,
    listeners: Kept<ListenerMetrics>,
    upstreams: Kept<UpstreamMetrics>,
    keys: Kept<KeysMetrics>,
    introspections: Kept<IntrospectionMetrics>,
    documents: Kept<DocumentMetrics>,
    no_route: OnceLock<Arc<RouteMetrics>>,
    /// Of all routes together.
    pub compression: CompressionMetrics,
    rejections: Cells<{ Cause::ALL.len() }>,
    reloads: [AtomicU64; 2],
    last_reload: AtomicU64,
    log_lost: [AtomicU64; 2],
    readings: OnceLock<Box<dyn Readings>>,
    limits: LimitReadings,
    stores: Kept<StoreMetrics>,
    spool: Arc<SpoolMetrics>,
}

impl Metrics {
    /// `workers`: how many data-plane threads there will be.
    pub fn new(workers: usize) -> Arc<Metrics> {
        let metrics = Arc::new_cyclic(|metrics: &Weak<Metrics>| Metrics {
            workers,
            registry: registry(metrics),
            routes: Kept::default(),
            rules: Kept::default(),
            reported: Kept::default(),
            listeners: Kept::default(),
            upstreams: Kept::default(),
            keys: Kept::default(),
            introspections: Kept::default(),
            documents: Kept::default(),
            no_route: OnceLock::new(),
            compression: CompressionMetrics::new(workers),
            rejections: Cells::new(workers),
            reloads: [const { AtomicU64::new(0) }; 2],
            last_reload: AtomicU64::new(now_millis()),
            log_lost: [const { AtomicU64::new(0) }; 2],
            readings: OnceLock::new(),
            limits: LimitReadings::default(),
            stores: Kept::default(),
            spool: Arc::default(),
        });
        metrics.no_route();
        metrics
    }

    /// The cells of a route; the same again for the same name while any snapshot has it, so that counters outlive a
    /// snapshot.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.get_or_make(name, || RouteMetrics::new(self.workers))
    }

    /// The counter of a rule of a route, likewise. Neither name holds a blank.
    pub fn rule(&self, route: &str, rule: &str) -> Arc<RuleMetrics> {
        self.rules.get_or_make(&format!("{route} {rule}"), || RuleMetrics::new(self.workers))
    }

    /// Likewise, of a rule that lets through what it would deny.
    pub fn reported(&self, route: &str, rule: &str) -> Arc<RuleMetrics> {
        self.reported.get_or_make(&format!("{route} {rule}"), || RuleMetrics::new(self.workers))
    }

    /// The cells of requests that match no route. Counted under the empty name, which Prometheus takes for "none".
    pub fn no_route(&self) -> &Arc<RouteMetrics> {
        self.no_route.get_or_init(|| self.route(NO_ROUTE))
    }

    /// The cells of a listener, likewise.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.listeners.get_or_make(name, || ListenerMetrics::new(self.workers))
    }

    /// The cells of an upstream, likewise.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.get_or_make(name, || UpstreamMetrics::new(self.workers))
    }

    /// The cells of an auth whose keys are fetched, likewise.
    pub fn keys(&self, auth: &str) -> Arc<KeysMetrics> {
        self.keys.get_or_make(auth, KeysMetrics::default)
    }

    /// The cells of an auth that asks about tokens, likewise.
    pub fn introspection(&self, auth: &str) -> Arc<IntrospectionMetrics> {
        self.introspections.get_or_make(auth, IntrospectionMetrics::default)
    }

    /// The cells of a route whose document is fetched, likewise.
    pub fn document(&self, route: &str) -> Arc<DocumentMetrics> {
        self.documents.get_or_make(route, DocumentMetrics::default)
    }

    /// A request was refused by the gateway, or failed.
    pub fn rejected(&self, worker: WorkerId, cause: Cause) {
        self.rejections.of(worker).add(cause.index(), 1);
    }

    /// The configuration was loaded again, or was not.
    pub fn reloaded(&self, result: ReloadResult) {
        if let Some(cell) = self.reloads.get(result as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        match result {
            ReloadResult::Success => self.last_reload.store(now_millis(), Ordering::Relaxed),
            ReloadResult::Failure => {}
        }
    }

    /// Log lines were not written.
    pub fn log_lost(&self, reason: LogLoss, lines: u64) {
        if let Some(cell) = self.log_lost.get(reason as usize) {
            cell.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Whom to ask for the gauges of servers. Only the first call counts.
    pub fn read_servers_from(&self, readings: Box<dyn Readings>) {
        let _ = self.readings.set(readings);
    }

    /// The cells of a store of limits, likewise.
    pub fn store(&self, name: &str) -> Arc<StoreMetrics> {
        self.stores.get_or_make(name, || StoreMetrics::new(self.workers))
    }

    /// Whom to ask for the gauges of a limit, for as long as it counts.
    pub fn read_limit_from(&self, name: &str, reading: &Arc<dyn LimitReading>) {
        self.limits.set(name, reading);
    }

    /// What of bodies is held, in this process.
    pub fn spool(&self) -> &Arc<SpoolMetrics> {
        &self.spool
    }

    /// Everything in the text format of Prometheus.
    ///
    /// # Errors
    /// None is known; the encoder could refuse a family that is malformed.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn reloads_total(&self, result: ReloadResult) -> u64 {
        self.reloads.get(result as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    fn last_reload_seconds(&self) -> f64 {
        self.last_reload.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// How many log lines were lost for this reason.
    pub fn log_lost_total(&self, reason: LogLoss) -> u64 {
        self.log_lost.get(reason as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    Success,
    Failure,
}

impl ReloadResult {
    const ALL: [ReloadResult; 2] = [ReloadResult::Success, ReloadResult::Failure];

    pub fn as_str(self) -> &'static str {
        match self {
            ReloadResult::Success => "success",
            ReloadResult::Failure => "failure",
        }
    }
}

/// Why a log line was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLoss {
    /// Whatever the log is written to is slower than it is logged.
    QueueFull,
    WriteFailed,
}

impl LogLoss {
    const ALL: [LogLoss; 2] = [LogLoss::QueueFull, LogLoss::WriteFailed];

    pub fn as_str(self) -> &'static str {
        match self {
            LogLoss::QueueFull => "queue_full",
            LogLoss::WriteFailed => "write_failed",
        }
    }
}

/// A registry that holds our collector and that of the process. Registering can only fail for malformed or repeated
/// names, which a test rules out; a gateway that serves without metrics is better than none.
fn registry(metrics: &Weak<Metrics>) -> Registry {
    let registry = Registry::new();
    let registered = Gatherer::new(Weak::clone(metrics))
        .and_then(|gatherer| registry.register(Box::new(gatherer)))
        .and_then(|()| registry.register(Box::new(ProcessCollector::new()?)));
    if let Err(error) = registered {
        tracing::error!(%error, "the metrics could not be registered");
    }
    registry
}

fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
