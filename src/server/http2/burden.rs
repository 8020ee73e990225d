//! Frames that only burden: empty DATA, PING, SETTINGS, PRIORITY and the like cost the client a few bytes and the gateway
//! a look at each, and some of them an answer.

use tokio::time::Instant;

/// So many may come at once, which no client needs.
const MOST: u32 = 10_000;

/// So many more each second, beside those that were earned.
const EACH_SECOND: u32 = 1000;

/// How many more may come.
#[derive(Debug)]
pub(super) struct Burden {
    left: u32,
    since: Instant,
}

/// A flood of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Burden {
    pub(super) fn new() -> Burden {
        Burden { left: MOST, since: Instant::now() }
    }

    /// One more came. `earned` is asked only when those that may come at once are used up: how many more are granted for
    /// what else came and went. A client that takes an answer with small windows sends two frames for each of ours.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn bear(&mut self, earned: impl FnOnce() -> u32) -> Result<(), TooMany> {
        if self.left == 0 {
            let now = Instant::now();
            let seconds = now.duration_since(self.since).as_secs();
            let granted = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(EACH_SECOND);
            self.left = granted.saturating_add(earned()).min(MOST);
            if seconds > 0 {
                self.since = now;
            }
        }
        self.left = self.left.checked_sub(1).ok_or(TooMany)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_too_many() {
        let mut burden = Burden::new();
        assert!((0..MOST).all(|_| burden.bear(|| 0).is_ok()));
        assert_eq!(burden.bear(|| 0), Err(TooMany));
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_what_else_is_sent_allow_for_more() {
        let mut burden = Burden::new();
        for _ in 0..100_000 {
            burden.bear(|| 0).unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let mut burden = Burden::new();
        assert!((0..10 * MOST).all(|_| burden.bear(|| 5).is_ok()));
    }
}
