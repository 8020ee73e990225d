//! What admission needs beside requests: keys kept fresh, tokens asked about, on the control plane's runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::auth::Auths;
use super::jwt::keys::Keys;
use crate::gateway::Gateway;

/// How long a snapshot waits for keys that have never been fetched.
const FIRST_KEYS: Duration = Duration::from_secs(4);

/// The tasks of all auths; they end when this is dropped.
#[derive(Default)]
pub struct Background {
    keys: HashMap<Arc<str>, Kept>,
    /// Each ends by itself when the last snapshot that needs it is gone.
    introspections: JoinSet<()>,
}

struct Kept {
    keys: Arc<Keys>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Background {
    /// Makes the tasks fit `gateway`: those of auths that are gone end, those of unchanged ones go on. Returns when
    /// keys that are new have been fetched, or after a few seconds: then requests that need them get
    /// `AuthUnavailable` until they are there.
    pub async fn apply(&mut self, gateway: &Gateway) {
        self.keep(&gateway.auths).await;
    }

    async fn keep(&mut self, auths: &Auths) {
        let fetched = auths.values().filter_map(|auth| {
            let keys = auth.kind.keys().filter(|keys| keys.are_fetched())?;
            Some((&auth.name, keys))
        });
        let fetched: Vec<(&Arc<str>, &Arc<Keys>)> = fetched.collect();
        self.keys
            .retain(|name, kept| fetched.iter().any(|(auth, keys)| *auth == name && Arc::ptr_eq(keys, &kept.keys)));
        for (auth, keys) in &fetched {
            self.keys.entry(Arc::clone(auth)).or_insert_with(|| {
                let (kept, keys) = (Arc::clone(keys), Arc::clone(keys));
                let task = tokio::spawn(async move { keys.keep().await }).abort_handle();
                Kept { keys: kept, task }
            });
        }
        while self.introspections.try_join_next().is_some() {}
        for task in auths.values().filter_map(|auth| auth.kind.task()) {
            self.introspections.spawn(task);
        }
        let patience = Instant::now() + FIRST_KEYS;
        for (_, keys) in fetched {
            let _ = tokio::time::timeout_at(patience, keys.settled()).await;
        }
    }
}
