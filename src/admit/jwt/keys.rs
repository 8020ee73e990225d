//! The keys of an issuer as they are at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::keyset::KeySet;

/// Shared by the snapshots whose settings are the same, and changed by the control plane.
pub struct Keys {
    current: ArcSwap<Result<Arc<KeySet>, String>>,
    generation: AtomicU64,
}

impl Keys {
    /// Keys that do not change: of a file, or a secret.
    pub fn fixed(keys: KeySet) -> Keys {
        Keys { current: ArcSwap::from_pointee(Ok(Arc::new(keys))), generation: AtomicU64::new(0) }
    }

    /// # Errors
    /// Why there are none, for the log.
    pub fn current(&self) -> Result<Arc<KeySet>, String> {
        (**self.current.load()).clone()
    }

    /// Grows with every change of the keys. Read before [`Keys::current`], it is never newer than what that yields.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks the issuer for its keys, because a token names one that is not known. Whether they have changed.
    #[expect(clippy::unused_async, reason = "keys that are fetched are waited for")]
    pub async fn refetch(&self) -> bool {
        false
    }
}
