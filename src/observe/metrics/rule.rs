//! How often a rule of a route kept a request out.

use super::WorkerId;
use super::cells::Cells;

/// The counter of one rule of one route.
#[derive(Debug)]
pub struct RuleMetrics {
    cells: Cells<1>,
}

impl RuleMetrics {
    pub(super) fn new(workers: usize) -> RuleMetrics {
        RuleMetrics { cells: Cells::new(workers) }
    }

    /// A request was denied by it.
    pub fn denied(&self, worker: WorkerId) {
        self.cells.of(worker).add(0, 1);
    }

    pub(super) fn denied_total(&self) -> u64 {
        self.cells.sum(0)
    }
}
