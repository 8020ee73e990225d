//! The keys of an issuer as they are at this moment.
//!
//! Requests read them; one task of the control plane ([`Keys::keep`]) fetches them, again before they age, again
//! after failures, and when a token is by a key that is not known. Whatever fails, the last good ones serve until
//! they are too old, or the issuer answers that it has none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;

use super::issuer::{Fetched, Issuer};
use super::keyset::KeySet;
use super::rounds::Rounds;
use crate::fetch::Client;

/// Between attempts while fetching fails, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Keys are fetched no more often than this by themselves, and serve at least twice as long.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

const NOT_YET: &str = "the issuer's keys have not been fetched yet";

/// The keys, or why there are none.
type Current = Result<Arc<KeySet>, String>;

/// Shared by the snapshots whose settings are the same, and changed by the control plane.
pub struct Keys {
    current: ArcSwap<Current>,
    generation: AtomicU64,
    /// `None`: they do not change.
    asked: Option<Asked>,
}

/// Keys that are fetched.
struct Asked {
    issuer: Issuer,
    rounds: Rounds,
    standing: Mutex<Standing>,
    /// For settings that take other keys of the same issuer.
    told: Mutex<Option<Told>>,
}

/// What the issuer said last.
#[derive(Clone)]
struct Told {
    text: Bytes,
    at: Instant,
}

/// What came of asking an issuer for its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refetched {
    /// There are others now.
    Others,
    Same,
    /// These may not be its newest.
    Unanswered,
}

/// How the keys of an issuer fare, for `/status`. Kept on the control plane.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// When the issuer last gave keys.
    pub fetched: Option<Instant>,
    /// Since when it has not, and why. Holds no secret.
    pub failing: Option<Failing>,
}

#[derive(Clone, Debug)]
pub struct Failing {
    pub since: Instant,
    pub why: String,
}

impl Keys {
    /// Keys that do not change: of a file, or a secret.
    pub fn fixed(keys: KeySet) -> Keys {
        Keys { current: ArcSwap::from_pointee(Ok(Arc::new(keys))), generation: AtomicU64::new(0), asked: None }
    }

    /// Keys that `issuer` gives once [`Keys::keep`] runs. Hands out `before` where that is asked in the same way. Where
    /// it is the same issuer all the same, what it told goes on until it is asked again.
    pub fn fetched(issuer: Issuer, before: Option<&Arc<Keys>>) -> Arc<Keys> {
        let asked = |keys| Some((keys, Keys::asked(keys)?));
        let same = before.and_then(asked).filter(|(_, asked)| asked.issuer.gives_what(&issuer));
        if let Some((keys, asked)) = same
            && asked.issuer.is_asked_like(&issuer)
        {
            return Arc::clone(keys);
        }
        let (current, standing, told) = match same {
            Some((keys, asked)) => keys.taken_over(asked, &issuer),
            None => (Err(NOT_YET.to_owned()), Standing::default(), None),
        };
        let generation = same.map_or(0, |(keys, _)| keys.generation().saturating_add(1));
        let asked = Asked { issuer, rounds: Rounds::new(), standing: Mutex::new(standing), told: Mutex::new(told) };
        Arc::new(Keys {
            current: ArcSwap::from_pointee(current),
            generation: AtomicU64::new(generation),
            asked: Some(asked),
        })
    }

    fn asked(keys: &Arc<Keys>) -> Option<&Asked> {
        keys.asked.as_ref()
    }

