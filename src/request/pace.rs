//! How fast a request's body has to come: `min_upload_rate`.
//!
//! Only the time in which the client is waited for counts. A client begins with some seconds of it; each byte earns as
//! much more as the rate gives it, up to a bound: whoever was fast may pause, but not live on that for ever.

use std::num::NonZeroU64;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::http1::timer::Timer;

/// What a client begins with.
const GRACE: Duration = Duration::from_secs(5);

/// What it can have earned at most.
const MOST: Duration = Duration::from_secs(30);

pub(super) struct Pace {
    /// Bytes a second.
    rate: NonZeroU64,
    /// Time that the client may still be waited for.
    left: Duration,
    since: Option<Instant>,
    timer: Timer,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU64) -> Pace {
        Pace { rate, left: GRACE, since: None, timer: Timer::new() }
    }

    /// Bytes came.
    pub(super) fn came(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(clock::recent().saturating_duration_since(since));
        }
        self.timer.clear();
        let earned = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.rate.get());
        let earned = u64::try_from(earned).map_or(MOST, Duration::from_nanos);
        self.left = self.left.saturating_add(earned).min(MOST);
    }

    /// The client is waited for; ready when it has been for too long.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            self.since = Some(clock::recent());
            self.timer.set(self.left);
        }
        self.timer.poll_expired(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a client that sends `bytes` every `pause` milliseconds is still being waited for after `seconds`.
    async fn endures(rate: u64, bytes: u64, pause: u64, seconds: u64) -> bool {
        let mut pace = Pace::new(NonZeroU64::new(rate).expect("a rate"));
        for _ in 0..seconds * 1000 / pause {
            let waiting = std::future::poll_fn(|cx| pace.poll_too_slow(cx));
            if tokio::time::timeout(Duration::from_millis(pause), waiting).await.is_ok() {
                return false;
            }
            pace.came(bytes);
        }
        true
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_as_fast_as_it_must_be_endures() {
        assert!(endures(8192, 8192, 1000, 600).await);
        assert!(endures(8192, 4 * 8192, 4000, 600).await);
        assert!(!endures(8192, 4096, 1000, 600).await);
        assert!(endures(8192, 4096, 1000, 7).await, "some seconds are granted");
        assert!(!endures(8192, 1, 100, 7).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_lives_on_a_fast_beginning_for_ever() {
        let mut pace = Pace::new(NonZeroU64::new(1000).expect("a rate"));
        pace.came(1_000_000_000);
        let began = Instant::now();
        std::future::poll_fn(|cx| pace.poll_too_slow(cx)).await;
        assert_eq!(began.elapsed().as_secs(), MOST.as_secs());
    }
}
