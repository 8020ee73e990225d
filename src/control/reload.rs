//! From one snapshot to the next: everything that can fail comes before the swap, nothing that is in use ends by it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Control;
use super::sockets::BindFailure;
use super::systemd::{self, State};
use super::watch::{self, MadeOf};
use crate::admin::{Phase, ReloadOutcome, Unavailable};
use crate::app;
use crate::config::problem::{Problem, Severity};
use crate::config::render;
use crate::config::settings::Settings;
use crate::config::source::{SourceFile, Span};
use crate::gateway::Gateway;
use crate::observe::log::LogError;
use crate::observe::metrics::ReloadResult;

/// A reload that took effect.
#[derive(Debug)]
struct Report {
    warnings: Vec<Problem>,
    /// Addresses that were added and given up, as in the file.
    opened: Vec<String>,
    closed: Vec<String>,
    took: Duration,
}

/// Why a reload changed nothing.
#[derive(Debug)]
enum Failure {
    /// Everything that is wrong with the configuration, warnings too.
    Configuration(Vec<Problem>),
    Bind(BindFailure),
    Admin(Unavailable),
    /// The directory of apps cannot be made.
    State(std::io::Error),
    /// `[log]` cannot be put in force.
    Log(LogError),
    /// The gateway is about to end.
    Leaving,
    /// Building the snapshot panicked.
    Internal,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Configuration(_) => f.write_str("the configuration has errors"),
            Failure::Bind(failure) => failure.fmt(f),
            Failure::Admin(unavailable) => unavailable.fmt(f),
            Failure::State(error) => write!(f, "state_directory of [server] cannot be made: {error}"),
            Failure::Log(error) => error.fmt(f),
            Failure::Leaving => f.write_str("the gateway is about to end"),
            Failure::Internal => f.write_str("the gateway failed to build the new configuration"),
        }
    }
}

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Signal,
    FileChange,
    ControlSocket,
}

impl Trigger {
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::FileChange => "file_change",
            Trigger::ControlSocket => "control_socket",
        }
    }
}

/// A configuration read and compiled, or what is wrong with it.
struct Built {
    file: Arc<SourceFile>,
    gateway: Option<Gateway>,
    problems: Vec<Problem>,
    made_of: MadeOf,
}

