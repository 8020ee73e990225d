//! Where requests wait for a slot: one bounded queue an upstream, for all workers and from snapshot to snapshot.
//!
//! A request that finds a slot free does not come here, and takes no lock. Whoever must wait lines up under the lock
//! and tries once more; whoever gives a slot back and sees somebody waiting hands it on under the lock. A request whose
//! client leaves is taken out of the line at once. Beside, the control plane looks at a line that is not empty several
//! times a second: servers come back, names get other addresses, checks find everything down.

mod line;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Lease, Upstream};
use crate::config::settings::{Priority, QueueSettings};
use crate::observe::metrics::{Dropped, UpstreamMetrics, WorkerId};
use crate::request::rejection::Cause;
use line::{Key, Leaves, Line};

/// How many of the line are asked whether a free slot is for them, where they differ: those that are tried again wait
/// for certain servers, and those of a snapshot before may know others.
const MOST_ASKED: usize = 64;

/// The longest that a client is told to stay away.
pub(super) const LONGEST_RETRY: u64 = 30;

/// See the module.
pub struct Queue {
    /// How many wait; written under the lock, read by everybody.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
    /// Tells the control plane that somebody waits.
    pub(super) begun: Notify,
    /// The same, to whoever decides how many workers an app has.
    pub lengthened: Notify,
    /// Tells whoever runs an app that a worker listens no more.
    pub worker_gone: Notify,
    metrics: Arc<UpstreamMetrics>,
}

struct Inner {
    settings: QueueSettings,
    line: Line<Waiter>,
    /// Whether those who wait differ in which slots are for them.
    mixed: bool,
}

/// A request that waits.
struct Waiter {
    /// Of its own snapshot.
    upstream: Arc<Upstream>,
    hash: Option<u64>,
    tried: Box<[u64]>,
    tell: Tell,
}

type Tell = oneshot::Sender<Result<Lease, Refused>>;

/// What those are told who leave the line.
type Told = Vec<(Tell, Result<Lease, Refused>)>;

/// Why one who waited gets no slot.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Full,
    Timeout,
    Overload,
    /// Whoever waits longer waits in vain.
    NoServer(Cause),
}

impl Refused {
    fn cause(self) -> Cause {
        match self {
            Refused::Full => Cause::QueueFull,
            Refused::Timeout => Cause::QueueTimeout,
            Refused::Overload => Cause::Overloaded,
            Refused::NoServer(cause) => cause,
        }
    }

