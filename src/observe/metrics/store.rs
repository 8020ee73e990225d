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

const DURATION: usize = Asked::ALL.len();
const CELLS: usize = DURATION + histogram::WIDTH;

/// The counters of one store.
#[derive(Debug)]
pub struct StoreMetrics {
    cells: Cells<CELLS>,
    lost: AtomicUsize,
}

impl StoreMetrics {
    pub(super) fn new(workers: usize) -> StoreMetrics {
        StoreMetrics { cells: Cells::new(workers), lost: AtomicUsize::new(0) }
    }

    pub fn asked(&self, worker: WorkerId, what: Asked) {
        self.cells.of(worker).add(what as usize, 1);
    }

    /// It took so long until it answered, or was given up.
    pub fn took(&self, worker: WorkerId, duration: Duration) {
        histogram::observe(&self.cells.of(worker), DURATION, duration);
    }

    /// One more worker has lost it, or has found it again.
    pub fn lost(&self, lost: bool) {
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.lost.load(Ordering::Relaxed) == 0
    }

    pub(super) fn asked_total(&self, what: Asked) -> u64 {
        self.cells.sum(what as usize)
    }

    pub(super) fn duration(&self) -> proto::Histogram {
        histogram::read(&self.cells, DURATION)
    }
}