    /// What these are to the same issuer as `next` has it.
    fn taken_over(&self, asked: &Asked, next: &Issuer) -> (Current, Standing, Option<Told>) {
        let mut standing = asked.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = asked.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if asked.issuer.algorithms == next.algorithms {
            return (self.current(), standing, told);
        }
        let current = match &told {
            Some(told) if told.at.elapsed() < asked.max_stale() => {
                standing.fetched = Some(told.at);
                KeySet::parse(&told.text, &next.algorithms).map(Arc::new).map_err(|why| why.to_string())
            }
            Some(_) | None => Err(NOT_YET.to_owned()),
        };
        (current, standing, told)
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

    /// How they fare; `None`: they are not fetched.
    pub fn standing(&self) -> Option<Standing> {
        self.asked.as_ref().map(|asked| asked.standing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Who is asked for them, and with what trust.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.asked.as_ref().map(|asked| &asked.issuer.client)
    }

    /// Whether they are fetched, and [`Keys::keep`] has something to do.
    pub fn are_fetched(&self) -> bool {
        self.asked.is_some()
    }

    /// Asks the issuer for its keys, because a token is by none of those of the generation `seen`. Waits for an answer
    /// that is under way, and not at all where the issuer was asked for the same reason a moment ago.
    pub async fn refetch(&self, seen: u64) -> Refetched {
        let others = || self.generation() != seen;
        let answered = match &self.asked {
            Some(asked) => asked.rounds.demand(others).await,
            None => true,
        };
        match (others(), answered) {
            (true, _) => Refetched::Others,
            (false, true) => Refetched::Same,
            (false, false) => Refetched::Unanswered,
        }
    }

    /// Returns when there are keys, or the issuer has been asked once, whatever came of it.
    pub async fn settled(&self) {
        if let Some(asked) = &self.asked
            && self.current().is_err()
        {
            asked.rounds.first().await;
        }
    }

    /// Fetches them for as long as this runs: on the control plane, once for each `Keys`.
    pub async fn keep(&self) {
        if let Some(asked) = &self.asked {
            self.keep_by(asked, || asked.issuer.fetch()).await;
        }
    }

    async fn keep_by<F>(&self, asked: &Asked, mut fetch: impl FnMut() -> F)
    where
        F: Future<Output = Result<Fetched, String>>,
    {
        asked.issuer.metrics.holds(self.current().map_or(0, |keys| keys.count()));
        let mut failures: u32 = 0;
        loop {
            asked.rounds.begin();
            let fetched = self.ageing(asked, fetch()).await;
            let answered = fetched.is_ok();
            let lifetime = match fetched {
                Ok(Fetched { told, keys, lifetime }) => {
                    *asked.told.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Told { text: told, at: Instant::now() });
                    self.learn(asked, keys).then_some(lifetime)
                }
                Err(why) => {
                    asked.fails(why, self.current().is_ok());
                    None
                }
            };
            failures = if lifetime.is_some() { 0 } else { failures.saturating_add(1) };
            asked.rounds.end(!answered);
            let next = tokio::time::sleep(pause(failures, lifetime, asked.max_stale()));
            let next = async {
                tokio::select! {
                    () = asked.rounds.wanted() => {}
                    () = next => {}
                }
            };
            self.ageing(asked, next).await;
        }
    }

    /// Waits for `what`. Keys that become too old meanwhile are given up, whatever that is.
    async fn ageing<T>(&self, asked: &Asked, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return done,
                () = until(self.expiry(asked)) => self.expire(asked),
            }
        }
    }

    /// Whether there are keys among what the issuer has answered.
    fn learn(&self, asked: &Asked, keys: Result<KeySet, String>) -> bool {
        match keys {
            Ok(keys) => {
                self.take(asked, keys);
                true
            }
            Err(why) => {
                self.withdraw(asked, why);
                false
            }
        }
    }

    fn take(&self, asked: &Asked, keys: KeySet) {
        let count = keys.count();
        asked.issuer.metrics.fetched(count);
        let auth = &*asked.issuer.auth;
        let mended = {
            let mut standing = asked.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.fetched = Some(Instant::now());
            standing.failing.take()
        };
        if let Some(failing) = mended {
            let seconds = failing.since.elapsed().as_secs();
            tracing::info!(auth, keys = count, seconds, "the issuer's keys are fetched again");
        }
        let before = self.current();
        if before.as_ref().is_ok_and(|before| **before == keys) {
            return;
        }
        if before.is_ok() {
            tracing::info!(auth, keys = count, "the issuer's keys have changed");
        }
        self.put(Ok(Arc::new(keys)));
    }

    /// The issuer has none that can be used: that is how keys are taken back when one was stolen.
    fn withdraw(&self, asked: &Asked, why: String) {
        if self.current().is_err() {
            asked.fails(why.clone(), false);
        } else {
            asked.issuer.metrics.failed();
            asked.stands_failing(&why);
            self.give_up(asked, &why, "The issuer publishes none that can be used; tokens get 503 until it does.");
        }
        self.put(Err(why));
    }

    /// When the keys become too old; `None`: there are none.
    fn expiry(&self, asked: &Asked) -> Option<Instant> {
        self.current().ok()?;
        let fetched = asked.standing.lock().unwrap_or_else(PoisonError::into_inner).fetched?;
        fetched.checked_add(asked.max_stale())
    }

    fn expire(&self, asked: &Asked) {
        let why = format!("the issuer's keys are older than max_stale ({:?})", asked.max_stale());
        self.give_up(asked, &why, "See the reason why they could not be fetched; until then tokens get 503.");
        self.put(Err(why));
    }

    fn give_up(&self, asked: &Asked, why: &str, remedy: &str) {
        asked.issuer.metrics.holds(0);
        let auth = &*asked.issuer.auth;
        tracing::error!(auth, reason = why, remedy, "there are no keys to verify tokens with");
    }

    fn put(&self, keys: Current) {
        self.current.store(Arc::new(keys));
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Asked {
    /// As the file has it, but never shorter than it takes to fetch them again.
    fn max_stale(&self) -> Duration {
        self.issuer.max_stale.max(LEAST_PAUSE.saturating_mul(2))
    }

    /// One line at the first failure, not at each.
    fn fails(&self, why: String, has_keys: bool) {
        self.issuer.metrics.failed();
        if self.stands_failing(&why) {
            let remedy = if has_keys {
                "Those that were fetched before serve until max_stale; see the reason."
            } else {
                "Tokens get 503 until there are keys; see the reason."
            };
            tracing::warn!(auth = &*self.issuer.auth, reason = &*why, remedy, "the issuer's keys cannot be fetched");
        }
    }

    /// Whether it did not before.
    fn stands_failing(&self, why: &str) -> bool {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.failing.as_ref().map(|failing| failing.since);
        standing.failing = Some(Failing { since: before.unwrap_or_else(Instant::now), why: why.to_owned() });
        before.is_none()
    }
}

/// How long to wait before the next fetch: until the keys have all but aged, or, after `failures` in a row, a moment.
fn pause(failures: u32, lifetime: Option<Duration>, max_stale: Duration) -> Duration {
    let wanted = match lifetime {
        Some(lifetime) => lifetime,
        None => FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE),
    };
    jittered(wanted.min(max_stale / 2)).max(LEAST_PAUSE)
}

/// Something between four fifths of it and all of it, so that many gateways do not ask as one.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.2 * fastrand::f64())
}

/// Waits for ever when there is nothing to wait for.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
