//! The workers of one release: as many as there should be, replaced when they end, drained when they have to go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failure::Failure;
use super::launch::Launch;
use super::stage::Stage;
use super::worker::{self, END_PATIENCE, End, Event};
use crate::upstream::Server;

/// A worker that served for this long has not failed at its start.
const LIVED: Duration = Duration::from_secs(10);

/// Workers that fail in a row before that is called a crash loop.
const CRASH_LOOP: u32 = 5;

/// The longest pause before another is tried.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often it is looked whether a worker that must go has nothing to do any more.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

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
    /// Workers that were started in place of one that had ended.
    pub(super) restarts: u64,
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

    /// What came of all requests.
    pub(super) fn outcome(&self) -> Outcome {
        let servers = self.workers.iter().filter_map(|worker| worker.server.as_ref());
        servers.map(|server| Outcome::of(server)).fold(self.gone, Outcome::and)
    }
}

/// What came of requests to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) requests: u64,
    /// Answered by a 5xx, or not at all.
    pub(super) errors: u64,
}

impl Outcome {
    fn of(server: &Server) -> Outcome {
        let health = &server.health;
        let failures = health.failures();
        Outcome {
            requests: health.answers().saturating_add(failures),
            errors: health.errors().saturating_add(failures),
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
        let (events, told) = mpsc::unbounded_channel();
        let crew = Crew {
            id: stage.fleet(),
            wanted: launch.app.settings.workers.min.get(),
            launch: Arc::clone(&launch),
            stage: Arc::clone(stage),
            events,
            members: BTreeMap::new(),
            failures: 0,
            next_start: Instant::now(),
            last_failed: Instant::now(),
            view: seen,
        };
        let task = tokio::spawn(crew.run(received, told));
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

/// What the task knows.
struct Crew {
    id: u64,
    wanted: u32,
    launch: Arc<Launch>,
    stage: Arc<Stage>,
    events: mpsc::UnboundedSender<Event>,
    members: BTreeMap<u32, Member>,
    /// Workers that failed in a row.
    failures: u32,
    /// When the next may be started.
    next_start: Instant,
    last_failed: Instant,
    view: watch::Sender<View>,
}

struct Member {
    phase: Phase,
    pid: Option<i32>,
    began: Instant,
    started: SystemTime,
    server: Option<Arc<Server>>,
    /// Until it is asked to stop.
    stop: Option<oneshot::Sender<Duration>>,
}

impl Member {
    fn is_wanted(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Ready => true,
            Phase::Leaving => false,
        }
    }

    /// Taken off the stage by now, it gets nothing new once that is clear; then it stops, or after `grace`.
    fn leave(&mut self, stage: &Arc<Stage>, grace: Duration) {
        self.phase = Phase::Leaving;
        let Some(stop) = self.stop.take() else { return };
        let Some(server) = self.server.clone() else {
            let _ = stop.send(END_PATIENCE);
            return;
        };
        let stage = Arc::clone(stage);
        let deadline = Instant::now() + grace;
        tokio::spawn(async move {
            while Instant::now() < deadline && !(stage.is_clear() && server.in_flight() == 0) {
                tokio::time::sleep(DRAIN_INTERVAL).await;
            }
            let _ = stop.send(END_PATIENCE);
        });
    }
}

impl Crew {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, mut events: mpsc::UnboundedReceiver<Event>) {
        self.fill();
        self.show(|_| {});
        loop {
            let short_of = self.active() < self.wanted;
            let well_at = self.well_at();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Enter(done)) => {
                        self.stage.enter(self.id, &self.servers(), self.is_expected());
                        let _ = done.send(());
                    }
                    Some(Order::Leave(grace)) => return self.leave(grace, events).await,
                    None => return,
                },
                Some(event) = events.recv() => self.heard(event),
                () = tokio::time::sleep_until(self.next_start), if short_of => self.fill(),
                () = tokio::time::sleep_until(well_at.unwrap_or(self.last_failed)), if well_at.is_some() => self.is_well(),
            }
            self.show(|_| {});
        }
    }

    fn active(&self) -> u32 {
        let active = self.members.values().filter(|member| member.is_wanted()).count();
        u32::try_from(active).unwrap_or(u32::MAX)
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        let ready = self.members.values().filter(|member| member.phase == Phase::Ready);
        ready.filter_map(|member| member.server.clone()).collect()
    }

    /// Whether requests should wait for workers where there are none.
    fn is_expected(&self) -> bool {
        self.failures < CRASH_LOOP
    }

    fn publish(&self) {
        self.stage.publish(self.id, &self.servers(), self.is_expected());
    }

    /// Starts what is missing, if some may be started now.
    fn fill(&mut self) {
        while self.active() < self.wanted && Instant::now() >= self.next_start {
            self.start();
            if self.failures > 0 {
                // One at a time, until it is known to work.
                self.next_start = Instant::now() + pause(self.failures);
            }
        }
    }

    /// When workers will have served for so long that failures before do not count any more.
    fn well_at(&self) -> Option<Instant> {
        let ready = self.members.values().filter(|member| member.phase == Phase::Ready && self.failures > 0);
        let since = ready.map(|member| member.began).min()?.max(self.last_failed);
        since.checked_add(LIVED)
    }

    fn is_well(&mut self) {
        if self.failures >= CRASH_LOOP {
            tracing::info!(app = &*self.launch.app.name, release = self.launch.release, "app does not crash any more");
        }
        self.failures = 0;
        self.next_start = Instant::now();
        self.show(|view| {
            view.failure = None;
            view.crashing = false;
        });
        self.publish();
    }

    fn start(&mut self) {
        let number = self.stage.number();
        let (stop, stopped) = oneshot::channel();
        let member = Member {
            phase: Phase::Starting,
            pid: None,
            began: Instant::now(),
            started: SystemTime::now(),
            server: None,
            stop: Some(stop),
        };
        self.members.insert(number, member);
        tokio::spawn(worker::run(
            Arc::clone(&self.launch),
            Arc::clone(&self.stage),
            number,
            stopped,
            self.events.clone(),
        ));
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Started { number, pid } => {
                if let Some(member) = self.members.get_mut(&number) {
                    member.pid = Some(pid);
                }
            }
            Event::Ready { number, server, took } => self.is_ready(number, server, took),
            Event::Ended { number, end } => self.has_ended(number, end),
        }
    }

    fn is_ready(&mut self, number: u32, server: Arc<Server>, took: Duration) {
        let Some(member) = self.members.get_mut(&number) else { return };
        member.server = Some(server);
        member.began = Instant::now();
        match member.phase {
            Phase::Starting | Phase::Ready => member.phase = Phase::Ready,
            Phase::Leaving => return,
        }
        // What was in the way of a start is not any more: whoever else is missing need not wait.
        self.next_start = Instant::now();
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        tracing::info!(app, release, worker = number, pid = member.pid, milliseconds, "worker ready");
        self.publish();
    }

    fn has_ended(&mut self, number: u32, end: End) {
        let Some(member) = self.members.remove(&number) else { return };
        let lived = member.phase != Phase::Starting && member.began.elapsed() >= LIVED;
        if let Some(server) = &member.server {
            self.show(|view| view.gone = view.gone.and(Outcome::of(server)));
        }
        match end {
            End::Asked => return,
            // What was asked to go has gone.
            End::Failed(_) if member.phase == Phase::Leaving => return,
            End::Failed(failure) => self.has_failed(number, failure, lived),
        }
        self.publish();
        self.fill();
    }

    fn has_failed(&mut self, number: u32, failure: Failure, lived: bool) {
        self.failures = if lived { 1 } else { self.failures.saturating_add(1) };
        let pause = if lived { Duration::ZERO } else { pause(self.failures) };
        self.last_failed = Instant::now();
        self.next_start = self.last_failed + pause;
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        let seconds = pause.as_secs();
        if self.failures == CRASH_LOOP {
            tracing::error!(
                app,
                release,
                worker = number,
                reason = %failure,
                seconds,
                remedy = "See the last lines of its output; it is tried again, more and more slowly.",
                "app crashes again and again"
            );
        } else {
            tracing::warn!(
                app,
                release,
                worker = number,
                reason = failure.why,
                seconds,
                "worker ended: another is started"
            );
        }
        let crashing = self.failures >= CRASH_LOOP;
        self.show(|view| {
            view.failure = Some(failure);
            view.crashing = crashing;
            view.restarts = view.restarts.saturating_add(1);
        });
    }

    /// Sends everybody home.
    async fn leave(mut self, grace: Duration, mut events: mpsc::UnboundedReceiver<Event>) {
        self.wanted = 0;
        for member in self.members.values_mut() {
            member.leave(&self.stage, grace);
        }
        self.show(|_| {});
        while !self.members.is_empty() {
            let Some(event) = events.recv().await else { return };
            self.heard(event);
            self.show(|_| {});
        }
    }

    fn show(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| {
            view.wanted = self.wanted;
            view.workers = self.members.iter().map(|(number, member)| member.view(*number)).collect();
            change(view);
        });
    }
}

impl Member {
    fn view(&self, number: u32) -> WorkerView {
        WorkerView { number, pid: self.pid, phase: self.phase, started: self.started, server: self.server.clone() }
    }
}

/// None before the first is started again; then one second, doubling.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1 << doublings.min(10)).min(LONGEST_PAUSE),
    }
}
