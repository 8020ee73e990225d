//! The retry budget: retries never exceed a share of the requests of the last ten seconds.
//!
//! A budget keeps an outage from doubling its own load. Small services get a floor of ten retries a second, for a
//! fifth of nothing is nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock;

/// Seconds that the share is reckoned over.
const WINDOW: u64 = 10;
/// Retries that are granted in any second, whatever the share says.
const FLOOR: u64 = 10;
/// The bits of a cell that count; the rest is the second that they belong to.
const COUNT: u64 = 0xffff_ffff;

/// Shared by all workers; no locks.
#[derive(Debug)]
pub struct Budget {
    percent: u64,
    requests: Window,
    retries: Window,
}

impl Budget {
    /// Grants retries up to `percent` of the requests.
    pub(super) fn new(percent: u32) -> Budget {
        Budget { percent: percent.into(), requests: Window::default(), retries: Window::default() }
    }

    pub(super) fn percent(&self) -> u64 {
        self.percent
    }

    /// A request (not a retry) was sent to the upstream.
    pub fn request(&self) {
        self.requests.count(clock::recent() / 1000);
    }

    /// Takes one retry from the budget, if there is one. Threads that ask at the same moment may overdraw it by one
    /// retry each.
    pub fn take(&self) -> bool {
        self.take_at(second())
    }

    fn take_at(&self, second: u64) -> bool {
        let share = self.requests.sum(second).saturating_mul(self.percent) / 100;
        let granted = self.retries.sum(second) < share || self.retries.of(second) < FLOOR;
        if granted {
            self.retries.count(second);
        }
        granted
    }
}

fn second() -> u64 {
    clock::now() / 1000
}

/// Events of the last ten seconds, a cell for each second.
#[derive(Debug, Default)]
struct Window {
    /// The second in the upper half, the events in it in the lower.
    cells: [AtomicU64; WINDOW as usize],
}

impl Window {
    fn count(&self, second: u64) {
        let Some(cell) = self.cell(second) else { return };
        let stamp = second << 32;
        let mut seen = cell.load(Ordering::Relaxed);
        // A cell that is ahead belongs to a thread that read the clock later: its count is as good a place.
        while seen & !COUNT < stamp {
            match cell.compare_exchange_weak(seen, stamp | 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
        cell.fetch_add(1, Ordering::Relaxed);
    }

    /// Events in this second and the nine before it.
    fn sum(&self, second: u64) -> u64 {
        let oldest = second.saturating_sub(WINDOW.saturating_sub(1));
        self.cells
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .filter(|cell| (oldest..=second).contains(&(cell >> 32)))
            .map(|cell| cell & COUNT)
            .sum()
    }

    fn of(&self, second: u64) -> u64 {
        let cell = self.cell(second).map_or(0, |cell| cell.load(Ordering::Relaxed));
        if cell >> 32 == second { cell & COUNT } else { 0 }
    }

    fn cell(&self, second: u64) -> Option<&AtomicU64> {
        usize::try_from(second % WINDOW).ok().and_then(|index| self.cells.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(budget: &Budget, second: u64, count: usize) {
        for _ in 0..count {
            budget.requests.count(second);
        }
    }

    fn taken(budget: &Budget, second: u64) -> usize {
        (0..10_000).take_while(|_| budget.take_at(second)).count()
    }

    #[test]
    fn without_requests_the_floor_holds_in_each_second() {
        let budget = Budget::new(20);
        assert_eq!(taken(&budget, 100), 10);
        assert_eq!(taken(&budget, 101), 10);
        assert_eq!(taken(&budget, 101), 0);
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_ten_seconds() {
        let budget = Budget::new(20);
        for second in 100..110 {
            requests(&budget, second, 100);
        }
        // 20% of 1000 in all; the floor of this very second lies within it.
        assert_eq!(taken(&budget, 109), 200);
        // The next second has lost 100 requests from its window and 200 retries are still in it.
        assert_eq!(taken(&budget, 110), 10);
    }

    #[test]
    fn requests_older_than_the_window_count_no_more() {
        let budget = Budget::new(50);
        requests(&budget, 100, 1000);
        assert_eq!(budget.requests.sum(109), 1000);
        assert_eq!(budget.requests.sum(110), 0);
        assert_eq!(taken(&budget, 110), 10);
    }

    #[test]
    fn a_cell_is_used_again_ten_seconds_later() {
        let budget = Budget::new(20);
        requests(&budget, 100, 7);
        requests(&budget, 110, 3);
        assert_eq!(budget.requests.sum(110), 3);
    }

    #[test]
    fn a_share_of_nothing_leaves_the_floor() {
        let budget = Budget::new(0);
        requests(&budget, 100, 1000);
        assert_eq!(taken(&budget, 100), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_can_be_driven() {
        let budget = Budget::new(20);
        let start = std::time::Duration::from_secs(1);
        tokio::time::advance(start).await;
        while budget.take() {}
        tokio::time::advance(start).await;
        assert!(budget.take());
    }
}
