//! How a release comes about, and how it is taken back.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::shown::Left;
use super::{Manager, blocking};
use crate::app::App;
use crate::app::copy::{self, Origin};
use crate::app::environment::Recipe;
use crate::app::failure::Failure;
use crate::app::fleet::Fleet;
use crate::app::kept::{Asked, Record};
use crate::app::launch::Launch;
use crate::app::output::{self, LastLines};
use crate::app::process::{self, Ended};
use crate::app::store::History;
use crate::app::tally::ReleaseOutcome;
use crate::config::settings::{At, WatchSettings};

/// How long a hook may take: migrations of large tables are slow.
const HOOK_PATIENCE: Duration = Duration::from_secs(3600);

/// How long a request that warms up may take.
const WARM_PATIENCE: Duration = Duration::from_secs(30);

/// How long a worker may take to tell what was wrong with its answer.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often a release that is watched is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How often, and after which pauses, it is tried to remove what a release that was called off leaves behind.
const TIDY_ATTEMPTS: u32 = 20;
const TIDY_PAUSE: Duration = Duration::from_millis(100);

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
pub(super) enum Source {
    Directory(PathBuf),
    /// That of a release that is kept, which the new one takes the place of.
    Kept {
        record: Box<Record>,
        /// What the new one is to run as.
        known: Arc<App>,
        /// As the configuration had it when that was decided.
        configured: Arc<App>,
    },
}

impl Manager {
    /// Makes a release and switches to it. Until then, nothing that serves is touched.
    pub(super) async fn release(&mut self, source: Source) -> Result<String, Failure> {
        self.take_place().await?;
        self.settle();
        let (app, store) = (Arc::clone(&self.app), self.store.clone());
        let begun = blocking(move || {
            // Whose user changed has other directories.
            app.place.prepare(&app.account)?;
            store.begin()
        });
        let id = begun.await?;
        self.history.last = id;
        let began = Instant::now();
        let outcome = match self.bring_up(id, &source).await {
            Ok((record, fleet)) => self.put_in_place(record, fleet, &source, began).await,
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
            // Even if it failed by itself: whoever asked for the rollback saw the one that serves now.
            if self.is_rollback_asked() && self.history.current != Some(id) {
                self.called_off = self.rollbacks.asked();
            }
        }
        self.tidy().await;
        outcome
    }

    /// Whether a rollback waits for the end of what is under way, which then ends for it. A start has nothing to go back to.
    fn is_rollback_asked(&self) -> bool {
        self.serving.is_some() && self.rollbacks.is_waiting()
    }

    /// Whether what is under way is to end, for a rollback or for newer code.
    fn is_called_off(&self) -> bool {
        self.is_rollback_asked() || self.newer.is_waiting()
    }

