//! How far the process has come, and what its last reload came to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};

/// Written by the control plane, read by `/ready` and `/status`.
#[derive(Debug)]
pub struct Lifecycle {
    started: SystemTime,
    clock: Instant,
    phase: AtomicU8,
    configuration: ArcSwap<Configuration>,
    last_reload: ArcSwapOption<Reload>,
    /// The addresses that each listener is bound to.
    bound: ArcSwap<BTreeMap<Arc<str>, Vec<SocketAddr>>>,
}

/// Which configuration is in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Configuration {
    /// From 1, up with every reload that succeeded.
    pub(super) generation: u64,
    pub(super) loaded: SystemTime,
}

#[derive(Debug)]
pub(super) struct Reload {
    pub(super) at: SystemTime,
    pub(super) outcome: ReloadOutcome,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// This generation is in force now.
    Loaded { generation: u64 },
    /// The configuration before serves on. What is wrong with the new one, rendered for people.
    Failed { problems: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Loaded, but not every listening socket is bound.
    Starting,
    Serving,
    /// Told to end: what is in flight is finished, `drain_delay` included.
    Draining,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle::new()
    }
}

impl Lifecycle {
    /// A process that has loaded its first configuration.
    pub fn new() -> Lifecycle {
        let now = SystemTime::now();
        Lifecycle {
            started: now,
            clock: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            configuration: ArcSwap::from_pointee(Configuration { generation: 1, loaded: now }),
            last_reload: ArcSwapOption::empty(),
            bound: ArcSwap::default(),
        }
    }

    /// Every listener's sockets are bound: the process serves, unless it is draining already.
    pub fn bound(&self, addresses: BTreeMap<Arc<str>, Vec<SocketAddr>>) {
        self.bound.store(Arc::new(addresses));
        let _ = self.phase.compare_exchange(
            Phase::Starting as u8,
            Phase::Serving as u8,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    /// The process was told to end. From here on it is not ready.
    pub fn draining(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// A reload succeeded; only the control plane calls this, one reload at a time.
    pub fn reload_succeeded(&self) -> ReloadOutcome {
        let generation = self.configuration.load().generation.saturating_add(1);
        let loaded = SystemTime::now();
        self.configuration.store(Arc::new(Configuration { generation, loaded }));
        self.remember(ReloadOutcome::Loaded { generation }, loaded)
    }

    /// A reload failed, for these problems.
    pub fn reload_failed(&self, problems: String) -> ReloadOutcome {
        self.remember(ReloadOutcome::Failed { problems }, SystemTime::now())
    }

    fn remember(&self, outcome: ReloadOutcome, at: SystemTime) -> ReloadOutcome {
        self.last_reload.store(Some(Arc::new(Reload { at, outcome: outcome.clone() })));
        outcome
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    pub(super) fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(super) fn configuration(&self) -> Configuration {
        **self.configuration.load()
    }

    pub(super) fn last_reload(&self) -> Option<Arc<Reload>> {
        self.last_reload.load_full()
    }

    pub(super) fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.bound.load().get(listener).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_go_one_way() {
        let lifecycle = Lifecycle::new();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.bound(BTreeMap::new());
        assert_eq!(lifecycle.phase(), Phase::Serving);
        lifecycle.draining();
        // A reload that ends while the process drains.
        lifecycle.bound(BTreeMap::new());
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[test]
    fn only_what_succeeds_is_a_generation() {
        let lifecycle = Lifecycle::new();
        lifecycle.reload_failed("no".to_owned());
        assert_eq!(lifecycle.configuration().generation, 1);
        assert_eq!(lifecycle.reload_succeeded(), ReloadOutcome::Loaded { generation: 2 });
        assert_eq!(lifecycle.configuration().generation, 2);
    }
}
