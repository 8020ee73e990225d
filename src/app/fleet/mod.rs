//! The workers of one release: as many as there should be, replaced when they end or should, drained when they have to go.
//!
//! [`Fleet`] is what others see. The task behind it is `crew`; `member` is one worker in its eyes, `care` what it does
//! about those that take too much or do not answer.

mod care;
mod crew;
mod member;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::launch::Launch;
use super::stage::Stage;
use super::usage::Usage;
use crate::upstream::Server;
use crew::Crew;

/// The workers of a release, run by a task that ends with this. Then they are killed.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) launch: Arc<Launch>,
    orders: mpsc::UnboundedSender<Order>,
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    /// The switch; it is told when it is done.
    Enter(oneshot::Sender<()>),
    /// Every worker finishes what it has, within the time, and ends; so does the fleet.
    Leave(Duration),
}

/// What is seen of a fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) wanted: u32,
    pub(super) workers: Vec<WorkerView>,
    /// Why the last worker failed that did.
    pub(super) failure: Option<Failure>,
    /// Whether they fail again and again.
    pub(super) crashing: bool,
    /// Of workers that are gone.
    gone: Outcome,
}

#[derive(Clone, Debug)]
pub(super) struct WorkerView {
    pub(super) number: u32,
    pub(super) pid: Option<i32>,
    pub(super) phase: Phase,
    pub(super) started: SystemTime,
    pub(super) server: Option<Arc<Server>>,
    /// What it takes of the machine, once that was looked at.
    pub(super) usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    /// It finishes what it has.
    Leaving,
}

impl View {
    pub(super) fn ready(&self) -> u32 {
        let ready = self.workers.iter().filter(|worker| worker.phase == Phase::Ready).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// What came of all requests to them.
    pub(super) fn outcome(&self) -> Outcome {
        let servers = self.workers.iter().filter_map(|worker| worker.server.as_ref());
        servers.map(|server| Outcome::of(server)).fold(self.gone, Outcome::and)
    }
}

/// What came of requests to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) requests: u64,
    /// Those that were answered by a 5xx, or failed.
    pub(super) errors: u64,
}

impl Outcome {
    fn of(server: &Server) -> Outcome {
        let health = &server.health;
        let unanswered = health.unanswered();
        Outcome {
            requests: health.answers().saturating_add(unanswered),
            errors: health.errors().saturating_add(unanswered),
        }
    }

    fn and(self, other: Outcome) -> Outcome {
        Outcome {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
        }
    }
}

impl Fleet {
    /// Starts the workers; nobody sends them requests yet.
    pub(super) fn start(launch: Arc<Launch>, stage: &Arc<Stage>) -> Fleet {
        let (orders, received) = mpsc::unbounded_channel();
        let (seen, view) = watch::channel(View::default());
        let task = tokio::spawn(Crew::run(Arc::clone(&launch), Arc::clone(stage), seen, received));
        Fleet { launch, orders, view, task }
    }

    /// From now on, these workers get the requests, those that will be ready too.
    pub(super) async fn enter(&self) {
        let (done, told) = oneshot::channel();
        let _ = self.orders.send(Order::Enter(done));
        let _ = told.await;
    }

    /// Lets every worker finish what it has, and waits for their end.
    pub(super) async fn leave(mut self, grace: Duration) {
        let _ = self.orders.send(Order::Leave(grace));
        let _ = (&mut self.task).await;
    }

    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until something changes.
    pub(super) async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all workers are ready.
    ///
    /// # Errors
    /// The first of them that is not.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        loop {
            {
                let view = self.view.borrow_and_update();
                if let Some(failure) = &view.failure {
                    return Err(failure.clone());
                }
                if view.wanted > 0 && view.ready() >= view.wanted {
                    return Ok(());
                }
            }
            self.changed().await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}
