//! How many workers an app should have: `workers = { min, max, idle }`. No clock, no task: whoever asks says what it sees
//! and when.
//!
//! **Where a worker's requests are bounded** (threads of WSGI, `slots`), the rest waits in the gateway's queue, and that is
//! what is followed. Up at once: where requests wait at two looks in a row, as many workers are added as have room for those
//! that waited all the time; but never more are being started than are ready, since many that start at once take the
//! processor from those that serve. Down slowly: one at a time, after `idle` in which one less would always have been enough.
//!
//! **Where they are not** (an event loop takes whatever comes), nobody waits, and what runs says nothing: it may all be
//! waiting for a database. What runs out is the processor, of which Python uses one core a worker. One is added when the
//! workers have used more than 80 % of a core each for three seconds, and one goes when for `idle` the rest would have
//! done it below 60 %.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::WorkerSettings;

/// How often those who wait are looked at while somebody does.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is looked how many are busy, while there are more workers than there must be.
pub(super) const IDLE_INTERVAL: Duration = Duration::from_millis(250);

/// Thousandths of a core for each worker: past this there is one more, and below that one less.
const SATURATED: u32 = 800;
const RELAXED: u32 = 600;

/// Measurements in a row, a second apart, before they count.
const SATURATED_SAMPLES: u32 = 3;

/// What is seen of an app's workers and of who waits for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// How many there should be by now.
    pub(super) wanted: u32,
    pub(super) ready: u32,
    pub(super) starting: u32,
    pub(super) waiting: u32,
    /// Requests that run.
    pub(super) busy: u32,
    /// Those that a worker takes at once; `None`: any number.
    pub(super) slots: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scale {
    settings: WorkerSettings,
    /// How many waited when that was looked at last.
    waited: u32,
    saturated: u32,
    /// Since when one less would have been enough.
    idle_since: Option<Instant>,
}

impl Scale {
    pub(super) fn new(settings: WorkerSettings) -> Scale {
        Scale { settings, waited: 0, saturated: 0, idle_since: None }
    }

    /// What was seen before is of no interest any more: nobody waited in between, or others served.
    pub(super) fn begin(&mut self) {
        *self = Scale::new(self.settings);
    }

    /// Whether there is anything to decide.
    pub(super) fn is_on(&self) -> bool {
        self.settings.min < self.settings.max
    }

    /// Whether there are more than there must be.
    pub(super) fn may_shrink(&self, wanted: u32) -> bool {
        wanted > self.settings.min.get()
    }

    /// As many as there may be, if `wanted` are.
    pub(super) fn clamp(&self, wanted: u32) -> u32 {
        wanted.clamp(self.settings.min.get(), self.settings.max.get())
    }

    /// How many there should be. To be asked whenever somebody waits or may be idle.
    pub(super) fn look(&mut self, seen: Seen, now: Instant) -> u32 {
        let Some(slots) = seen.slots else { return seen.wanted };
        let lasting = seen.waiting.min(std::mem::replace(&mut self.waited, seen.waiting));
        let more = lasting.div_ceil(slots.max(1)).saturating_sub(seen.starting);
        let more = more.min(seen.ready.max(1).saturating_sub(seen.starting));
        if more > 0 {
            self.idle_since = None;
            return self.clamp(seen.wanted.saturating_add(more));
        }
        let needed = seen.busy.saturating_add(seen.waiting).div_ceil(slots.max(1));
        self.less(seen, needed < seen.wanted, now)
    }

    /// As `look`, for workers that take any number. `cores`: thousandths of a core that all of them together used in the
    /// last second.
    pub(super) fn measured(&mut self, seen: Seen, cores: u32, now: Instant) -> u32 {
        if seen.slots.is_some() || seen.ready == 0 {
            return seen.wanted;
        }
        let is_saturated = seen.starting == 0 && cores > seen.ready.saturating_mul(SATURATED);
        self.saturated = if is_saturated { self.saturated.saturating_add(1) } else { 0 };
        if self.saturated >= SATURATED_SAMPLES {
            self.saturated = 0;
            self.idle_since = None;
            return self.clamp(seen.wanted.saturating_add(1));
        }
        let rest = seen.wanted.saturating_sub(1);
        self.less(seen, cores < rest.saturating_mul(RELAXED), now)
    }

