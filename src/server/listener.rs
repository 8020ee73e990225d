//! One `[listener.NAME]` of a snapshot.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::config::problem::Problem;
use crate::config::settings::ListenerSettings;
use crate::observe::metrics::{ListenerMetrics, Metrics};

/// A listener's settings, compiled.
pub struct Listener {
    pub name: Arc<str>,
    pub settings: ListenerSettings,
    pub metrics: Arc<ListenerMetrics>,
    /// Open connections over all workers, for `max_connections`.
    pub connections: Arc<AtomicUsize>,
}

impl Listener {
    pub fn build(name: &str, settings: &ListenerSettings, metrics: &Metrics, problems: &mut Vec<Problem>) -> Listener {
        let _ = problems;
        Listener {
            name: Arc::from(name),
            settings: settings.clone(),
            metrics: metrics.listener(name),
            connections: Arc::new(AtomicUsize::new(0)),
        }
    }
}
