//! The slots of a server: how many requests it runs at once, and how many of them are taken.
//!
//! A slot that is free is taken by one compare-and-swap; where their number is not bounded, by one addition. Those who
//! must wait do so in the upstream's [`Queue`](super::queue::Queue). Whoever gives a slot back looks for them
//! afterwards, and they look for a slot once more after they have lined up: both sides write before they read, in one
//! order for all threads, so that one of them sees the other.

mod gauge;
mod learner;
mod observed;
mod ranks;
#[cfg(test)]
mod simulation;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::settings::SlotSettings;
use gauge::{Gauge, Measured};
use learner::Learner;

/// No bound.
const UNLIMITED: usize = usize::MAX;

/// See the module.
pub(super) struct Slots {
    limit: AtomicUsize,
    busy: AtomicUsize,
    /// Whether the number is learnt; only then anything is measured.
    learns: AtomicBool,
    gauge: Gauge,
    learning: Mutex<Option<Learning>>,
}

/// Looked at by the control plane alone.
struct Learning {
    learner: Learner,
    /// What the learner has found; its slots of the moment are a little more or less.
    estimate: usize,
}

/// A slot that was taken.
#[derive(Debug)]
#[must_use]
pub(super) struct Taken {
    measured: Option<Measured>,
}

impl Slots {
    pub(super) fn new(settings: SlotSettings) -> Slots {
        let slots = Slots {
            limit: AtomicUsize::new(UNLIMITED),
            busy: AtomicUsize::new(0),
            learns: AtomicBool::new(false),
            gauge: Gauge::default(),
            learning: Mutex::new(None),
        };
        slots.set(settings);
        slots
    }

    /// A snapshot with these settings is in force. Slots that are taken beyond a smaller number are given back in
    /// their time; what was learnt stays known.
    pub(super) fn set(&self, settings: SlotSettings) {
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = match settings {
            SlotSettings::Unlimited | SlotSettings::Fixed(_) => {
                *learning = None;
                if let SlotSettings::Fixed(slots) = settings { slots.get() } else { UNLIMITED }
            }
            SlotSettings::Auto => {
                let learner = Learner::new();
                let estimate = learner.estimate();
                learning.get_or_insert(Learning { learner, estimate }).learner.slots()
            }
        };
        self.learns.store(learning.is_some(), Ordering::Relaxed);
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// Where the number is learnt, looks at what came of it. `answers`: how many answers have begun; `is_wanted`:
    /// whether requests wait for a slot.
    pub(super) fn learn(&self, answers: u64, is_wanted: bool) {
        if let Some(learning) = &mut *self.learning.lock().unwrap_or_else(PoisonError::into_inner) {
            learning.learner.look(&self.gauge.read(answers, is_wanted));
            learning.estimate = learning.learner.estimate();
            self.limit.store(learning.learner.slots(), Ordering::SeqCst);
        }
    }

    /// Takes a slot if one is free.
    pub(super) fn take(&self) -> Option<Taken> {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit == UNLIMITED {
            self.busy.fetch_add(1, Ordering::SeqCst);
        } else {
            let more = |busy: usize| (busy < limit).then(|| busy.saturating_add(1));
            self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        }
        Some(Taken { measured: self.learns.load(Ordering::Relaxed).then(|| self.gauge.begin()) })
    }

    /// Gives one back. Whoever does it looks for those who wait afterwards.
    pub(super) fn give_back(&self, taken: Taken) {
        if let Some(measured) = &taken.measured {
            self.gauge.end(measured);
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_full(&self) -> bool {
        self.busy.load(Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst)
    }

    /// Slots that are taken.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// How many may be taken at this moment; `None`: any number.
    pub(super) fn limit(&self) -> Option<usize> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != UNLIMITED)
    }

    /// How many there are, as users are told: what was set, or has been learnt.
    pub(super) fn count(&self) -> Option<usize> {
        let learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        learning.as_ref().map(|learning| learning.estimate).or_else(|| self.limit())
    }
}
