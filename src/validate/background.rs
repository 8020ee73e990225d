//! Documents that upstreams publish, fetched and refreshed on the control plane's runtime.

use crate::gateway::Gateway;

/// The tasks of all documents; they end when this is dropped.
#[derive(Default)]
pub struct Background {}

impl Background {
    /// Makes the tasks fit `gateway`, as those of auths are. Does not wait: an upstream may start later than we do.
    pub async fn apply(&mut self, _gateway: &Gateway) {}
}
