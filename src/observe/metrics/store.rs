//! What is counted of a store of limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::proto;

use super::WorkerId;
use super::cells::Cells;
use super::histogram;

/// What came of asking a store, or of wanting to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Admitted,
    Refused,
    /// It did not answer in time.
    Timeout,
    /// It failed.
    Failure,
    /// It was known to be away and not asked.
    Away,
}

impl Asked {
    pub(super) const ALL: [Asked; 5] = [Asked::Admitted, Asked::Refused, Asked::Timeout, Asked::Failure, Asked::Away];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Asked::Admitted => "admitted",
            Asked::Refused => "refused",
            Asked::Timeout => "timeout",
            Asked::Failure => "failure",
            Asked::Away => "away",
        }
    }
}

/// What a worker knows of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    /// It counts there.
    Up,
    Away,
}

/// What a worker's knowing better means for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the first one to have lost the store.
    Lost,
    /// It was the last one to find the store again.
    Found,
}

const DURATION: usize = Asked::ALL.len();
const CELLS: usize = DURATION + histogram::WIDTH;

/// The counters of one store.
#[derive(Debug)]
pub struct StoreMetrics {
    cells: Cells<CELLS>,
    /// How many workers count there.
    up: AtomicUsize,
    /// How many have lost it, or never reached it.
    away: AtomicUsize,
}

impl StoreMetrics {
    pub(super) fn new(workers: usize) -> StoreMetrics {
        StoreMetrics { cells: Cells::new(workers), up: AtomicUsize::new(0), away: AtomicUsize::new(0) }
    }

    pub fn asked(&self, worker: WorkerId, what: Asked) {
        self.cells.of(worker).add(what as usize, 1);
    }

    /// It took so long until it answered, or was given up.
    pub fn took(&self, worker: WorkerId, duration: Duration) {
        histogram::observe(&self.cells.of(worker), DURATION, duration);
    }

    /// What a worker knew, and what it knows now.
    pub fn stands(&self, before: Standing, now: Standing) -> Option<Turn> {
        if before == now {
            return None;
        }
        let lost_before = match now {
            Standing::Unknown => None,
            Standing::Up => {
                self.up.fetch_add(1, Ordering::Relaxed);
                None
            }
            Standing::Away => Some(self.away.fetch_add(1, Ordering::Relaxed)),
        };
        let lost_until_now = match before {
            Standing::Unknown => None,
            Standing::Up => {
                self.up.fetch_sub(1, Ordering::Relaxed);
                None
            }
            Standing::Away => Some(self.away.fetch_sub(1, Ordering::Relaxed)),
        };
        match (lost_before, lost_until_now, now) {
            (Some(0), _, _) => Some(Turn::Lost),
            (_, Some(1), Standing::Up) => Some(Turn::Found),
            (_, _, _) => None,
        }
    }

    /// Nobody counts there before it was reached for the first time.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) > 0 && self.away.load(Ordering::Relaxed) == 0
    }

    pub(super) fn asked_total(&self, what: Asked) -> u64 {
        self.cells.sum(what as usize)
    }

    pub(super) fn duration(&self) -> proto::Histogram {
        histogram::read(&self.cells, DURATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_once_it_was_reached_and_while_nobody_has_lost_it() {
        use Standing::{Away, Unknown, Up};
        let metrics = StoreMetrics::new(2);
        let mut turns = Vec::new();
        let mut up = vec![metrics.is_up()];
        for (before, now) in [(Unknown, Up), (Unknown, Away), (Up, Away), (Away, Away), (Away, Up), (Away, Up)] {
            turns.push(metrics.stands(before, now));
            up.push(metrics.is_up());
        }
        assert_eq!(turns, [None, Some(Turn::Lost), None, None, None, Some(Turn::Found)]);
        assert_eq!(up, [false, true, false, false, false, false, true]);
        // Those that no snapshot has any more are neither.
        assert_eq!([metrics.stands(Up, Unknown), metrics.stands(Up, Unknown)], [None, None]);
        assert!(!metrics.is_up());
    }
}
