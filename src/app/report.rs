//! How an app is: for `passerelle apps`, `/status` and `/metrics`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::fleet::Phase;
use super::manager::{Role, Shown};
use super::tally::{ReleaseOutcome, RestartReason};

/// One app at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppReport {
    pub name: String,
    /// The release that serves.
    pub release: Option<u64>,
    /// Those that can be served: the one that is, and those that `rollback` leads to.
    pub releases: Vec<ReleaseReport>,
    pub workers: Vec<WorkerReport>,
    /// Workers that should serve.
    pub wanted: u32,
    /// Whether workers fail again and again.
    pub crashing: bool,
    /// Workers that were started in place of others since the gateway runs the app.
    pub restarts: u64,
    pub restarts_by_reason: BTreeMap<RestartReason, u64>,
    /// What came of releases since then.
    pub outcomes: BTreeMap<ReleaseOutcome, u64>,
    /// Processor time of all workers since then, less what a worker used in the last second before its end.
    pub cpu_milliseconds: u64,
    /// How long code and environment of the last release took, and its workers until all were ready.
    pub build_milliseconds: Option<u64>,
    pub start_milliseconds: Option<u64>,
    /// Bytes; of each worker.
    pub memory_limit: Option<u64>,
    /// What went wrong last, if nothing has gone well since.
    pub trouble: Option<String>,
}

/// A release that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    pub id: u64,
    /// Where its code was copied from.
    pub directory: PathBuf,
    /// Seconds since 1970.
    pub made: u64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    pub number: u32,
    pub release: u64,
    pub state: WorkerState,
    pub pid: Option<i32>,
    /// Seconds since 1970.
    pub started: u64,
    /// Requests that it runs.
    pub in_flight: usize,
    /// Bytes of memory that its processes take, what they share counted once.
    pub memory: Option<u64>,
    pub open_files: Option<u64>,
    pub cpu_milliseconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    Starting,
    Serving,
    /// Of a release that is not switched to yet, or stands by.
    Ready,
    Leaving,
}

impl WorkerState {
    pub const ALL: [WorkerState; 4] =
        [WorkerState::Starting, WorkerState::Serving, WorkerState::Ready, WorkerState::Leaving];

    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Serving => "serving",
            WorkerState::Ready => "ready",
            WorkerState::Leaving => "leaving",
        }
    }
}

pub(super) fn of(name: &str, shown: &Shown) -> AppReport {
    let tally = &shown.tally;
    let restarts_by_reason = tally.restarts();
    let mut report = AppReport {
        name: name.to_owned(),
        release: shown.history.current,
        releases: Vec::new(),
        workers: Vec::new(),
        wanted: 0,
        crashing: false,
        restarts: restarts_by_reason.values().fold(0, |sum, count| sum.saturating_add(*count)),
        restarts_by_reason,
        outcomes: tally.releases(),
        cpu_milliseconds: millis(tally.cpu()),
        build_milliseconds: tally.build_milliseconds(),
        start_milliseconds: tally.start_milliseconds(),
        memory_limit: shown.memory_limit,
        trouble: shown.trouble.clone(),
    };
    for record in &shown.releases {
        let (id, directory, made) = (record.id, record.directory.clone(), seconds(record.made));
        report.releases.push(ReleaseReport { id, directory, made });
    }
    for (role, view, release) in &shown.fleets {
        let view = view.borrow();
        if *role == Role::Serving {
            report.wanted = view.wanted;
            report.crashing = view.crashing;
            if view.crashing && report.trouble.is_none() {
                report.trouble = view.failure.as_ref().map(ToString::to_string);
            }
        }
        for worker in &view.workers {
            report.workers.push(WorkerReport {
                number: worker.number,
                release: *release,
                state: match (worker.phase, role) {
                    (Phase::Starting, _) => WorkerState::Starting,
                    (Phase::Ready, Role::Serving) => WorkerState::Serving,
                    (Phase::Ready, Role::Coming | Role::StandingBy) => WorkerState::Ready,
                    (Phase::Leaving, _) => WorkerState::Leaving,
                },
                pid: worker.pid,
                started: seconds(worker.started),
                in_flight: worker.server.as_ref().map_or(0, |server| server.in_flight()),
                memory: worker.usage.map(|usage| usage.resident),
                open_files: worker.usage.and_then(|usage| usage.open_files),
                cpu_milliseconds: worker.usage.map(|usage| millis(usage.cpu)),
            });
        }
    }
    report
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
