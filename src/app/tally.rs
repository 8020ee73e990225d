//! What is counted of an app for as long as the gateway runs it, whichever release serves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a worker was started in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartReason {
    /// It ended while it served.
    Exited,
    /// It ended before it was ready, or was not ready in time.
    NotStarted,
    /// It was past `memory_limit`.
    Memory,
    /// Checks found it down, and it answered nothing any more.
    Health,
    /// By its server, which started another process in the same place: it had recycled the one before, or that ended.
    ByServer,
}

impl RestartReason {
    pub const ALL: [RestartReason; 5] = [
        RestartReason::Exited,
        RestartReason::NotStarted,
        RestartReason::Memory,
        RestartReason::Health,
        RestartReason::ByServer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RestartReason::Exited => "exited",
            RestartReason::NotStarted => "not_started",
            RestartReason::Memory => "memory",
            RestartReason::Health => "health",
            RestartReason::ByServer => "by_server",
        }
    }
}

/// What came of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOutcome {
    /// It serves, or did.
    Released,
    /// Something failed before the switch.
    Failed,
    /// It failed after the switch, and the one before serves again.
    TakenBack,
    /// Somebody asked for the one before, which serves again.
    RolledBack,
}

impl ReleaseOutcome {
    pub const ALL: [ReleaseOutcome; 4] =
        [ReleaseOutcome::Released, ReleaseOutcome::Failed, ReleaseOutcome::TakenBack, ReleaseOutcome::RolledBack];

    pub fn as_str(self) -> &'static str {
        match self {
            ReleaseOutcome::Released => "released",
            ReleaseOutcome::Failed => "failed",
            ReleaseOutcome::TakenBack => "taken_back",
            ReleaseOutcome::RolledBack => "rolled_back",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    cpu: AtomicU64,
    restarts: [AtomicU64; RestartReason::ALL.len()],
    releases: [AtomicU64; ReleaseOutcome::ALL.len()],
    /// In milliseconds; 0: there was none.
    build: AtomicU64,
    start: AtomicU64,
}

impl Tally {
    /// Its workers have used this much more.
    pub(super) fn used(&self, cpu: Duration) {
        self.cpu.fetch_add(millis(cpu), Ordering::Relaxed);
    }

    pub(super) fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu.load(Ordering::Relaxed))
    }

    pub(super) fn restarted(&self, reason: RestartReason) {
        if let Some(cell) = self.restarts.get(reason as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn restarts(&self) -> BTreeMap<RestartReason, u64> {
        by(RestartReason::ALL, &self.restarts)
    }

    pub(super) fn released(&self, outcome: ReleaseOutcome) {
        if let Some(cell) = self.releases.get(outcome as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn releases(&self) -> BTreeMap<ReleaseOutcome, u64> {
        by(ReleaseOutcome::ALL, &self.releases)
    }

    /// How long code and environment of the last release took.
    pub(super) fn built(&self, took: Duration) {
        self.build.store(millis(took).max(1), Ordering::Relaxed);
    }

    /// How long the workers of the last release took until all were ready.
    pub(super) fn started(&self, took: Duration) {
        self.start.store(millis(took).max(1), Ordering::Relaxed);
    }

    pub(super) fn build_milliseconds(&self) -> Option<u64> {
        Some(self.build.load(Ordering::Relaxed)).filter(|millis| *millis > 0)
    }

    pub(super) fn start_milliseconds(&self) -> Option<u64> {
        Some(self.start.load(Ordering::Relaxed)).filter(|millis| *millis > 0)
    }
}

fn by<K: Ord, const N: usize>(keys: [K; N], cells: &[AtomicU64; N]) -> BTreeMap<K, u64> {
    keys.into_iter().zip(cells).map(|(key, cell)| (key, cell.load(Ordering::Relaxed))).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
