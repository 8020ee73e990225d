//! The task behind a fleet: it hears of its workers, looks at them each second, and starts and sends home whom it must.

mod looks;
mod scaling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::care::Pace;
use super::member::{Farewell, Member};
use super::{Order, Outcome, Phase, View};
use crate::app::failure::Failure;
use crate::app::launch::Launch;
use crate::app::scale::{IDLE_INTERVAL, LOOK_INTERVAL, Scale};
use crate::app::stage::Stage;
use crate::app::tally::RestartReason;
use crate::app::usage::{Tree, Usage};
use crate::app::worker::{self, End, Event};
use crate::upstream::Server;
use crate::upstream::queue::Queue;

/// A worker that served for this long, or answered so often, has not failed at its start.
const LIVED: Duration = Duration::from_secs(10);
const ANSWERED: u64 = 50;

/// Workers that fail in a row before that is called a crash loop.
const CRASH_LOOP: u32 = 5;

/// The longest pause before another is tried.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often workers are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What a look at one worker's processes found, by its number.
type Looked = Vec<(u32, Tree, Option<Usage>)>;

/// What the task knows.
pub(super) struct Crew {
    id: u64,
    wanted: u32,
    /// Everybody goes; the fleet ends with the last.
    leaving: bool,
    launch: Arc<Launch>,
    stage: Arc<Stage>,
    queue: Arc<Queue>,
    events: mpsc::UnboundedSender<Event>,
    members: BTreeMap<u32, Member>,
    /// Workers that failed in a row.
    failures: u32,
    /// When the next may be started.
    next_start: Instant,
    scale: Scale,
    pace: Pace,
    /// When whoever listens no more is seen to.
    gone: Option<Instant>,
    /// The look at all workers that is going on, and when the one before ended.
    looking: JoinSet<Looked>,
    looked: Instant,
    view: watch::Sender<View>,
}

impl Crew {
    /// Starts workers, and keeps them until it is told to leave.
    pub(super) async fn run(
        launch: Arc<Launch>,
        stage: Arc<Stage>,
        view: watch::Sender<View>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let (events, told) = mpsc::unbounded_channel();
        let scale = Scale::new(launch.app.settings.workers);
        let upstream = stage.upstream.load();
        // A release under load takes over from as many as that has brought by now.
        let serving = u32::try_from(upstream.servers().len()).unwrap_or(u32::MAX);
        let crew = Crew {
            id: stage.fleet(),
            wanted: scale.clamp(serving),
            leaving: false,
            queue: Arc::clone(&upstream.queue),
            launch,
            stage: Arc::clone(&stage),
            events,
            members: BTreeMap::new(),
            failures: 0,
            next_start: Instant::now(),
            scale,
            pace: Pace::new(Instant::now()),
            gone: None,
            looking: JoinSet::new(),
            looked: Instant::now(),
            view,
        };
        crew.work(orders, told).await;
    }

