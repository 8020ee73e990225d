//! What a limit tells of itself when metrics are scraped.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Whoever counts for a limit.
pub trait LimitReading: Send + Sync {
    /// How many keys have a count of their own. May take a while.
    fn keys(&self) -> usize;

    /// How often a request was counted in the bucket that keys without one of their own share.
    fn overflowed(&self) -> u64;
}

type Named<T> = Vec<(Arc<str>, T)>;

/// The limits in force, by name.
#[derive(Default)]
pub(super) struct LimitReadings {
    by_name: Mutex<Named<Weak<dyn LimitReading>>>,
}

impl LimitReadings {
    pub(super) fn set(&self, name: &str, reading: &Arc<dyn LimitReading>) {
        let mut all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        // Requests may still count in those of the snapshot before: both are kept until one is gone.
        all.retain(|(_, known)| known.strong_count() > 0 && !std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(reading)));
        all.push((Arc::from(name), Arc::downgrade(reading)));
    }

    /// Those that are counting, by name; of two that share a name the newer one.
    pub(super) fn all(&self) -> Named<Arc<dyn LimitReading>> {
        let all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Named<Arc<dyn LimitReading>> = Named::new();
        for (name, reading) in all.iter().rev() {
            if let Some(reading) = reading.upgrade().filter(|_| found.iter().all(|(known, _)| known != name)) {
                found.push((Arc::clone(name), reading));
            }
        }
        found
    }
}
