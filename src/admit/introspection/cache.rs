//! What was said of tokens not long ago, by their digests; the tokens themselves are not kept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::digest::Digest;
use super::super::generations::{Bounds, Generations};
use super::super::identity::Identity;

/// Half of the tokens that are known, and half of those that were refused, of which the bytes are not counted.
const BOUNDS: Bounds = Bounds { entries: 16 * 1024, bytes: 16 * 1024 * 1024 };

/// What is known of a token.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Active(Arc<Identity>),
    Refused(&'static str),
    /// Nobody could say: held for a moment, so that nobody is asked again at once.
    Unknown(Arc<str>),
}

/// How long it holds, from when it was said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) at_most: Instant,
    pub(super) wall: Option<SystemTime>,
}

impl Until {
    /// What remains at this moment; `None`: nothing.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let left = self.at_most.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        self.wall.is_none_or(|wall| wall > SystemTime::now()).then_some(left)
    }
}

struct Entry {
    said: Said,
    until: Until,
}

/// What the cache says of a token.
pub(super) enum Cached {
    Holds(Said, Until),
    /// It was active, some time ago: its bearer is likely an honest one.
    Once,
    Nothing,
}

/// Refusals have a place of their own: inventions push out inventions, and nobody who was let in.
pub(super) struct Cache {
    active: Generations<Digest, Entry>,
    refused: Generations<Digest, Entry>,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { active: Generations::new(BOUNDS), refused: Generations::new(BOUNDS) }
    }
}

impl Cache {
    pub(super) fn get(&self, digest: &Digest) -> Cached {
        let known = self.active.peek(digest);
        for entry in [known, self.refused.peek(digest)].into_iter().flatten() {
            if entry.until.remaining().is_some() {
                return Cached::Holds(entry.said.clone(), entry.until);
            }
        }
        if known.is_some() { Cached::Once } else { Cached::Nothing }
    }

    pub(super) fn put(&mut self, digest: Digest, said: Said, until: Until) {
        if until.remaining().is_none() {
            return;
        }
        match &said {
            Said::Active(identity) => {
                let size = identity.size();
                self.refused.remove(&digest);
                self.active.put(digest, Entry { said, until }, size);
            }
            Said::Refused(_) => {
                self.active.remove(&digest);
                self.refused.put(digest, Entry { said, until }, 0);
            }
            // It may have been active before, which is worth remembering.
            Said::Unknown(_) => self.refused.put(digest, Entry { said, until }, 0),
        }
    }

    /// Tokens of either kind.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.active.count() + self.refused.count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::identity::Method;
    use super::*;

    fn digest(index: usize) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&index.to_ne_bytes());
        digest
    }

    fn until(seconds: u64) -> Until {
        Until { at_most: Instant::now() + Duration::from_secs(seconds), wall: None }
    }

    fn active() -> Said {
        Said::Active(Arc::new(Identity::new(&Arc::from("opaque"), Method::Introspection, "alice", [], [])))
    }

    #[tokio::test(start_paused = true)]
    async fn entries_hold_as_long_as_they_were_said_to() {
        let mut cache = Cache::default();
        cache.put(digest(1), active(), until(30));
        cache.put(digest(2), Said::Refused("no"), until(30));
        let past = Some(SystemTime::now() - Duration::from_secs(1));
        cache.put(digest(3), active(), Until { wall: past, ..until(30) });
        assert!(matches!(cache.get(&digest(1)), Cached::Holds(Said::Active(_), _)));
        assert!(matches!(cache.get(&digest(2)), Cached::Holds(Said::Refused(_), _)));
        assert!(matches!(cache.get(&digest(3)), Cached::Nothing), "its exp has passed");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(matches!(cache.get(&digest(1)), Cached::Once));
        assert!(matches!(cache.get(&digest(2)), Cached::Nothing));
        // Nobody can say: it was active once all the same; when it no longer is, that counts.
        cache.put(digest(1), Said::Unknown("away".into()), until(1));
        assert!(matches!(cache.get(&digest(1)), Cached::Holds(Said::Unknown(_), _)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(cache.get(&digest(1)), Cached::Once));
        cache.put(digest(1), Said::Refused("revoked"), until(30));
        assert!(matches!(cache.get(&digest(1)), Cached::Holds(Said::Refused("revoked"), _)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(matches!(cache.get(&digest(1)), Cached::Nothing), "it is no longer first in line");
    }

    #[tokio::test(start_paused = true)]
    async fn inventions_push_out_nobody_who_was_let_in() {
        let mut cache = Cache::default();
        cache.put(digest(0), active(), until(30));
        for index in 1..5 * BOUNDS.entries {
            cache.put(digest(index), Said::Refused("no"), until(30));
        }
        assert!(cache.len() <= 2 * BOUNDS.entries + 1);
        assert!(matches!(cache.get(&digest(0)), Cached::Holds(Said::Active(_), _)));
        assert!(matches!(cache.get(&digest(5 * BOUNDS.entries - 1)), Cached::Holds(Said::Refused(_), _)));
    }
}
