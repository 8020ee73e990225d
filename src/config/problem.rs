//! Something wrong with the configuration: where, what, and what to write instead.

use std::borrow::Cow;

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
    /// What the value at `span` was drawn from a secret source is cut out of a `message` that was put together. One that
    /// is fixed can hold none, whatever word of it somebody has taken for a secret.
    pub fn error(span: &Span, message: impl Into<Cow<'static, str>>) -> Self {
        Problem {
            span: span.clone(),
            message: without_secrets(span, message.into()),
            help: None,
            also: None,
            severity: Severity::Error,
        }
    }

    pub fn warning(span: &Span, message: impl Into<Cow<'static, str>>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(span, message) }
    }

    pub fn help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.help = Some(without_secrets(&self.span, help.into()));
        self
    }

    pub fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also = Some((span.clone(), label.into()));
        self
    }
}

fn without_secrets(span: &Span, text: Cow<'static, str>) -> String {
    match text {
        Cow::Borrowed(fixed) => fixed.to_owned(),
        Cow::Owned(text) => span.without_secrets(text),
    }
}

/// Whether any of `problems` keeps the configuration from being used.
pub fn any_error(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}
