//! How an introspection server fares: for the log, `/status` and the metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Outcome;
use crate::observe::metrics::{Introspected, IntrospectionMetrics};

/// Between two lines of the log that say that it fails: a token that the server cannot cope with is not to write them.
const APART: Duration = Duration::from_secs(10);

/// Kept on the control plane.
pub struct Standing {
    auth: Arc<str>,
    pub(super) metrics: Arc<IntrospectionMetrics>,
    failing: Mutex<State>,
}

#[derive(Default)]
struct State {
    failing: Option<Failing>,
    told: Option<Instant>,
}

/// Since when it gives no answers that can be used, and why.
#[derive(Clone, Debug)]
pub struct Failing {
    pub since: Instant,
    pub why: String,
    /// The log has a line of it.
    told: bool,
}

impl Standing {
    pub(super) fn new(auth: &Arc<str>, metrics: Arc<IntrospectionMetrics>) -> Standing {
        Standing { auth: Arc::clone(auth), metrics, failing: Mutex::default() }
    }

    /// `None`: the last answer was one, or there was none yet.
    pub fn failing(&self) -> Option<Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).failing.clone()
    }

    /// Questions that are under way.
    pub fn in_flight(&self) -> u64 {
        self.metrics.in_flight()
    }

    pub(super) fn heard(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Active { .. } => Introspected::Active,
            Outcome::Refused(_) => Introspected::Inactive,
            Outcome::Failed(_) => Introspected::Failure,
        };
        self.metrics.answered(result);
        let mut state = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Active { .. } | Outcome::Refused(_) => {
                if let Some(failing) = state.failing.take()
                    && failing.told
                {
                    let seconds = failing.since.elapsed().as_secs();
                    tracing::info!(auth = &*self.auth, seconds, "the introspection server answers again");
                }
            }
            Outcome::Failed(failed) => {
                if let Some(failing) = &mut state.failing {
                    failing.why.clone_from(&failed.why);
                    return;
                }
                let now = Instant::now();
                let tell = state.told.is_none_or(|told| now.duration_since(told) >= APART);
                if tell {
                    state.told = Some(now);
                    tracing::warn!(
                        auth = &*self.auth,
                        reason = &*failed.why,
                        remedy = "Tokens that are not known yet get 503 until it answers; see the reason.",
                        "the introspection server gives no answer that can be used"
                    );
                }
                state.failing = Some(Failing { since: now, why: failed.why.clone(), told: tell });
            }
        }
    }
}
