//! Whether the introspection server is worth asking: after several failures in a row it is let alone for a moment.

use std::time::Duration;

use tokio::time::Instant;

/// So many in a row, since one may be a connection that broke.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What its last answers say.
#[derive(Default)]
pub(super) struct Away {
    failures: u32,
    /// How often it was let alone since it last answered.
    pauses: u32,
    until: Option<Instant>,
    why: String,
}

impl Away {
    /// Why it is not to be asked now. Once a pause is over, one question (`idle`: none is under way) finds out.
    pub(super) fn forbids(&self, now: Instant, idle: bool) -> Option<String> {
        let until = self.until?;
        (now < until || !idle).then(|| self.why())
    }

    pub(super) fn why(&self) -> String {
        format!("the introspection server is let alone for a moment: {}", self.why)
    }

    pub(super) fn answered(&mut self) {
        *self = Away::default();
    }

    /// Whether it is let alone from now on.
    pub(super) fn failed(&mut self, now: Instant, why: &str) -> bool {
        why.clone_into(&mut self.why);
        self.failures = self.failures.saturating_add(1);
        // What was asked before a pause began says nothing new.
        if self.failures < FAILURES || self.until.is_some_and(|until| now < until) {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses = self.pauses.saturating_add(1);
        self.until = now.checked_add(pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_let_alone_longer_and_longer_and_one_question_finds_out() {
        let mut away = Away::default();
        let mut now = Instant::now();
        assert!(!away.failed(now, "one") && !away.failed(now, "two"));
        assert_eq!(away.forbids(now, false), None);
        assert!(away.failed(now, "three"));
        assert!(away.forbids(now, true).unwrap().ends_with("three"));
        assert!(!away.failed(now, "four"), "that was asked before");
        for pause in [500, 1000, 2000, 4000, 5000, 5000] {
            now += Duration::from_millis(pause - 1);
            assert!(away.forbids(now, true).is_some(), "{pause}");
            now += Duration::from_millis(1);
            assert!(away.forbids(now, false).is_some() && away.forbids(now, true).is_none(), "{pause}");
            assert!(away.failed(now, "still"));
        }
        away.answered();
        assert_eq!(away.forbids(now, false), None);
        assert!(!away.failed(now, "one"));
    }
}
