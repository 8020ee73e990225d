//! The memory that bodies may take while they are judged, over all workers.
//!
//! A body of JSON grows many times over when it is read: `[{"a":1},...]` some eighty times. So what is counted is an
//! estimate of what is held, not what came over the wire.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes for all bodies together.
const TOTAL: usize = 512 * 1024 * 1024;

/// Bytes for one body.
const ONE: usize = 256 * 1024 * 1024;

/// What all requests draw from.
static BUDGET: Budget = Budget::new(TOTAL, ONE);

/// A bound on what is held.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    total: usize,
    one: usize,
}

/// What a body holds of a budget; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: &'static Budget,
    bytes: usize,
}

/// Why more cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// This body is more than any may be.
    One,
    /// All together are; later there may be room.
    All,
}

impl Budget {
    pub const fn new(total: usize, one: usize) -> Budget {
        Budget { held: AtomicUsize::new(0), total, one }
    }

    pub fn hold_nothing(&'static self) -> Held {
        Held { budget: self, bytes: 0 }
    }
}

impl Held {
    /// Of the budget of the process.
    pub fn nothing() -> Held {
        BUDGET.hold_nothing()
    }

    /// # Errors
    /// When the bound is met: then nothing is added.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let mine = self.bytes.saturating_add(bytes);
        if mine > self.budget.one {
            return Err(Full::One);
        }
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.total {
            self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Full::All);
        }
        self.bytes = mine;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Tokens and small bodies hold nothing, and then no other worker's cache is disturbed.
        if self.bytes > 0 {
            self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        static SMALL: Budget = Budget::new(100, 60);
        let (mut one, mut other) = (SMALL.hold_nothing(), SMALL.hold_nothing());
        assert_eq!(one.grow(61), Err(Full::One));
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(Full::All));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(one.grow(1), Err(Full::One));
        drop(one);
        assert_eq!(other.grow(20), Ok(()));
        drop(other);
        assert_eq!(SMALL.held.load(Ordering::Relaxed), 0);
    }
}
