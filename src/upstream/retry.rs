//! The retry budget: retries never exceed a share of the requests of the last ten seconds.

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Budget {}

impl Budget {
    /// A request (not a retry) was sent to the upstream.
    pub fn request(&self) {}

    /// Takes one retry from the budget, if there is one.
    pub fn take(&self) -> bool {
        true
    }
}