    fn counted(self) -> Dropped {
        match self {
            Refused::Full => Dropped::Full,
            Refused::Timeout => Dropped::Timeout,
            Refused::Overload => Dropped::Overload,
            Refused::NoServer(_) => Dropped::NoServer,
        }
    }
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) hash: Option<u64>,
    pub(super) tried: &'a [u64],
    pub(super) priority: Priority,
    pub(super) worker: WorkerId,
    /// How long it has waited for slots of earlier attempts.
    pub(super) waited: Duration,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings, metrics: &Arc<UpstreamMetrics>) -> Queue {
        let line = Line::new(settings, Instant::now());
        Queue {
            waiting: AtomicUsize::new(0),
            inner: Mutex::new(Inner { settings, line, mixed: false }),
            begun: Notify::new(),
            lengthened: Notify::new(),
            worker_gone: Notify::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// A snapshot with these settings is in force.
    pub(super) fn set(&self, settings: QueueSettings) {
        let mut inner = self.lock();
        inner.settings = settings;
        inner.line.set(settings);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more of this class would be let in now.
    pub fn has_room(&self, class: Priority) -> bool {
        self.lock().line.has_room(class)
    }

    /// Seconds after which one who was refused may come again: by then as many as wait now have got a slot. A little
    /// more for some than for others, so that they do not all come back at once.
    pub fn retry_after(&self) -> u64 {
        let drains_in = self.lock().line.drains_in(Instant::now()).map_or(1, |time| time.as_secs().saturating_add(1));
        let seconds = drains_in.clamp(1, LONGEST_RETRY);
        seconds.saturating_add(fastrand::u64(..=seconds / 2))
    }

    /// Waits for a slot; `waited` is told how long, however it ends.
    ///
    /// # Errors
    /// `QueueFull`, `QueueTimeout`, `Overloaded`; or why no server can be had at all.
    pub(super) async fn wait(
        &self,
        upstream: &Arc<Upstream>,
        wanted: Wanted<'_>,
        waited: impl Fn(Duration),
    ) -> Result<Lease, Cause> {
        let began = Instant::now();
        let (tell, mut told) = oneshot::channel();
        let waiter = Waiter { upstream: Arc::clone(upstream), hash: wanted.hash, tried: wanted.tried.into(), tell };
        let Some((key, max_wait)) = self.line_up(wanted.priority, waiter, began) else {
            self.metrics.dropped(wanted.worker, Dropped::Full);
            return Err(Cause::QueueFull);
        };
        let mut place = Place { queue: self, key, began, worker: wanted.worker, waited, left: false };
        let patience = max_wait.saturating_sub(wanted.waited);
        let outcome = match tokio::time::timeout(patience, &mut told).await {
            Ok(outcome) => outcome,
            Err(_) if self.leave(key, Leaves::TimeUp, Instant::now()) => Ok(Err(Refused::Timeout)),
            // A slot was found for it at the last moment.
            Err(_) => told.await,
        };
        place.left = true;
        // The other end is never given up untold.
        match outcome.unwrap_or(Err(Refused::NoServer(Cause::Internal))) {
            Ok(lease) => {
                self.metrics.waited(wanted.worker, began.elapsed());
                Ok(lease)
            }
            Err(refused) => {
                self.metrics.dropped(wanted.worker, refused.counted());
                Err(refused.cause())
            }
        }
    }

    /// Lines a waiter up, and seats whoever can be. `None`: the line is full.
    fn line_up(&self, class: Priority, waiter: Waiter, now: Instant) -> Option<(Key, Duration)> {
        let mut told = Told::new();
        let lined_up = {
            let mut inner = self.lock();
            inner.mixed |= !waiter.tried.is_empty()
                || inner.line.any().is_some_and(|other| !Arc::ptr_eq(&other.upstream, &waiter.upstream));
            let max_wait = inner.settings.max_wait;
            let lined_up = match inner.line.join(class, waiter, now) {
                Ok((key, displaced)) => {
                    told.extend(displaced.map(|waiter| (waiter.tell, Err(Refused::Full))));
                    Some((key, max_wait))
                }
                Err(_) => None,
            };
            // Before the last look: whoever gives a slot back after it sees that somebody waits.
            self.publish(&mut inner);
            inner.seat_all(now, &mut told);
            self.publish(&mut inner);
            lined_up
        };
        self.begun.notify_one();
        self.lengthened.notify_one();
        if deliver(told) {
            self.settle();
        }
        lined_up
    }

    /// A slot was given back.
    pub(super) fn freed(&self) {
        if !self.is_empty() {
            self.settle();
        }
    }

    /// Seats whoever can be, and refuses those whose turn will not come.
    pub(super) fn settle(&self) {
        loop {
            let mut told = Told::new();
            {
                let mut inner = self.lock();
                inner.seat_all(Instant::now(), &mut told);
                self.publish(&mut inner);
            }
            if !deliver(told) {
                return;
            }
        }
    }

    /// Whether it was still in line.
    fn leave(&self, key: Key, why: Leaves, now: Instant) -> bool {
        let mut inner = self.lock();
        let waiter = inner.line.leave(key, why, now);
        self.publish(&mut inner);
        drop(inner);
        waiter.is_some()
    }

    /// Tells everybody who waits that they wait in vain.
    pub(super) fn end(&self, cause: Cause) {
        let mut told = Told::new();
        {
            let mut inner = self.lock();
            let seat = |line: &mut Line<Waiter>| line.seat_first(1, Instant::now(), |_| Some(()));
            while let Some((waiter, ())) = seat(&mut inner.line) {
                told.push((waiter.tell, Err(Refused::NoServer(cause))));
            }
            self.publish(&mut inner);
        }
        deliver(told);
    }

    fn publish(&self, inner: &mut Inner) {
        let length = inner.line.len();
        inner.mixed &= length > 0;
        self.waiting.store(length, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn seat_all(&mut self, now: Instant, told: &mut Told) {
        let is_suspended = self.line.any().is_some_and(|waiter| waiter.upstream.awaits_workers());
        self.line.suspend(is_suspended, now);
        loop {
            // Where all want the same, what is not for the first is for nobody.
            let most = if self.mixed { MOST_ASKED } else { 1 };
            let seated = self
                .line
                .seat_first(most, now, |waiter| waiter.upstream.try_seat(waiter.hash, &waiter.tried).transpose());
            let Some((waiter, outcome)) = seated else { break };
            told.push((waiter.tell, outcome.map_err(Refused::NoServer)));
        }
        let shed = self.line.shed(now, |waiter| waiter.upstream.capacity());
        told.extend(shed.into_iter().map(|waiter| (waiter.tell, Err(Refused::Overload))));
    }
}

/// Tells everybody, outside the lock. Whether a slot came back, since its request had left in the meantime: then the
/// next is to have it.
fn deliver(told: Told) -> bool {
    let mut came_back = false;
    for (tell, outcome) in told {
        if let Err(Ok(lease)) = tell.send(outcome) {
            lease.give_back_quietly();
            came_back = true;
        }
    }
    came_back
}

/// A place in the line. Whoever gives it up is taken out at once.
struct Place<'a, F: Fn(Duration)> {
    queue: &'a Queue,
    key: Key,
    began: Instant,
    worker: WorkerId,
    waited: F,
    /// Whether the line has it no more.
    left: bool,
}

impl<F: Fn(Duration)> Drop for Place<'_, F> {
    fn drop(&mut self) {
        (self.waited)(self.began.elapsed());
        if !self.left {
            // A slot that was found for it meanwhile goes back with the other end of the channel.
            self.queue.leave(self.key, Leaves::GaveUp, Instant::now());
            self.queue.metrics.dropped(self.worker, Dropped::ClientLeft);
        }
    }
}
