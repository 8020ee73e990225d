//! The state machine of one server's health: events and times in, a verdict out. It reads no clock and writes no log.
//!
//! Two judges look at a server. Active checks say up or down and are believed after `fall` and `rise` results in a
//! row; until the first of them a server counts as up, and that first one decides alone. Failing requests eject a
//! server for ten seconds, doubling with repeats up to a minute. Whoever comes back takes a growing share.

use super::{DOWN, Failure, OPEN, State};

/// A server is ejected when consecutive failures weigh this much.
const LIMIT: u32 = 3;
/// A refused connection says more than one that broke: two in a row suffice.
const CONNECT_WEIGHT: u32 = 2;
const BROKEN_WEIGHT: u32 = 1;
/// Requests that must time out in a row, without one answer between, before that means anything.
const SILENT_REQUESTS: u32 = 3;
/// And for how long nothing must have been answered since the first of them, in milliseconds.
const SILENT_FOR: u64 = 5_000;
/// The first ejection, in milliseconds; each repeat takes twice as long.
const FIRST_EJECTION: u64 = 10_000;
const LONGEST_EJECTION: u64 = 60_000;
/// A server that was well for this long begins with the first ejection again, in milliseconds.
const FORGIVEN_AFTER: u64 = 60_000;
/// An ejection lasts at least this long even if an answer comes, so that a flapping server cannot flood the log.
const SHORTEST_EJECTION: u64 = 1_000;
/// How long a server's share grows after its return, in milliseconds.
pub(super) const RAMP: u64 = 10_000;

/// `fall` and `rise` of the upstream's checks.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Rules {
    pub(in crate::upstream) fall: u32,
    pub(in crate::upstream) rise: u32,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Verdict {
    Passed,
    Failed(String),
    /// It timed out while requests were being answered: neither good nor bad.
    Busy,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Ejected {
        seconds: u64,
    },
    Down,
    Up,
    /// The first answer after an ejection.
    Returned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    /// There are none.
    Off,
    /// The first result is still to come.
    Unproven,
    Up {
        failures: u32,
    },
    Down {
        passes: u32,
    },
}

/// Requests that timed out with no answer between them.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: u64,
    /// The count of answers then.
    answers: u64,
    requests: u32,
}

#[derive(Debug)]
pub(super) struct Machine {
    checks: Checks,
    /// The weight of consecutive failures.
    failures: u32,
    silence: Option<Silence>,
    /// When the last ejection began and ends, or when the server came back from being down.
    ejected_at: u64,
    back_at: u64,
    /// Ejections in a row, for the length of the next.
    ejections: u32,
    /// Ejected, and not one answer since it was let back.
    unanswered: bool,
    /// When active checks last changed their mind, or when the server became known.
    checked_at: u64,
    reason: Option<String>,
}

impl Machine {
    pub(super) fn new(now: u64) -> Machine {
        Machine {
            checks: Checks::Off,
            failures: 0,
            silence: None,
            ejected_at: 0,
            back_at: 0,
            ejections: 0,
            unanswered: false,
            checked_at: now,
            reason: None,
        }
    }

    /// What choosing needs to know: see [`super::Health`].
    pub(super) fn gate(&self) -> u64 {
        match self.checks {
            Checks::Down { .. } => DOWN,
            Checks::Off | Checks::Unproven | Checks::Up { .. } if self.back_at == 0 => OPEN,
            Checks::Off | Checks::Unproven | Checks::Up { .. } => self.back_at,
        }
    }

    /// Whether the next answer would change anything.
    pub(super) fn is_listening(&self) -> bool {
        self.failures > 0 || self.silence.is_some() || self.unanswered
    }

