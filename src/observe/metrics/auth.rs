//! What is counted of issuers: their keys, and what they say of tokens. All of it on the control plane.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The keys of one `[auth.NAME]` that are fetched.
#[derive(Debug, Default)]
pub struct KeysMetrics {
    fetches: [AtomicU64; 2],
    usable: AtomicU64,
    /// When the keys in use were fetched, or fetched again unchanged.
    fetched: Mutex<Option<Instant>>,
}

/// How fetching an issuer's keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchResult {
    Success,
    Failure,
}

impl FetchResult {
    pub(super) const ALL: [FetchResult; 2] = [FetchResult::Success, FetchResult::Failure];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            FetchResult::Success => "success",
            FetchResult::Failure => "failure",
        }
    }
}

impl KeysMetrics {
    /// So many keys came.
    pub fn fetched(&self, keys: usize) {
        self.count(FetchResult::Success);
        self.usable.store(keys as u64, Ordering::Relaxed);
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// No keys came, or none that can be used.
    pub fn failed(&self) {
        self.count(FetchResult::Failure);
    }

    /// So many may be used now, without any having come.
    pub fn holds(&self, keys: usize) {
        self.usable.store(keys as u64, Ordering::Relaxed);
    }

    fn count(&self, result: FetchResult) {
        if let Some(cell) = self.fetches.get(result as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fetches_total(&self, result: FetchResult) -> u64 {
        self.fetches.get(result as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn usable(&self) -> u64 {
        self.usable.load(Ordering::Relaxed)
    }

    /// In seconds; `None`: none were ever fetched.
    pub(super) fn age(&self) -> Option<f64> {
        let fetched = *self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.map(|fetched| fetched.elapsed().as_secs_f64())
    }
}

/// The questions of one `[auth.NAME]` of the kind `introspection`.
#[derive(Debug, Default)]
pub struct IntrospectionMetrics {
    asked: [AtomicU64; 3],
    in_flight: AtomicU64,
}

/// What came of asking about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspected {
    Active,
    /// Or active, and not for us.
    Inactive,
    /// No answer that can be used.
    Failure,
}

impl Introspected {
    pub(super) const ALL: [Introspected; 3] = [Introspected::Active, Introspected::Inactive, Introspected::Failure];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Introspected::Active => "active",
            Introspected::Inactive => "inactive",
            Introspected::Failure => "failure",
        }
    }
}

impl IntrospectionMetrics {
    pub fn asks(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A question that [`IntrospectionMetrics::asks`] told of has ended.
    pub fn answered(&self, result: Introspected) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(cell) = self.asked.get(result as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn asked_total(&self, result: Introspected) -> u64 {
        self.asked.get(result as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}
