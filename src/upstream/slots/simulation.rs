//! The learner before a server that is simulated event by event: so many workers, a backlog, more requests than it can
//! run. The seeds are fixed, so that each run is the same.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::learner::{Learner, Reading};
use super::ranks::Ranks;

/// How long requests take.
#[derive(Clone, Copy, Debug)]
enum Times {
    Fixed,
    /// Half as much more or less.
    Uneven,
    Exponential,
    /// Four in five are quick, the fifth takes six times as long.
    Mixed,
}

impl Times {
    fn draw(self, mean: f64, random: &mut fastrand::Rng) -> f64 {
        match self {
            Times::Fixed => mean * (0.98 + 0.04 * random.f64()),
            Times::Uneven => mean * (0.5 + random.f64()),
            Times::Exponential => -mean * random.f64().max(1e-12).ln(),
            Times::Mixed => mean * if random.f64() < 0.8 { 0.5 } else { 3.0 },
        }
    }
}

#[derive(Clone, Copy)]
struct Plan<'a> {
    times: Times,
    /// Seconds.
    mean: f64,
    /// How many workers there are from which second on.
    workers: &'a [(f64, usize)],
    /// As a share of what the first of them can carry.
    load: f64,
    /// That hold a worker and never end.
    streams: usize,
    seconds: f64,
    /// So many slots, instead of as many as are learnt.
    slots: Option<usize>,
}

/// A moment and what was known then.
type Known = (f64, usize);

/// Clients leave after a second; what spends about as long in the server itself is answered in vain.
const PATIENCE: f64 = 0.9;

const TICK: f64 = 0.05;

/// What was known when, and how many were answered before their clients left.
fn run(plan: Plan<'_>, seed: u64) -> (Vec<Known>, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut learner = Learner::new();
    let mut reading = Reading::default();
    let (mut now, mut next_tick, mut changes) = (0.0_f64, TICK, plan.workers.iter());
    let mut change = changes.next();
    let rate = plan.workers[0].1 as f64 / plan.mean * plan.load;
    let mut next_arrival = 0.0_f64;
    let (mut waiting, mut in_flight) = (0_usize, plan.streams);
    let (mut workers, mut busy) = (0, plan.streams);
    let (mut area, mut squares) = (0.0_f64, 0.0_f64);
    let ranks = Ranks::default();
    for _ in 0..plan.streams {
        ranks.begin();
    }
    let mut backlog: VecDeque<(f64, f64, Option<u64>)> = VecDeque::new();
    // In nanoseconds: when it ends, when it began; and its turn.
    let mut running: BinaryHeap<Reverse<(u64, u64, Option<u64>)>> = BinaryHeap::new();
    let (mut known, mut answered) = (Vec::new(), 0);
    let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
    loop {
        let ends = running.peek().map_or(f64::MAX, |Reverse((ends, ..))| *ends as f64 / 1e9);
        let changes_at = change.map_or(f64::MAX, |(at, _)| *at);
        let next = next_arrival.min(ends).min(next_tick).min(changes_at);
        if next >= plan.seconds {
            return (known, answered);
        }
        area += in_flight as f64 * (next - now);
        now = next;
        if let Some((_, count)) = change.filter(|(at, _)| *at <= now) {
            workers = *count;
            change = changes.next();
        } else if ends <= now {
            let Some(Reverse((_, began, turn))) = running.pop() else { continue };
            let took = now - began as f64 / 1e9;
            (busy, in_flight) = (busy - 1, in_flight - 1);
            answered += usize::from(took <= PATIENCE);
            if let Some(turn) = turn {
                ranks.end(turn);
            }
            reading.answers += 1;
            reading.ended += 1;
            reading.took += (took * 1e6) as u64;
            squares += took * took;
        } else if next_arrival <= now {
            waiting = (waiting + 1).min(1000);
            next_arrival = now - random.f64().max(1e-12).ln() / rate;
        } else {
            next_tick += TICK;
            reading.is_wanted = waiting > 0;
            (reading.area, reading.squares) = ((area * 1e6) as u64, (squares * 1e12) as u64);
            reading.now = Duration::from_secs_f64(now);
            reading.ranks = ranks.counts();
            learner.look(&reading);
            known.push((now, learner.estimate()));
        }
        while waiting > 0 && in_flight < plan.slots.unwrap_or(learner.slots()) {
            (waiting, in_flight) = (waiting - 1, in_flight + 1);
            backlog.push_back((plan.times.draw(plan.mean, &mut random), now, ranks.begin()));
        }
        while busy < workers
            && let Some((takes, began, turn)) = backlog.pop_front()
        {
            busy += 1;
            running.push(Reverse((nanoseconds(now + takes), nanoseconds(began), turn)));
        }
    }
}

/// The share of the time from the second `from` on in which what was known is within a fifth of `workers`.
fn right(known: &[Known], from: f64, workers: usize) -> f64 {
    let late: Vec<_> = known.iter().filter(|(at, _)| *at >= from).collect();
    let off = |count: usize| (count as f64 - workers as f64).abs() <= 0.2 * workers as f64 + 1e-9;
    late.iter().filter(|(_, count)| off(*count)).count() as f64 / late.len() as f64
}