    pub(super) fn is_unproven(&self) -> bool {
        self.checks == Checks::Unproven
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn state(&self, now: u64) -> State {
        self.state_since(now).0
    }

    /// The state and when it began.
    pub(super) fn state_since(&self, now: u64) -> (State, u64) {
        if matches!(self.checks, Checks::Down { .. }) {
            (State::Down, self.checked_at)
        } else if self.back_at == 0 {
            (State::Up, self.checked_at)
        } else if now < self.back_at {
            (State::Ejected, self.ejected_at)
        } else if now < self.back_at.saturating_add(RAMP) {
            (State::Returning, self.back_at)
        } else {
            (State::Up, self.back_at.saturating_add(RAMP))
        }
    }

    /// A response head came. `on_trial`: the server is given requests although it is ejected.
    pub(super) fn answered(&mut self, on_trial: bool, now: u64) -> Option<Change> {
        self.failures = 0;
        self.silence = None;
        if !self.unanswered {
            return None;
        }
        // While it is ejected, an answer may belong to a request of before: only one that was sent since then counts.
        let over = now >= self.back_at;
        let proven = on_trial && now.saturating_sub(self.ejected_at) >= SHORTEST_EJECTION;
        if !over && !proven {
            return None;
        }
        self.come_back(now.min(self.back_at));
        Some(Change::Returned)
    }

    /// An attempt failed. `answers`: the count of answers so far.
    pub(super) fn failed(&mut self, failure: Failure, answers: u64, now: u64) -> Option<Change> {
        match failure {
            Failure::Connect => self.failures = self.failures.saturating_add(CONNECT_WEIGHT),
            Failure::Broken => self.failures = self.failures.saturating_add(BROKEN_WEIGHT),
            Failure::Timeout => {
                if !self.is_silent(answers, now) {
                    return None;
                }
                self.failures = LIMIT;
            }
        }
        // On its way back a server is on probation: one failure is enough.
        let enough = match self.state(now) {
            State::Up => self.failures >= LIMIT,
            State::Returning => true,
            State::Down | State::Ejected => false,
        };
        enough.then(|| self.eject(failure, now))
    }

    /// Whether time-outs have gone on without an answer for so long that "busy" no longer explains them. Active
    /// checks can tell the two apart; where there are any, time-outs of requests say nothing.
    fn is_silent(&mut self, answers: u64, now: u64) -> bool {
        if self.checks != Checks::Off {
            return false;
        }
        let silence = match self.silence {
            Some(silence) if silence.answers == answers => {
                Silence { requests: silence.requests.saturating_add(1), ..silence }
            }
            Some(_) | None => Silence { since: now, answers, requests: 1 },
        };
        self.silence = Some(silence);
        silence.requests >= SILENT_REQUESTS && now.saturating_sub(silence.since) >= SILENT_FOR
    }

    fn eject(&mut self, failure: Failure, now: u64) -> Change {
        if now.saturating_sub(self.back_at) > FORGIVEN_AFTER {
            self.ejections = 0;
        }
        let length = FIRST_EJECTION.saturating_mul(1 << self.ejections.min(10)).min(LONGEST_EJECTION);
        self.ejections = self.ejections.saturating_add(1);
        self.failures = 0;
        self.silence = None;
        self.unanswered = true;
        self.ejected_at = now;
        self.back_at = now.saturating_add(length);
        self.reason = Some(failure.as_str().to_owned());
        Change::Ejected { seconds: length / 1000 }
    }

    fn come_back(&mut self, at: u64) {
        self.unanswered = false;
        self.back_at = at;
    }

    /// Active checks begin, or begin again with other settings: the state stays as it is until a result.
    pub(super) fn check(&mut self) -> Option<Change> {
        self.checks = match self.checks {
            Checks::Off | Checks::Unproven => Checks::Unproven,
            Checks::Up { .. } => Checks::Up { failures: 0 },
            // The next success alone brings it back, whatever `rise` was.
            Checks::Down { .. } => Checks::Down { passes: u32::MAX },
        };
        None
    }

    /// Active checks end.
    pub(super) fn unchecked(&mut self, now: u64) -> Option<Change> {
        let was = std::mem::replace(&mut self.checks, Checks::Off);
        matches!(was, Checks::Down { .. }).then(|| self.rise(Checks::Off, now))
    }

    /// A probe that began at `began` came back.
    pub(super) fn probed(&mut self, verdict: Verdict, rules: Rules, began: u64, now: u64) -> Option<Change> {
        match (verdict, self.checks) {
            (Verdict::Busy, _) | (Verdict::Passed | Verdict::Failed(_), Checks::Off) => None,
            (Verdict::Passed, Checks::Unproven | Checks::Up { .. }) => {
                self.checks = Checks::Up { failures: 0 };
                // Whoever answers a probe need not sit out an ejection.
                let ejected = self.unanswered && now < self.back_at && began >= self.ejected_at;
                ejected.then(|| {
                    self.failures = 0;
                    self.come_back(now);
                    Change::Returned
                })
            }
            (Verdict::Passed, Checks::Down { passes }) => {
                let passes = passes.saturating_add(1);
                if passes >= rules.rise {
                    return Some(self.rise(Checks::Up { failures: 0 }, now));
                }
                self.checks = Checks::Down { passes };
                None
            }
            (Verdict::Failed(why), Checks::Unproven) => Some(self.fall(why, now)),
            (Verdict::Failed(why), Checks::Up { failures }) => {
                let failures = failures.saturating_add(1);
                if failures >= rules.fall {
                    return Some(self.fall(why, now));
                }
                self.checks = Checks::Up { failures };
                None
            }
            (Verdict::Failed(why), Checks::Down { .. }) => {
                self.checks = Checks::Down { passes: 0 };
                self.reason = Some(why);
                None
            }
        }
    }

    fn fall(&mut self, why: String, now: u64) -> Change {
        self.checks = Checks::Down { passes: 0 };
        self.checked_at = now;
        self.reason = Some(why);
        Change::Down
    }

    fn rise(&mut self, checks: Checks, now: u64) -> Change {
        self.checks = checks;
        self.checked_at = now;
        self.failures = 0;
        self.silence = None;
        self.come_back(now);
        Change::Up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { fall: 3, rise: 2 };
    const T: u64 = 1_000_000;

    fn failed(why: &str) -> Verdict {
        Verdict::Failed(why.to_owned())
    }

    fn ejected(seconds: u64) -> Option<Change> {
        Some(Change::Ejected { seconds })
    }

    #[test]
    fn two_refused_connections_eject() {
        let mut machine = Machine::new(T);
        assert_eq!(machine.failed(Failure::Connect, 0, T), None);
        assert_eq!(machine.failed(Failure::Connect, 0, T), ejected(10));
        assert_eq!(machine.state(T + 9_999), State::Ejected);
        assert_eq!(machine.gate(), T + 10_000);
        assert_eq!(machine.state(T + 10_000), State::Returning);
        assert_eq!(machine.state(T + 20_000), State::Up);
    }

    #[test]
    fn three_broken_exchanges_eject_but_not_with_an_answer_between() {
        let mut machine = Machine::new(T);
        for _ in 0..10 {
            assert_eq!(machine.failed(Failure::Broken, 0, T), None);
            assert_eq!(machine.failed(Failure::Broken, 0, T), None);
            assert!(machine.is_listening());
            assert_eq!(machine.answered(false, T), None);
            assert!(!machine.is_listening());
        }
        machine.failed(Failure::Broken, 0, T);
        machine.failed(Failure::Broken, 0, T);
        assert_eq!(machine.failed(Failure::Broken, 0, T), ejected(10));
    }

    #[test]
    fn ejections_grow_with_repeats_and_are_bounded() {
        let mut machine = Machine::new(T);
        let mut now = T;
        machine.failed(Failure::Connect, 0, now);
        for seconds in [10, 20, 40, 60, 60, 60] {
            // The first needs two, each later one finds the server on probation.
            assert_eq!(machine.failed(Failure::Connect, 0, now), ejected(seconds));
            now += seconds * 1000;
        }
        now += FORGIVEN_AFTER + 1;
        machine.failed(Failure::Connect, 0, now);
        assert_eq!(machine.failed(Failure::Connect, 0, now), ejected(10));
    }

    #[test]
    fn failures_while_ejected_change_nothing() {
        let mut machine = Machine::new(T);
        machine.failed(Failure::Connect, 0, T);
        machine.failed(Failure::Connect, 0, T);
        for _ in 0..10 {
            assert_eq!(machine.failed(Failure::Connect, 0, T + 1), None);
        }
        assert_eq!(machine.gate(), T + 10_000);
    }

    #[test]
    fn the_first_answer_after_an_ejection_is_told_once() {
        let mut machine = Machine::new(T);
        machine.failed(Failure::Connect, 0, T);
        machine.failed(Failure::Connect, 0, T);
        assert_eq!(machine.answered(false, T + 5_000), None, "a request of before");
        assert!(machine.is_listening());
        assert_eq!(machine.answered(false, T + 10_500), Some(Change::Returned));
        assert!(!machine.is_listening());
        assert_eq!(machine.state(T + 10_500), State::Returning);
        assert_eq!(machine.answered(false, T + 10_600), None);
    }

    #[test]
    fn a_server_on_trial_returns_with_its_answer_but_not_within_a_second() {
        let mut machine = Machine::new(T);
        machine.failed(Failure::Connect, 0, T);
        machine.failed(Failure::Connect, 0, T);
        assert_eq!(machine.answered(true, T + 999), None);
        assert_eq!(machine.answered(true, T + 1_000), Some(Change::Returned));
        assert_eq!(machine.state(T + 1_000), State::Returning);
    }

    #[test]
    fn time_outs_eject_only_a_server_that_answers_nothing() {
        let mut machine = Machine::new(T);
        for step in 0..100 {
            assert_eq!(machine.failed(Failure::Timeout, step, T + step * 1_000), None, "answering others");
        }
        let mut machine = Machine::new(T);
        for _ in 0..100 {
            assert_eq!(machine.failed(Failure::Timeout, 7, T), None, "many at the same moment");
        }
        assert_eq!(machine.failed(Failure::Timeout, 7, T + 5_000), ejected(10));
    }

    #[test]
    fn time_outs_say_nothing_where_there_are_checks() {
        let mut machine = Machine::new(T);
        machine.check();
        for step in 0..10 {
            assert_eq!(machine.failed(Failure::Timeout, 0, T + step * 10_000), None);
        }
    }

    #[test]
    fn the_first_probe_decides_alone() {
        let mut machine = Machine::new(T);
        machine.check();
        assert!(machine.is_unproven());
        assert_eq!(machine.state(T), State::Up);
        assert_eq!(machine.probed(failed("refused"), RULES, T, T), Some(Change::Down));
        assert_eq!(machine.gate(), DOWN);
        assert_eq!(machine.reason(), Some("refused"));

        let mut machine = Machine::new(T);
        machine.check();
        assert_eq!(machine.probed(Verdict::Passed, RULES, T, T), None);
        assert!(!machine.is_unproven());
        assert_eq!(machine.gate(), OPEN);
    }

    #[test]
    fn fall_and_rise_need_results_in_a_row() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(Verdict::Passed, RULES, T, T);
        for _ in 0..5 {
            assert_eq!(machine.probed(failed("x"), RULES, T, T), None);
            assert_eq!(machine.probed(failed("x"), RULES, T, T), None);
            assert_eq!(machine.probed(Verdict::Passed, RULES, T, T), None);
        }
        machine.probed(failed("x"), RULES, T, T);
        machine.probed(failed("x"), RULES, T, T);
        assert_eq!(machine.probed(failed("x"), RULES, T, T), Some(Change::Down));
        for _ in 0..5 {
            assert_eq!(machine.probed(Verdict::Passed, RULES, T, T), None);
            assert_eq!(machine.probed(failed("x"), RULES, T, T), None);
        }
        machine.probed(Verdict::Passed, RULES, T, T);
        assert_eq!(machine.probed(Verdict::Passed, RULES, T, T + 7), Some(Change::Up));
        assert_eq!(machine.state(T + 7), State::Returning);
        assert_eq!(machine.gate(), T + 7);
    }

    #[test]
    fn busy_counts_neither_way() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(Verdict::Passed, RULES, T, T);
        machine.probed(failed("x"), RULES, T, T);
        machine.probed(failed("x"), RULES, T, T);
        for _ in 0..100 {
            assert_eq!(machine.probed(Verdict::Busy, RULES, T, T), None);
        }
        assert_eq!(machine.probed(failed("x"), RULES, T, T), Some(Change::Down));
    }