    async fn work(mut self, mut orders: mpsc::UnboundedReceiver<Order>, mut events: mpsc::UnboundedReceiver<Event>) {
        let queue = Arc::clone(&self.queue);
        let mut ticks = every(TICK);
        let mut looks = every(LOOK_INTERVAL);
        let mut idles = every(IDLE_INTERVAL);
        self.fill();
        loop {
            self.show(|_| {});
            if self.leaving && self.members.is_empty() {
                return;
            }
            let short_of = self.active() < self.wanted;
            let (scales, gone) = (self.scales(), self.gone);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Enter(done)) => {
                        self.scale.begin();
                        self.stage.enter(self.id, &self.servers(), self.is_expected());
                        let _ = done.send(());
                    }
                    Some(Order::Leave(grace)) => self.leave(grace),
                    None => return,
                },
                Some(event) = events.recv() => self.heard(event),
                () = tokio::time::sleep_until(self.next_start), if short_of => self.fill(),
                _ = ticks.tick() => self.tick(),
                () = queue.worker_gone.notified() => self.notice_gone(),
                () = tokio::time::sleep_until(gone.unwrap_or(self.next_start)), if gone.is_some() => {
                    self.gone = None;
                    self.care_for_gone();
                }
                Some(looked) = self.looking.join_next() => self.have_looked(looked),
                () = queue.lengthened.notified(), if scales && queue.is_empty() => self.somebody_waits(),
                _ = looks.tick(), if scales && !queue.is_empty() => self.rescale(),
                _ = idles.tick(), if scales && self.scale.may_shrink(self.wanted) => self.rescale(),
            }
        }
    }

    fn active(&self) -> u32 {
        self.count(Member::is_wanted)
    }

    fn ready(&self) -> u32 {
        self.count(|member| member.phase == Phase::Ready)
    }

    fn count(&self, is_it: impl Fn(&Member) -> bool) -> u32 {
        let count = self.members.values().filter(|member| is_it(member)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
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

    /// Starts what is missing, if some may be started now: beside those that are wanted one at a time for another that is
    /// to be replaced.
    fn fill(&mut self) {
        let is_condemned = |member: &Member| member.phase == Phase::Ready && member.condemned.is_some();
        while Instant::now() >= self.next_start {
            let replaces = self.members.values().any(is_condemned) && self.pace.allows(Instant::now());
            if self.active() >= self.wanted.saturating_add(u32::from(replaces)) {
                return;
            }
            self.start();
            if self.failures > 0 {
                // One at a time, until it is known to work.
                self.next_start = Instant::now() + pause(self.failures);
            }
        }
    }

    fn start(&mut self) {
        let number = self.stage.number();
        let (stop, stopped) = oneshot::channel();
        self.members.insert(number, Member::new(stop));
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
            Event::Started { number, pid, keeper } => {
                if let Some(member) = self.members.get_mut(&number) {
                    member.pid = Some(pid);
                    member.tree = keeper.map(|keeper| Tree::new(keeper, pid));
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
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        tracing::info!(app, release, worker = number, pid = member.pid, milliseconds, "worker ready");
        // What was in the way of a start is not any more: whoever else is missing need not wait.
        self.next_start = Instant::now();
        self.thin_out();
        self.publish();
        self.fill();
    }

    /// Sends those home who are too many, after they were taken off: whoever is to be replaced before others, then whoever
    /// has least to do, then the oldest.
    fn thin_out(&mut self) {
        while self.ready() > self.wanted {
            let ready = self.members.iter().filter(|(_, member)| member.phase == Phase::Ready);
            let order = |member: &Member| (member.condemned.is_none(), member.in_flight(), member.began);
            let Some(number) = ready.min_by_key(|(_, member)| order(member)).map(|(number, _)| *number) else { return };
            self.retire(number);
        }
    }

    fn retire(&mut self, number: u32) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        let (age, runs) = (member.began.elapsed(), member.in_flight());
        member.phase = Phase::Leaving;
        let farewell = match member.condemned {
            Some(reason) => {
                let pause = self.pace.replaced(age, Instant::now()).as_secs();
                self.stage.tally.restarted(reason);
                let (reason, age) = (reason.as_str(), age.as_secs());
                tracing::info!(app, release, worker = number, reason, age, runs, pause, "worker replaced: it finishes");
                Farewell::unhurried(self.stage.grace())
            }
            None => {
                tracing::info!(app, release, worker = number, runs, "one worker less: it finishes");
                Farewell::idle()
            }
        };
        self.publish();
        if let Some(member) = self.members.get_mut(&number) {
            member.leave(&self.stage, farewell);
        }
    }

    fn has_ended(&mut self, number: u32, end: End) {
        let Some(member) = self.members.remove(&number) else { return };
        if let Some(server) = &member.server {
            self.show(|view| view.gone = view.gone.and(Outcome::of(server)));
        }
        match end {
            End::Asked => {}
            // What was asked to go has gone.
            End::Failed(_) if member.phase == Phase::Leaving => {}
            End::Failed(failure) => {
                let reason = match member.phase {
                    Phase::Starting => RestartReason::NotStarted,
                    Phase::Ready | Phase::Leaving => RestartReason::Exited,
                };
                self.has_failed(number, failure, has_lived(&member), reason);
                self.publish();
            }
        }
        self.fill();
    }

    fn has_failed(&mut self, number: u32, failure: Failure, lived: bool, why: RestartReason) {
        self.failures = if lived { 1 } else { self.failures.saturating_add(1) };
        let pause = if lived { Duration::ZERO } else { pause(self.failures) };
        self.next_start = Instant::now() + pause;
        self.stage.tally.restarted(why);
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
        });
    }

    /// Sends everybody home.
    fn leave(&mut self, grace: Duration) {
        self.wanted = 0;
        self.leaving = true;
        for member in self.members.values_mut() {
            member.leave(&self.stage, Farewell::within(grace));
        }
    }

    /// Once a second.
    fn tick(&mut self) {
        self.look();
        self.notice_gone();
        self.care_for_health();
        self.recover();
        self.fill();
    }

    /// Once all have served for a while, what failed before is no crash loop any more.
    fn recover(&mut self) {
        let is_well = |member: &Member| member.phase != Phase::Starting && has_lived(member);
        if self.failures == 0 || self.ready() < self.wanted || !self.members.values().all(is_well) {
            return;
        }
        if self.failures >= CRASH_LOOP {
            tracing::info!(app = &*self.launch.app.name, release = self.launch.release, "app runs again");
        }
        self.failures = 0;
        self.publish();
        self.show(|view| {
            view.failure = None;
            view.crashing = false;
        });
    }

    fn show(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| {
            view.wanted = self.wanted;
            view.workers = self.members.iter().map(|(number, member)| member.view(*number)).collect();
            change(view);
        });
    }
}

fn every(interval: Duration) -> Interval {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn has_lived(member: &Member) -> bool {
    let has_answered = member.server.as_ref().is_some_and(|server| server.health.answers() >= ANSWERED);
    member.phase != Phase::Starting && (member.began.elapsed() >= LIVED || has_answered)
}

/// None before the first is started again; then one second, doubling.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1 << doublings.min(10)).min(LONGEST_PAUSE),
    }
}
