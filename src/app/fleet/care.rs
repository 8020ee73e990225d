//! Workers that run and should not any more: those that take too much memory, those that checks found down, and those
//! whose server starts its own worker again and again. Another is started and ready before such a worker goes, one at a
//! time, and it finishes what it has; unless there is nothing that it could finish.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// Looks in a row, a second apart, that find a worker past its limit before it is one.
const SAMPLES: u32 = 2;

/// How long a worker may be down and answer nothing.
const DOWN: Duration = Duration::from_secs(30);

/// How often in a row a server may lose its own worker and answer nothing, each time within so long of the one before:
/// gunicorn starts another, however soon that ends too, and nobody would know.
const LOST: u32 = 3;
const LOST_WITHIN: Duration = Duration::from_secs(60);

/// A worker that had to be replaced before it was as old as this will have to be again.
pub(super) const YOUNG: Duration = Duration::from_secs(300);

/// Pauses between replacements of such workers.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What was seen of one worker so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    over: u32,
    down: Option<Down>,
    lost: Option<Lost>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    since: Instant,
    answers: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    times: u32,
    last: Instant,
    answers: u64,
}

/// What is to be done about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Fine,
    /// Past the limit; another is to take its place.
    Large,
    /// So far past it that nobody can wait for that.
    Huge,
}

impl Watched {
    /// It takes so many bytes.
    pub(super) fn takes(&mut self, resident: u64, limit: NonZeroU64) -> Finding {
        if resident > limit.get().saturating_mul(2) {
            return Finding::Huge;
        }
        self.over = if resident > limit.get() { self.over.saturating_add(1) } else { 0 };
        if self.over >= SAMPLES { Finding::Large } else { Finding::Fine }
    }

    /// Checks found it down, or not, and it has answered so often. Whether it has been down for too long: busy is not
    /// dead, as long as something is answered.
    pub(super) fn checked(&mut self, is_down: bool, answers: u64, now: Instant) -> bool {
        let same = self.down.filter(|down| is_down && down.answers == answers);
        self.down = is_down.then(|| same.unwrap_or(Down { since: now, answers }));
        self.down.is_some_and(|down| now.saturating_duration_since(down.since) >= DOWN)
    }

    /// Its server has lost the worker that it started itself, having answered so often by now. Whether that has happened too
    /// often.
    pub(super) fn has_lost_children(&mut self, answers: u64, now: Instant) -> bool {
        let in_a_row = |lost: &Lost| lost.answers == answers && now.saturating_duration_since(lost.last) < LOST_WITHIN;
        let times = self.lost.filter(in_a_row).map_or(1, |lost| lost.times.saturating_add(1));
        self.lost = Some(Lost { times, last: now, answers });
        times >= LOST
    }
}

/// When the next worker may be replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Young workers in a row.
    young: u32,
    next: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { young: 0, next: now }
    }

    pub(super) fn allows(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// One of this age is replaced. How long there will be no other: none where they are old; else longer each time, so
    /// that a limit which is too low for any worker does not become an endless row of starts.
    pub(super) fn replaced(&mut self, age: Duration, now: Instant) -> Duration {
        if age >= YOUNG {
            *self = Pace::new(now);
            return Duration::ZERO;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.young.min(10)).min(LONGEST_PAUSE);
        self.young = self.young.saturating_add(1);
        self.next = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NonZeroU64 = NonZeroU64::new(100).unwrap();

    #[test]
    fn once_is_not_enough_and_twice_as_much_is() {
        let mut watched = Watched::default();
        assert_eq!(watched.takes(101, LIMIT), Finding::Fine);
        assert_eq!(watched.takes(100, LIMIT), Finding::Fine);
        assert_eq!(watched.takes(101, LIMIT), Finding::Fine);
        assert_eq!(watched.takes(200, LIMIT), Finding::Large);
        assert_eq!(watched.takes(201, LIMIT), Finding::Huge);
    }

    #[tokio::test(start_paused = true)]
    async fn down_is_too_long_only_without_answers() {
        let mut watched = Watched::default();
        let mut after = async |seconds, is_down, answers| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            watched.checked(is_down, answers, Instant::now())
        };
        assert!(!after(0, true, 7).await);
        assert!(!after(29, true, 7).await);
        assert!(!after(1, true, 8).await, "it has answered");
        assert!(!after(29, true, 8).await);
        assert!(!after(1, false, 8).await, "it was up");
        assert!(!after(29, true, 8).await);
        assert!(after(30, true, 8).await);
    }

    #[tokio::test(start_paused = true)]
    async fn children_are_lost_too_often_only_in_a_row_and_without_answers() {
        let mut watched = Watched::default();
        let mut after = async |seconds, answers| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            watched.has_lost_children(answers, Instant::now())
        };
        assert!(!after(1, 7).await);
        assert!(!after(1, 7).await);
        assert!(!after(1, 8).await, "it has answered");
        assert!(!after(1, 8).await);
        assert!(!after(60, 8).await, "long ago");
        assert!(!after(59, 8).await);
        assert!(after(59, 8).await);
    }

    #[tokio::test(start_paused = true)]
    async fn young_workers_are_replaced_more_and_more_slowly() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.allows(now));
        let pauses: Vec<u64> = (0..8).map(|_| pace.replaced(Duration::from_secs(1), now).as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert!(!pace.allows(now));
        assert!(pace.allows(now + LONGEST_PAUSE));
        assert_eq!(pace.replaced(YOUNG, now), Duration::ZERO);
        assert!(pace.allows(now));
    }
}
