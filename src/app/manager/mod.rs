//! The task that follows one app from snapshot to snapshot: it starts what served last, makes releases, and takes them
//! back.

mod release;
mod shown;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::App;
use crate::app::environment::{self, Recipe};
use crate::app::failure::Failure;
use crate::app::fleet::Fleet;
use crate::app::launch::Launch;
use crate::app::progress::Progress;
use crate::app::stage::Stage;
use crate::app::store::{History, Record, Store};
use crate::app::sweep::{self, Lock};
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
    /// A rollback is asked for: what is under way ends.
    call_off: Arc<Notify>,
    /// It has ended for that, so that nothing is left to roll back.
    called_off: AtomicBool,
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
            call_off: Arc::default(),
            called_off: AtomicBool::new(false),
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

    /// Wakes whoever waits for a release that need not be waited for.
    pub(in crate::app) fn call_off(&self) -> Arc<Notify> {
        Arc::clone(&self.call_off)
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
        let app = &*self.app.name;
        self.trouble(failure);
        // Nobody need wait for it.
        self.stage.enter(0, &[], false);
        tracing::error!(app, reason = %failure, seconds = pause.as_secs(), "app not started: it is tried again");
    }

    fn trouble(&self, failure: &Failure) {
        self.shown.send_modify(|shown| shown.trouble = Some(failure.to_string()));
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
            Ask::Rollback { answer } => {
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
        match &outcome {
            Ok(done) => {
                self.no_trouble();
                tracing::info!(app = &*self.app.name, "{done}");
            }
            Err(failure) => {
                self.trouble(failure);
                tracing::error!(app = &*self.app.name, reason = %failure, "not released");
            }
        }
        outcome.map_err(|failure| failure.to_string())
    }

    /// An app whose settings did not change is not touched.
    async fn adopt(&mut self, app: Arc<App>, upstream: Arc<Upstream>) {
        self.stage.upstream.store(upstream);
        // What serves, or should have served: a release that failed changed nothing.
        let serving = self.serving.as_ref().map_or(&self.app, |fleet| &fleet.launch.app);
        let same = !app.settings.needs_release(&serving.settings) && app.account == serving.account;
        let moved = app.settings.directory != serving.settings.directory;
        self.app = app;
        if same {
            return;
        }
        self.store = Store::new(&self.app.place);
        let source = match self.current() {
            Some(record) if !moved => Source::Current(record),
            Some(_) | None => Source::Directory(self.app.settings.directory.value.clone()),
        };
        self.progress.step("its settings changed: a release makes them take effect");
        let outcome = self.release(source).await;
        let _ = self.told(outcome);
    }

    /// Makes sure that nobody else runs the app, and that nothing is left of a gateway that died.
    async fn take_place(&mut self) -> Result<(), Failure> {
        if self.lock.is_some() {
            return Ok(());
        }
        let app = Arc::clone(&self.app);
        let taken = blocking(move || {
            app.place.prepare(&app.account)?;
            let lock = sweep::lock(&app.place)?;
            let swept = sweep::sweep(&app.place);
            let store = Store::new(&app.place);
            let history = store.history()?;
            let records = store.records(&history.all());
            Ok((lock, swept, history, records))
        });
        let (lock, swept, history, records) = taken.await?;
        self.lock = Some(lock);
        (self.history, self.records) = (history, records);
        if swept > 0 {
            tracing::warn!(app = &*self.app.name, processes = swept, "processes of a gateway that died were ended");
        }
        Ok(())
    }

    /// Starts what served last, or else makes the first release.
    async fn begin(&mut self) -> Result<(), Failure> {
        self.take_place().await?;
        if self.history.on_trial {
            let mut history = self.history.clone();
            history.rolled_back();
            self.remember(history).await?;
            tracing::warn!(
                app = &*self.app.name,
                "the release that served last was watched still when its gateway ended: the one before is started"
            );
        }
        let Some(record) = self.current().filter(|_| !self.fresh) else {
            let directory = self.app.settings.directory.value.clone();
            let done = self.release(Source::Directory(directory)).await?;
            self.progress.step(done);
            return Ok(());
        };
        if record.uid != self.uid() {
            let done = self.release(Source::Current(record)).await?;
            self.progress.step(done);
            return Ok(());
        }
        let launch = self.launch(&record).await?;
        self.progress.step(format!(
            "release {} of {} is started; newer code takes a `passerelle release {}`",
            record.id,
            record.directory.display(),
            self.app.name
        ));
        let fleet = Fleet::start(launch, &self.stage);
        self.put_on(fleet).await;
        // What a gateway that died was in the middle of.
        self.prune().await;
        Ok(())
    }

    /// A release that is there, with its environment.
    async fn launch(&self, record: &Record) -> Result<Arc<Launch>, Failure> {
        let code = self.store.code(record.id);
        let recipe = Recipe::find(&self.app, &code).await?;
        let environment = recipe.build(&self.app, &self.progress).await?;
        let key = recipe.key().to_owned();
        Ok(Arc::new(Launch { app: Arc::clone(&self.app), release: record.id, code, environment, key }))
    }

    /// Removes what nobody can go back to, and nobody runs.
    async fn prune(&mut self) {
        let (store, mut releases) = (self.store.clone(), self.history.all());
        let fleets = self.serving.iter().chain(&self.standing_by).map(|fleet| &fleet.launch);
        let used: Vec<&Arc<Launch>> = fleets.chain(self.left.values().map(|left| &left.launch)).collect();
        releases.extend(used.iter().map(|launch| launch.release));
        let mut keys: BTreeSet<String> = used.iter().map(|launch| launch.key.clone()).collect();
        self.records.retain(|id, _| releases.contains(id));
        keys.extend(self.records.values().map(|record| record.environment.clone()));
        let pruned = match blocking(move || store.prune(&releases)).await {
            Ok(()) => environment::prune(&self.app, &keys).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = pruned {
            tracing::warn!(app = &*self.app.name, reason = %failure, "old releases could not be removed");
        }
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
