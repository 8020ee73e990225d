//! One worker as its fleet sees it, and how it goes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::care::Watched;
use super::{Phase, WorkerView};
use crate::app::stage::Stage;
use crate::app::tally::RestartReason;
use crate::app::usage::{Tree, Usage};
use crate::app::worker::{Asked, END_PATIENCE};
use crate::upstream::Server;

/// How often it is looked whether a worker that must go has nothing to do any more: at first, and after a while.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Requests to a worker that goes for reasons of the gateway's may take as long as this, which is as long as they like.
const WHOLE: Duration = Duration::from_secs(3600);

pub(super) struct Member {
    pub(super) phase: Phase,
    pub(super) pid: Option<i32>,
    /// Since it was started, or since it is ready.
    pub(super) began: Instant,
    pub(super) started: SystemTime,
    pub(super) server: Option<Arc<Server>>,
    /// Its processes, unless they are just looked at.
    pub(super) tree: Option<Tree>,
    pub(super) usage: Option<Usage>,
    pub(super) watched: Watched,
    /// Why another is to take its place.
    pub(super) condemned: Option<RestartReason>,
    pub(super) killed: bool,
    /// Until it is asked to stop.
    stop: Option<oneshot::Sender<Asked>>,
    /// From then on.
    leaving: Option<watch::Sender<Farewell>>,
}

/// How long a worker that goes may still have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    requests: Instant,
    upgraded: Instant,
    /// From being asked to end until it is killed.
    end: Duration,
}

impl Farewell {
    /// The gateway or the release ends.
    pub(super) fn within(grace: Duration) -> Farewell {
        let until = Instant::now() + grace;
        Farewell { requests: until, upgraded: until, end: END_PATIENCE }
    }

    /// There is no hurry, but for connections that may be open for days.
    pub(super) fn unhurried(grace: Duration) -> Farewell {
        let now = Instant::now();
        Farewell { requests: now + WHOLE.max(grace), upgraded: now + grace, end: END_PATIENCE }
    }

    /// There is no hurry at all.
    pub(super) fn idle() -> Farewell {
        Farewell::within(WHOLE)
    }

    pub(super) fn at_once() -> Farewell {
        let now = Instant::now();
        Farewell { requests: now, upgraded: now, end: Duration::ZERO }
    }

    fn and(self, other: Farewell) -> Farewell {
        Farewell {
            requests: self.requests.min(other.requests),
            upgraded: self.upgraded.min(other.upgraded),
            end: self.end.min(other.end),
        }
    }

    fn is_over(self, server: &Server, is_clear: bool) -> bool {
        let now = Instant::now();
        let has_requests = !is_clear || server.busy() > 0;
        let is_open = server.in_flight() > server.busy();
        (!has_requests || now >= self.requests) && (!is_open || now >= self.upgraded)
    }
}

impl Member {
    pub(super) fn new(stop: oneshot::Sender<Asked>) -> Member {
        Member {
            phase: Phase::Starting,
            pid: None,
            began: Instant::now(),
            started: SystemTime::now(),
            server: None,
            tree: None,
            usage: None,
            watched: Watched::default(),
            condemned: None,
            killed: false,
            stop: Some(stop),
            leaving: None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Ready => true,
            Phase::Leaving => false,
        }
    }

    /// Requests that it runs, and connections that were upgraded.
    pub(super) fn in_flight(&self) -> usize {
        self.server.as_ref().map_or(0, |server| server.in_flight())
    }

    /// Taken off the stage by now, it gets nothing new once that is clear; then it stops, or when its time is over. One
    /// that goes already may be told to hurry.
    pub(super) fn leave(&mut self, stage: &Arc<Stage>, farewell: Farewell) {
        self.phase = Phase::Leaving;
        if let Some(leaving) = &self.leaving {
            leaving.send_modify(|until| *until = until.and(farewell));
            return;
        }
        let Some(stop) = self.stop.take() else { return };
        let Some(server) = self.server.clone() else {
            let _ = stop.send(Asked::ToEnd(farewell.end));
            return;
        };
        let (leaving, until) = watch::channel(farewell);
        self.leaving = Some(leaving);
        tokio::spawn(drain(Arc::clone(stage), server, until, stop));
    }

    /// It is killed at once, and counts as failed; unless it goes already.
    pub(super) fn fail(&mut self, why: String) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(Asked::Failed(why));
        }
    }

    pub(super) fn view(&self, number: u32) -> WorkerView {
        let Member { phase, pid, started, usage, .. } = *self;
        WorkerView { number, pid, phase, started, usage, server: self.server.clone() }
    }
}

async fn drain(
    stage: Arc<Stage>,
    server: Arc<Server>,
    mut until: watch::Receiver<Farewell>,
    stop: oneshot::Sender<Asked>,
) {
    let mut pause = FIRST_LOOK;
    loop {
        let farewell = *until.borrow_and_update();
        if farewell.is_over(&server, stage.is_clear()) {
            let _ = stop.send(Asked::ToEnd(farewell.end));
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = until.changed() => if changed.is_err() {
                // The fleet is gone, and with it the worker.
                return;
            },
        }
        pause = pause.saturating_mul(2).min(LONGEST_LOOK);
    }
}