    #[test]
    fn a_probe_that_passes_ends_an_ejection_if_it_began_after_it() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(Verdict::Passed, RULES, T, T);
        machine.failed(Failure::Connect, 0, T + 10);
        machine.failed(Failure::Connect, 0, T + 10);
        assert_eq!(machine.probed(Verdict::Passed, RULES, T + 5, T + 20), None);
        assert_eq!(machine.probed(Verdict::Passed, RULES, T + 2_000, T + 2_010), Some(Change::Returned));
        assert_eq!(machine.state(T + 2_010), State::Returning);
    }

    #[test]
    fn checks_that_end_leave_no_server_down() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(failed("x"), RULES, T, T);
        assert_eq!(machine.unchecked(T + 5), Some(Change::Up));
        assert_eq!(machine.state(T + 5), State::Returning);
        assert_eq!(machine.unchecked(T + 5), None);
    }

    #[test]
    fn checks_that_begin_again_leave_a_server_up() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(Verdict::Passed, RULES, T, T);
        machine.probed(failed("x"), RULES, T, T);
        machine.check();
        assert!(!machine.is_unproven());
        assert_eq!(machine.probed(failed("x"), RULES, T, T), None);
        assert_eq!(machine.probed(failed("x"), RULES, T, T), None);
        assert_eq!(machine.probed(failed("x"), RULES, T, T), Some(Change::Down));
    }

    #[test]
    fn checks_that_begin_again_need_one_success_only() {
        let mut machine = Machine::new(T);
        machine.check();
        machine.probed(failed("x"), RULES, T, T);
        machine.check();
        assert_eq!(machine.state(T), State::Down);
        assert_eq!(machine.probed(Verdict::Passed, RULES, T, T), Some(Change::Up));
    }
}
