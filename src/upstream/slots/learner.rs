//! How many requests a server runs at once, learnt from what comes of giving it more or fewer.
//!
//! A server with `n` workers answers in proportion to the requests that it has, up to `n` of them; from there on the
//! answers come no faster, and the requests wait inside. So the rate of answers over the requests in flight is a line
//! through nothing that bends at `n`, and where it bends is what this looks for. It looks only while there is more to do
//! than slots for it: a server with little to do shows nothing of where it would bend, and what is known of it stays.
//!
//! While all slots are taken, phases follow one another, each with another number of slots: at the estimate; some above,
//! which costs no answers, since what is too much waits in the server; and now and then below, for as short as will do
//! and for no more than a fiftieth of what the server can do. A phase counts from when all that it began with has been
//! answered. Each yields one observation, and the number of workers under which all of them are the likeliest is the
//! estimate. Where that may be the highest that was tried, more are tried, unless requests would stay in the server for
//! so long that clients leave. Older observations count less and less; when the rate has plainly become another (workers
//! have come or gone, or the work has changed), all before is forgotten, and finding out again comes first.
//!
//! Where requests take unequal times, the order of the answers tells as much (`ranks`), and at no cost: where it shows as
//! many workers as are estimated, nothing is tried below.
//!
//! Nothing here compares latencies with the least that was ever seen: that drifts with the mix of requests, and whoever
//! looks for it anew has to starve the server for it.

use std::time::Duration;

use super::observed::{MOST, Observation, Observed, whole};
use super::ranks::Counts;

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
const LONGEST_STAY: f64 = 5.0;
const LONGEST_SETTLING: Duration = Duration::from_secs(5);

/// By how much more is tried in doubt, and for how long requests may stay in the server for that, in seconds.
const MOST_GROWTH: f64 = 2.0;
const LEAST_GROWTH: f64 = 1.7;
const LONG: f64 = 0.7;

/// How much the times of requests differ: before anything is known, and within reason.
const UNKNOWN_SPREAD: f64 = 0.3;
const LEAST_SPREAD: f64 = 0.1;
const MOST_SPREAD: f64 = 4.0;

/// Nobody has more in flight to a server whose slots are learnt.
const MOST_IN_FLIGHT: f64 = 1e5;

/// What a server has done, in microseconds; all of it only grows, and wraps around.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Since some moment.
    pub(super) now: Duration,
    /// Whether requests wait for a slot at this moment.
    pub(super) is_wanted: bool,
    /// Requests in flight over time.
    pub(super) area: u64,
    /// Answers that began.
    pub(super) answers: u64,
    /// Requests that are over: how many, and the sums of how long they took and of the squares of that.
    pub(super) ended: u64,
    pub(super) took: u64,
    pub(super) squares: u64,
    pub(super) ranks: Counts,
}

/// What it did between two readings, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) seconds: f64,
    pub(super) area: f64,
    pub(super) answers: u64,
    pub(super) ended: u64,
    pub(super) took: f64,
    pub(super) squares: f64,
}

impl Reading {
    /// `None` where no time has passed, or one of the readings was taken in the middle of a count.
    pub(super) fn since(&self, last: &Reading) -> Option<Passed> {
        let seconds = self.now.saturating_sub(last.now).as_secs_f64();
        let area = self.area.wrapping_sub(last.area).cast_signed() as f64 / 1e6;
        if seconds <= 0.0 || area < 0.0 || area > seconds * MOST_IN_FLIGHT {
            return None;
        }
        Some(Passed {
            seconds,
            area,
            answers: self.answers.wrapping_sub(last.answers),
            ended: self.ended.wrapping_sub(last.ended),
            took: self.took.wrapping_sub(last.took) as f64 / 1e6,
            squares: self.squares.wrapping_sub(last.squares) as f64 / 1e12,
        })
    }
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
    /// Requests that have ended since its slots are taken; `None` until they are.
    replaced: Option<f64>,
    /// What it has cost, in seconds of all that the server can do.
    cost: f64,
    seconds: f64,
    area: f64,
    answers: u64,
    times: Times,
    /// Those of all answers before it counted.
    ranks: Option<Counts>,
}

