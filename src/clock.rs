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
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static READING: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
    static WALL: Cell<Option<(SystemTime, u32)>> = const { Cell::new(None) };
}

/// From now on this thread keeps readings; whoever runs it calls [`forget`] whenever it goes to sleep.
pub fn keep() {
    KEEPS.set(true);
}

/// The next use reads the clock.
pub fn forget() {
    READING.set(None);
    WALL.set(None);
}

/// Now, by the clock itself.
pub fn fresh() -> Instant {
    let now = Instant::now();
    if KEEPS.get() {
        READING.set(Some((now, 0)));
    }
    now
}

/// Now, or a moment ago on a thread that keeps readings.
pub fn recent() -> Instant {
    if let Some((reading, uses)) = READING.get().filter(|(_, uses)| *uses < USES) {
        READING.set(Some((reading, uses.saturating_add(1))));
        return reading;
    }
    fresh()
}

/// The same by the clock on the wall, which may be set at any time: for what was agreed on with others, such as when
/// a token ends.
pub fn recent_wall() -> SystemTime {
    if let Some((reading, uses)) = WALL.get().filter(|(_, uses)| *uses < USES) {
        WALL.set(Some((reading, uses.saturating_add(1))));
        return reading;
    }
    let now = SystemTime::now();
    if KEEPS.get() {
        WALL.set(Some((now, 0)));
    }
    now
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
        KEEPS.set(false);
        forget();
    }
}
