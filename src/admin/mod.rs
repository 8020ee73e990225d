//! The gateway's own listener, probes and control socket: everything that `[admin]` names.
//!
//! All of it runs on the control runtime, and what takes long aside, so it can never delay a request; and as long as it
//! answers, the control plane turns. [`Endpoints`] holds the sockets from configuration to configuration.

mod answer;
mod apps;
pub mod control;
mod endpoints;
mod explain;
mod guard;
mod lifecycle;
mod listener;
mod ready;
mod status;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::app::background::Apps;
use crate::aside::Aside;
use crate::gateway::Gateway;
use crate::observe::metrics::{AppReading, Metrics, Readings, ServerReading};
use crate::upstream::health::State;

pub use self::endpoints::{Endpoints, Prepared, Unavailable};
pub use self::lifecycle::{Lifecycle, Phase, ReloadOutcome};

/// What `[admin]` tells of, and whom it asks to reload.
pub struct Shared {
    newest: Arc<ArcSwap<Gateway>>,
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    reloads: mpsc::Sender<ReloadRequest>,
    apps: Apps,
    /// Where all that is counted is read.
    scrapes: Aside,
}

/// Somebody asks for the configuration to be loaded again, and waits for what comes of it.
#[derive(Debug)]
pub struct ReloadRequest {
    pub answer: oneshot::Sender<ReloadOutcome>,
}

impl Shared {
    /// Reload requests come out of what is returned beside.
    pub fn new(
        newest: Arc<ArcSwap<Gateway>>,
        metrics: Arc<Metrics>,
        lifecycle: Arc<Lifecycle>,
        apps: Apps,
        scrapes: Aside,
    ) -> (Arc<Shared>, mpsc::Receiver<ReloadRequest>) {
        metrics.read_servers_from(Box::new(Seen { newest: Arc::clone(&newest), apps: apps.clone() }));
        let (reloads, requests) = mpsc::channel(4);
        (Arc::new(Shared { newest, metrics, lifecycle, reloads, apps, scrapes }), requests)
    }

    /// Has the configuration loaded again; `None` when the gateway is about to end.
    async fn reload(&self) -> Option<ReloadOutcome> {
        if self.lifecycle.phase() == Phase::Draining {
            return None;
        }
        let (answer, outcome) = oneshot::channel();
        self.reloads.send(ReloadRequest { answer }).await.ok()?;
        outcome.await.ok()
    }
}

/// The gauges of servers, read from the snapshot in force, and what is known of apps.
struct Seen {
    newest: Arc<ArcSwap<Gateway>>,
    apps: Apps,
}

impl Readings for Seen {
    fn servers(&self, each: &mut dyn FnMut(ServerReading<'_>)) {
        for (name, upstream) in &self.newest.load().upstreams {
            for server in upstream.status() {
                each(ServerReading {
                    upstream: name,
                    server: &server.label,
                    up: server.state.is_usable(),
                    ejected: server.state == State::Ejected,
                    in_flight: server.in_flight,
                    busy: server.busy,
                    slots: server.slots,
                });
            }
        }
    }

    fn queues(&self, each: &mut dyn FnMut(&str, usize)) {
        for (name, upstream) in &self.newest.load().upstreams {
            each(name, upstream.queue.len());
        }
    }

    fn apps(&self) -> Vec<AppReading> {
        self.apps.report().iter().map(apps::reading).collect()
    }
}

#[cfg(test)]
mod testing;
