//! What validation keeps out, or would keep out, counted by rule.

use std::sync::Arc;

use crate::config::settings::ValidateMode;
use crate::observe::metrics::{Metrics, RuleMetrics, WorkerId};

/// What of `validate` a request did not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    ContentTypes,
    Coding,
    MaxBody,
    Body,
    OpenApi,
    /// There was no memory to judge it.
    Memory,
}

impl Rule {
    const ALL: [Rule; 6] = [Rule::ContentTypes, Rule::Coding, Rule::MaxBody, Rule::Body, Rule::OpenApi, Rule::Memory];

    /// The value of the label `rule`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::ContentTypes => "validate.content_types",
            Rule::Coding => "validate.coding",
            Rule::MaxBody => "validate.max_body",
            Rule::Body => "validate.body",
            Rule::OpenApi => "validate.openapi",
            Rule::Memory => "validate.memory",
        }
    }
}

/// The counters of one route.
pub(super) struct Tally {
    /// In the order of [`Rule::ALL`].
    counters: [Arc<RuleMetrics>; 6],
}

impl Tally {
    /// What is enforced counts as denied, what is reported as a violation.
    pub(super) fn build(route: &str, mode: ValidateMode, metrics: &Metrics) -> Tally {
        let counters = Rule::ALL.map(|rule| match mode {
            ValidateMode::Enforce => metrics.rule(route, rule.as_str()),
            ValidateMode::Report => metrics.reported(route, rule.as_str()),
        });
        Tally { counters }
    }

    pub(super) fn refused(&self, rule: Rule, worker: WorkerId) {
        if let Some(counter) = self.counters.get(rule as usize) {
            counter.denied(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_where_they_stand() {
        for (index, rule) in Rule::ALL.into_iter().enumerate() {
            assert_eq!(rule as usize, index);
        }
    }
}
