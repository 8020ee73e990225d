//! The managers of all apps, and how they are spoken to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::call_off::CallOff;
use super::manager::{Ask, Beginning, Manager, Role, Shown};
use super::progress::Progress;
use super::report::{self, AppReport};
use crate::gateway::Gateway;

/// How often it is looked whether requests still have an old snapshot.
const RELEASE_INTERVAL: Duration = Duration::from_millis(50);

/// What waits for an app's manager while it is at work.
const MOST_ASKS: usize = 16;

/// Apps that run, for whoever asks about them or for something of them.
#[derive(Clone, Debug, Default)]
pub struct Apps(Arc<Mutex<HashMap<Arc<str>, Handle>>>);

/// How one app is reached.
#[derive(Clone, Debug)]
struct Handle {
    asks: mpsc::Sender<Ask>,
    progress: Progress,
    shown: watch::Receiver<Shown>,
    /// Call off a release that is under way, for a rollback and for newer code.
    call_off: CallOff,
    superseded: CallOff,
}

/// Something that an app's manager was asked for, and is working on.
#[derive(Debug)]
pub struct Pending {
    /// What it is doing.
    pub lines: broadcast::Receiver<Arc<str>>,
    /// What came of it: in a sentence, or why not. Nothing comes where the app is not run any more.
    pub outcome: oneshot::Receiver<Result<String, String>>,
}

impl Apps {
    /// Asks for a release of what is in `directory`, or in the app's own.
    ///
    /// # Errors
    /// There is no such app, or too much waits for it already; a sentence.
    pub fn release(&self, app: &str, directory: Option<PathBuf>) -> Result<Pending, String> {
        self.ask(app, |answer| Ask::Release { directory, answer })
    }

