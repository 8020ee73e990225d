//! The servers of an upstream that is an app: workers that come and go while the snapshots stay.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::members::{Members, Missing};
use super::probe;
use super::server::{Address, Origin, Server};
use super::{Upstream, clock};
use crate::config::settings::{Protocol, SlotSettings};

/// A worker to be.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// Metric label, `/status`, logs.
    pub label: &'a str,
    pub socket: &'a Path,
    pub protocol: Protocol,
    /// The user who must listen there; `None`: whoever does.
    pub owner: Option<u32>,
    /// What it takes at once, where the upstream does not say.
    pub slots: SlotSettings,
}

/// Those who were servers until now. Some request may be about to choose one of them still.
#[derive(Debug)]
pub struct Retired(Weak<Members>);

impl Retired {
    /// Whether nobody can choose one of them any more: whatever they have been given, they have been given by now.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.servers().map(|server| &server.label)).finish()
    }
}

impl Upstream {
    /// A server that nobody chooses yet.
    pub fn worker(&self, worker: Worker<'_>) -> Arc<Server> {
        let mut server = Server::new(Origin {
            upstream: &self.name,
            metrics: &self.metrics,
            label: Arc::from(worker.label),
            address: Address::Unix(worker.socket.to_owned()),
            protocol: worker.protocol,
            tls: None,
            host: HeaderValue::from_static("localhost"),
            slots: SlotSettings::Unlimited,
            queue: &self.queue,
        });
        server.owner = worker.owner;
        server.is_worker = true;
        server.own_slots = worker.slots;
        server.slots.set(server.slots_of(self.settings.slots));
        Arc::new(server)
    }

    /// From now on these are its servers, in every snapshot. `expected`: should there be none, whether there will be some
    /// soon, so that requests wait for them.
    pub fn set_workers(&self, workers: &[Arc<Server>], expected: bool) -> Retired {
        for worker in workers {
            worker.slots.set(worker.slots_of(self.settings.slots));
        }
        let missing = if expected { Missing::WorkersForNow } else { Missing::Workers };
        let before = self.members.swap(Arc::new(Members::of_workers(workers, missing)));
        let retired = Retired(Arc::downgrade(&before));
        drop(before);
        self.changed.notify_one();
        // There are other slots now.
        self.queue.freed();
        retired
    }

    /// Asks a worker whether it is ready, as checks do: `health` of the app where it has one, or else for `/`, to which
    /// any answer but a 5xx will do.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn try_worker(&self, worker: &Server, patience: Duration) -> Result<(), String> {
        let health = self.settings.health.as_ref();
        let outcome = match health {
            Some(health) => {
                let checks = probe::Checks { settings: health.clone(), params: self.settings.uwsgi_params.clone() };
                probe::once(worker, &checks).await
            }
            None => match self.ask_worker(worker, "/", patience).await? {
                status if status.is_server_error() => Err(format!(
                    "it answered {status} to GET /, and the app names no other path: set health = {{ path = \"…\" }}"
                )),
                _ => Ok(()),
            },
        };
        outcome?;
        if let Some(health) = health {
            // What it has proven it need not prove again.
            worker.health.check();
            let rules = super::health::Rules { fall: health.fall.get(), rise: health.rise.get() };
            worker.health.probed(super::health::Verdict::Passed, rules, clock::now());
        }
        Ok(())
    }

    /// Gets `path` of a worker that is not among the servers yet; the status.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask_worker(&self, worker: &Server, path: &str, patience: Duration) -> Result<StatusCode, String> {
        let host = self.settings.health.as_ref().and_then(|health| health.host.as_ref()).unwrap_or(&worker.host);
        probe::ask(worker, path, host, &self.settings.uwsgi_params, patience).await
    }
}
