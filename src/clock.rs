//! The time, read once for all that a worker does between two waits for events.
//!
//! A request sets some ten deadlines, and reading the clock for each costs more than setting it. Deadlines do not need
//! to be exact to the microsecond, so a worker keeps what it read until it goes to sleep, or for a bounded number of
//! uses where it never does. Durations that are told to anybody end with a look at the clock itself, by whoever calls
//! [`fresh`]; that reading is then kept for what follows.

use std::cell::Cell;
use std::time::SystemTime;

use tokio::time::Instant;

/// Uses of one reading: a worker that is never out of work still sees the time pass.
const USES: u32 = 64;

thread_local! {
    static KEPT: Kept = const { Kept::new() };
}

/// What a thread has read.
struct Kept {
    keeps: Cell<bool>,
    now: Cell<Option<Instant>>,
    wall: Cell<Option<SystemTime>>,
    /// How often the readings may still be used.
    uses: Cell<u32>,
}

impl Kept {
    const fn new() -> Kept {
        Kept { keeps: Cell::new(false), now: Cell::new(None), wall: Cell::new(None), uses: Cell::new(0) }
    }

    /// One more use of the readings, if they may be used.
    fn use_up(&self) -> bool {
        let left = self.uses.get();
        self.uses.set(left.saturating_sub(1));
        left > 0
    }

    fn fresh(&self) -> Instant {
        let now = Instant::now();
        if self.keeps.get() {
            self.now.set(Some(now));
            self.wall.set(None);
            self.uses.set(USES);
        }
        now
    }
}

/// From now on this thread keeps readings; whoever runs it calls [`forget`] whenever it goes to sleep.
pub fn keep() {
    KEPT.with(|kept| kept.keeps.set(true));
}

/// The next use reads the clock.
pub fn forget() {
    KEPT.with(|kept| kept.uses.set(0));
}

/// Now, by the clock itself.
pub fn fresh() -> Instant {
    KEPT.with(Kept::fresh)
}

/// Now, or a moment ago on a thread that keeps readings.
#[inline]
pub fn recent() -> Instant {
    KEPT.with(|kept| match kept.now.get() {
        Some(now) if kept.use_up() => now,
        Some(_) | None => kept.fresh(),
    })
}

/// The same by the clock on the wall, which may be set at any time: for what was agreed on with others, such as when
/// a token ends.
pub fn recent_wall() -> SystemTime {
    KEPT.with(|kept| {
        if let Some(wall) = kept.wall.get().filter(|_| kept.use_up()) {
            return wall;
        }
        let wall = SystemTime::now();
        if kept.keeps.get() && kept.uses.get() > 0 {
            kept.wall.set(Some(wall));
        }
        wall
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_kept_until_it_is_forgotten_or_used_up() {
        let first = recent();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(recent() > first, "no thread keeps readings unless it says so");
        keep();
        let kept = recent();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(recent(), kept);
        forget();
        let later = recent();
        assert!(later > kept);
        tokio::time::advance(Duration::from_secs(1)).await;
        let used: Vec<_> = (0..=USES).map(|_| recent()).collect();
        assert!(used.first() == Some(&later) && used.last() > Some(&later));
        tokio::time::advance(Duration::from_secs(1)).await;
        let last = fresh();
        assert!(used.last() < Some(&last) && recent() == last);
        KEPT.with(|kept| kept.keeps.set(false));
        forget();
    }
}
