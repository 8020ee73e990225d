//! Why a release did not come about, as it is told to whoever asked for it.

use std::fmt;

/// The last lines of output that are told with a failure.
pub(super) const LAST_LINES: usize = 40;

/// What went wrong, and what the process concerned had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// The last words of an installer, a hook or a worker. What is secret is masked in them.
    pub(super) output: Vec<String>,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Failure {
        Failure { why: why.into(), output: Vec::new() }
    }

    pub(super) fn with_output(why: impl Into<String>, output: Vec<String>) -> Failure {
        Failure { why: why.into(), output }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.output.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
