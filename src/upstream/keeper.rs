//! The task that keeps one upstream alive: its names resolved, its servers checked. It follows the upstream from
//! snapshot to snapshot, so that what has not changed goes on undisturbed.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::Upstream;
use super::names::{Found, Resolvers, pause};
use super::probe::{self, Checks};
use crate::config::settings::{HealthSettings, SlotSettings};

/// How often names whose servers are in trouble are looked up beside their TTL.
const DOUBT_INTERVAL: Duration = Duration::from_secs(5);

/// How often a queue that is not empty is looked at beside what happens in it.
const QUEUE_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is looked at what came of slots whose number is learnt.
const LEARNING_INTERVAL: Duration = Duration::from_millis(50);

/// The upstream as a new snapshot has it; `settled` is told when each of its names was looked up once.
pub(super) struct Adopt {
    pub(super) upstream: Arc<Upstream>,
    pub(super) settled: oneshot::Sender<()>,
}

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A name of the upstream.
struct Name {
    /// What the log calls it.
    shown: Arc<str>,
    /// When it is looked up next; `None` while that goes on.
    due: Option<Instant>,
    /// In a row.
    failures: u32,
    looked_up: bool,
}

/// See the module.
pub(super) struct Keeper {
    upstream: Arc<Upstream>,
    resolvers: Arc<Resolvers>,
    names: BTreeMap<Arc<str>, Name>,
    lookups: JoinSet<(Arc<str>, Result<Found, String>)>,
    /// The settings of the checks that run, and one task for each server by its id.
    checks: Option<Checks>,
    probes: HashMap<u64, Task>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Keeper {
    /// Keeps `upstream`, and whatever it becomes, until `adopt` is closed.
    pub(super) async fn run(
        upstream: Arc<Upstream>,
        resolvers: Arc<Resolvers>,
        mut adopt: mpsc::UnboundedReceiver<Adopt>,
    ) {
        let mut keeper = Keeper {
            upstream,
            resolvers,
            names: BTreeMap::new(),
            lookups: JoinSet::new(),
            checks: None,
            probes: HashMap::new(),
            waiting: Vec::new(),
        };
        let mut doubts = tokio::time::interval(DOUBT_INTERVAL);
        doubts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let queue = Arc::clone(&keeper.upstream.queue);
        let mut changed = Arc::clone(&keeper.upstream.changed);
        let mut looks = tokio::time::interval(QUEUE_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lessons = tokio::time::interval(LEARNING_INTERVAL);
        lessons.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = keeper.names.values().filter_map(|name| name.due).min();
            tokio::select! {
                next = adopt.recv() => match next {
                    Some(next) => {
                        keeper.adopt(next);
                        changed = Arc::clone(&keeper.upstream.changed);
                    }
                    None => return,
                },
                Some(result) = keeper.lookups.join_next() => match result {
                    Ok((name, result)) => keeper.looked_up(&name, result),
                    // Nothing cancels a lookup, so it panicked: a defect, but no reason to stop here.
                    Err(error) => keeper.lookup_broke(&error),
                },
                () = changed.notified() => keeper.keep_checking(),
                () = until(due) => keeper.look_up(),
                _ = doubts.tick(), if !keeper.names.is_empty() => keeper.doubt(),
                () = queue.begun.notified(), if queue.is_empty() => {}
                _ = lessons.tick(), if keeper.upstream.settings.slots == SlotSettings::Auto => keeper.upstream.learn_slots(),
                _ = looks.tick(), if !queue.is_empty() => queue.settle(),
            }
            keeper.tell_settled();
        }
    }

    fn adopt(&mut self, next: Adopt) {
        let before = std::mem::replace(&mut self.upstream, next.upstream);
        self.waiting.push(next.settled);
        self.upstream.enforce();
        let wanted = self.upstream.names();
        // A name may have got other addresses after the new snapshot was built.
        let mut addresses = before.addresses();
        addresses.retain(|name, _| wanted.contains_key(name));
        if addresses != self.upstream.addresses() {
            self.upstream.learn(addresses, Some(&before));
        }
        self.names.retain(|name, _| wanted.contains_key(name));
        for (name, shown) in wanted {
            let due = Some(Instant::now());
            let new = || Name { shown: Arc::clone(&shown), due, failures: 0, looked_up: false };
            self.names.entry(name).or_insert_with(new).shown = Arc::clone(&shown);
        }
        self.look_up();
        let settings = &self.upstream.settings;
        let checks =
            |health: &HealthSettings| Checks { settings: health.clone(), params: settings.uwsgi_params.clone() };
        let checks = settings.health.as_ref().map(checks);
        if self.checks != checks {
            self.checks = checks;
            self.probes.clear();
        }
        self.keep_checking();
    }

    /// Looks up the names that are due.
    fn look_up(&mut self) {
        let now = Instant::now();
        for (name, state) in &mut self.names {
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                let (name, resolvers) = (Arc::clone(name), Arc::clone(&self.resolvers));
                self.lookups.spawn(async move {
                    let result = resolvers.look_up(&name).await;
                    (name, result)
                });
            }
        }
    }

