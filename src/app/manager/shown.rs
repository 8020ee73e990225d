//! What is seen of an app: its releases, and the fleets that run.

use std::sync::Arc;

use tokio::sync::watch;

use super::Manager;
use crate::app::fleet::{Fleet, View};
use crate::app::kept::Record;
use crate::app::launch::Launch;
use crate::app::store::History;
use crate::app::tally::Tally;

/// What is seen of an app.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Shown {
    pub(in crate::app) history: History,
    pub(in crate::app) releases: Vec<Record>,
    /// The fleets of releases, and what each is doing.
    pub(in crate::app) fleets: Vec<(Role, watch::Receiver<View>, u64)>,
    /// What was last made of a release that failed, or why the app does not run.
    pub(in crate::app) trouble: Option<String>,
    pub(in crate::app) tally: Arc<Tally>,
    pub(in crate::app) memory_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Role {
    Serving,
    /// Not switched to yet.
    Coming,
    /// Until it is known that the new one is good.
    StandingBy,
}

/// What is known of a fleet that leaves.
pub(super) struct Left {
    pub(super) launch: Arc<Launch>,
    pub(super) view: watch::Receiver<View>,
}

impl Manager {
    /// Brings what is seen up to date.
    pub(super) fn show(&self, coming: Option<&Fleet>) {
        let of = |role: Role, fleet: &Fleet| (role, fleet.watch(), fleet.launch.release);
        let fleets = self.serving.iter().map(|fleet| of(Role::Serving, fleet));
        let fleets = fleets.chain(coming.map(|fleet| of(Role::Coming, fleet)));
        let fleets = fleets.chain(self.standing_by.iter().map(|fleet| of(Role::StandingBy, fleet)));
        let left = self.left.values().map(|left| (Role::StandingBy, left.view.clone(), left.launch.release));
        let fleets = fleets.chain(left).collect();
        let releases = self.history.all().iter().filter_map(|id| self.records.get(id)).cloned().collect();
        self.shown.send_modify(|shown| {
            shown.history = self.history.clone();
            shown.releases = releases;
            shown.memory_limit = self.app.settings.memory_limit.map(Into::into);
            shown.fleets = fleets;
        });
    }
}
