//! The generic cell rate algorithm, as arithmetic on whole numbers.
//!
//! A bucket is one number: the theoretical arrival time (`tat`), at which it will be full again. Each request moves it on
//! by the interval between requests; a request that would move it further ahead than the burst allows is refused and
//! changes nothing. Times are ticks since some moment, of whatever length the caller counts in: nanoseconds in this
//! process, tenths of microseconds in a store. Intervals are rounded up, so that no window ever lets through more than
//! `burst + rate * window`.

use std::time::Duration;

use crate::config::settings::RateLimit;

/// The largest time that is reckoned with. In nanoseconds it is 146 years, and sums of two still have their top bit
/// free.
pub const FOREVER: u64 = (1 << 62) - 1;

/// A rate and a burst, ready to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Ticks between two requests at the rate; at least 1.
    interval: u64,
    /// How far ahead of now a bucket's time may be: the burst's worth of intervals. That is one interval more than the
    /// tolerance of the algorithm's description, which asks before it moves the time on.
    depth: u64,
}

/// What came of asking a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Admitted {
        /// The bucket's new time; later than the one before and than now.
        tat: u64,
    },
    Refused {
        /// Ticks until a request would be admitted; at least 1.
        wait: u64,
    },
}

/// How much room a bucket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Requests that would be admitted now.
    pub left: u64,
    /// Ticks until it is full again, or while nothing is left until one request would be admitted.
    pub until: u64,
}

impl Gcra {
    /// `second`: how many ticks one has. A rate of more than one request a tick counts as one a tick, and a burst that
    /// would take longer than [`FOREVER`] to fill as one that takes that long.
    pub fn new(limit: &RateLimit, second: u64) -> Gcra {
        let per = u128::from(limit.rate.per.as_secs()).saturating_mul(u128::from(second));
        let interval = per.div_ceil(u128::from(limit.rate.count.get())).clamp(1, u128::from(FOREVER / 2));
        let depth = interval.saturating_mul(u128::from(limit.burst.get())).min(u128::from(FOREVER / 2));
        let narrow = |ticks: u128| u64::try_from(ticks).unwrap_or(FOREVER / 2);
        Gcra { interval: narrow(interval), depth: narrow(depth) }
    }

    /// Ticks between two requests at the rate.
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// How far ahead of now a bucket's time may be.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Asks the bucket whose time is `tat`; one whose time is not after `now` is full.
    pub fn decide(&self, tat: u64, now: u64) -> Decision {
        let now = now.min(FOREVER);
        let next = tat.max(now).saturating_add(self.interval);
        let latest = now.saturating_add(self.depth);
        match next.checked_sub(latest) {
            None | Some(0) => Decision::Admitted { tat: next },
            Some(wait) => Decision::Refused { wait },
        }
    }

    /// The room of a bucket whose time is `tat`.
    pub fn room(&self, tat: u64, now: u64) -> Room {
        let ahead = tat.saturating_sub(now.min(FOREVER));
        let left = self.depth.saturating_sub(ahead).checked_div(self.interval).unwrap_or(0);
        let until = match left {
            0 => ahead.saturating_add(self.interval).saturating_sub(self.depth),
            _ => ahead,
        };
        Room { left, until }
    }
}

/// Seconds for a field of an answer: rounded up, at least 1.
pub fn seconds(ticks: u64, second: u64) -> u64 {
    ticks.div_ceil(second.max(1)).max(1)
}

