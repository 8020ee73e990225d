//! The task that follows one app from snapshot to snapshot: it starts what served last, makes releases, and takes them
//! back.

mod release;
mod shown;
mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::App;
use crate::app::call_off::{CallOff, Calls};
use crate::app::environment;
use crate::app::failure::Failure;
use crate::app::fleet::Fleet;
use crate::app::kept::{Asked, Record};
use crate::app::launch::Launch;
use crate::app::output;
use crate::app::progress::Progress;
use crate::app::stage::Stage;
use crate::app::store::{History, Store};
use crate::app::sweep::Lock;
use crate::app::tally::Tally;
use crate::app::worker::END_PATIENCE;
use crate::upstream::Upstream;
use release::Source;
use shown::Left;
pub(in crate::app) use shown::{Role, Shown};

/// Pauses before an app that could not be started at all is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is asked of an app's manager. What takes long is done one after the other.
#[derive(Debug)]
pub(in crate::app) enum Ask {
    /// The app as a new snapshot has it.
    Adopt {
        app: Arc<App>,
        upstream: Arc<Upstream>,
        /// How long requests to an old release may take.
        grace: Duration,
    },
    Release {
        directory: Option<PathBuf>,
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// A release of what is in the app's directory now; one that is under way is of older code, and ends.
    Newest {
        answer: oneshot::Sender<Result<String, String>>,
    },
    Rollback {
        answer: oneshot::Sender<Result<String, String>>,
    },
}

/// The gateway ends, or the app is not in the configuration any more: so long may requests take.
pub(in crate::app) type Leave = oneshot::Receiver<Duration>;

/// See the module.
pub(in crate::app) struct Manager {
    app: Arc<App>,
    stage: Arc<Stage>,
    store: Store,
    progress: Progress,
    /// Whether a start is a release of what is in the directory, or of what served last.
    fresh: bool,
    history: History,
    /// Those of releases that are there.
    records: BTreeMap<u64, Record>,
    serving: Option<Fleet>,
    standing_by: Option<Fleet>,
    /// Fleets of old releases that finish what they have.
    leaving: JoinSet<()>,
    left: HashMap<tokio::task::Id, Left>,
    shown: watch::Sender<Shown>,
    lock: Option<Lock>,
    /// Rollbacks, and releases of newer code: what is under way ends for them, the first start for the latter alone.
    rollbacks: Calls,
    newer: Calls,
    /// Up to this rollback, a release did not come about since they were asked for, so that nothing is left to roll back.
    called_off: u64,
}

/// What a manager begins with.
pub(in crate::app) struct Beginning {
    pub(in crate::app) app: Arc<App>,
    pub(in crate::app) upstream: Arc<Upstream>,
    pub(in crate::app) progress: Progress,
    pub(in crate::app) fresh: bool,
    /// How long requests to an old release may take.
    pub(in crate::app) grace: Duration,
}

impl Manager {
    pub(in crate::app) fn new(beginning: Beginning) -> (Manager, watch::Receiver<Shown>) {
        let Beginning { app, upstream, progress, fresh, grace } = beginning;
        let tally = Arc::new(Tally::default());
        let (shown, seen) = watch::channel(Shown { tally: Arc::clone(&tally), ..Shown::default() });
        let manager = Manager {
            store: Store::new(&app.place),
            stage: Arc::new(Stage::new(upstream, tally, grace)),
            app,
            progress,
            fresh,
            history: History::default(),
            records: BTreeMap::new(),
            serving: None,
            standing_by: None,
            leaving: JoinSet::new(),
            left: HashMap::new(),
            shown,
            lock: None,
            rollbacks: Calls::default(),
            newer: Calls::default(),
            called_off: 0,
        };
        (manager, seen)
    }

    /// Runs until it is told to leave; then everything that it started has ended.
    pub(in crate::app) async fn run(mut self, asks: mpsc::Receiver<Ask>, mut leave: Leave) {
        let told = tokio::select! {
            // Nobody can ask for anything any more; those who were let in before may be at it still.
            () = self.work(asks) => None,
            grace = &mut leave => Some(grace),
        };
        let grace = match told {
            Some(grace) => grace,
            None => leave.await,
        };
        let grace = grace.unwrap_or_default();
        for fleet in self.serving.take().into_iter().chain(self.standing_by.take()) {
            self.leaving.spawn(fleet.leave(grace));
        }
        // Those that were leaving before have their own grace, which may be longer.
        let all = async { while self.leaving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(grace.saturating_add(END_PATIENCE), all).await;
    }

    /// Call off a release under way: for a rollback, and for newer code.
    pub(in crate::app) fn call_off(&self) -> (CallOff, CallOff) {
        (self.rollbacks.call_off(), self.newer.call_off())
    }

    /// The release that serves, or did.
    fn current(&self) -> Option<Record> {
        self.records.get(&self.history.current?).cloned()
    }

    fn uid(&self) -> Option<u32> {
        self.app.account.ids.as_ref().map(|ids| ids.uid)
    }

    async fn work(&mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut pause = FIRST_PAUSE;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next), if self.serving.is_none() => match self.begin().await {
                    Ok(()) => pause = FIRST_PAUSE,
                    // Who asked for that has asked for the next.
                    Err(_) if self.newer.is_waiting() => next = Instant::now() + pause,
                    Err(failure) => {
                        self.not_started(&failure, pause);
                        next = Instant::now() + pause;
                        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    }
                },
                ask = asks.recv() => match ask {
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                Some(left) = self.leaving.join_next_with_id(), if !self.leaving.is_empty() => {
                    let id = left.map_or_else(|error| error.id(), |(id, ())| id);
                    self.left.remove(&id);
                    // Nobody needs its code any more.
                    self.prune().await;
                    self.show(None);
                }
            }
        }
    }

