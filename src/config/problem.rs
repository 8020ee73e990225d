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
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but may surprise.
    Warning,
}

impl Problem {
    pub fn error(span: &Span, message: impl Into<String>) -> Self {
        Problem { span: span.clone(), message: message.into(), help: None, severity: Severity::Error }
    }

    pub fn warning(span: &Span, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(span, message) }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