/// See the module.
pub(super) struct Learner {
    estimate: usize,
    phase: Phase,
    observed: Observed,
    last: Option<Reading>,
    /// Seconds in flight for each answer, of late; `None` before the first.
    latency: Option<f64>,
    /// Seconds in flight since the last answer.
    unanswered: f64,
    /// Seconds that a worker takes for a request, as far as is known.
    service: Option<f64>,
    /// How much that differs: its variance over the square of its mean.
    spread: f64,
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
            unanswered: 0.0,
            service: None,
            spread: UNKNOWN_SPREAD,
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
    pub(super) fn look(&mut self, reading: &Reading) {
        let Some(last) = self.last.replace(*reading) else { return };
        let Some(passed) = reading.since(&last) else { return };
        let Passed { seconds, area, answers, .. } = passed;
        self.unanswered += area;
        if answers > 0 {
            let latency = std::mem::take(&mut self.unanswered) / answers as f64;
            let share = (answers as f64 / 30.0).min(0.5);
            self.latency = Some(self.latency.map_or(latency, |before| before + share * (latency - before)));
        }
        let Some(latency) = self.latency else { return };
        // Whether slots are taken by chance or for want of more shows in the queue alone.
        if !(last.is_wanted && reading.is_wanted) {
            return;
        }
        let in_flight = area / seconds;
        if self.phase.kind == Kind::Below {
            self.phase.cost += (1.0 - in_flight / self.estimate as f64).max(0.0) * seconds;
        }
        let stay = self.stay(latency);
        if self.phase.takes(last.now, &passed, stay.max(latency)) {
            self.phase.add(&passed, &last.ranks);
        }
        if self.phase_is_over(stay) {
            self.conclude(reading);
        }
    }

    /// How long a request stays in the server in this phase.
    fn stay(&self, latency: f64) -> f64 {
        let stay = |service: f64| service * (self.phase.slots as f64 / self.estimate as f64).max(1.0);
        self.service.map_or(latency, stay).clamp(0.0, LONGEST_STAY)
    }

    /// As many answers as it takes to tell the phase from its neighbours: the fewer the slots, the more one matters.
    fn phase_is_over(&self, stay: f64) -> bool {
        let phase = &self.phase;
        if phase.cost > DEAR {
            return true;
        }
        let (slots, estimate) = (phase.slots as f64, self.estimate as f64);
        let step = match phase.kind {
            Kind::At if self.doubt > 0 => 0.5,
            Kind::At => 1.0 / estimate.min(5.0),
            Kind::Above | Kind::Below => ((slots - estimate).abs() / slots.max(estimate)).max(0.15),
        };
        let spread = self.spread_by_now();
        let wanted = match phase.kind {
            Kind::At | Kind::Above => (3.0 * spread / (step * step)).max(4.0).max(slots),
            Kind::Below if phase.cost < CHEAP => (BELOW * spread).max(3.0).max(slots),
            Kind::Below => (3.0 * spread / (step * step)).max(3.0).max(slots),
        };
        let whole = if self.doubt > 0 { stay } else { 2.0 * stay };
        (phase.answers as f64 >= wanted && phase.seconds >= whole) || phase.seconds > (8.0 * stay).max(2.0)
    }

    fn conclude(&mut self, reading: &Reading) {
        let now = reading.now;
        self.spread = self.spread_by_now();
        let phase = &self.phase;
        self.spent += phase.cost;
        self.doubt = self.doubt.saturating_sub(1);
        if phase.seconds > 0.0 && phase.times.ended > 0.0 {
            let in_flight = phase.area / phase.seconds;
            // Where all take about as long, that says more of how fast answers come than how many of few have come; where
            // some take much longer, those are missing at first.
            let even = (1.5 - 2.0 * self.spread).clamp(0.0, 1.0);
            let blend = |took: f64, counted: f64| even * took + (1.0 - even) * counted;
            self.observed.add(Observation {
                in_flight,
                seconds: blend(phase.times.took / in_flight, phase.seconds),
                answers: blend(phase.times.ended, phase.answers as f64),
                ranked: phase.ranks.as_ref().and_then(|before| reading.ranks.since(before)),
                at: now,
            });
        }
        let mut verdict = self.observed.verdict(self.spread, now);
        // With as many as are likely by now: that more in flight bring more answers is no contradiction.
        if self.observed.is_contradicted(self.estimate.max(verdict.likeliest), self.spread, now) {
            self.observed.forget();
            self.doubt = DOUBT;
            verdict = self.observed.verdict(self.spread, now);
        }
        self.estimate = verdict.likeliest;
        if let Some(service) = self.service_in_phase() {
            self.service = Some(service);
        }
        let (kind, slots) = self.next(verdict.credible, now);
        self.phase = Phase::new(kind, slots, now);
    }

