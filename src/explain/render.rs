//! An explanation as text: a line a step, its place at the end, and what comes of it last.

use std::fmt::Write;

use super::explanation::{Decision, Explanation, InForce, Outcome, Refusal, Sent, Step};
use super::wording::listed;

impl Decision {
    fn word(self) -> &'static str {
        match self {
            Decision::Passed => "ok",
            Decision::Refused => "refused",
            Decision::Skipped => "-",
            Decision::Unknown => "not judged",
        }
    }
}

impl Explanation {
    /// Plain text, which ends with a line break.
    pub fn human(&self) -> String {
        let mut out = format!("{}\n\n", self.request);
        let width = self.steps.iter().map(|step| step.step.chars().count()).max().unwrap_or_default();
        for Step { step, decision, text, place } in &self.steps {
            // Writing to a string does not fail.
            let _ = write!(out, "{:<10}  {step:<width$}  {text}", decision.word());
            if let Some(place) = place {
                let _ = write!(out, "  [{place}]");
            }
            out.push('\n');
        }
        out.push('\n');
        self.conditions(&mut out);
        self.outcome.human(&mut out);
        self.by_whom(&mut out);
        out
    }

    fn by_whom(&self, out: &mut String) {
        let Some(InForce { file, generation, loaded, file_is_newer, last_reload_failed }) = &self.in_force else {
            return;
        };
        let _ = write!(out, "\nAs the running gateway has it: {file}, generation {generation}, loaded {loaded}");
        let _ = match (file_is_newer, last_reload_failed) {
            (_, true) => writeln!(out, "\nThe last reload failed: what the file says now is not in force."),
            (true, false) => writeln!(out, "\nThe file was changed since: what it says now is not in force."),
            (false, false) => writeln!(out),
        };
    }

    fn conditions(&self, out: &mut String) {
        match self.provided.as_slice() {
            [] => {}
            [one] => {
                let _ = writeln!(out, "If {one}:");
            }
            more => {
                let _ = writeln!(out, "If {}:", more.join(", and "));
            }
        }
    }
}

impl Outcome {
    fn human(&self, out: &mut String) {
        let _ = match self {
            Outcome::Refused(refusal) => return refusal.human(out),
            Outcome::Forwarded(sent) => return sent.human(out),
            Outcome::Redirected { status, location } => writeln!(out, "Answered with {status}, to {location}"),
            Outcome::Answered { status } => writeln!(out, "Answered with {status} by the gateway itself"),
        };
    }
}

impl Refusal {
    fn human(&self, out: &mut String) {
        let Refusal { status, cause, title, remedy, detail, fields, violations, .. } = self;
        let _ = writeln!(out, "Refused with {status} {cause}: {title}");
        if let Some(detail) = detail {
            let _ = writeln!(out, "  {detail}");
        }
        for violation in violations {
            let _ = writeln!(out, "  {violation}");
        }
        for field in fields {
            let _ = writeln!(out, "  {field}");
        }
        let _ = writeln!(out, "{remedy}");
    }
}

impl Sent {
    fn human(&self, out: &mut String) {
        let to = match &self.next {
            Some(next) => next.clone(),
            None => listed(self.servers.iter()),
        };
        // Of an app that does not run the workers are not known, nor what they would be sent.
        let to = if to.is_empty() { to } else { format!(" ({to})") };
        let end = if self.head.is_empty() { "." } else { ":" };
        let _ = writeln!(out, "Forwarded to {}{to}{end}", self.upstream);
        for line in &self.head {
            let _ = writeln!(out, "  {}", line.trim_end());
        }
    }
}
