//! How an app is: for `passerelle apps`, `/status` and `/metrics`.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::fleet::Phase;
use super::manager::{Role, Shown};

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
    /// Workers of the release that serves which were started in place of others.
    pub restarts: u64,
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

pub(super) fn of(name: &str, shown: &Shown) -> AppReport {
    let mut report = AppReport {
        name: name.to_owned(),
        release: shown.history.current,
        releases: Vec::new(),
        workers: Vec::new(),
        wanted: 0,
        crashing: false,
        restarts: 0,
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
            report.restarts = view.restarts;
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
            });
        }
    }
    report
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