    fn service_in_phase(&self) -> Option<f64> {
        let phase = &self.phase;
        let in_flight = phase.area / phase.seconds;
        let busy = in_flight.min(self.estimate as f64);
        (phase.times.ended > 0.0).then(|| phase.times.took / phase.times.ended * busy / in_flight)
    }

    /// With what this phase has shown.
    fn spread_by_now(&self) -> f64 {
        let phase = &self.phase;
        let (Some(variance), Some(service)) = (phase.times.variance(), self.service_in_phase()) else {
            return self.spread;
        };
        // Those that wait in the server do so for as long as several others take.
        let workers = self.estimate as f64;
        let waiting = (phase.area / phase.seconds - workers).max(0.0);
        let spread = variance / (service * service) / (1.0 + waiting / (workers * workers));
        let share = phase.times.ended / (phase.times.ended + 20.0);
        (self.spread + share * (spread.clamp(0.0, MOST_SPREAD) - self.spread)).max(LEAST_SPREAD)
    }

    fn next(&mut self, credible: usize, now: Duration) -> (Kind, usize) {
        let estimate = self.estimate;
        let earned = PRICE * now.saturating_sub(self.spent_at).as_secs_f64();
        (self.spent, self.spent_at) = ((self.spent - earned).max(0.0), now);
        let is_in_doubt = self.doubt > 0;
        let highest = self.observed.highest(now);
        let is_open = credible >= highest;
        let growth = (LONG / self.latency.unwrap_or(LONG)).min(MOST_GROWTH);
        if is_open && is_in_doubt && growth >= LEAST_GROWTH {
            return (Kind::Above, whole(highest.max(1) as f64 * growth).min(MOST));
        }
        let is_reached = self.observed.rank(now) >= 0.8 * estimate as f64;
        let needs_below = estimate > 1
            && !is_reached
            && self.observed.below(estimate as f64, now) < (BELOW / 2.0 * self.spread).max(2.0);
        let may_cost = if is_in_doubt { self.spent < DEAR } else { self.spent <= 0.0 };
        if needs_below && may_cost {
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
        Phase {
            kind,
            slots,
            began,
            replaced: None,
            cost: 0.0,
            seconds: 0.0,
            area: 0.0,
            answers: 0,
            times: Times::default(),
            ranks: None,
        }
    }

    fn add(&mut self, passed: &Passed, ranks: &Counts) {
        self.ranks.get_or_insert(*ranks);
        self.seconds += passed.seconds;
        self.area += passed.area;
        self.answers = self.answers.saturating_add(passed.answers);
        self.times.add(passed);
    }

    /// Whether a time that began at `since` tells something of so many slots: they were taken, and by requests of this
    /// phase, each of them.
    fn takes(&mut self, since: Duration, passed: &Passed, stay: f64) -> bool {
        let (slots, in_flight) = (self.slots as f64, passed.area / passed.seconds);
        if in_flight < slots - (0.07 * slots).max(0.35) {
            return false;
        }
        // Some of the phase before may take longer, but not for ever: streams do.
        let patience = self.began.saturating_add(Duration::from_secs_f64(4.0 * stay));
        let is_over_full = in_flight > slots + (0.1 * slots).max(0.35);
        if self.seconds <= 0.0 && is_over_full && since <= patience {
            return false;
        }
        let Some(replaced) = &mut self.replaced else {
            self.replaced = Some(0.0);
            return false;
        };
        let is_settled = *replaced >= slots;
        *replaced += passed.ended as f64;
        is_settled || since > patience.max(self.began.saturating_add(LONGEST_SETTLING))
    }
}

/// How long requests took, in one phase.
#[derive(Default)]
struct Times {
    ended: f64,
    took: f64,
    squares: f64,
}

impl Times {
    fn add(&mut self, passed: &Passed) {
        self.ended += passed.ended as f64;
        self.took += passed.took;
        self.squares += passed.squares;
    }

    /// `None`: there are too few.
    fn variance(&self) -> Option<f64> {
        let mean = self.took / self.ended;
        (self.ended >= 2.0).then(|| (self.squares / self.ended - mean * mean).max(0.0))
    }
}