    /// One less, once that would have been enough for long.
    fn less(&mut self, seen: Seen, is_enough: bool, now: Instant) -> u32 {
        // Of workers that start it is not known yet what they will relieve.
        if !is_enough || seen.starting > 0 || !self.may_shrink(seen.wanted) {
            self.idle_since = None;
            return seen.wanted;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_duration_since(since) < self.settings.idle {
            return seen.wanted;
        }
        self.idle_since = Some(now);
        self.clamp(seen.wanted.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn scale(min: u32, max: u32) -> Scale {
        let count = |count| NonZeroU32::new(count).unwrap();
        Scale::new(WorkerSettings { min: count(min), max: count(max), idle: IDLE })
    }

    fn seen(wanted: u32, waiting: u32, busy: u32) -> Seen {
        Seen { wanted, ready: wanted, starting: 0, waiting, busy, slots: Some(2) }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_brings_workers() {
        let mut scale = scale(2, 8);
        let now = Instant::now();
        // A burst that is over at the next look brings none.
        assert_eq!(scale.look(seen(2, 9, 4), now), 2);
        assert_eq!(scale.look(seen(2, 0, 4), now), 2);
        // One who waits brings one, many bring as many as are ready.
        assert_eq!(scale.look(seen(2, 1, 4), now), 2);
        assert_eq!(scale.look(seen(2, 1, 4), now), 3);
        assert_eq!(scale.look(seen(3, 100, 6), now), 4);
        assert_eq!(scale.look(seen(4, 100, 8), now), 8);
        assert_eq!(scale.look(seen(8, 100, 16), now), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_start_are_reckoned_with() {
        let mut scale = scale(1, 8);
        let now = Instant::now();
        let starting = |waiting, starting| Seen { ready: 4, starting, ..seen(4 + starting, waiting, 8) };
        scale.look(starting(4, 0), now);
        assert_eq!(scale.look(starting(4, 2), now), 6, "two have room for four");
        scale.look(starting(100, 2), now);
        assert_eq!(scale.look(starting(100, 2), now), 8);
        assert_eq!(scale.look(starting(100, 4), now), 8);
        // Without any that is ready one at a time is tried.
        let none = Seen { wanted: 1, ready: 0, starting: 1, waiting: 50, busy: 0, slots: Some(1) };
        assert_eq!(scale.look(none, now), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_after_each_idle_time() {
        let mut scale = scale(2, 8);
        let idle = |scale: &mut Scale, wanted, busy| scale.look(seen(wanted, 0, busy), Instant::now());
        assert_eq!(idle(&mut scale, 4, 0), 4);
        tokio::time::advance(IDLE - Duration::from_millis(1)).await;
        assert_eq!(idle(&mut scale, 4, 0), 4);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(idle(&mut scale, 4, 6), 3, "six run in three");
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(idle(&mut scale, 3, 4), 3);
        // Five need three: it begins anew.
        assert_eq!(idle(&mut scale, 3, 5), 3);
        tokio::time::advance(IDLE).await;
        assert_eq!(idle(&mut scale, 3, 0), 3);
        tokio::time::advance(IDLE).await;
        assert_eq!(idle(&mut scale, 3, 0), 2);
        tokio::time::advance(IDLE * 5).await;
        assert_eq!(idle(&mut scale, 2, 0), 2, "there are at least two");
    }

    #[tokio::test(start_paused = true)]
    async fn event_loops_follow_the_processor() {
        let mut scale = scale(1, 3);
        let seen = |wanted, starting| Seen { slots: None, starting, ready: wanted - starting, ..seen(wanted, 0, 500) };
        let now = Instant::now();
        assert_eq!(scale.look(seen(1, 0), now), 1, "what runs says nothing");
        assert_eq!(scale.measured(seen(1, 0), 950, now), 1);
        assert_eq!(scale.measured(seen(1, 0), 950, now), 1);
        assert_eq!(scale.measured(seen(1, 0), 700, now), 1);
        assert_eq!(scale.measured(seen(1, 0), 950, now), 1);
        assert_eq!(scale.measured(seen(1, 0), 950, now), 1);
        assert_eq!(scale.measured(seen(1, 0), 950, now), 2);
        for _ in 0..10 {
            assert_eq!(scale.measured(seen(2, 1), 950, now), 2, "one is starting");
        }
        // 700 are too much for one: 1.4 cores among three are not enough for the third to be missed.
        assert_eq!(scale.measured(seen(2, 0), 700, now), 2);
        tokio::time::advance(IDLE).await;
        assert_eq!(scale.measured(seen(2, 0), 700, Instant::now()), 2);
        assert_eq!(scale.measured(seen(2, 0), 500, Instant::now()), 2);
        tokio::time::advance(IDLE).await;
        assert_eq!(scale.measured(seen(2, 0), 500, Instant::now()), 1);
    }

    #[test]
    fn a_fixed_number_is_fixed() {
        assert!(!scale(2, 2).is_on());
        assert!(scale(2, 3).is_on());
        assert_eq!(scale(2, 4).clamp(9), 4);
        assert_eq!(scale(2, 4).clamp(0), 2);
    }
}
