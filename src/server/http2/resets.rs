//! How often a client may take its requests back.

use tokio::time::Instant;

use crate::config::settings::Rate;

/// Counts in windows of the rate's own length; so at most twice the rate passes in any one of them.
#[derive(Debug)]
pub(super) struct Resets {
    rate: Rate,
    window: Instant,
    count: u32,
}

impl Resets {
    pub(super) fn new(rate: Rate) -> Resets {
        Resets { rate, window: Instant::now(), count: 0 }
    }

    /// One more; returns whether that is too many.
    pub(super) fn count(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.window) >= self.rate.per {
            self.window = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count > self.rate.count.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn more_than_the_rate_is_too_many() {
        let mut resets = Resets::new(Rate { count: 3.try_into().unwrap(), per: Duration::from_secs(1) });
        for _ in 0..2 {
            assert!((0..3).all(|_| !resets.count()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((0..3).all(|_| !resets.count()));
        assert!(resets.count());
    }
}
