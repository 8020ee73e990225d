//! What the learner reads of a server: kept by the requests themselves, in a few atomic additions each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::learner::Reading;
use super::ranks::Ranks;

/// A request that took longer counts as this long: one stream must not hide how much the others differ.
const LONGEST: u64 = 10_000_000;

/// Counts that wrap around, in microseconds; only what they grow by is looked at.
#[derive(Default)]
pub(super) struct Gauge {
    in_flight: AtomicU64,
    /// The sum of when requests ended, less the sum of when they began: with those in flight counted until now, the
    /// requests in flight over time.
    area: AtomicU64,
    ended: AtomicU64,
    took: AtomicU64,
    squares: AtomicU64,
    ranks: Ranks,
}

/// A request that is measured.
#[derive(Debug)]
pub(super) struct Measured {
    began: u64,
    turn: Option<u64>,
}

impl Gauge {
    pub(super) fn begin(&self) -> Measured {
        let now = now();
        self.area.fetch_sub(now, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Measured { began: now, turn: self.ranks.begin() }
    }

    pub(super) fn end(&self, measured: &Measured) {
        let Measured { began, turn } = *measured;
        if let Some(turn) = turn {
            self.ranks.end(turn);
        }
        let now = now();
        self.area.fetch_add(now, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let took = now.saturating_sub(began).min(LONGEST);
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.took.fetch_add(took, Ordering::Relaxed);
        self.squares.fetch_add(took.saturating_mul(took), Ordering::Relaxed);
    }

    /// `answers`: how many have begun; `is_wanted`: whether requests wait for a slot. A request that begins or ends
    /// meanwhile may be counted in one sum and not yet in another; see [`START`].
    pub(super) fn read(&self, answers: u64, is_wanted: bool) -> Reading {
        let now = now();
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        Reading {
            now: Duration::from_micros(now),
            is_wanted,
            area: self.area.load(Ordering::Relaxed).wrapping_add(in_flight.wrapping_mul(now)),
            answers,
            ended: self.ended.load(Ordering::Relaxed),
            took: self.took.load(Ordering::Relaxed),
            squares: self.squares.load(Ordering::Relaxed),
            ranks: self.ranks.counts(),
        }
    }
}

/// The first moment. Far from zero, so that a reading in which one request is counted by half is off by days, and nobody
/// takes it for a true one.
const START: u64 = 1 << 40;

/// Microseconds since the first call, and [`START`].
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let since = Instant::now().saturating_duration_since(*EPOCH.get_or_init(Instant::now));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_add(START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_counted_by_half_is_seen_as_none() {
        let gauge = Gauge::default();
        let whole = gauge.read(0, true);
        // What another thread does between its two additions.
        gauge.area.fetch_sub(now(), Ordering::Relaxed);
        let half = gauge.read(0, true);
        gauge.in_flight.fetch_add(1, Ordering::Relaxed);
        let next = gauge.read(0, true);
        let later = gauge.read(0, true);
        assert!(half.since(&whole).is_none() && next.since(&half).is_none());
        assert!(later.since(&next).is_none_or(|passed| passed.area < 1.0));
    }

    #[test]
    fn sums_may_wrap_around() {
        let gauge = Gauge::default();
        for sum in [&gauge.squares, &gauge.took, &gauge.ended] {
            sum.store(u64::MAX, Ordering::Relaxed);
        }
        let before = gauge.read(0, true);
        let began = gauge.begin();
        std::thread::sleep(Duration::from_millis(2));
        gauge.end(&began);
        let passed = gauge.read(1, true).since(&before).unwrap();
        assert!(passed.ended == 1 && (0.002..1.0).contains(&passed.took), "{passed:?}");
        assert!((4e-6..1.0).contains(&passed.squares) && (0.002..1.0).contains(&passed.area), "{passed:?}");
    }
}
