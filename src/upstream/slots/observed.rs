//! What was seen of a server with so many requests in flight, and the number of workers under which that is the likeliest.

use std::time::Duration;

use super::ranks::Ranked;

/// Observations that are kept.
const KEPT: usize = 48;

/// Seconds after which an observation counts for half.
const HALF: f64 = 10.0;

/// By how much the likelihood (its logarithm) of one number must exceed that of a higher one to be preferred: too few
/// slots cost answers, too many do not.
const CLEARLY: f64 = 1.5;

/// What a rank above the number of workers counts against it, one that should have been seen, and all of them together:
/// servers with several listen backlogs answer out of order.
const RANK_TOO_HIGH: f64 = 3.0;
const RANK_UNSEEN: f64 = 0.3;
const RANKS_AT_MOST: f64 = 5.0;

/// Nobody has more.
pub(super) const MOST: usize = 1000;

/// For a while, with about the same number of requests in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) in_flight: f64,
    pub(super) seconds: f64,
    pub(super) answers: f64,
    pub(super) ranked: Option<Ranked>,
    pub(super) at: Duration,
}

impl Observation {
    /// What it counts for by now.
    pub(super) fn weight(&self, now: Duration) -> f64 {
        (-now.saturating_sub(self.at).as_secs_f64() / HALF).exp2()
    }
}

/// The observations of late.
#[derive(Default)]
pub(super) struct Observed {
    all: Vec<Observation>,
}

/// The number of workers by what was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) likeliest: usize,
    /// The highest that is not clearly less likely.
    pub(super) credible: usize,
}

impl Observed {
    pub(super) fn add(&mut self, observation: Observation) {
        if self.all.len() >= KEPT {
            self.all.remove(0);
        }
        self.all.push(observation);
    }

    /// Forgets all but the last.
    pub(super) fn forget(&mut self) {
        let last = self.all.pop();
        self.all.clear();
        self.all.extend(last);
    }

    /// The most in flight that lately was tried, rounded.
    pub(super) fn highest(&self, now: Duration) -> usize {
        let lately = self.all.iter().filter(|seen| seen.weight(now) > 0.3);
        whole(lately.map(|seen| seen.in_flight).fold(0.0, f64::max))
    }

    /// How many answers were seen well below `workers`, by what they count.
    pub(super) fn below(&self, workers: f64, now: Duration) -> f64 {
        let low = self.all.iter().filter(|seen| seen.in_flight < (0.8 * workers).min(workers - 0.5));
        low.map(|seen| seen.weight(now) * seen.answers).sum()
    }

    /// See [`Verdict`]. `spread`: how much the times of requests differ, their variance over the square of their mean;
    /// the more they do, the less a difference says.
    ///
    /// With `n` workers the answers that come in `t` seconds with `c` in flight are about `t · min(c, n)` times some rate
    /// that is the same for all. That rate is chosen as fits best for each `n`; what is compared is how well it fits.
    pub(super) fn verdict(&self, spread: f64, now: Duration) -> Verdict {
        let highest = whole(self.all.iter().map(|seen| seen.in_flight).fold(1.0, f64::max)).clamp(1, MOST);
        let likelihoods: Vec<(usize, f64)> =
            (1..=highest).map(|workers| (workers, self.likelihood(workers, spread, now))).collect();
        let best = likelihoods.iter().map(|(_, likelihood)| *likelihood).fold(f64::MIN, f64::max);
        let last = |least: f64| {
            let found = likelihoods.iter().rev().find(|(_, likelihood)| *likelihood >= least);
            found.map_or(1, |(workers, _)| *workers)
        };
        Verdict { likeliest: last(best), credible: last(best - CLEARLY) }
    }

    fn likelihood(&self, workers: usize, spread: f64, now: Duration) -> f64 {
        self.by_rate(workers, now) / spread - self.against_ranks(workers, now)
    }

    fn by_rate(&self, workers: usize, now: Duration) -> f64 {
        let (mut answers, mut work, mut sum) = (0.0, 0.0, 0.0);
        for seen in &self.all {
            let weight = seen.weight(now);
            let busy = seen.in_flight.min(workers as f64).max(f64::MIN_POSITIVE);
            answers += weight * seen.answers;
            work += weight * seen.seconds * busy;
            sum += weight * seen.answers * busy.ln();
        }
        sum - answers * work.max(f64::MIN_POSITIVE).ln()
    }

    /// How incredible the ranks are. With more workers than the highest rank others would have been seen, the sooner the
    /// more the times differ; with fewer it would not have been.
    fn against_ranks(&self, workers: usize, now: Duration) -> f64 {
        let (mut too_few, mut too_many) = (0.0, 0.0);
        for seen in &self.all {
            let Some(ranked) = seen.ranked else { continue };
            let weight = seen.weight(now);
            if ranked.highest > workers as f64 {
                too_few += RANK_TOO_HIGH * weight;
            }
            // The highest is hardly ever among few.
            let highest = ranked.highest * (seen.answers + 1.0) / (seen.answers - 1.0).max(1.0);
            let expected = seen.in_flight.min(workers as f64) - 0.3 * (highest - 2.0).max(0.0);
            if expected > highest {
                let disorder = (2.0 * ranked.disorder() - 1.0).max(0.0);
                too_many += RANK_UNSEEN * weight * disorder * seen.answers * (expected / highest).ln();
            }
        }
        too_few.min(RANKS_AT_MOST) + too_many.min(RANKS_AT_MOST)
    }

    /// The highest rank of late.
    pub(super) fn rank(&self, now: Duration) -> f64 {
        let lately = self.all.iter().filter(|seen| seen.weight(now) > 0.3);
        lately.filter_map(|seen| seen.ranked).map(|ranked| ranked.highest).fold(1.0, f64::max)
    }

    /// Whether the last observations make those before incredible: with work enough for `workers`, answers come at
    /// another rate.
    pub(super) fn is_contradicted(&self, workers: usize, spread: f64, now: Duration) -> bool {
        const LATE: usize = 4;
        let (mut late, mut early) = ((0.0, 0.0), (0.0, 0.0));
        let busy = self.all.iter().rev().filter(|seen| seen.in_flight >= workers as f64 - 0.3);
        for (index, seen) in busy.enumerate() {
            let weight = seen.weight(now);
            let sums = if index < LATE && late.0 < 60.0 * spread { &mut late } else { &mut early };
            sums.0 += weight * seen.answers;
            sums.1 += weight * seen.seconds;
        }
        if early.0 < 4.0 || late.1 <= 0.0 {
            return false;
        }
        let expected = early.0 / early.1 * late.1;
        let deviation = (late.0 - expected).abs();
        deviation > 4.5 * (expected * spread * (1.0 + late.1 / early.1)).sqrt() && deviation > 0.25 * expected
    }
}

/// Numbers of requests are far from where this would not fit.
pub(super) fn whole(number: f64) -> usize {
    number.round().clamp(0.0, 1e6) as usize
}