/// Nanoseconds since `began`, as far as they are reckoned with.
pub fn nanoseconds(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(FOREVER).min(FOREVER)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::Rate;

    const SECOND: u64 = 1_000_000_000;

    fn limit(count: u32, per: u64, burst: u32) -> RateLimit {
        let (count, burst) = (NonZeroU32::new(count).unwrap(), NonZeroU32::new(burst).unwrap());
        RateLimit { rate: Rate { count, per: Duration::from_secs(per) }, burst }
    }

    /// Which of the requests at these times are admitted.
    fn run(gcra: &Gcra, times: &[u64]) -> Vec<bool> {
        let mut bucket = 0;
        let decide = |now: &u64| match gcra.decide(bucket, *now) {
            Decision::Admitted { tat } => {
                bucket = tat;
                true
            }
            Decision::Refused { .. } => false,
        };
        times.iter().map(decide).collect()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let gcra = Gcra::new(&limit(10, 1, 3), SECOND);
        let at = |tenths: u64| 100 * SECOND + tenths * SECOND / 10;
        let admitted = run(&gcra, &[at(0), at(0), at(0), at(0), at(1), at(1), at(2), at(9), at(9), at(9), at(9)]);
        assert_eq!(admitted, [true, true, true, false, true, false, true, true, true, true, false]);
    }

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let gcra = Gcra::new(&limit(1, 60, 1), SECOND);
        let Decision::Admitted { tat } = gcra.decide(0, SECOND) else { panic!("the first is admitted") };
        assert_eq!(gcra.decide(tat, 2 * SECOND), Decision::Refused { wait: 59 * SECOND });
        assert_eq!(gcra.room(tat, 2 * SECOND), Room { left: 0, until: 59 * SECOND });
        assert_eq!(seconds(59 * SECOND, SECOND), 59);
        assert_eq!(seconds(58 * SECOND + 1, SECOND), 59);
        assert_eq!(seconds(1, SECOND), 1);
    }

    #[test]
    fn extremes_do_not_overflow() {
        for count in [1, 7, 4_000_000_000, u32::MAX] {
            for per in [1, 60, 3600] {
                for burst in [1, 1_000_000_000, u32::MAX] {
                    let gcra = Gcra::new(&limit(count, per, burst), SECOND);
                    assert!(gcra.interval() >= 1 && gcra.depth() >= gcra.interval() && gcra.depth() <= FOREVER);
                    for now in [0, FOREVER, u64::MAX] {
                        for tat in [0, 1, now.min(FOREVER), FOREVER] {
                            let room = gcra.room(tat, now);
                            match gcra.decide(tat, now) {
                                Decision::Admitted { tat } => assert!(tat >> 63 == 0 && room.left > 0),
                                Decision::Refused { wait } => assert!(wait > 0 && room.left == 0 && room.until == wait),
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(Gcra::new(&limit(1, 3600, 1), SECOND).interval(), 3600 * SECOND);
        assert_eq!(Gcra::new(&limit(4_000_000_000, 1, 1), SECOND).interval(), 1);
    }

    fn limits() -> impl Strategy<Value = RateLimit> {
        let count = prop_oneof![1_u32..100, 1_u32..10_000_000, Just(1), Just(u32::MAX)];
        let per = prop_oneof![Just(1_u64), Just(60), Just(3600)];
        let burst = prop_oneof![1_u32..20, 1_u32..=u32::MAX];
        (count, per, burst).prop_map(|(count, per, burst)| limit(count, per, burst))
    }

    proptest! {
        #[test]
        fn no_window_lets_through_more_than_the_burst_and_the_rate(
            limit in limits(),
            gaps in prop::collection::vec(prop_oneof![Just(0_u64), 0..5_000_u64, 0..SECOND, 0..600 * SECOND], 1..200),
        ) {
            let gcra = Gcra::new(&limit, SECOND);
            let mut now = SECOND;
            let times: Vec<u64> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let admitted: Vec<u64> =
                times.iter().zip(run(&gcra, &times)).filter(|(_, admitted)| *admitted).map(|(time, _)| *time).collect();
            for (index, first) in admitted.iter().enumerate() {
                for (count, last) in (1_u128..).zip(&admitted[index..]) {
                    let window = u128::from(last - first);
                    let rate = u128::from(limit.rate.count.get());
                    let by_rate = rate * window / (u128::from(limit.rate.per.as_secs()) * u128::from(SECOND));
                    prop_assert!(count <= u128::from(limit.burst.get()) + by_rate);
                }
            }
        }

        #[test]
        fn a_steady_rate_always_passes(limit in limits(), start in 0..SECOND, late in 0..3_u64) {
            let gcra = Gcra::new(&limit, SECOND);
            let times: Vec<u64> = (0..300).map(|index| start + index * (gcra.interval() + late)).collect();
            prop_assert!(run(&gcra, &times).iter().all(|admitted| *admitted));
        }

        #[test]
        fn whoever_waits_as_long_as_told_is_admitted(limit in limits(), ahead in 0..FOREVER, now in 0..SECOND) {
            let gcra = Gcra::new(&limit, SECOND);
            let tat = now + ahead % (gcra.depth() + 1);
            if let Decision::Refused { wait } = gcra.decide(tat, now) {
                let admitted = matches!(gcra.decide(tat, now + wait), Decision::Admitted { .. });
                prop_assert!(admitted, "that is how long to wait");
                let refused = matches!(gcra.decide(tat, now + wait - 1), Decision::Refused { .. });
                prop_assert!(refused, "a shorter wait would have done");
            }
        }

        #[test]
        fn the_room_is_what_is_admitted(limit in limits(), ahead in 0..FOREVER, now in 0..SECOND) {
            let gcra = Gcra::new(&limit, SECOND);
            let mut tat = now + ahead % (gcra.depth() + 1);
            let room = gcra.room(tat, now);
            for _ in 0..room.left.min(50) {
                let Decision::Admitted { tat: next } = gcra.decide(tat, now) else { panic!("there was room") };
                tat = next;
            }
            if room.left < 50 {
                let refused = matches!(gcra.decide(tat, now), Decision::Refused { .. });
                prop_assert!(refused, "the room is used up");
            }
        }

        /// A request that comes earlier than the one before it, as another thread's clock may have it, gains nothing.
        #[test]
        fn the_order_of_arrival_gains_nothing(limit in limits(), mut times in prop::collection::vec(SECOND..20 * SECOND, 1..60)) {
            let gcra = Gcra::new(&limit, SECOND);
            let shuffled = run(&gcra, &times).iter().filter(|admitted| **admitted).count();
            let span = times.iter().max().unwrap() - times.iter().min().unwrap();
            times.sort_unstable();
            let rate = u128::from(limit.rate.count.get());
            let by_rate = rate * u128::from(span) / (u128::from(limit.rate.per.as_secs()) * u128::from(SECOND));
            prop_assert!(shuffled as u128 <= u128::from(limit.burst.get()) + by_rate);
            prop_assert!(run(&gcra, &times).iter().filter(|admitted| **admitted).count() >= shuffled.min(1));
        }
    }
}
