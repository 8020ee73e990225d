//! Counters by name, for as long as a snapshot uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Asked when a snapshot is built and when metrics are scraped, never by a request.
///
/// A name that is in the old snapshot and in the new one gets the same counters. One that no snapshot has any more
/// is forgotten together with its series; so servers whose addresses come and go cannot fill the memory.
#[derive(Debug)]
pub(super) struct Kept<T> {
    by_name: Mutex<BTreeMap<Arc<str>, Weak<T>>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { by_name: Mutex::default() }
    }
}

impl<T> Kept<T> {
    pub(super) fn get_or_make(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(name).and_then(Weak::upgrade) {
            return known;
        }
        by_name.retain(|_, counters| counters.strong_count() > 0);
        let made = Arc::new(make());
        by_name.insert(Arc::from(name), Arc::downgrade(&made));
        made
    }

    /// All that are in use, by name.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().filter_map(|(name, counters)| Some((Arc::clone(name), counters.upgrade()?))).collect()
    }
}
