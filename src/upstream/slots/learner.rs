//! How many requests a server runs at once, learnt from what comes of giving it more or fewer.
//!
//! A server with `n` workers answers in proportion to the requests that it has, up to `n` of them; from there on the
//! answers come no faster, and the requests wait inside. So the rate of answers over the requests in flight is a line
//! through nothing that bends at `n`, and where it bends is what this looks for. It looks only while there is more to do
//! than slots for it: a server with little to do shows nothing of where it would bend, and what is known of it stays.
//!
//! While all slots are taken, phases follow one another, each with another number of slots: at the estimate; some above,
//! which costs no answers, since what is too much waits in the server; and now and then below, for as short as will do
//! and for no more than a fiftieth of what the server can do. Each phase yields one observation, and the number of workers
//! under which all of them are the likeliest is the estimate. Where that may be the highest that was tried, more are
//! tried. Older observations count less and less; when the rate has plainly become another (workers have come or gone, or
//! the work has changed), all before is forgotten, and finding out again comes first.
//!
//! Nothing here compares latencies with the least that was ever seen: that drifts with the mix of requests, and whoever
//! looks for it anew has to starve the server for it.

use std::time::Duration;

use super::observed::{MOST, Observation, Observed};

/// What a server gets before anything is known.
const FIRST: usize = 4;

/// Phases in which finding out is worth more than it costs, once nothing is known.
const DOUBT: u32 = 12;

/// The part of what a server can do that phases below the estimate may cost.
const PRICE: f64 = 0.02;

/// Answers that tell how fast the server is below the estimate, where requests take about as long as one another, or as
/// many more as they differ; the cost up to which so many are waited for, in seconds of all that the server can do; and
/// what one phase may cost in any case.
const BELOW: f64 = 40.0;
const CHEAP: f64 = 0.2;
const DEAR: f64 = 0.4;

/// The longest that is waited for what a phase began with to end.
const LONGEST_SETTLING: f64 = 5.0;

/// What a server has done; all of it only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Since some moment.
    pub(super) now: Duration,
    /// Whether requests wait for a slot at this moment.
    pub(super) is_wanted: bool,
    /// Requests in flight over time, in seconds.
    pub(super) area: f64,
    /// Answers that began.
    pub(super) answers: u64,
    /// Requests that are over: how many, and the sums of how long they took in seconds and of the squares of that.
    pub(super) ended: u64,
    pub(super) took: f64,
    pub(super) squares: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    At,
    Above,
    Below,
}

/// A number of slots for a while.
struct Phase {
    kind: Kind,
    slots: usize,
    began: Duration,
    /// When what it began with is over; `None` until all its slots are taken.
    settled: Option<Duration>,
    seconds: f64,
    area: f64,
    answers: u64,
}

/// See the module.
pub(super) struct Learner {
    estimate: usize,
    phase: Phase,
    observed: Observed,
    last: Option<Reading>,
    /// Seconds in flight for each answer, of late; `None` before the first.
    latency: Option<f64>,
    times: Times,
    /// Phases for which to be in doubt.
    doubt: u32,
    /// What phases below have cost and may not have yet, in seconds of all that the server can do, and when that was
    /// reckoned.
    spent: f64,
    spent_at: Duration,
    was_above: bool,
}

impl Learner {
    pub(super) fn new() -> Learner {
        Learner {
            estimate: FIRST,
            phase: Phase::new(Kind::At, FIRST, Duration::ZERO),
            observed: Observed::default(),
            last: None,
            latency: None,
            times: Times::default(),
            doubt: DOUBT,
            spent: 0.0,
            spent_at: Duration::ZERO,
            was_above: true,
        }
    }

    /// What has been learnt.
    pub(super) fn estimate(&self) -> usize {
        self.estimate
    }

    /// How many slots there are to be until the next reading.
    pub(super) fn slots(&self) -> usize {
        self.phase.slots
    }

    /// Takes what the server has done until now. To be called several times in the time that requests take, or in a
    /// tenth of a second where they take longer.
    pub(super) fn look(&mut self, reading: Reading) {
        let Some(last) = self.last.replace(reading) else { return };
        let seconds = reading.now.saturating_sub(last.now).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let area = reading.area - last.area;
        let answers = reading.answers.wrapping_sub(last.answers);
        if answers > 0 {
            let latency = area / answers as f64;
            let share = (answers as f64 / 30.0).min(0.5);
            self.latency = Some(self.latency.map_or(latency, |before| before + share * (latency - before)));
        }
        self.times.add(&reading, &last);
        let Some(latency) = self.latency else { return };
        // Whether slots are taken by chance or for want of more shows in the queue alone.
        let is_wanted = last.is_wanted && reading.is_wanted;
        if !is_wanted || !self.phase.takes(last.now, area / seconds, latency) {
            return;
        }
        self.phase.seconds += seconds;
        self.phase.area += area;
        self.phase.answers = self.phase.answers.saturating_add(answers);
        if self.phase_is_over(latency) {
            self.conclude(reading.now);
        }
    }

