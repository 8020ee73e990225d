//! In which order answers come: the rank of a request that ends, by age among those in flight.
//!
//! Workers take requests from a listen backlog in order. So of those in flight the oldest are being worked on, as many as
//! there are workers, and no answer has a rank above their number. Where requests take unequal times, that rank is reached
//! soon: it tells the number of workers at no cost. (Where they take equal times the oldest answers first, always; but
//! then the rates say precisely what ranks do not.) A server that has several backlogs answers out of order, and requests
//! pass one another on their way now and then: so this is a hint, to be weighed.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many of the last requests are followed. One that stays for longer keeps its place, and whoever would have it next
/// has none.
const FOLLOWED: u64 = 1024;
const WORDS: usize = 16;

/// Ranks that are counted apart: those below 16, then eighths of a power of two.
const BUCKETS: usize = 64;

/// Who is in flight, and what ranks there were; a few atomic operations for each request.
#[derive(Default)]
pub(super) struct Ranks {
    next: AtomicU64,
    /// Bits by turn, around and around.
    in_flight: [AtomicU64; WORDS],
    counts: Box<CountsInUse>,
}

struct CountsInUse([AtomicU64; BUCKETS]);

impl Default for CountsInUse {
    fn default() -> CountsInUse {
        CountsInUse(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// How many answers had which rank; only what that grows by is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts([u64; BUCKETS]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; BUCKETS])
    }
}

impl Ranks {
    /// Returns its turn; `None`: it is not followed.
    pub(super) fn begin(&self) -> Option<u64> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (word, bit) = self.place(turn)?;
        (word.fetch_or(bit, Ordering::Relaxed) & bit == 0).then_some(turn)
    }

    pub(super) fn end(&self, turn: u64) {
        let Some((word, bit)) = self.place(turn) else { return };
        word.fetch_and(!bit, Ordering::Relaxed);
        let rank = self.in_flight_before(turn).saturating_add(1);
        if let Some(count) = self.counts.0.get(bucket(rank)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (count, in_use) in counts.0.iter_mut().zip(&self.counts.0) {
            *count = in_use.load(Ordering::Relaxed);
        }
        counts
    }

    fn place(&self, turn: u64) -> Option<(&AtomicU64, u64)> {
        let place = turn % FOLLOWED;
        Some((self.in_flight.get(usize::try_from(place / 64).ok()?)?, 1 << (place % 64)))
    }

    /// All but those from this turn on.
    fn in_flight_before(&self, turn: u64) -> u32 {
        let (from, to) = (turn % FOLLOWED, self.next.load(Ordering::Relaxed) % FOLLOWED);
        let is_whole = from < to;
        let mut count = 0_u32;
        for (first, word) in (0..FOLLOWED).step_by(64).zip(&self.in_flight) {
            let (from, to) = (below(from, first), below(to, first));
            let others = if is_whole { from | !to } else { from & !to };
            count = count.saturating_add((word.load(Ordering::Relaxed) & others).count_ones());
        }
        count
    }
}

/// The bits of the word that begins at place `first` whose places come before `place`.
fn below(place: u64, first: u64) -> u64 {
    match place.saturating_sub(first) {
        bits @ 0..64 => (1 << bits) - 1,
        64.. => u64::MAX,
    }
}

fn bucket(rank: u32) -> usize {
    let rank = rank.clamp(1, 1023);
    let bucket = if rank < 16 {
        rank
    } else {
        let power = rank.ilog2();
        16_u32.saturating_add(power.saturating_sub(4).saturating_mul(8)).saturating_add((rank >> (power - 3)) & 7)
    };
    usize::try_from(bucket).unwrap_or_default()
}

/// The least rank of a bucket.
fn least_of(bucket: usize) -> usize {
    match bucket.checked_sub(16) {
        None => bucket,
        Some(rest) => (8 + rest % 8) << (rest / 8 + 1),
    }
}

impl Counts {
    /// What the ranks were since `before`. `None`: there were no answers.
    pub(super) fn since(&self, before: &Counts) -> Option<Ranked> {
        let counts = self.0.iter().zip(&before.0).map(|(now, before)| now.wrapping_sub(*before));
        let counts: Vec<(f64, u64)> =
            counts.enumerate().map(|(bucket, count)| (least_of(bucket) as f64, count)).collect();
        let (mut all, mut sum) = (0_u64, 0.0);
        for (rank, count) in &counts {
            all = all.saturating_add(*count);
            sum += rank * *count as f64;
        }
        let stray = all / 25;
        let mut above = 0_u64;
        let highest = counts.iter().rev().find(|(_, count)| {
            above = above.saturating_add(*count);
            above > stray
        });
        highest.map(|(highest, _)| Ranked { highest: *highest, mean: sum / all as f64 })
    }
}

/// The ranks of some answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ranked {
    /// The highest, but for a few in a hundred answers.
    pub(super) highest: f64,
    pub(super) mean: f64,
}

impl Ranked {
    /// From 0, where the oldest always answers first, to 1, where all are as likely to.
    pub(super) fn disorder(&self) -> f64 {
        if self.highest > 1.0 { (2.0 * (self.mean - 1.0) / (self.highest - 1.0)).min(1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest(ranks: &Ranks) -> Option<f64> {
        ranks.counts().since(&Counts::default()).map(|ranked| ranked.highest)
    }

    #[test]
    fn ranks_are_told_around_the_ring() {
        let ranks = Ranks::default();
        for _ in 0..3000 {
            let turns: Vec<_> = (0..7).map(|_| ranks.begin().unwrap()).collect();
            // The fifth of seven; the rest in order.
            ranks.end(turns[4]);
            for turn in [0, 1, 2, 3, 5, 6] {
                ranks.end(turns[turn]);
            }
        }
        assert_eq!(highest(&ranks), Some(5.0));
        assert_eq!((ranks.counts().0[1], ranks.counts().0[5]), (18_000, 3000));
    }

    #[test]
    fn one_that_stays_counts_as_older_than_all_that_come_after_it() {
        let ranks = Ranks::default();
        ranks.begin().unwrap();
        for _ in 0..5000 {
            if let Some(turn) = ranks.begin() {
                ranks.end(turn);
            }
        }
        assert_eq!(highest(&ranks), Some(2.0));
    }

    #[test]
    fn high_ranks_are_told_roughly() {
        for rank in 1..1024 {
            let least = least_of(bucket(rank)) as f64;
            assert!(least <= f64::from(rank) && least > f64::from(rank) * 0.88, "{rank}: {least}");
        }
    }
}
