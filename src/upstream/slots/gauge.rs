//! What the learner reads of a server: kept by the requests themselves, in a few atomic additions each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::learner::Reading;

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
}

impl Gauge {
    /// Returns when it began.
    pub(super) fn begin(&self) -> u64 {
        let now = now();
        self.area.fetch_sub(now, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        now
    }

    pub(super) fn end(&self, began: u64) {
        let now = now();
        self.area.fetch_add(now, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let took = now.saturating_sub(began).min(LONGEST);
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.took.fetch_add(took, Ordering::Relaxed);
        self.squares.fetch_add(took.saturating_mul(took), Ordering::Relaxed);
    }

    /// `answers`: how many have begun; `is_wanted`: whether requests wait for a slot.
    pub(super) fn read(&self, answers: u64, is_wanted: bool) -> Reading {
        let now = now();
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let area = self.area.load(Ordering::Relaxed).wrapping_add(in_flight.wrapping_mul(now));
        Reading {
            now: Duration::from_micros(now),
            is_wanted,
            area: area as f64 / 1e6,
            answers,
            ended: self.ended.load(Ordering::Relaxed),
            took: self.took.load(Ordering::Relaxed) as f64 / 1e6,
            squares: self.squares.load(Ordering::Relaxed) as f64 / 1e12,
        }
    }
}

/// Microseconds since the first call.
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let since = Instant::now().saturating_duration_since(*EPOCH.get_or_init(Instant::now));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
