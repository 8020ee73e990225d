//! `passerelle run`: from the configuration file to a process that serves, and to its end.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use super::{Exit, print_error, print_problems};
use crate::config::problem::Problem;
use crate::control::systemd::PassedSockets;
use crate::control::{self, Control, First, HangUp, Outcome, Signals, Source, StartFailure};
use crate::gateway::Gateway;
use crate::observe::log;
use crate::observe::metrics::Metrics;

pub(super) fn run(path: &Path) -> Exit {
    // Before anything else opens a descriptor.
    let passed = PassedSockets::take();
    let start = Start {
        source: Source::File(path.to_owned()),
        passed,
        held: Vec::new(),
        fresh: false,
        tell: &|problems, _| print_problems(problems),
        hang_up: HangUp::Reloads,
        hushed: false,
    };
    start.run(async |_| std::future::pending().await)
}

/// What it takes to serve.
pub(super) struct Start<'a> {
    pub(super) source: Source,
    pub(super) passed: Result<PassedSockets, String>,
    /// Sockets that listen already, for the addresses that they have.
    pub(super) held: Vec<TcpListener>,
    /// Whether apps are started with what is in their directories now, instead of what served last.
    pub(super) fresh: bool,
    /// Tells what is wrong with the configuration, and whether it can be used all the same.
    pub(super) tell: &'a dyn Fn(&[Problem], bool),
    pub(super) hang_up: HangUp,
    /// Whether what apps write is not logged at first.
    pub(super) hushed: bool,
}

impl Start<'_> {
    /// Serves to the end, which `beside` may bring about too. It runs from the time at which requests are taken.
    pub(super) fn run(self, beside: impl AsyncFnOnce(Arc<Control>) -> Exit) -> Exit {
        let Start { source, passed, held, fresh, tell, hang_up, hushed } = self;
        let loaded = source.load();
        let files = loaded.files();
        let (built, problems) = loaded.build(|settings, problems| {
            let metrics = Metrics::new(settings.server.workers.get());
            Gateway::build(settings, None, &metrics, problems).map(|gateway| (gateway, metrics))
        });
        tell(&problems, built.is_some());
        let Some((gateway, metrics)) = built else { return Exit::Wrong };
        let passed = match passed {
            Ok(passed) => passed,
            Err(message) => return failed(&message),
        };
        let log = match log::init(&gateway.settings.log, Arc::clone(&metrics)) {
            Ok(log) => log,
            Err(error) => return failed(&error.to_string()),
        };
        log_panics();
        log.log().hush(hushed);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&format!("the control plane's runtime could not be made: {error}")),
        };
        let first = First { gateway, source, files, metrics, log: log.log(), fresh, held };
        let outcome = runtime.block_on(async {
            let signals = Signals::new().map_err(StartFailure::Signals)?;
            let (control, events) = Control::start(first, passed).await?;
            let end = async {
                match control::run_to_end(&control, signals, events, hang_up).await {
                    Outcome::Orderly => Exit::Fine,
                    Outcome::Failed => Exit::Failed,
                }
            };
            Ok(tokio::select! {
                exit = end => exit,
                exit = beside(Arc::clone(&control)) => exit,
            })
        });
        // A task that blocks, a slow disk under a reload, must not hold up the end.
        runtime.shutdown_background();
        outcome.unwrap_or_else(|failure| failed_to_start(&failure))
    }
}

fn failed(message: &str) -> Exit {
    print_error(&format!("passerelle: {message}\n"));
    Exit::Failed
}

/// Told on standard error, where whoever starts a process by hand looks, and in the log.
fn failed_to_start(failure: &StartFailure) -> Exit {
    tracing::error!(reason = %failure, "not started");
    failed(&failure.to_string())
}

/// A panic is a defect. It ends one connection or one task, never the process, so the log must tell of it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(place, thread = thread.name(), message, "panic: a defect of the gateway, please report it");
    }));
}