    /// A server that cannot be used may have moved: its name is looked up before the TTL runs out.
    fn doubt(&mut self) {
        for name in self.upstream.names_in_trouble() {
            if let Some(state) = self.names.get_mut(&name)
                && state.due.is_some()
            {
                state.due = Some(Instant::now());
            }
        }
        self.look_up();
    }

    fn lookup_broke(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(upstream = &*self.upstream.name, %error, "a lookup failed");
        // Whose it was is not told; one that goes on still will only be asked once more.
        for state in self.names.values_mut().filter(|state| state.due.is_none()) {
            state.failures = state.failures.saturating_add(1);
            state.looked_up = true;
            state.due = Some(Instant::now() + pause(state.failures));
        }
    }

    fn looked_up(&mut self, name: &Arc<str>, result: Result<Found, String>) {
        // The name may be gone with the snapshot that had it.
        let Some(state) = self.names.get_mut(name) else { return };
        state.looked_up = true;
        let upstream = &*self.upstream.name;
        match result {
            Ok(found) => {
                if state.failures > 0 {
                    tracing::info!(upstream, name = &*state.shown, "name resolved again");
                }
                state.failures = 0;
                state.due = Some(Instant::now() + found.ttl);
                let shown = Arc::clone(&state.shown);
                self.learn(name, &shown, found.addresses);
            }
            Err(reason) => {
                state.failures = state.failures.saturating_add(1);
                state.due = Some(Instant::now() + pause(state.failures));
                if state.failures == 1 {
                    // The reason quotes the name.
                    let reason = if state.shown == *name { &*reason } else { "the lookup failed" };
                    tracing::warn!(
                        upstream,
                        name = &*state.shown,
                        reason,
                        remedy = "Check the name and this machine's resolver; addresses known before stay in use.",
                        "name not resolved"
                    );
                }
            }
        }
    }

    fn learn(&mut self, name: &Arc<str>, shown: &str, found: Vec<IpAddr>) {
        let mut addresses = self.upstream.addresses();
        if addresses.get(name) == Some(&found) {
            return;
        }
        tracing::info!(upstream = &*self.upstream.name, name = shown, addresses = ?found, "name resolved");
        addresses.insert(Arc::clone(name), found);
        self.upstream.learn(addresses, None);
        self.keep_checking();
    }

    /// One check task for each server of this moment, if there are checks.
    fn keep_checking(&mut self) {
        let servers = self.upstream.servers();
        let Some(checks) = &self.checks else {
            for server in servers {
                server.health.unchecked();
            }
            return;
        };
        self.probes.retain(|id, _| servers.iter().any(|server| server.id == *id));
        for server in servers {
            self.probes.entry(server.id).or_insert_with(|| Task::spawn(probe::run(server, checks.clone())));
        }
    }

    fn tell_settled(&mut self) {
        if self.names.values().all(|name| name.looked_up) {
            for settled in self.waiting.drain(..) {
                // Whoever waited may have lost patience.
                let _ = settled.send(());
            }
        }
    }
}

/// Waits for ever when there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
