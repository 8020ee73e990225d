//! What is counted of the documents that upstreams publish. All of it on the control plane.

use std::sync::atomic::{AtomicU64, Ordering};

/// The document of one route.
#[derive(Debug, Default)]
pub struct DocumentMetrics {
    fetches: [AtomicU64; 4],
    /// Milliseconds since 1970; 0: never.
    confirmed: AtomicU64,
}

/// How fetching a document ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFetch {
    /// One came that is new.
    Success,
    Unchanged,
    Unreachable,
    /// What came is no document that can be used.
    Unusable,
}

impl DocumentFetch {
    pub(super) const ALL: [DocumentFetch; 4] =
        [DocumentFetch::Success, DocumentFetch::Unchanged, DocumentFetch::Unreachable, DocumentFetch::Unusable];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            DocumentFetch::Success => "success",
            DocumentFetch::Unchanged => "unchanged",
            DocumentFetch::Unreachable => "unreachable",
            DocumentFetch::Unusable => "unusable",
        }
    }
}

impl DocumentMetrics {
    pub fn fetched(&self, result: DocumentFetch) {
        if let Some(cell) = self.fetches.get(result as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        match result {
            DocumentFetch::Success | DocumentFetch::Unchanged => {
                self.confirmed.store(super::now_millis(), Ordering::Relaxed);
            }
            DocumentFetch::Unreachable | DocumentFetch::Unusable => {}
        }
    }

    pub(super) fn fetches_total(&self, result: DocumentFetch) -> u64 {
        self.fetches.get(result as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn confirmed_seconds(&self) -> f64 {
        self.confirmed.load(Ordering::Relaxed) as f64 / 1e3
    }
}