    fn not_started(&self, failure: &Failure, pause: Duration) {
        let (app, failure) = (&*self.app.name, output::shown(&self.app, &failure.to_string()));
        self.trouble(&failure);
        // Nobody need wait for it.
        self.stage.enter(0, &[], false);
        tracing::error!(app, reason = failure, seconds = pause.as_secs(), "app not started: it is tried again");
    }

    fn trouble(&self, failure: &str) {
        self.shown.send_modify(|shown| shown.trouble = Some(failure.to_owned()));
    }

    fn no_trouble(&self) {
        self.shown.send_modify(|shown| shown.trouble = None);
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Adopt { app, upstream, grace } => {
                self.stage.set_grace(grace);
                self.adopt(app, upstream).await;
            }
            Ask::Release { directory, answer } => {
                let directory = directory.unwrap_or_else(|| self.app.settings.directory.value.clone());
                let outcome = self.release(Source::Directory(directory)).await;
                let _ = answer.send(self.told(outcome));
            }
            Ask::Newest { answer } => {
                self.newer.answer();
                let outcome = self.release(Source::Directory(self.app.settings.directory.value.clone())).await;
                let is_newest = !self.newer.is_waiting();
                let outcome =
                    if is_newest { self.told(outcome) } else { outcome.map_err(|failure| failure.to_string()) };
                let _ = answer.send(outcome);
            }
            Ask::Rollback { answer } => {
                self.rollbacks.answer();
                let outcome = match self.way_back() {
                    Some(way) => {
                        let outcome = self.rollback(way).await;
                        self.told(outcome)
                    }
                    // Nothing has failed.
                    None => Err("there is no release before this one: see `keep` of the app".to_owned()),
                };
                let _ = answer.send(outcome);
            }
        }
    }

    /// Logs why something did not come about.
    fn told(&self, outcome: Result<String, Failure>) -> Result<String, String> {
        // What went wrong may have come with a path or a command that a secret is part of.
        let outcome = outcome.map_err(|failure| output::shown(&self.app, &failure.to_string()));
        match &outcome {
            Ok(done) => {
                self.no_trouble();
                tracing::info!(app = &*self.app.name, "{done}");
            }
            Err(failure) => {
                self.trouble(failure);
                tracing::error!(app = &*self.app.name, reason = failure, "not released");
            }
        }
        outcome
    }

    /// An app whose settings did not change is not touched.
    async fn adopt(&mut self, app: Arc<App>, upstream: Arc<Upstream>) {
        self.stage.upstream.store(upstream);
        // What serves, or should have served: a release that failed changed nothing.
        let before = self.serving.as_ref().map_or(&self.app, |fleet| &fleet.launch.configured);
        let before = Arc::clone(before);
        let had_failed = self.app.settings.needs_release(&before.settings);
        self.app = app;
        if had_failed && !self.app.settings.needs_release(&before.settings) {
            // What could not be released is not asked for any more.
            self.no_trouble();
        }
        self.heed(&before).await;
    }

    /// A release makes settings that changed take effect. `before`: those that what serves was started under.
    async fn heed(&mut self, before: &App) {
        let app = &self.app;
        if !app.settings.needs_release(&before.settings) && app.account == before.account {
            return;
        }
        let moved = app.settings.directory != before.settings.directory;
        self.store = Store::new(&self.app.place);
        let source = match self.current() {
            Some(record) if !moved => {
                // After a rollback, what serves has its own entry: what else changed is none of its business.
                let is_asked_anew = Asked::of(&app.settings) != Asked::of(&before.settings);
                let known = if is_asked_anew { Arc::clone(app) } else { record.app(app) };
                Source::Kept { record: Box::new(record), known, configured: Arc::clone(app) }
            }
            Some(_) | None => Source::Directory(self.app.settings.directory.value.clone()),
        };
        self.progress.step("its settings changed: a release makes them take effect");
        let outcome = self.release(source).await;
        let _ = self.told(outcome);
    }

    /// Removes what nobody can go back to, and nobody runs.
    async fn prune(&mut self) {
        if let Err(failure) = self.try_prune().await {
            tracing::warn!(app = &*self.app.name, reason = %failure, "old releases could not be removed");
        }
    }

    async fn try_prune(&mut self) -> Result<(), Failure> {
        let (store, mut releases) = (self.store.clone(), self.history.all());
        let fleets = self.serving.iter().chain(&self.standing_by).map(|fleet| &fleet.launch);
        let used: Vec<&Arc<Launch>> = fleets.chain(self.left.values().map(|left| &left.launch)).collect();
        releases.extend(used.iter().map(|launch| launch.release));
        let mut keys: BTreeSet<String> = used.iter().map(|launch| launch.key.clone()).collect();
        self.records.retain(|id, _| releases.contains(id));
        keys.extend(self.records.values().map(|record| record.environment.clone()));
        blocking(move || store.prune(&releases)).await?;
        environment::prune(&self.app, &keys).await
    }
}

/// Runs what blocks where that does no harm.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    match done {
        Ok(done) => done.map_err(|error| Failure::new(error.to_string())),
        Err(_) => Err(Failure::new("the gateway failed: a defect, please report it")),
    }
}
