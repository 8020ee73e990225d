//! Signals, and the way from the first of them to the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::reload::Trigger;
use super::systemd::{self, State};
use super::{Control, Events, watch};
use crate::admin::ReloadRequest;
use crate::server::threads::Ended;

/// How long it may take to tell those who waited for a slot that they wait in vain.
const FAREWELL: Duration = Duration::from_millis(100);

/// How long what apps still do may take once no client waits for it any more.
const APPS_GRACE: Duration = Duration::from_secs(1);

/// How long workers may take to close what they were told to cut off.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How the process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By a signal.
    Orderly,
    /// Something that must run for as long as the process does has failed; it was logged.
    Failed,
}

/// The signals that mean something. From here on they no longer end the process by themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
    /// A file grew past `RLIMIT_FSIZE`. Handled, it fails the write with `EFBIG`, which whoever wrote copes with.
    _file_too_large: Signal,
}

impl Signals {
    /// Within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            _file_too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The configuration is read again.
    Reloads,
    /// The terminal is closed, and with it goes what was started in it.
    Ends,
    /// It was started so that it outlives its terminal.
    MeansNothing,
}

/// Serves until a signal or a failure, then brings everything to its end.
pub async fn run_to_end(control: &Arc<Control>, mut signals: Signals, mut events: Events, hang_up: HangUp) -> Outcome {
    let watching = tokio::spawn(watch::run(Arc::clone(control)));
    systemd::notify(State::Ready);
    let outcome = serve(control, &mut signals, &mut events, hang_up).await;
    watching.abort();

    systemd::notify(State::Stopping);
    control.lifecycle.draining();
    let settings = control.snapshot().settings.server.clone();
    let leaving = async {
        if outcome == Outcome::Orderly {
            tokio::time::sleep(settings.drain_delay).await;
        }
        drain(control, &mut events.ended, settings.shutdown_grace).await;
        control.plane.lock().await.tasks.apps.leave(APPS_GRACE).await;
    };
    let cut_short = tokio::select! {
        () = leaving => false,
        _ = signals.end() => true,
    };
    if cut_short {
        tracing::warn!("told to end a second time: ending at once");
    } else {
        tracing::info!("ended");
    }
    outcome
}

/// Obeys the signals that do not end the process, until one does.
async fn serve(control: &Arc<Control>, signals: &mut Signals, events: &mut Events, hang_up: HangUp) -> Outcome {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return told("SIGTERM"),
            _ = signals.interrupt.recv() => return told("SIGINT"),
            _ = signals.hang_up.recv() => match hang_up {
                HangUp::Reloads => {
                    let control = Arc::clone(control);
                    // Beside the signals, which must not wait for it. How it went is logged there.
                    tokio::spawn(async move { control.reload(Trigger::Signal).await });
                }
                HangUp::Ends => return told("SIGHUP"),
                HangUp::MeansNothing => {}
            },
            Some(ReloadRequest { answer }) = events.reloads.recv() => {
                let control = Arc::clone(control);
                tokio::spawn(async move {
                    let outcome = control.reload(Trigger::ControlSocket).await;
                    // Whoever asked may have left.
                    let _ = answer.send(outcome);
                });
            }
            _ = signals.reopen.recv() => control.log.reopen(),
            worker = events.ended.recv() => {
                tracing::error!(worker = worker.map(|ended| ended.worker.0), "a worker thread failed: ending");
                return Outcome::Failed;
            }
        }
    }
}

fn told(signal: &str) -> Outcome {
    tracing::info!(signal, "told to end");
    Outcome::Orderly
}

/// Stops accepting, and waits for what is open; cuts off what remains after `grace`. Those who only wait for a slot then
/// have reached no server, and are told so.
async fn drain(control: &Control, ended: &mut mpsc::UnboundedReceiver<Ended>, grace: Duration) {
    let plane = control.plane.lock().await;
    plane.workers.drain();
    let deadline = Instant::now() + grace;
    if timeout_at(deadline, all(ended)).await.is_err() {
        tracing::warn!(
            grace_seconds = grace.as_secs(),
            remedy = "Raise shutdown_grace in [server].",
            "connections are cut off: shutdown_grace is over"
        );
        for upstream in control.snapshot().upstreams.values() {
            upstream.end_queue();
        }
        let farewell = timeout_at(Instant::now() + FAREWELL, all(ended));
        if farewell.await.is_ok() {
            return;
        }
        plane.workers.stop();
        if let Ok(cut_off) = timeout_at(Instant::now() + STOP_WITHIN, all(ended)).await {
            tracing::warn!(connections = cut_off, "cut off");
        }
    }
}

/// Waits for every worker's end; returns how many connections they cut off.
async fn all(ended: &mut mpsc::UnboundedReceiver<Ended>) -> usize {
    let mut cut_off = 0_usize;
    while let Some(worker) = ended.recv().await {
        cut_off = cut_off.saturating_add(worker.cut_off);
    }
    cut_off
}
