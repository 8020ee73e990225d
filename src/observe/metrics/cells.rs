//! The cells that counters are made of: a block for each worker, and one for everybody else.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a data-plane thread, from zero: which cells it counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);

impl WorkerId {
    /// For threads that are no worker.
    pub const NONE: WorkerId = WorkerId(usize::MAX);
}

/// `N` counters, each kept once a worker and once more for threads that are no worker.
///
/// Only a worker's own thread writes its block, so it needs no read-modify-write; whoever reads sums the blocks.
#[derive(Debug)]
pub(super) struct Cells<const N: usize> {
    workers: Box<[Block<N>]>,
    shared: Block<N>,
}

/// Two cache lines apart from its neighbours, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Block<const N: usize>([AtomicU64; N]);

impl<const N: usize> Cells<N> {
    pub(super) fn new(workers: usize) -> Cells<N> {
        Cells { workers: (0..workers).map(|_| Block::new()).collect(), shared: Block::new() }
    }

    /// The cells that a worker writes. To be called on that worker's thread; a number past the workers' is counted
    /// correctly all the same, only slower.
    pub(super) fn of(&self, worker: WorkerId) -> Writer<'_, N> {
        match self.workers.get(worker.0) {
            Some(block) => Writer::Own(&block.0),
            None => self.shared(),
        }
    }

    /// The cells for any other thread.
    pub(super) fn shared(&self) -> Writer<'_, N> {
        Writer::Shared(&self.shared.0)
    }

    /// A counter's value over all threads.
    pub(super) fn sum(&self, cell: usize) -> u64 {
        self.workers
            .iter()
            .chain([&self.shared])
            .filter_map(|block| block.0.get(cell))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }

    /// What `up` counted less what `down` counted. Read in this order, a gauge can be late but never below zero by
    /// much; what little remains of a race is cut off.
    pub(super) fn gauge(&self, up: usize, down: usize) -> u64 {
        let down = self.sum(down);
        let difference = self.sum(up).wrapping_sub(down);
        if difference > u64::MAX / 2 { 0 } else { difference }
    }
}

impl<const N: usize> Block<N> {
    fn new() -> Block<N> {
        Block([const { AtomicU64::new(0) }; N])
    }
}

/// One block, and how it may be written.
pub(super) enum Writer<'a, const N: usize> {
    /// Nobody else writes here.
    Own(&'a [AtomicU64; N]),
    Shared(&'a [AtomicU64; N]),
}

impl<const N: usize> Writer<'_, N> {
    pub(super) fn add(&self, cell: usize, by: u64) {
        match self {
            Writer::Own(block) => {
                if let Some(cell) = block.get(cell) {
                    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
                }
            }
            Writer::Shared(block) => {
                if let Some(cell) = block.get(cell) {
                    cell.fetch_add(by, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_all_threads_are_summed() {
        let cells = Cells::<3>::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let cells = &cells;
                scope.spawn(move || (0..1000).for_each(|_| cells.of(WorkerId(worker)).add(1, 2)));
            }
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| cells.shared().add(1, 1)));
                scope.spawn(|| (0..1000).for_each(|_| cells.of(WorkerId(7)).add(1, 1)));
            }
        });
        assert_eq!(cells.sum(1), 8000);
        assert_eq!((cells.sum(0), cells.sum(2), cells.sum(3)), (0, 0, 0));
    }

    #[test]
    fn gauge_never_goes_below_zero() {
        let cells = Cells::<2>::new(2);
        cells.of(WorkerId(0)).add(0, 3);
        cells.of(WorkerId(1)).add(1, 1);
        assert_eq!(cells.gauge(0, 1), 2);
        cells.of(WorkerId(1)).add(1, 4);
        assert_eq!(cells.gauge(0, 1), 0);
    }

    #[test]
    fn blocks_lie_apart() {
        assert_eq!(std::mem::align_of::<Block<1>>(), 128);
    }
}
