//! Identities that a worker has seen proved: a repeat of the same credential costs a mark and a look-up.
//!
//! What is kept is keyed by the credential's mark and by who proved it, so that neither another `[auth.NAME]` nor
//! other settings nor other keys ever answer for it. Only what was verified comes in, so nobody fills this with
//! inventions; it is bounded all the same, and what was used longest ago leaves first.

use std::cell::RefCell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::digest::Mark;
use super::generations::{Bounds, Generations};
use super::identity::Identity;
use crate::clock;

/// Half of what one worker keeps.
const BOUNDS: Bounds = Bounds { entries: 16 * 1024, bytes: 8 * 1024 * 1024 };
/// What an entry takes beside its identity, about: its key and the map's own.
const OVERHEAD: usize = 128;

/// Whoever proves identities: one `[auth.NAME]` with one set of settings. Another has another number, as long as the
/// process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prover(u64);

impl Prover {
    /// One that was never there before.
    pub fn new() -> Prover {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Prover(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Prover {
    fn default() -> Self {
        Prover::new()
    }
}

/// How long what was proved holds.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    /// By the clock on the wall, as a token's `exp` is.
    pub until: Option<SystemTime>,
    /// At most this long from now, whatever is done to that clock.
    pub at_most: Duration,
}

/// What is remembered of a credential.
#[derive(Clone)]
pub enum Seen {
    Proved(Arc<Identity>),
    /// It is for somebody else, in these words. Only kept of a credential that another auth of a route takes: then it
    /// need not be judged here each time before that one is asked.
    Foreign(&'static str),
}

/// The cache of one worker. Whatever is used stays.
pub struct Verified(RefCell<Generations<Key, Entry, BuildHasherDefault<OfMark>>>);

impl Default for Verified {
    fn default() -> Self {
        Verified(RefCell::new(Generations::new(BOUNDS)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    mark: Mark,
    prover: Prover,
    /// Which of the prover's keys, where they change.
    generation: u64,
}

struct Entry {
    seen: Seen,
    until: Option<SystemTime>,
    at_most: Instant,
}

impl Entry {
    fn holds(&self) -> bool {
        self.at_most > clock::recent() && self.until.is_none_or(|until| until > clock::recent_wall())
    }

    fn size(&self) -> usize {
        match &self.seen {
            Seen::Proved(identity) => identity.size().saturating_add(OVERHEAD),
            Seen::Foreign(_) => OVERHEAD,
        }
    }
}

/// A mark is as good as random already.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mark.half() ^ self.prover.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

#[derive(Default)]
struct OfMark(u64);

impl Hasher for OfMark {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }
}

impl Verified {
    /// What `prover` found behind the credential of this mark, while that holds. `generation` is that of the keys
    /// that it uses now; 0 where it has none.
    pub fn get(&self, prover: Prover, generation: u64, mark: Mark) -> Option<Seen> {
        let key = Key { mark, prover, generation };
        let holding = |entry: &Entry| entry.holds().then(|| entry.seen.clone());
        self.0.borrow_mut().take_up(key, holding)
    }

    /// Remembers what was proved just now. `generation` is that of the keys that proved it.
    pub fn put(&self, prover: Prover, generation: u64, mark: Mark, identity: &Arc<Identity>, holds: Holds) {
        self.keep(Key { mark, prover, generation }, Seen::Proved(Arc::clone(identity)), holds);
    }

    /// Remembers that to `prover` a credential is foreign that another took.
    pub fn foreign(&self, prover: Prover, generation: u64, mark: Mark, why: &'static str, at_most: Duration) {
        let holds = Holds { until: None, at_most };
        self.keep(Key { mark, prover, generation }, Seen::Foreign(why), holds);
    }

    fn keep(&self, key: Key, seen: Seen, holds: Holds) {
        let Some(at_most) = clock::recent().checked_add(holds.at_most) else { return };
        let entry = Entry { seen, until: holds.until, at_most };
        if entry.holds() {
            let size = entry.size();
            self.0.borrow_mut().put(key, entry, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::Mark;
    use super::super::identity::Method;
    use super::*;

    const LONG: Holds = Holds { until: None, at_most: Duration::from_secs(3600) };

    fn identity(subject: &str) -> Arc<Identity> {
        Arc::new(Identity::new(&Arc::from("staff"), Method::Jwt, subject, [], []))
    }

    fn known(verified: &Verified, prover: Prover, generation: u64, credential: &str) -> Option<String> {
        match verified.get(prover, generation, Mark::of(credential.as_bytes()))? {
            Seen::Proved(identity) => Some(identity.subject().to_owned()),
            Seen::Foreign(why) => Some(why.to_owned()),
        }
    }

    #[test]
    fn nobody_else_answers_for_a_credential() {
        let (verified, prover) = (Verified::default(), Prover::new());
        verified.put(prover, 3, Mark::of(b"token"), &identity("alice"), LONG);
        assert_eq!(known(&verified, prover, 3, "token").as_deref(), Some("alice"));
        assert_eq!(known(&verified, Prover::new(), 3, "token"), None, "another auth, or other settings");
        assert_eq!(known(&verified, prover, 4, "token"), None, "other keys");
        assert_eq!(known(&verified, prover, 3, "tokem"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_foreign_is_remembered_in_its_own_words_for_a_while() {
        let (verified, prover) = (Verified::default(), Prover::new());
        verified.foreign(prover, 1, Mark::of(b"token"), "of another issuer", Duration::from_secs(60));
        assert_eq!(known(&verified, prover, 1, "token").as_deref(), Some("of another issuer"));
        assert_eq!(known(&verified, prover, 2, "token"), None, "other keys");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(known(&verified, prover, 1, "token"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_holds_longer_than_it_should() {
        let (verified, prover) = (Verified::default(), Prover::new());
        let until = |seconds| Holds { until: Some(SystemTime::now() + Duration::from_secs(seconds)), ..LONG };
        verified.put(prover, 0, Mark::of(b"long"), &identity("alice"), until(600));
        verified.put(
            prover,
            0,
            Mark::of(b"gone"),
            &identity("bob"),
            Holds { until: Some(SystemTime::UNIX_EPOCH), ..LONG },
        );
        verified.put(
            prover,
            0,
            Mark::of(b"short"),
            &identity("eve"),
            Holds { at_most: Duration::from_secs(30), ..until(600) },
        );
        assert_eq!(known(&verified, prover, 0, "gone"), None);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(known(&verified, prover, 0, "short").as_deref(), Some("eve"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(known(&verified, prover, 0, "short"), None);
        assert_eq!(known(&verified, prover, 0, "long").as_deref(), Some("alice"));
    }

    #[test]
    fn it_is_bounded_and_what_is_used_stays() {
        let (verified, prover) = (Verified::default(), Prover::new());
        verified.put(prover, 0, Mark::of(b"used"), &identity("alice"), LONG);
        for index in 0..3 * BOUNDS.entries {
            verified.put(prover, 0, Mark::of(&index.to_ne_bytes()), &identity("someone"), LONG);
            if index % 1000 == 0 {
                assert!(known(&verified, prover, 0, "used").is_some(), "{index}");
            }
        }
        assert!(verified.0.borrow().count() <= 2 * BOUNDS.entries);
    }

    #[test]
    fn large_identities_count_by_their_bytes() {
        let (verified, prover) = (Verified::default(), Prover::new());
        let large = identity(&"x".repeat(BOUNDS.bytes / 100));
        for index in 0..1000_usize {
            verified.put(prover, 0, Mark::of(&index.to_ne_bytes()), &large, LONG);
        }
        assert!(verified.0.borrow().count() < 200);
    }
}
