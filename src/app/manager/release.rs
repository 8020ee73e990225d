//! How a release comes about, and how it is taken back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::shown::Left;
use super::{Manager, blocking};
use crate::app::copy::{self, Origin};
use crate::app::environment::Recipe;
use crate::app::failure::Failure;
use crate::app::fleet::Fleet;
use crate::app::launch::Launch;
use crate::app::output::{self, LastLines};
use crate::app::process::{self, Ended};
use crate::app::store::{History, Record};
use crate::app::tally::ReleaseOutcome;
use crate::config::settings::WatchSettings;

/// How long a hook may take: migrations of large tables are slow.
const HOOK_PATIENCE: Duration = Duration::from_secs(3600);

/// How long a request that warms up may take.
const WARM_PATIENCE: Duration = Duration::from_secs(30);

/// How often a release that is watched is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

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
    /// That of the release which serves, under other settings.
    Current(Record),
}

/// Where a rollback leads.
pub(super) enum WayBack {
    /// It has happened already: what was under way was called off.
    Been {
        current: u64,
    },
    To(Record),
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
        self.called_off.store(false, Ordering::Relaxed);
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
    async fn make(&mut self, id: u64, source: &Source) -> Result<(Record, Arc<Launch>), Failure> {
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
        self.records.insert(id, record.clone());
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
        let serves =
            format!("release {} of {} serves, {seconds:.1} s after it was asked for", record.id, self.app.name);
        if let Some(watch) = self.app.settings.watch
            && self.standing_by.is_some()
        {
            self.progress.step(format!("{serves}, and is watched for {:?}", watch.period));
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
        Ok(serves)
    }

    async fn hook(&self, launch: &Launch, words: &[String]) -> Result<(), Failure> {
        let shown = words.join(" ");
        self.progress.step(format!("release {}: {shown}", launch.release));
        let last = LastLines::default();
        let tell = |line: &str| {
            let line = output::shown(&self.app, line);
            self.progress.line(&line);
            last.push(line);
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
        let why = match ended {
            Ok(Ended::Exited(0)) => return Ok(()),
            Ok(ended) => ended.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failure::with_output(format!("`{shown}` of pre_release failed: {why}"), last.to_vec()))
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
        // Of what clients got: also what the gateway answered because no worker did.
        let failed = Arc::clone(&self.stage.upstream.load().metrics);
        let before = failed.failed_total();
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
            let answered = view.outcome();
            let unserved = failed.failed_total().saturating_sub(before);
            let requests = answered.answers.saturating_add(unserved);
            let errors = answered.errors.saturating_add(unserved);
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

    /// Where a rollback leads; `None`: nowhere.
    pub(super) fn way_back(&self) -> Option<WayBack> {
        if let (true, Some(current)) = (self.called_off.swap(false, Ordering::Relaxed), self.history.current) {
            return Some(WayBack::Been { current });
        }
        self.history.before.last().and_then(|id| self.records.get(id)).cloned().map(WayBack::To)
    }

    pub(super) async fn rollback(&mut self, way: WayBack) -> Result<String, Failure> {
        let record = match way {
            WayBack::Been { current } => {
                let app = &self.app.name;
                return Ok(format!("the release under way was called off: release {current} of {app} serves"));
            }
            WayBack::To(record) => record,
        };
        self.settle();
        let mut history = self.history.clone();
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
}
