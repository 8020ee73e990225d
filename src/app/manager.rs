//! The task that follows one app from snapshot to snapshot: it starts what served last, makes releases, and takes them
//! back.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::App;
use super::copy::{self, Origin};
use super::environment::{self, Recipe};
use super::failure::Failure;
use super::fleet::{Fleet, View};
use super::launch::Launch;
use super::output::Mask;
use super::process::{self, Ended};
use super::progress::Progress;
use super::stage::Stage;
use super::store::{History, Record, Store};
use super::sweep::{self, Lock};
use super::tally::{ReleaseOutcome, Tally};
use super::worker::END_PATIENCE;
use crate::config::settings::WatchSettings;
use crate::upstream::Upstream;

/// How long a hook may take: migrations of large tables are slow.
const HOOK_PATIENCE: Duration = Duration::from_secs(3600);

/// How long a request that warms up may take.
const WARM_PATIENCE: Duration = Duration::from_secs(30);

/// How often a release that is watched is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Pauses before an app that could not be started at all is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is asked of an app's manager. What takes long is done one after the other.
#[derive(Debug)]
pub(super) enum Ask {
    /// The app as a new snapshot has it.
    Adopt {
        app: Arc<App>,
        upstream: Arc<Upstream>,
        /// How long requests to an old release may take.
        grace: Duration,
    },
    Release {
        directory: Option<PathBuf>,
        answer: oneshot::Sender<Result<String, Failure>>,
    },
    Rollback {
        answer: oneshot::Sender<Result<String, Failure>>,
    },
}

/// The gateway ends, or the app is not in the configuration any more: so long may requests take.
pub(super) type Leave = oneshot::Receiver<Duration>;

/// What is seen of an app.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) history: History,
    pub(super) releases: Vec<Record>,
    /// The fleets of releases, and what each is doing.
    pub(super) fleets: Vec<(Role, watch::Receiver<View>, u64)>,
    /// What was last made of a release that failed, or why the app does not run.
    pub(super) trouble: Option<String>,
    pub(super) tally: Arc<Tally>,
    pub(super) memory_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Serving,
    /// Not switched to yet.
    Coming,
    /// Until it is known that the new one is good.
    StandingBy,
}

/// Why a release does not serve.
enum Undone {
    BeforeSwitch(Failure),
    /// It did, and failed.
    TakenBack(Failure),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Undone {
        Undone::BeforeSwitch(failure)
    }
}

/// Where the code of a release is from.
enum Source {
    Directory(PathBuf),
    /// That of the release which serves, under other settings.
    Current(Record),
}

/// See the module.
pub(super) struct Manager {
    app: Arc<App>,
    stage: Arc<Stage>,
    store: Store,
    progress: Progress,
    /// Whether a start is a release of what is in the directory, or of what served last.
    fresh: bool,
    grace: Duration,
    history: History,
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

/// What is known of a fleet that leaves.
struct Left {
    launch: Arc<Launch>,
    view: watch::Receiver<View>,
}

/// What a manager begins with.
pub(super) struct Beginning {
    pub(super) app: Arc<App>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) progress: Progress,
    pub(super) fresh: bool,
    /// How long requests to an old release may take.
    pub(super) grace: Duration,
}