    fn why_called_off(&self) -> &'static str {
        if self.is_rollback_asked() { "a rollback was asked for" } else { "there is newer code" }
    }

    /// Waits for that.
    fn until_called_off(&self) -> impl Future<Output = ()> + use<> {
        let rollback = self.serving.is_some().then(|| self.rollbacks.waiting());
        let newer = self.newer.waiting();
        async move {
            match rollback {
                Some(rollback) => tokio::select! {
                    () = rollback => {}
                    () = newer => {}
                },
                None => newer.await,
            }
        }
    }

    /// What was dropped in the middle of something takes a moment to be gone.
    async fn tidy(&mut self) {
        if self.is_called_off() {
            for _ in 0..TIDY_ATTEMPTS {
                if self.try_prune().await.is_ok() {
                    return;
                }
                tokio::time::sleep(TIDY_PAUSE).await;
            }
        }
        self.prune().await;
    }

    /// All that comes before the switch: it can be called off at any moment.
    async fn bring_up(&mut self, id: u64, source: &Source) -> Result<(Record, Fleet), Failure> {
        let began = Instant::now();
        self.copy(id, source).await?;
        if self.is_called_off() {
            return Err(self.called_off(id));
        }
        let asked = self.until_called_off();
        tokio::select! {
            biased;
            () = asked => {}
            up = self.make(id, source, began) => return up,
        }
        Err(self.called_off(id))
    }

    fn called_off(&self, id: u64) -> Failure {
        Failure::new(format!("release {id} was called off: {}", self.why_called_off()))
    }

    /// The code. That it is called off is for the caller to see.
    async fn copy(&self, id: u64, source: &Source) -> Result<(), Failure> {
        let (from, origin) = match source {
            Source::Directory(directory) => (directory.clone(), Origin::Operator),
            Source::Kept { record, .. } => (self.store.code(record.id), Origin::App { uid: record.uid }),
        };
        self.progress.step(format!("release {id}: copying {}", from.display()));
        let (app, code) = (Arc::clone(&self.app), self.store.code(id));
        let stop = Arc::new(AtomicBool::new(false));
        let heeded = Arc::clone(&stop);
        let copy = move || copy::copy(&from, &code, app.place.state(), &app.account, origin, &heeded);
        let mut copying = pin!(blocking(copy));
        let copied = tokio::select! {
            copied = &mut copying => copied,
            () = self.until_called_off() => {
                // Nothing may be written any more when what was is removed.
                stop.store(true, Ordering::Relaxed);
                let _ = copying.await;
                return Ok(());
            }
        };
        copied.map_err(|failure| Failure::new(format!("the code cannot be copied: {}", failure.why)))
    }

    /// Environment, hooks, workers, health, warm-up.
    async fn make(&mut self, id: u64, source: &Source, began: Instant) -> Result<(Record, Fleet), Failure> {
        let (directory, app, configured) = match source {
            Source::Directory(directory) => (directory.clone(), Arc::clone(&self.app), Arc::clone(&self.app)),
            Source::Kept { record, known, configured } => {
                (record.directory.clone(), Arc::clone(known), Arc::clone(configured))
            }
        };
        let code = self.store.code(id);
        let recipe = Recipe::find(&app, &code, &directory).await?;
        let environment = recipe.build(&app, id, &self.progress).await?;
        self.stage.tally.built(began.elapsed());
        let key = recipe.key().to_owned();
        let record = Record {
            id,
            directory,
            environment: key.clone(),
            made: SystemTime::now(),
            uid: self.uid(),
            asked: Some(Asked::of(&app.settings)),
            runs: Some(environment.clone()),
        };
        let launch =
            Arc::new(Launch { app, configured, release: id, code, environment, key, said: LastLines::default() });
        for hook in &self.app.settings.pre_release {
            self.hook(&launch, hook).await?;
        }
        let fleet = self.start(launch).await?;
        Ok((record, fleet))
    }

    /// The switch, and the watch over what it led to.
    async fn put_in_place(
        &mut self,
        record: Record,
        fleet: Fleet,
        source: &Source,
        began: Instant,
    ) -> Result<String, Undone> {
        let id = record.id;
        self.made(record).await?;
        let before = self.history.clone();
        let mut history = before.clone();
        history.switched(id);
        history.configured = Some(Asked::of(&fleet.launch.configured.settings));
        history.on_trial = self.app.settings.watch.is_some() && self.serving.is_some();
        self.switch(fleet, history).await?;
        let seconds = began.elapsed().as_secs_f64();
        let serves = format!("release {id} of {} serves, {seconds:.1} s after it was asked for", self.app.name);
        if let Some(watch) = self.app.settings.watch
            && self.standing_by.is_some()
        {
            self.progress.step(format!("{serves}, and is watched for {:?}", watch.period));
            if let Err(why) = self.watch(watch).await {
                return Err(Undone::TakenBack(self.take_back(id, before, &why).await));
            }
        }
        let in_place_of = match source {
            Source::Directory(_) => None,
            Source::Kept { record: replaced, .. } => Some(replaced.id),
        };
        let mut history = self.history.clone();
        history.settled(self.app.settings.keep.get(), in_place_of);
        self.remember(history).await?;
        self.settle();
        Ok(serves)
    }

    async fn hook(&self, launch: &Launch, words: &[At<String>]) -> Result<(), Failure> {
        let shown = words.iter().map(At::shown).collect::<Vec<_>>().join(" ");
        self.progress.step(format!("release {}: {shown}", launch.release));
        let last = LastLines::default();
        let tell = |line: &str| {
            let line = output::shown(&self.app, line);
            self.progress.line(&line);
            last.push(line);
        };
        let plan = launch.hook(words);
        let environ = launch.environ(None);
        let why = match process::run(&plan, &environ, HOOK_PATIENCE, tell).await {
            Ok(Ended::Exited(0)) => return Ok(()),
            Ok(ended) => ended.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failure::with_output(format!("`{shown}` of pre_release failed: {why}"), last.to_vec()))
    }

    /// Workers that are ready and warm.
    pub(super) async fn start(&mut self, launch: Arc<Launch>) -> Result<Fleet, Failure> {
        let release = launch.release;
        self.progress.step(format!("release {release}: starting workers"));
        let began = Instant::now();
        let mut fleet = Fleet::start(launch, &self.stage);
        self.show(Some(&fleet));
        fleet.ready().await?;
        self.stage.tally.started(began.elapsed());
        if !self.app.settings.warm_up.is_empty() {
            self.progress.step(format!("release {release}: warming up"));
        }
        if let Err(why) = self.warm_up(&fleet).await {
            // What it had to say of it may be on its way.
            tokio::time::sleep(LAST_WORDS).await;
            return Err(Failure::with_output(why, fleet.launch.said.to_vec()));
        }
        Ok(fleet)
    }

    async fn warm_up(&self, fleet: &Fleet) -> Result<(), String> {
        let view = fleet.view();
        let upstream = self.stage.upstream.load_full();
        for path in &self.app.settings.warm_up {
            for server in view.workers.iter().filter_map(|worker| worker.server.as_ref()) {
                let failed = |why: String| format!("{} of warm_up failed: {why}", path.shown());
                let status = upstream.ask_worker(server, &path.value, WARM_PATIENCE).await.map_err(failed)?;
                if status.is_server_error() {
                    return Err(failed(format!("it answered {status}")));
                }
            }
        }
        Ok(())
    }

    /// In one step the new fleet is on; the old one stands by.
    pub(super) async fn switch(&mut self, fleet: Fleet, history: History) -> Result<(), Failure> {
        self.remember(history).await?;
        self.put_on(fleet).await;
        Ok(())
    }

    /// Requests go to this fleet from now on.
    pub(super) async fn put_on(&mut self, fleet: Fleet) {
        // Whoever is served may see that nothing is wrong any more.
        self.no_trouble();
        fleet.enter().await;
        self.standing_by = self.serving.replace(fleet);
        self.show(None);
    }

    pub(super) async fn remember(&mut self, history: History) -> Result<(), Failure> {
        let (store, written) = (self.store.clone(), history.clone());
        blocking(move || store.remember(&written)).await?;
        self.history = history;
        Ok(())
    }

    /// Watches the release that serves.
    async fn watch(&self, watch: WatchSettings) -> Result<(), String> {
        let deadline = Instant::now() + watch.period;
        let Some(fleet) = &self.serving else { return Ok(()) };
        // Also what the gateway answered because it found no worker; but for those who waited for one of the old.
        let upstream = self.stage.upstream.load_full();
        let theirs = Instant::now() + upstream.settings.queue.max_wait;
        let mut before = upstream.metrics.unserved_total();
        while Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(WATCH_INTERVAL.min(watch.period)) => {}
                () = self.until_called_off() => return Err(self.why_called_off().to_owned()),
            }
            let view = fleet.view();
            if view.crashing {
                let why = view.failure.map(|failure| failure.to_string()).unwrap_or_default();
                return Err(format!("its workers crash again and again: {why}"));
            }
            let unserved = upstream.metrics.unserved_total();
            if Instant::now() < theirs {
                before = unserved;
            }
            let unserved = unserved.saturating_sub(before);
            let outcome = view.outcome();
            let (requests, errors) =
                (outcome.requests.saturating_add(unserved), outcome.errors.saturating_add(unserved));
            let most = requests.saturating_mul(watch.errors_percent.into());
            if requests >= watch.requests.get().into() && errors.saturating_mul(100) > most {
                return Err(format!(
                    "{errors} of {requests} requests failed, more than {} % (`errors` of watch)",
                    watch.errors_percent
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
    pub(super) fn settle(&mut self) {
        if let Some(fleet) = self.standing_by.take() {
            let left = Left { launch: Arc::clone(&fleet.launch), view: fleet.watch() };
            let id = self.leaving.spawn(fleet.leave(self.stage.grace())).id();
            self.left.insert(id, left);
        }
        self.show(None);
    }
}
