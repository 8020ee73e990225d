//! Something wrong with the configuration: where, what, and what to write instead.

use super::source::Span;

/// One thing that is wrong with the configuration. Problems are collected, never returned one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub span: Span,
    /// One sentence without a full stop; never holds a secret.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Another place that has to do with it, and what it is.
    pub also: Option<(Span, String)>,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but may surprise.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl Problem {
    /// What the value at `span` was drawn from a secret source is cut out of `message`.
    pub fn error(span: &Span, message: impl Into<String>) -> Self {
        Problem {
            span: span.clone(),
            message: span.without_secrets(message.into()),
            help: None,
            also: None,
            severity: Severity::Error,
        }
    }

    pub fn warning(span: &Span, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(span, message) }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(self.span.without_secrets(help.into()));
        self
    }

    pub fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also = Some((span.clone(), label.into()));
        self
    }
}

/// Whether any of `problems` keeps the configuration from being used.
pub fn any_error(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}