impl Manager {
    pub(super) fn new(beginning: Beginning) -> (Manager, watch::Receiver<Shown>) {
        let Beginning { app, upstream, progress, fresh, grace } = beginning;
        let tally = Arc::new(Tally::default());
        let (shown, seen) = watch::channel(Shown { tally: Arc::clone(&tally), ..Shown::default() });
        let manager = Manager {
            store: Store::new(&app.place),
            stage: Arc::new(Stage::new(upstream, tally, grace)),
            app,
            progress,
            fresh,
            grace,
            history: History::default(),
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
    pub(super) async fn run(mut self, asks: mpsc::Receiver<Ask>, mut leave: Leave) {
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
    pub(super) fn call_off(&self) -> Arc<Notify> {
        Arc::clone(&self.call_off)
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
                    Ok(()) => {
                        pause = FIRST_PAUSE;
                        self.shown.send_modify(|shown| shown.trouble = None);
                    }
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
        tracing::error!(app, reason = %failure, seconds = pause.as_secs(), "app not started: it is tried again");
        // Nobody need wait for it.
        self.stage.enter(0, &[], false);
        self.trouble(failure);
    }

    fn trouble(&self, failure: &Failure) {
        self.shown.send_modify(|shown| shown.trouble = Some(failure.to_string()));
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Adopt { app, upstream, grace } => {
                self.grace = grace;
                self.adopt(app, upstream).await;
            }
            Ask::Release { directory, answer } => {
                let directory = directory.unwrap_or_else(|| self.app.settings.directory.value.clone());
                let outcome = self.release(Source::Directory(directory)).await;
                let _ = answer.send(self.told(outcome));
            }
            Ask::Rollback { answer } => {
                let outcome = self.rollback().await;
                let _ = answer.send(self.told(outcome));
            }
        }
    }

    /// Logs why something did not come about.
    fn told(&self, outcome: Result<String, Failure>) -> Result<String, Failure> {
        match &outcome {
            Ok(done) => {
                self.shown.send_modify(|shown| shown.trouble = None);
                tracing::info!(app = &*self.app.name, "{done}");
            }
            Err(failure) => {
                tracing::error!(app = &*self.app.name, reason = %failure, "not released");
                self.trouble(failure);
            }
        }
        outcome
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
        let current = self.history.current.and_then(|id| self.store.record(id));
        let source = match current {
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
            Ok((lock, swept, Store::new(&app.place).history()?))
        });
        let (lock, swept, history) = taken.await?;
        self.lock = Some(lock);
        self.history = history;
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
        let recorded = self.history.current.and_then(|id| self.store.record(id)).filter(|_| !self.fresh);
        let Some(record) = recorded else {
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
        fleet.enter().await;
        self.serving = Some(fleet);
        self.show(None);
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

    /// Makes a release and switches to it. Until then, nothing that serves is touched.
    async fn release(&mut self, source: Source) -> Result<String, Failure> {
        self.take_place().await?;
        self.settle();
        let (app, store) = (Arc::clone(&self.app), self.store.clone());
        let begun = blocking(move || {
            // Whose user changed has other directories.
            app.place.prepare(&app.account)?;
            store.begin()
        });
        let id = begun.await?;
        let began = Instant::now();
        let outcome = match self.make(id, &source).await {
            Ok((record, launch)) => self.bring_up(&record, &source, launch, began).await,
            Err(failure) => Err(Undone::BeforeSwitch(failure)),
        };
        self.stage.tally.released(match &outcome {
            Ok(_) => ReleaseOutcome::Released,
            Err(Undone::BeforeSwitch(_)) => ReleaseOutcome::Failed,
            Err(Undone::TakenBack(_)) => ReleaseOutcome::TakenBack,
        });
        let outcome = outcome.map_err(|(Undone::BeforeSwitch(failure) | Undone::TakenBack(failure))| failure);
        if outcome.is_err() {
            self.show(None);
        }
        self.prune().await;
        outcome
    }

    /// Code and environment.
    async fn make(&self, id: u64, source: &Source) -> Result<(Record, Arc<Launch>), Failure> {
        let (from, directory, origin) = match source {
            Source::Directory(directory) => (directory.clone(), directory.clone(), Origin::Operator),
            Source::Current(record) => {
                (self.store.code(record.id), record.directory.clone(), Origin::App { uid: record.uid })
            }
        };
        self.progress.step(format!("release {id}: copying {}", from.display()));
        let began = Instant::now();
        let (app, code) = (Arc::clone(&self.app), self.store.code(id));
        let (copied_for, to) = (Arc::clone(&app), code.clone());
        let copied = move || copy::copy(&from, &to, copied_for.place.state(), &copied_for.account, origin);
        let copied = blocking(copied).await;
        copied.map_err(|failure| Failure::new(format!("the code cannot be copied: {}", failure.why)))?;
        let recipe = Recipe::find(&self.app, &code).await?;
        let environment = recipe.build(&self.app, &self.progress).await?;
        let record =
            Record { id, directory, environment: recipe.key().to_owned(), made: SystemTime::now(), uid: self.uid() };
        let (store, made) = (self.store.clone(), record.clone());
        blocking(move || store.made(&made)).await?;
        self.stage.tally.built(began.elapsed());
        let key = record.environment.clone();
        Ok((record, Arc::new(Launch { app, release: id, code, environment, key })))
    }

    /// Hooks, workers, health, warm-up; then the switch.
    async fn bring_up(
        &mut self,
        record: &Record,
        source: &Source,
        launch: Arc<Launch>,
        began: Instant,
    ) -> Result<String, Undone> {
        for hook in &self.app.settings.pre_release {
            self.hook(&launch, hook).await?;
        }
        let fleet = self.start(launch).await?;
        let before = self.history.clone();
        let mut history = before.clone();
        history.switched(record.id);
        history.on_trial = self.app.settings.watch.is_some() && self.serving.is_some();
        self.switch(fleet, history).await?;
        let seconds = began.elapsed().as_secs_f64();
        self.progress.step(format!("release {} serves, {seconds:.1} s after it was asked for", record.id));
        if let Some(watch) = self.app.settings.watch
            && self.standing_by.is_some()
        {
            self.progress.step(format!("release {} is watched for {:?}", record.id, watch.period));
            if let Err(why) = self.watch(watch).await {
                return Err(Undone::TakenBack(self.take_back(record.id, before, &why).await));
            }
        }
        let in_place_of = match source {
            Source::Directory(_) => None,
            Source::Current(replaced) => Some(replaced.id),
        };
        let mut history = self.history.clone();
        history.settled(self.app.settings.keep.get(), in_place_of);
        self.remember(history).await?;
        self.settle();
        Ok(format!("release {} of {} serves", record.id, self.app.name))
    }

    async fn hook(&self, launch: &Launch, words: &[String]) -> Result<(), Failure> {
        let shown = words.join(" ");
        self.progress.step(format!("release {}: {shown}", launch.release));
        let mask = Mask::of(&self.app);
        let mut output = Vec::new();
        let tell = |line: &str| {
            let line = mask.apply(line);
            self.progress.line(&line);
            if output.len() >= super::failure::LAST_LINES {
                output.remove(0);
            }
            output.push(line);
        };
        let plan = launch.hook(words);
        let environ = launch.environ(None);
        let ended = tokio::select! {
            ended = process::run(&plan, &environ, HOOK_PATIENCE, tell) => ended,
            () = self.call_off.notified() => {
                self.called_off.store(true, Ordering::Relaxed);
                return Err(Failure::new(format!("a rollback was asked for while `{shown}` of pre_release ran")));
            }
        };
        match ended {
            Ok(Ended::Exited(0)) => Ok(()),
            Ok(ended) => Err(Failure::with_output(format!("`{shown}` of pre_release failed: {ended}"), output)),
            Err(error) => Err(Failure::with_output(format!("`{shown}` of pre_release failed: {error}"), output)),
        }
    }

    /// Workers that are ready and warm.
    async fn start(&mut self, launch: Arc<Launch>) -> Result<Fleet, Failure> {
        let release = launch.release;
        self.progress.step(format!("release {release}: starting workers"));
        let began = Instant::now();
        let mut fleet = Fleet::start(launch, &self.stage);
        self.show(Some(&fleet));
        fleet.ready().await?;
        self.stage.tally.started(began.elapsed());
        let paths = &self.app.settings.warm_up;
        if !paths.is_empty() {
            self.progress.step(format!("release {release}: warming up"));
        }
        let view = fleet.view();
        let upstream = self.stage.upstream.load_full();
        for path in paths {
            for server in view.workers.iter().filter_map(|worker| worker.server.as_ref()) {
                let failed = |why: String| Failure::new(format!("{path} of warm_up failed: {why}"));
                let status = upstream.ask_worker(server, path, WARM_PATIENCE).await.map_err(failed)?;
                if status.is_server_error() {
                    return Err(failed(format!("it answered {status}")));
                }
            }
        }
        Ok(fleet)
    }

    /// In one step the new fleet is on; the old one stands by.
    async fn switch(&mut self, fleet: Fleet, history: History) -> Result<(), Failure> {
        self.remember(history).await?;
        fleet.enter().await;
        self.standing_by = self.serving.replace(fleet);
        self.show(None);
        Ok(())
    }

    async fn remember(&mut self, history: History) -> Result<(), Failure> {
        let (store, mut remembered) = (self.store.clone(), history);
        remembered.last = remembered.last.max(self.history.last);
        let written = remembered.clone();
        blocking(move || store.remember(&written)).await?;
        self.history = remembered;
        Ok(())
    }

    /// Watches the release that serves.
    async fn watch(&self, watch: WatchSettings) -> Result<(), String> {
        let deadline = Instant::now() + watch.period;
        let Some(fleet) = &self.serving else { return Ok(()) };
        while Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(WATCH_INTERVAL.min(watch.period)) => {}
                () = self.call_off.notified() => {
                    self.called_off.store(true, Ordering::Relaxed);
                    return Err("a rollback was asked for".to_owned());
                }
            }
            let view = fleet.view();
            if view.crashing {
                let why = view.failure.map(|failure| failure.to_string()).unwrap_or_default();
                return Err(format!("its workers crash again and again: {why}"));
            }
            let outcome = view.outcome();
            let most = outcome.requests.saturating_mul(watch.errors_percent.into());
            if outcome.requests >= watch.requests.get().into() && outcome.errors.saturating_mul(100) > most {
                return Err(format!(
                    "{} of {} requests failed, more than {} % (`errors` of watch)",
                    outcome.errors, outcome.requests, watch.errors_percent
                ));
            }
        }
        Ok(())
    }

    /// The release before serves again, by the workers that stood by.
    async fn take_back(&mut self, release: u64, before: History, why: &str) -> Failure {
        let Some(old) = self.standing_by.take() else { return Failure::new(why) };
        let back = old.launch.release;
        if let Err(failure) = self.switch(old, before).await {
            return failure;
        }
        self.settle();
        Failure::new(format!("release {release} was taken back, release {back} serves again: {why}"))
    }

    /// Whoever stood by need not any more.
    fn settle(&mut self) {
        if let Some(fleet) = self.standing_by.take() {
            let left = Left { launch: Arc::clone(&fleet.launch), view: fleet.watch() };
            let id = self.leaving.spawn(fleet.leave(self.grace)).id();
            self.left.insert(id, left);
        }
        self.show(None);
    }

    async fn rollback(&mut self) -> Result<String, Failure> {
        if let (true, Some(current)) = (self.called_off.swap(false, Ordering::Relaxed), self.history.current) {
            return Ok(format!("the release under way was called off: release {current} of {} serves", self.app.name));
        }
        self.settle();
        let mut history = self.history.clone();
        let Some(record) = history.before.last().and_then(|id| self.store.record(*id)) else {
            return Err(Failure::new("there is no release before this one: see `keep` of the app"));
        };
        if record.uid != self.uid() {
            // Its code is another user's: this one gets a copy.
            return self.release(Source::Current(record)).await;
        }
        history.rolled_back();
        self.progress.step(format!("back to release {}", record.id));
        let launch = self.launch(&record).await?;
        let fleet = match self.start(launch).await {
            Ok(fleet) => fleet,
            Err(failure) => {
                self.show(None);
                return Err(failure);
            }
        };
        self.switch(fleet, history).await?;
        self.stage.tally.released(ReleaseOutcome::RolledBack);
        self.settle();
        self.prune().await;
        Ok(format!("release {} of {} serves again", record.id, self.app.name))
    }

    /// Removes what nobody can go back to, and nobody runs.
    async fn prune(&self) {
        let (store, mut releases) = (self.store.clone(), self.history.all());
        let fleets = self.serving.iter().chain(&self.standing_by).map(|fleet| &fleet.launch);
        let used: Vec<&Arc<Launch>> = fleets.chain(self.left.values().map(|left| &left.launch)).collect();
        releases.extend(used.iter().map(|launch| launch.release));
        let mut keys: BTreeSet<String> = used.iter().map(|launch| launch.key.clone()).collect();
        let pruned = blocking(move || {
            store.prune(&releases)?;
            keys.extend(releases.iter().filter_map(|id| store.record(*id)).map(|record| record.environment));
            Ok(keys)
        });
        let pruned = match pruned.await {
            Ok(keys) => environment::prune(&self.app, &keys).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = pruned {
            tracing::warn!(app = &*self.app.name, reason = %failure, "old releases could not be removed");
        }
    }

    /// Brings what is seen up to date.
    fn show(&self, coming: Option<&Fleet>) {
        let of = |role: Role, fleet: &Fleet| (role, fleet.watch(), fleet.launch.release);
        let fleets = self.serving.iter().map(|fleet| of(Role::Serving, fleet));
        let fleets = fleets.chain(coming.map(|fleet| of(Role::Coming, fleet)));
        let fleets = fleets.chain(self.standing_by.iter().map(|fleet| of(Role::StandingBy, fleet)));
        let left = self.left.values().map(|left| (Role::StandingBy, left.view.clone(), left.launch.release));
        let fleets = fleets.chain(left).collect();
        let releases = self.history.all().into_iter().filter_map(|id| self.store.record(id)).collect();
        self.shown.send_modify(|shown| {
            shown.history = self.history.clone();
            shown.releases = releases;
            shown.memory_limit = self.app.settings.memory_limit.map(Into::into);
            shown.fleets = fleets;
        });
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