    /// As many answers as it takes to tell the phase from its neighbours: the fewer the slots, the more one matters.
    fn phase_is_over(&self, latency: f64) -> bool {
        let (slots, estimate) = (self.phase.slots as f64, self.estimate as f64);
        let (answers, seconds) = (self.phase.answers as f64, self.phase.seconds);
        let step = match self.phase.kind {
            Kind::At => 1.0 / estimate.min(5.0),
            Kind::Above | Kind::Below => ((slots - estimate).abs() / slots.max(estimate)).max(0.15),
        };
        let spread = self.times.spread();
        let mut wanted = (3.0 * spread / (step * step)).max(4.0).max(slots);
        if self.phase.kind == Kind::Below {
            let cost = (1.0 - slots / estimate) * seconds;
            if cost > DEAR {
                return true;
            }
            if cost < CHEAP {
                wanted = wanted.max(BELOW * spread);
            }
        }
        let whole = if self.doubt > 0 { latency } else { 2.0 * latency };
        (answers >= wanted && seconds >= whole) || seconds > (8.0 * latency).max(2.0)
    }

    fn conclude(&mut self, now: Duration) {
        let phase = &self.phase;
        if phase.kind == Kind::Below {
            let part = 1.0 - phase.slots as f64 / self.estimate as f64;
            self.spent += part.max(0.0) * now.saturating_sub(phase.began).as_secs_f64();
        }
        let in_flight = phase.area / phase.seconds;
        self.observed.add(Observation { in_flight, seconds: phase.seconds, answers: phase.answers as f64, at: now });
        self.doubt = self.doubt.saturating_sub(1);
        let spread = self.times.spread();
        if self.observed.is_contradicted(self.estimate, spread, now) {
            self.observed.forget();
            self.doubt = DOUBT;
        }
        let verdict = self.observed.verdict(spread, now);
        self.estimate = verdict.likeliest;
        let (kind, slots) = self.next(verdict.credible, now);
        self.phase = Phase::new(kind, slots, now);
    }

    fn next(&mut self, credible: usize, now: Duration) -> (Kind, usize) {
        let estimate = self.estimate;
        let earned = PRICE * now.saturating_sub(self.spent_at).as_secs_f64();
        (self.spent, self.spent_at) = ((self.spent - earned).max(0.0), now);
        let is_in_doubt = self.doubt > 0;
        let highest = self.observed.highest(now);
        let is_open = credible >= highest;
        if is_open && is_in_doubt {
            return (Kind::Above, highest.max(1).saturating_mul(2).min(MOST));
        }
        let needs_below = estimate > 1 && self.observed.below(estimate as f64, now) < BELOW / 2.0 * self.times.spread();
        if needs_below && (is_in_doubt || self.spent <= 0.0) {
            return (Kind::Below, (estimate / 2).max(1));
        }
        let step = (estimate / 5).max(1);
        if is_open {
            return (Kind::Above, highest.max(estimate).saturating_add(step).min(MOST));
        }
        self.was_above = !self.was_above;
        if self.was_above { (Kind::Above, estimate.saturating_add(step).min(MOST)) } else { (Kind::At, estimate) }
    }
}

impl Phase {
    fn new(kind: Kind, slots: usize, began: Duration) -> Phase {
        Phase { kind, slots, began, settled: None, seconds: 0.0, area: 0.0, answers: 0 }
    }

    /// Whether a time that began at `since`, with `in_flight` requests, tells something of so many slots: they were
    /// taken, and by requests of this phase.
    fn takes(&mut self, since: Duration, in_flight: f64, latency: f64) -> bool {
        let slots = self.slots as f64;
        if in_flight < slots - (0.07 * slots).max(0.35) {
            return false;
        }
        let settling = Duration::from_secs_f64(latency.clamp(0.0, LONGEST_SETTLING));
        if since < *self.settled.get_or_insert(since.saturating_add(settling)) {
            return false;
        }
        // Some of the phase before may take longer, but not for ever: streams do.
        let is_over_full = in_flight > slots + (0.1 * slots).max(0.35);
        self.seconds > 0.0 || !is_over_full || since > self.began.saturating_add(settling.saturating_mul(4))
    }
}

/// How long requests take, of late.
#[derive(Default)]
struct Times {
    mean: f64,
    square: f64,
}

impl Times {
    fn add(&mut self, reading: &Reading, last: &Reading) {
        let ended = reading.ended.wrapping_sub(last.ended) as f64;
        if ended > 0.0 {
            let share = (ended / 100.0).min(0.5);
            self.mean += share * ((reading.took - last.took) / ended - self.mean);
            self.square += share * ((reading.squares - last.squares) / ended - self.square);
        }
    }

    /// Their variance over the square of their mean, within reason.
    fn spread(&self) -> f64 {
        if self.mean > 0.0 { (self.square / (self.mean * self.mean) - 1.0).clamp(0.15, 4.0) } else { 1.0 }
    }
}
