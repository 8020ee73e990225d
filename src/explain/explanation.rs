//! An explanation, as it is told: in JSON by the admin listener, as text by the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::request::rejection::Rejection;

/// What would become of a request. Holds no credential and no secret of the configuration.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The method and the URL without its query.
    pub request: String,
    /// In the order in which they are taken; none after a refusal.
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    /// What could not be judged and must be so for this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provided: Vec<String>,
    /// Of a running gateway; absent: the file alone was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

/// The configuration of a running gateway.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub file: String,
    pub generation: u64,
    /// When it was loaded.
    pub loaded: String,
    /// The file was changed since.
    pub file_is_newer: bool,
    pub last_reload_failed: bool,
}

/// One step and what decided it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    pub decision: Decision,
    pub text: String,
    /// Absent where no key has a say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Passed,
    Refused,
    /// It has nothing to say of this request.
    Skipped,
    /// It cannot be judged here and now.
    Unknown,
}

/// Where a decision is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The key, dotted from the top; where the file has none, the one that would say otherwise.
    pub key: String,
    /// Absent: nothing is written, and the default holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub file: String,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some(Line { file, line }) => write!(f, "{file}:{line}"),
            None => f.write_str("default"),
        }
    }
}

/// What the client, or the server, would get.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Refused(Refusal),
    Redirected {
        status: u16,
        location: String,
    },
    /// By the gateway itself.
    Answered {
        status: u16,
    },
    /// To one of these servers.
    Forwarded(Sent),
}

/// An answer from the table of causes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub status: u16,
    pub cause: String,
    pub blame: String,
    pub title: String,
    pub remedy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Fields of the answer that belong to the refusal, such as `Allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What is wrong with what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

/// A request as a server would get it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub upstream: String,
    /// As `/status` calls them.
    pub servers: Vec<String>,
    /// The one whose turn it is, of a running gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The request's head line by line. Values that the client or the file gave are left out.
    pub head: Vec<String>,
}

impl Refusal {
    pub(super) fn of(rejection: &Rejection) -> Refusal {
        let row = rejection.cause.row();
        let field = |(name, value): &(http::HeaderName, http::HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let violation = |violation: &crate::request::violation::Violation| {
            format!("{}{}: {}", violation.place.as_str(), violation.pointer, violation.message)
        };
        Refusal {
            status: row.status.as_u16(),
            cause: row.cause.to_owned(),
            blame: row.blame.as_str().to_owned(),
            title: row.title.to_owned(),
            remedy: row.remedy.to_owned(),
            detail: rejection.detail().map(str::to_owned),
            fields: rejection.fields().iter().map(field).collect(),
            violations: rejection.violations().iter().map(violation).collect(),
        }
    }
}

impl Explanation {
    /// The answer's status and, of a refusal, its cause; `None` where a server answers.
    pub fn verdict(&self) -> (Option<u16>, Option<&str>) {
        match &self.outcome {
            Outcome::Refused(refusal) => (Some(refusal.status), Some(&refusal.cause)),
            Outcome::Redirected { status, .. } | Outcome::Answered { status } => (Some(*status), None),
            Outcome::Forwarded(_) => (None, None),
        }
    }

    /// Changes every text that may hold something of the request or the file.
    pub(super) fn rewrite(&mut self, text: impl Fn(&str) -> String) {
        let all = |list: &mut Vec<String>| list.iter_mut().for_each(|line| *line = text(line));
        self.request = text(&self.request);
        for step in &mut self.steps {
            step.step = text(&step.step);
            step.text = text(&step.text);
        }
        all(&mut self.provided);
        match &mut self.outcome {
            Outcome::Refused(Refusal { detail, fields, violations, .. }) => {
                *detail = detail.as_deref().map(&text);
                all(fields);
                all(violations);
            }
            Outcome::Redirected { location, .. } => *location = text(location),
            Outcome::Answered { .. } => {}
            Outcome::Forwarded(Sent { servers, next, head, .. }) => {
                all(servers);
                *next = next.as_deref().map(&text);
                all(head);
            }
        }
    }
}