impl Control {
    /// Reads the configuration again and puts it in force: for requests and connections from now on, while those
    /// under way keep what they began with. Where that cannot be done the one before serves on, untouched. How it went
    /// is logged and counted too.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger) -> ReloadOutcome {
        systemd::notify(State::Reloading(systemd::monotonic()));
        let outcome = match self.swap().await {
            Ok(report) => self.succeeded(trigger, &report),
            Err(failure) => self.failed(trigger, &failure),
        };
        systemd::notify(State::Ready);
        outcome
    }

    fn succeeded(&self, trigger: Trigger, report: &Report) -> ReloadOutcome {
        self.metrics.reloaded(ReloadResult::Success);
        tell(&report.warnings);
        let outcome = self.lifecycle.reload_succeeded();
        let generation = match &outcome {
            ReloadOutcome::Loaded { generation } => Some(*generation),
            ReloadOutcome::Failed { .. } => None,
        };
        let milliseconds = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
        let (opened, closed) = (report.opened.join(" "), report.closed.join(" "));
        tracing::info!(trigger = trigger.as_str(), generation, opened, closed, milliseconds, "reloaded");
        outcome
    }

    fn failed(&self, trigger: Trigger, failure: &Failure) -> ReloadOutcome {
        self.metrics.reloaded(ReloadResult::Failure);
        let problems = match failure {
            Failure::Configuration(problems) => {
                tell(problems);
                render::human(problems, false)
            }
            Failure::Bind(_)
            | Failure::Admin(_)
            | Failure::State(_)
            | Failure::Log(_)
            | Failure::Leaving
            | Failure::Internal => failure.to_string(),
        };
        tracing::error!(trigger = trigger.as_str(), reason = %failure,
            "not reloaded: the configuration before serves on");
        self.lifecycle.reload_failed(problems)
    }

    async fn swap(self: &Arc<Self>) -> Result<Report, Failure> {
        let _turn = self.reloading.lock().await;
        let began = Instant::now();
        let before = self.snapshot();
        // Reading files and compiling may take long; probes and /metrics go on meanwhile.
        let this = Arc::clone(self);
        let building = Arc::clone(&before);
        let built = self.aside.run(move || this.build(&building)).await;
        let Built { file, gateway, mut problems, made_of } = built.map_err(|_| Failure::Internal)?;
        // A file that the broken configuration was made of may be the one that is mended next.
        self.watch(made_of, gateway.is_some());
        let Some(gateway) = gateway else { return Err(Failure::Configuration(problems)) };
        let mut plane = self.plane.lock().await;
        match self.lifecycle.phase() {
            Phase::Starting | Phase::Serving => {}
            Phase::Draining => return Err(Failure::Leaving),
        }
        let opened = plane.sockets.open(&gateway).map_err(Failure::Bind)?;
        let names = opened.names();
        app::prepare_state(&gateway).map_err(Failure::State)?;
        let endpoints = plane.endpoints.prepare(&gateway.settings.admin).map_err(Failure::Admin)?;
        if gateway.settings.log != self.snapshot().settings.log {
            self.log.apply(&gateway.settings.log).map_err(Failure::Log)?;
        }

        // Nothing fails from here on.
        let gateway = Arc::new(gateway);
        let plane = &mut *plane;
        plane.tasks.apply(&gateway).await;
        self.newest.store(Arc::clone(&gateway));
        plane.workers.look();
        plane.tasks.apps.swapped(&gateway, Arc::downgrade(&before));
        // No request is the last to hold it: that one would have to take it apart.
        tokio::spawn(self.aside.clone().retire(before));
        self.lifecycle.bound(plane.sockets.commit(opened, &gateway, &plane.workers));
        plane.endpoints.commit(endpoints);
        let superfluous = plane.sockets.superfluous(&gateway);
        plane.workers.give_up(&superfluous).await;
        problems.extend(unchanged(plane.workers.count(), &gateway.settings, &file));
        Ok(Report {
            warnings: problems,
            opened: names,
            closed: superfluous.iter().map(ToString::to_string).collect(),
            took: began.elapsed(),
        })
    }

    fn build(&self, before: &Gateway) -> Built {
        let looks = watch::looks(&self.files.borrow().files);
        let loaded = self.source.load();
        let (file, files) = (Arc::clone(&loaded.file), loaded.files());
        let (gateway, problems) =
            loaded.build(|settings, problems| Gateway::build(settings, Some(before), &self.metrics, problems));
        Built { file, gateway, problems, made_of: MadeOf { files, looks } }
    }

    /// Replaces what is watched; where the configuration could not be used, adds to it.
    fn watch(&self, mut made_of: MadeOf, replace: bool) {
        self.files.send_modify(|watched| {
            if !replace {
                made_of.files.extend(watched.files.iter().cloned());
            }
            made_of.files.sort();
            made_of.files.dedup();
            *watched = made_of;
        });
    }
}

/// Logs each problem on a line of its own.
fn tell(problems: &[Problem]) {
    for problem in problems {
        let (file, help) = (&problem.span.file.name, problem.help.as_deref());
        let line = (!problem.span.is_whole_file()).then(|| problem.span.file.position(problem.span.start).0);
        match problem.severity {
            Severity::Error => tracing::error!(file, line, help, "{}", problem.message),
            Severity::Warning => tracing::warn!(file, line, help, "{}", problem.message),
        }
    }
}

/// What the new configuration asks for and only a new start can give.
fn unchanged(workers: usize, settings: &Settings, file: &Arc<SourceFile>) -> Option<Problem> {
    let wanted = settings.server.workers.get();
    (wanted != workers).then(|| {
        let message = format!("`workers` of [server] is {wanted}, but {workers} are running");
        Problem::warning(&Span::whole_file(file), message).help("it takes effect at the next start")
    })
}
