//! How many files the process may have open: every connection is one, and one more towards its server.
//!
//! The soft limit that a shell or a service manager sets, 1024 as a rule, is meant for programs that still use
//! select(2). We do not, so ours is raised to the hard limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::settings::Settings;

/// What the process needs beside connections: logs, listening sockets, event queues.
const BESIDE: u64 = 100;

/// Raises the limit, and warns when it does not allow what `max_connections` does.
pub(super) fn raise(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit on open files could not be raised");
        }
    }
    let connections = settings.listeners.values().map(|listener| listener.max_connections.get() as u64);
    let wanted = connections.fold(BESIDE, u64::saturating_add);
    // None is unlimited.
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < wanted
    {
        tracing::warn!(
            limit,
            wanted,
            remedy = "Raise the hard limit (LimitNOFILE=, ulimit -Hn), or lower max_connections.",
            "the limit on open files is below max_connections of all listeners together"
        );
    }
}
