//! Milliseconds of the process's own clock: what health and budgets reckon with.
//!
//! It is tokio's clock, so tests that pause it control everything here.

use std::sync::OnceLock;

use tokio::time::Instant;

/// What the clock shows when it is first read. Never zero, so that zero can mean "never".
const START: u64 = 24 * 60 * 60 * 1000;

/// Now, in milliseconds.
pub(super) fn now() -> u64 {
    reckon(Instant::now())
}

/// The same, to the moment: see [`crate::clock`].
pub(super) fn recent() -> u64 {
    reckon(crate::clock::recent())
}

fn reckon(now: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(|| now);
    match now.checked_duration_since(epoch) {
        Some(since) => START.saturating_add(millis(since)),
        // Only a paused clock of a test can be behind.
        None => START.saturating_sub(millis(epoch.duration_since(now))),
    }
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