    /// Asks for a release of what is in the app's directory by now. One that is under way ends, be it the first.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn release_newest(&self, app: &str) -> Result<Pending, String> {
        let superseded = self.handle(app)?.superseded;
        self.ask(app, |answer| {
            superseded.ask();
            Ask::Newest { answer }
        })
    }

    /// Asks for the release before.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    pub fn rollback(&self, app: &str) -> Result<Pending, String> {
        let call_off = self.handle(app)?.call_off;
        // A release under way need not come to its end first.
        self.ask(app, |answer| {
            call_off.ask();
            Ask::Rollback { answer }
        })
    }

    /// How all apps are, by name.
    pub fn report(&self) -> Vec<AppReport> {
        let apps = self.lock();
        let mut reports: Vec<AppReport> =
            apps.iter().map(|(name, handle)| report::of(name, &handle.shown.borrow())).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// Waits until the app serves for the first time, and tells how it is. Where the gateway ends before, it is not told.
    ///
    /// # Errors
    /// Why it did not start; that is tried again.
    pub async fn begun(&self, app: &str) -> Result<AppReport, String> {
        self.serves(app, |trouble| trouble).await
    }

    /// Likewise, however often it fails before.
    ///
    /// # Errors
    /// There is no such app.
    pub async fn begun_at_last(&self, app: &str) -> Result<AppReport, String> {
        self.serves(app, |_| None).await
    }

    async fn serves(&self, app: &str, fatal: impl Fn(Option<String>) -> Option<String>) -> Result<AppReport, String> {
        let mut shown = self.handle(app)?.shown;
        loop {
            let now = shown.borrow_and_update().clone();
            if now.fleets.iter().any(|(role, ..)| *role == Role::Serving) {
                return Ok(report::of(app, &now));
            }
            if let Some(trouble) = fatal(now.trouble) {
                return Err(trouble);
            }
            if shown.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn ask(
        &self,
        app: &str,
        ask: impl FnOnce(oneshot::Sender<Result<String, String>>) -> Ask,
    ) -> Result<Pending, String> {
        let handle = self.handle(app)?;
        let lines = handle.progress.follow();
        let (answer, outcome) = oneshot::channel();
        let room = handle.asks.try_reserve().map_err(|_| format!("too many releases of {app} wait already"))?;
        room.send(ask(answer));
        Ok(Pending { lines, outcome })
    }

    fn handle(&self, app: &str) -> Result<Handle, String> {
        let apps = self.lock();
        if let Some(handle) = apps.get(app) {
            return Ok(handle.clone());
        }
        let mut names: Vec<String> = apps.keys().map(|name| name.to_string()).collect();
        names.sort();
        Err(match names.as_slice() {
            [] => format!("there is no app `{app}`: the configuration has none"),
            names => format!("there is no app `{app}`; there is {}", names.join(", ")),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The managers; when this is dropped they end, and what they run is killed.
#[derive(Debug, Default)]
pub struct Background {
    apps: Apps,
    running: HashMap<Arc<str>, Running>,
    /// Whether a start makes a release of what is in the directory, instead of starting what served last.
    fresh: bool,
}

#[derive(Debug)]
struct Running {
    leave: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Background {
    pub fn new(apps: Apps, fresh: bool) -> Background {
        Background { apps, running: HashMap::new(), fresh }
    }

    /// Makes the managers fit `gateway`, which is about to be put into force: new apps are started, changed ones get a
    /// release. Those that are gone go on until it is in force: see [`swapped`](Self::swapped).
    pub async fn apply(&mut self, gateway: &Gateway) {
        let grace = gateway.settings.server.shutdown_grace;
        for (name, app) in &gateway.apps {
            let Some(upstream) = gateway.upstreams.get(name) else { continue };
            let handle = self.apps.lock().get(name).cloned();
            if let Some(handle) = handle {
                let adopt = Ask::Adopt { app: Arc::clone(app), upstream: Arc::clone(upstream), grace };
                // It may be in the middle of a release: whoever reloads does not wait for that.
                let asks = handle.asks;
                tokio::spawn(async move { asks.send(adopt).await });
                continue;
            }
            let progress = Progress::new(name);
            let beginning = Beginning {
                app: Arc::clone(app),
                upstream: Arc::clone(upstream),
                progress: progress.clone(),
                fresh: self.fresh,
                grace,
            };
            let (manager, shown) = Manager::new(beginning);
            let (call_off, superseded) = manager.call_off();
            let (asks, asked) = mpsc::channel(MOST_ASKS);
            let (leave, left) = oneshot::channel();
            let task = tokio::spawn(manager.run(asked, left));
            self.running.insert(Arc::clone(name), Running { leave, task });
            self.apps.lock().insert(Arc::clone(name), Handle { asks, progress, shown, call_off, superseded });
        }
    }

    /// `gateway` is in force: apps that it does not have any more are ended, once no request has the snapshot `before` or
    /// has had it for long enough.
    pub fn swapped(&mut self, gateway: &Gateway, before: Weak<Gateway>) {
        let grace = gateway.settings.server.shutdown_grace;
        let gone: Vec<Arc<str>> =
            self.running.keys().filter(|name| !gateway.apps.contains_key(*name)).cloned().collect();
        for name in gone {
            self.apps.lock().remove(&name);
            let Some(Running { leave, task: _ }) = self.running.remove(&name) else { continue };
            let before = Weak::clone(&before);
            tokio::spawn(async move {
                let deadline = Instant::now() + grace;
                while before.strong_count() > 0 && Instant::now() < deadline {
                    tokio::time::sleep(RELEASE_INTERVAL).await;
                }
                let _ = leave.send(grace);
            });
        }
    }

    /// Lets all apps finish what they have, and waits for their end.
    pub async fn leave(&mut self, grace: Duration) {
        self.apps.lock().clear();
        let running: Vec<Running> = self.running.drain().map(|(_, running)| running).collect();
        let tasks: Vec<JoinHandle<()>> = running
            .into_iter()
            .map(|Running { leave, task }| {
                let _ = leave.send(grace);
                task
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_an_app_that_is_not_there_is_told() {
        let apps = Apps::default();
        for refused in [apps.release("order", None), apps.rollback("order")] {
            assert_eq!(refused.unwrap_err(), "there is no app `order`: the configuration has none");
        }
    }
}