const SEEDS: std::ops::Range<u64> = 0..4;

fn plan(times: Times, workers: &[(f64, usize)]) -> Plan<'_> {
    Plan { times, mean: 0.01, workers, load: 4.0, streams: 0, seconds: 30.0, slots: None }
}

/// The mean over the seeds.
fn mean(of: impl Fn(u64) -> f64) -> f64 {
    SEEDS.map(of).sum::<f64>() / SEEDS.count() as f64
}

const TIMES: [Times; 4] = [Times::Fixed, Times::Uneven, Times::Exponential, Times::Mixed];

#[test]
fn ten_seconds_after_load_begins_the_number_is_known() {
    for (times, least) in [(Times::Fixed, 0.9), (Times::Uneven, 0.9), (Times::Exponential, 0.85), (Times::Mixed, 0.7)] {
        for workers in [1, 2, 4, 16, 64] {
            let changes = [(0.0, workers)];
            let plan = Plan { seconds: 20.0, ..plan(times, &changes) };
            let right = mean(|seed| right(&run(plan, seed).0, 10.0, workers));
            assert!(right >= least, "{times:?}, {workers} workers: right for {right:.3} of the time");
        }
    }
}

#[test]
fn finding_out_costs_few_answers() {
    for times in TIMES {
        for workers in [1, 2, 4, 16, 64] {
            let changes = [(0.0, workers)];
            let learnt = Plan { seconds: 20.0, ..plan(times, &changes) };
            let answered = mean(|seed| run(learnt, seed).1 as f64);
            let best = mean(|seed| run(Plan { slots: Some(workers), ..learnt }, seed).1 as f64);
            let share = answered / best;
            assert!(share >= 0.945, "{times:?}, {workers} workers: {share:.3} of the answers");
        }
    }
}

/// Twice the load, and what is answered in the first 14 seconds counts from the first: the slower requests are, the
/// fewer answers there are to learn from, and the more of them the first seconds cost.
#[test]
fn slow_requests_are_learnt_from_too() {
    for (time, least_share, usual_share, usual_right) in
        [(0.05, 0.91, 0.97, 0.94), (0.1, 0.87, 0.955, 0.94), (0.2, 0.81, 0.93, 0.93)]
    {
        let (mut shares, mut rights) = (Vec::new(), Vec::new());
        for times in TIMES {
            for workers in [2, 4, 8, 16] {
                let changes = [(0.0, workers)];
                let learnt = Plan { mean: time, load: 2.0, seconds: 14.0, ..plan(times, &changes) };
                let answered = mean(|seed| run(learnt, seed).1 as f64);
                let best = mean(|seed| run(Plan { slots: Some(workers), ..learnt }, seed).1 as f64);
                let share = answered / best;
                assert!(share >= least_share, "{time} s, {times:?}, {workers} workers: {share:.3} of the answers");
                shares.push(share);
                rights.push(mean(|seed| right(&run(Plan { seconds: 20.0, ..learnt }, seed).0, 10.0, workers)));
            }
        }
        let usual = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let (share, right) = (usual(&shares), usual(&rights));
        assert!(share >= usual_share && right >= usual_right, "{time} s: {share:.3} of the answers, right {right:.3}");
    }
}

#[test]
fn when_workers_come_or_go_the_new_number_is_known_ten_seconds_later() {
    for (before, after) in [(2, 4), (4, 2), (4, 1), (4, 16), (16, 8), (64, 32)] {
        let changes = [(0.0, before), (15.0, after)];
        let plan = Plan { load: 16.0, ..plan(Times::Fixed, &changes) };
        let right = mean(|seed| right(&run(plan, seed).0, 25.0, after));
        assert!(right >= 0.9, "{before} to {after}: right for {right:.3} of the time");
    }
}

#[test]
fn a_server_with_less_to_do_than_it_can_answers_everything() {
    for load in [0.1, 0.5, 0.8] {
        let changes = [(0.0, 4)];
        let learnt = Plan { load, ..plan(Times::Exponential, &changes) };
        for seed in SEEDS {
            let (known, answered) = run(learnt, seed);
            let (_, all) = run(Plan { slots: Some(4), ..learnt }, seed);
            assert!(answered as f64 >= 0.97 * all as f64, "load {load}: {answered} of {all}");
            let least = known.iter().map(|(_, count)| *count).min();
            assert!(load > 0.6 || least >= Some(3), "load {load}: {least:?}");
        }
    }
}

/// Fewer are left for the others, and more slots bring more answers out of proportion: that must not look like a server
/// that can do less. That more slots are given than there are workers costs nothing.
#[test]
fn streams_that_hold_workers_take_no_slots_from_the_others() {
    let changes = [(0.0, 8)];
    for seed in SEEDS {
        let (known, _) = run(Plan { streams: 3, load: 2.0, ..plan(Times::Fixed, &changes) }, seed);
        let late = || known.iter().filter(|(at, _)| *at > 10.0).map(|(_, count)| *count);
        let enough = late().filter(|count| *count >= 8).count() as f64 / late().count() as f64;
        assert!(enough > 0.8 && late().max() <= Some(64), "{enough:.2}, {:?}", late().max());
    }
}
