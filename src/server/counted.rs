//! Which connections are open, and what each speaks, for the metrics.

use std::sync::Arc;

use crate::observe::metrics::WorkerId;
use crate::observe::metrics::{ListenerMetrics, Protocol};

/// A connection among its listener's open ones, until it is dropped.
pub(super) struct Counted {
    metrics: Arc<ListenerMetrics>,
    worker: WorkerId,
    protocol: Protocol,
}

impl Counted {
    pub(super) fn new(metrics: &Arc<ListenerMetrics>, worker: WorkerId, protocol: Protocol) -> Counted {
        metrics.opened(worker, protocol);
        Counted { metrics: Arc::clone(metrics), worker, protocol }
    }

    /// From now on it speaks something else.
    pub(super) fn becomes(&mut self, protocol: Protocol) {
        self.metrics.closed(self.worker, self.protocol);
        self.protocol = protocol;
        self.metrics.opened(self.worker, self.protocol);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.closed(self.worker, self.protocol);
    }
}
