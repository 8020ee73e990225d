//! The slots of a server: how many requests it runs at once, and how many of them are taken.
//!
//! A slot that is free is taken by one compare-and-swap; where their number is not bounded, by one addition. Those who
//! must wait do so in the upstream's [`Queue`](super::queue::Queue). Whoever gives a slot back looks for them
//! afterwards, and they look for a slot once more after they have lined up: both sides write before they read, in one
//! order for all threads, so that one of them sees the other.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::settings::SlotSettings;

/// No bound.
const UNLIMITED: usize = usize::MAX;

/// See the module.
pub(super) struct Slots {
    limit: AtomicUsize,
    busy: AtomicUsize,
}

impl Slots {
    pub(super) fn new(settings: SlotSettings) -> Slots {
        let slots = Slots { limit: AtomicUsize::new(UNLIMITED), busy: AtomicUsize::new(0) };
        slots.set(settings);
        slots
    }

    /// A snapshot with these settings is in force. Slots that are taken beyond a smaller number are given back in
    /// their time.
    pub(super) fn set(&self, settings: SlotSettings) {
        let limit = match settings {
            SlotSettings::Unlimited | SlotSettings::Auto => UNLIMITED,
            SlotSettings::Fixed(slots) => slots.get(),
        };
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// Takes a slot if one is free.
    pub(super) fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit == UNLIMITED {
            self.busy.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        let more = |busy: usize| (busy < limit).then(|| busy.saturating_add(1));
        self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives one back. Whoever does it looks for those who wait afterwards.
    pub(super) fn give_back(&self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_full(&self) -> bool {
        self.busy.load(Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst)
    }

    /// Slots that are taken.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// How many there are; `None`: any number.
    pub(super) fn limit(&self) -> Option<usize> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != UNLIMITED)
    }
}
