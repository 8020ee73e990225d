//! The snapshot: everything that a request needs, compiled from [`Settings`] and never changed after.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::problem::{Problem, Severity};
use crate::config::settings::Settings;
use crate::observe::metrics::Metrics;
use crate::server::listener::Listener;
use crate::upstream::Upstream;

/// One configuration in force. A handshake or a request takes the newest and keeps it to its end.
pub struct Gateway {
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    pub settings: Settings,
}

impl Gateway {
    /// Compiles `settings`; binds nothing and starts nothing. State of `before` lives on where identity and settings
    /// are the same. Warnings are added to `problems` too; any error there means `None`.
    pub fn build(
        settings: Settings,
        before: Option<&Gateway>,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Option<Gateway> {
        let upstreams = settings
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let before = before.and_then(|gateway| gateway.upstreams.get(name.as_str())).map(Arc::as_ref);
                (Arc::from(name.as_str()), Arc::new(Upstream::build(name, upstream, before, metrics, problems)))
            })
            .collect();
        let listeners = settings
            .listeners
            .iter()
            .map(|(name, listener)| {
                (Arc::from(name.as_str()), Arc::new(Listener::build(name, listener, metrics, problems)))
            })
            .collect();
        let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
        (!failed).then_some(Gateway { listeners, upstreams, settings })
    }
}
