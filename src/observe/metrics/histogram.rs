//! Histograms of durations: one set of buckets for all of them.

use std::time::Duration;

use prometheus::proto;

use super::cells::{Cells, Writer};

/// Upper bounds in microseconds, 1 ms to 60 s; one more bucket takes what is above.
pub(super) const BOUNDS: [u32; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Cells that one histogram takes: its buckets, each counting for itself, and the sum in microseconds.
pub(super) const WIDTH: usize = BOUNDS.len() + 2;

const SUM: usize = BOUNDS.len() + 1;

/// Counts a duration in the histogram whose cells begin at `first`.
pub(super) fn observe<const N: usize>(cells: &Writer<'_, N>, first: usize, duration: Duration) {
    let micros = micros(duration);
    cells.add(first + bucket(micros), 1);
    cells.add(first + SUM, micros);
}

/// Rounded up, so that a duration just above a bound is not taken for one that is equal to it.
fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_nanos().div_ceil(1000)))
}

/// The bounds are all compared, without a branch: that is a handful of vector instructions.
fn bucket(micros: u64) -> usize {
    let micros = u32::try_from(micros).unwrap_or(u32::MAX);
    BOUNDS.iter().map(|bound| usize::from(micros > *bound)).sum()
}

/// The histogram whose cells begin at `first`, summed over all threads.
pub(super) fn read<const N: usize>(cells: &Cells<N>, first: usize) -> proto::Histogram {
    let mut count: u64 = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (index, bound) in BOUNDS.iter().enumerate() {
        count = count.wrapping_add(cells.sum(first + index));
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(f64::from(*bound) / 1e6);
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    count = count.wrapping_add(cells.sum(first + BOUNDS.len()));
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(cells.sum(first + SUM) as f64 / 1e6);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::WorkerId;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        assert_eq!(bucket(0), 0);
        for (index, bound) in BOUNDS.iter().enumerate() {
            assert_eq!(bucket(u64::from(*bound)), index);
            assert_eq!(bucket(u64::from(*bound) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BOUNDS.len());
    }

    #[test]
    fn a_nanosecond_above_a_bound_is_above_it() {
        assert_eq!(bucket(micros(Duration::from_millis(1))), 0);
        assert_eq!(bucket(micros(Duration::from_millis(1) + Duration::from_nanos(1))), 1);
        assert_eq!(micros(Duration::MAX), u64::MAX);
    }

    #[test]
    fn buckets_accumulate_over_workers() {
        let cells = Cells::<{ WIDTH + 1 }>::new(2);
        observe(&cells.of(WorkerId(0)), 1, Duration::from_micros(500));
        observe(&cells.of(WorkerId(1)), 1, Duration::from_millis(3));
        observe(&cells.shared(), 1, Duration::from_secs(90));
        let histogram = read(&cells, 1);
        assert_eq!(histogram.get_sample_count(), 3);
        assert!((histogram.get_sample_sum() - 90.0035).abs() < 1e-9);
        let counts: Vec<_> = histogram.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts, [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert!((histogram.get_bucket()[1].upper_bound() - 0.0025).abs() < 1e-12);
    }
}
