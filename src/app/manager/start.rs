//! What was made is started: when the gateway is, and by a rollback.

use std::sync::Arc;

use super::release::Source;
use super::{Manager, blocking};
use crate::app::App;
use crate::app::environment::Recipe;
use crate::app::failure::Failure;
use crate::app::fleet::Fleet;
use crate::app::kept::{Asked, Record};
use crate::app::launch::Launch;
use crate::app::output::LastLines;
use crate::app::store::Store;
use crate::app::sweep;
use crate::app::tally::ReleaseOutcome;

/// Where a rollback leads.
pub(super) enum WayBack {
    /// It has happened already: what was under way was called off.
    Been {
        current: u64,
    },
    To(Box<Record>),
}

impl Manager {
    /// Makes sure that nobody else runs the app, and that nothing is left of a gateway that died.
    pub(super) async fn take_place(&mut self) -> Result<(), Failure> {
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

    /// Starts what served last, or else makes the first release. If the configuration asks for another entry or server since
    /// then, that takes a release of its own, which may fail.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
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
        self.find_a_record().await?;
        let Some(record) = self.current().filter(|_| !self.fresh) else {
            let directory = self.app.settings.directory.value.clone();
            let done = self.release(Source::Directory(directory)).await?;
            self.progress.step(done);
            return Ok(());
        };
        let configured = self.history.configured.as_ref().map(|asked| asked.of_app(&self.app));
        let configured = configured.unwrap_or_else(|| Arc::clone(&self.app));
        if record.uid == self.uid() {
            self.start_again(&record, Arc::clone(&configured)).await?;
        } else {
            let known = record.app(&self.app);
            let done = self
                .release(Source::Kept { record: Box::new(record), known, configured: Arc::clone(&configured) })
                .await?;
            self.progress.step(done);
        }
        self.heed(&configured).await;
        Ok(())
    }

    /// Where the record of the release that served last is lost or makes no sense, the one before is what served last.
    async fn find_a_record(&mut self) -> Result<(), Failure> {
        while let (Some(lost), None) = (self.history.current, self.current()) {
            let mut history = self.history.clone();
            history.rolled_back();
            let is_any_left = history.current != Some(lost);
            tracing::error!(
                app = &*self.app.name,
                release = lost,
                remedy = if is_any_left { "The release before it is started." } else { "A new one is made." },
                "the record of the release that served last cannot be read"
            );
            if !is_any_left {
                break;
            }
            self.remember(history).await?;
        }
        Ok(())
    }

    async fn start_again(&mut self, record: &Record, configured: Arc<App>) -> Result<(), Failure> {
        let launch = self.launch(record, configured).await?;
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

    /// A release that is there, with the environment that it ran in. Only where that is gone, it gets another.
    pub(super) async fn launch(&mut self, record: &Record, configured: Arc<App>) -> Result<Arc<Launch>, Failure> {
        let (app, release, code) = (record.app(&self.app), record.id, self.store.code(record.id));
        if let Some(environment) = record.runs.clone()
            && environment.is_there(&app).await
        {
            let key = record.environment.clone();
            return Ok(Arc::new(Launch {
                app,
                configured,
                release,
                code,
                environment,
                key,
                said: LastLines::default(),
            }));
        }
        let recipe = Recipe::find(&app, &code, &record.directory).await?;
        let environment = recipe.build(&app, release, &self.progress).await?;
        let key = recipe.key().to_owned();
        let (asked, runs) = (Some(Asked::of(&app.settings)), Some(environment.clone()));
        let record = Record { environment: key.clone(), asked, runs, ..record.clone() };
        self.made(record).await?;
        Ok(Arc::new(Launch { app, configured, release, code, environment, key, said: LastLines::default() }))
    }

    /// A release is whole.
    pub(super) async fn made(&mut self, record: Record) -> Result<(), Failure> {
        let (store, made) = (self.store.clone(), record.clone());
        blocking(move || store.made(&made)).await?;
        self.records.insert(record.id, record);
        Ok(())
    }

    /// Where a rollback leads; `None`: nowhere.
    pub(super) fn way_back(&mut self) -> Option<WayBack> {
        if let Some(current) = self.history.current
            && self.rollbacks.answered() <= self.called_off
        {
            return Some(WayBack::Been { current });
        }
        self.history.before.last().and_then(|id| self.records.get(id)).cloned().map(Box::new).map(WayBack::To)
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
        let configured = Arc::clone(&self.app);
        if record.uid != self.uid() {
            // Its code is another user's: this one gets a copy.
            let known = record.app(&self.app);
            return self.release(Source::Kept { record, known, configured }).await;
        }
        history.rolled_back();
        history.configured = Some(Asked::of(&configured.settings));
        self.progress.step(format!("back to release {}", record.id));
        let launch = self.launch(&record, configured).await?;
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
