//! Apps as `/status` and `/metrics` tell of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::app::report::{AppReport, WorkerReport, WorkerState};
use crate::app::tally::{ReleaseOutcome, RestartReason};
use crate::observe::metrics::{AppReading, AppWorkerReading};
use crate::observe::timestamp::rfc3339;

#[derive(Serialize)]
pub(super) struct AppStatus {
    name: String,
    /// Absent while none serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<u64>,
    /// Those that are kept.
    releases: Vec<ReleaseStatus>,
    /// How many came to what since the gateway runs the app.
    outcomes: BTreeMap<ReleaseOutcome, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_seconds: Option<f64>,
    wanted: u32,
    crashing: bool,
    restarts: BTreeMap<RestartReason, u64>,
    cpu_seconds: f64,
    /// Of each worker; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit_bytes: Option<u64>,
    workers: Vec<WorkerStatus>,
    /// What went wrong last, in a line: what the app itself said of it is in the log, and in `passerelle apps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ReleaseStatus {
    id: u64,
    made: String,
}

#[derive(Serialize)]
struct WorkerStatus {
    number: u32,
    release: u64,
    state: WorkerState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    started: String,
    in_flight: usize,
    /// Absent until it was looked at, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds: Option<f64>,
}

pub(super) fn status(report: AppReport) -> AppStatus {
    let release = |id, made| ReleaseStatus { id, made: rfc3339(time(made)) };
    AppStatus {
        release: report.release,
        releases: report.releases.iter().map(|kept| release(kept.id, kept.made)).collect(),
        outcomes: report.outcomes,
        build_seconds: report.build_milliseconds.map(seconds),
        start_seconds: report.start_milliseconds.map(seconds),
        wanted: report.wanted,
        crashing: report.crashing,
        restarts: report.restarts_by_reason,
        cpu_seconds: seconds(report.cpu_milliseconds),
        memory_limit_bytes: report.memory_limit,
        workers: report.workers.iter().map(worker_status).collect(),
        reason: report.trouble.as_deref().and_then(|trouble| trouble.lines().next()).map(str::to_owned),
        name: report.name,
    }
}

fn worker_status(worker: &WorkerReport) -> WorkerStatus {
    WorkerStatus {
        number: worker.number,
        release: worker.release,
        state: worker.state,
        pid: worker.pid,
        started: rfc3339(time(worker.started)),
        in_flight: worker.in_flight,
        memory_bytes: worker.memory,
        open_files: worker.open_files,
        cpu_seconds: worker.cpu_milliseconds.map(seconds),
    }
}

pub(super) fn reading(report: &AppReport) -> AppReading {
    let now = SystemTime::now();
    let count = |state| report.workers.iter().filter(|worker| worker.state == state).count();
    let states = WorkerState::ALL.map(|state| (state.as_str(), u64::try_from(count(state)).unwrap_or(u64::MAX)));
    let workers = report.workers.iter().map(|worker| AppWorkerReading {
        number: worker.number,
        age_seconds: now.duration_since(time(worker.started)).map_or(0, |age| age.as_secs()),
        memory: worker.memory,
        open_files: worker.open_files,
    });
    AppReading {
        app: report.name.clone(),
        release: report.release,
        releases: report.outcomes.iter().map(|(outcome, count)| (outcome.as_str(), *count)).collect(),
        states: states.to_vec(),
        wanted: report.wanted,
        restarts: report.restarts_by_reason.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
        cpu_seconds: seconds(report.cpu_milliseconds),
        build_seconds: report.build_milliseconds.map(seconds),
        start_seconds: report.start_milliseconds.map(seconds),
        memory_limit: report.memory_limit,
        workers: workers.collect(),
    }
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}
