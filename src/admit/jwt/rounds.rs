//! When an issuer is asked for its keys: one question at a time, and who waits for which.
//!
//! The task that asks says when a question begins and when it has ended. Tokens by keys that are not known make one
//! begin, and wait for it; whoever invents tokens makes two of them in [`COOL_DOWN`] at the most.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Between two questions that tokens make for the same reason.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Rounds {
    /// Its receivers are told when one has ended. Locked for a moment, where a token is not by a key that is known.
    state: watch::Sender<State>,
    /// That one is to begin now.
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// How many have.
    ended: u64,
    /// One is under way, or about to be.
    under_way: bool,
    /// The issuer did not answer the last one.
    failed: bool,
    /// From when on tokens may make the next one.
    next: [Option<Instant>; 2],
}

/// Why a token makes one begin.
#[derive(Clone, Copy)]
enum Reason {
    /// Its key is not known.
    UnknownKey,
    /// Nor is it after the one that was under way when the token came: the issuer may have answered that one before it
    /// had the key.
    AskedBefore,
}

impl State {
    /// The number of the last that ended, if another is under way.
    fn under_way(&self) -> Option<u64> {
        self.under_way.then_some(self.ended)
    }

    fn may_begin(&mut self, reason: Reason) -> bool {
        let now = Instant::now();
        let Some(next) = self.next.get_mut(reason as usize) else { return false };
        if self.under_way || next.is_some_and(|next| now < next) {
            return false;
        }
        *next = now.checked_add(COOL_DOWN);
        true
    }
}

impl Rounds {
    /// The first is about to begin.
    pub(super) fn new() -> Rounds {
        Rounds { state: watch::Sender::new(State { under_way: true, ..State::default() }), wanted: Notify::new() }
    }

    pub(super) fn begin(&self) {
        self.state.send_if_modified(|state| {
            state.under_way = true;
            false
        });
    }

    pub(super) fn end(&self, failed: bool) {
        self.state.send_modify(|state| {
            state.ended = state.ended.wrapping_add(1);
            (state.under_way, state.failed) = (false, failed);
        });
    }

    /// Returns when a token wants one to begin.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Returns when one has ended.
    pub(super) async fn first(&self) {
        // The sender lives in `self`.
        let _ = self.state.subscribe().wait_for(|state| state.ended > 0).await;
    }

    /// For a token by a key that is not known: returns when one has ended that began after this did, or `is_enough`
    /// after one that was under way. At once where tokens have made too many begin a moment ago. Whether the issuer has
    /// answered, which one that others have made begin since then says nothing of.
    pub(super) async fn demand(&self, is_enough: impl Fn() -> bool) -> bool {
        let answered = async {
            let Some(ended) = self.state.borrow().under_way() else { return self.one_more(Reason::UnknownKey).await };
            self.another_than(ended).await;
            if !is_enough() {
                self.one_more(Reason::AskedBefore).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.is_ok() && !self.state.borrow().failed
    }

    async fn one_more(&self, reason: Reason) {
        let (mut begins, mut under_way) = (false, None);
        self.state.send_if_modified(|state| {
            begins = state.may_begin(reason);
            state.under_way |= begins;
            under_way = state.under_way();
            false
        });
        if begins {
            self.wanted.notify_one();
        }
        if let Some(ended) = under_way {
            self.another_than(ended).await;
        }
    }

    /// Returns when another has ended than the one that was the last.
    async fn another_than(&self, last: u64) {
        let _ = self.state.subscribe().wait_for(|state| state.ended != last).await;
    }
}
