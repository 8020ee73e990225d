//! Counters by name, for as long as a snapshot uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Asked when a snapshot is built and when metrics are scraped, never by a request.
///
/// A name that is in the old snapshot and in the new one gets the same counters. One that no snapshot has any more
/// is forgotten together with its series; so servers whose addresses come and go cannot fill the memory.
#[derive(Debug)]
pub(super) struct Kept<T> {
    names: Mutex<Names<T>>,
}

#[derive(Debug)]
struct Names<T> {
    by_name: BTreeMap<Arc<str>, Weak<T>>,
    /// With so many names those that are in use no more are forgotten: not with each new one, since a snapshot asks for
    /// thousands.
    full: usize,
}

/// Names of which none is forgotten before there are more.
const FEW: usize = 16;

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { names: Mutex::new(Names { by_name: BTreeMap::new(), full: FEW }) }
    }
}

impl<T> Kept<T> {
    pub(super) fn get_or_make(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Names { by_name, full } = &mut *names;
        if let Some(known) = by_name.get(name).and_then(Weak::upgrade) {
            return known;
        }
        if by_name.len() >= *full {
            by_name.retain(|_, counters| counters.strong_count() > 0);
            *full = by_name.len().saturating_mul(2).max(FEW);
        }
        let made = Arc::new(make());
        by_name.insert(Arc::from(name), Arc::downgrade(&made));
        made
    }

    /// All that are in use, by name.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.by_name.iter().filter_map(|(name, counters)| Some((Arc::clone(name), counters.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_forgotten_however_many_come() {
        let kept = Kept::<u32>::default();
        let held: Vec<_> = (0..100).map(|n| kept.get_or_make(&n.to_string(), || n)).collect();
        for n in 100..10_000 {
            kept.get_or_make(&n.to_string(), || n);
            assert!(kept.names.lock().unwrap().by_name.len() <= 2 * held.len());
        }
        assert_eq!(kept.all().len(), held.len());
        assert!(Arc::ptr_eq(&kept.get_or_make("7", || 0), &held[7]));
    }
}
