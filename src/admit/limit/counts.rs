//! What one limit has counted in this process.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use tokio::time::Instant;

use super::Permit;
use super::concurrent::AtOnce;
use super::gcra::{Decision, Gcra, Room, nanoseconds};
use super::table::{self, Counted, Table, Words};
use crate::config::settings::{LimitKey, LimitRules, LimitSettings};
use crate::observe::metrics::LimitReading;

/// Ticks of a second here.
pub const SECOND: u64 = 1_000_000_000;

/// The tables of one limit. They outlive a snapshot in which the limit is the same.
pub struct Counts {
    rules: LimitRules,
    key: LimitKey,
    max_keys: usize,
    began: Instant,
    /// Keys are hashed under this: nobody outside can aim two of them at one slot.
    secret: RandomState,
    rate: Option<(Gcra, Table)>,
    at_once: Option<(AtOnce, Table)>,
}

/// What a request got.
pub struct Got {
    /// What is left of the rate.
    pub rate: Option<Room>,
    /// How many more may come at the same time.
    pub at_once: Option<u64>,
    pub verdict: Verdict,
    /// What an admitted request holds.
    pub permit: Option<Permit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    /// Too many came; nanoseconds until one would be admitted.
    TooFast(u64),
    TooManyAtOnce,
}

/// A place that is held here; given back when this is dropped.
pub struct Place {
    counts: Arc<Counts>,
    place: table::Place,
}

impl Counts {
    pub fn new(settings: &LimitSettings) -> Counts {
        let table = || Table::new(settings.max_keys);
        Counts {
            rules: settings.rules,
            key: settings.key.clone(),
            max_keys: settings.max_keys.get(),
            began: Instant::now(),
            secret: RandomState::new(),
            rate: settings.rules.rate().map(|rate| (Gcra::new(rate, SECOND), table())),
            at_once: settings.rules.concurrent().map(|most| (AtOnce(most), table())),
        }
    }

    /// Whether these are the counts of a limit with these settings.
    pub fn fit(&self, settings: &LimitSettings) -> bool {
        self.rules == settings.rules && self.key == settings.key && self.max_keys == settings.max_keys.get()
    }

    /// Counts a request under `key`, or refuses it and counts nothing.
    pub fn count(self: &Arc<Self>, key: impl Hash, now: Instant) -> Got {
        let key = self.secret.hash_one(key);
        let mut got = Got { rate: None, at_once: None, verdict: Verdict::Admitted, permit: None };
        if let Some((most, table)) = &self.at_once {
            match table.count(key, most) {
                Counted::Yes { place, word } => {
                    got.at_once = Some(most.left(word));
                    got.permit = Some(Permit::Here(Place { counts: Arc::clone(self), place }));
                }
                Counted::No { .. } => {
                    got.at_once = Some(0);
                    got.verdict = Verdict::TooManyAtOnce;
                    return got;
                }
            }
        }
        if let Some((gcra, table)) = &self.rate {
            let now = self.since(now);
            let at = At { gcra, now };
            match table.count(key, &at) {
                Counted::Yes { word, .. } => got.rate = Some(gcra.room(word, now)),
                Counted::No { word } => {
                    let room = gcra.room(word, now);
                    got.rate = Some(room);
                    // A refused request takes nothing: its place is free again.
                    got.permit = None;
                    got.at_once = got.at_once.map(|left| left.saturating_add(1));
                    got.verdict = Verdict::TooFast(room.until);
                    return got;
                }
            }
        }
        got
    }

    /// What a request under `key` would get; counts nothing.
    pub fn peek(&self, key: impl Hash, now: Instant) -> Got {
        let key = self.secret.hash_one(key);
        let now = self.since(now);
        let at_once = self.at_once.as_ref().map(|(most, table)| most.left(table.peek(key, most)));
        let rate = self.rate.as_ref().map(|(gcra, table)| gcra.room(table.peek(key, &At { gcra, now }), now));
        let verdict = match (at_once, rate) {
            (Some(0), _) => Verdict::TooManyAtOnce,
            (_, Some(Room { left: 0, until })) => Verdict::TooFast(until),
            (Some(_) | None, Some(_) | None) => Verdict::Admitted,
        };
        Got { rate, at_once, verdict, permit: None }
    }

    fn since(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.began))
    }
}

impl LimitReading for Counts {
    fn keys(&self) -> usize {
        let now = self.since(Instant::now());
        let by_rate = self.rate.as_ref().map_or(0, |(gcra, table)| table.in_use(&At { gcra, now }));
        let at_once = self.at_once.as_ref().map_or(0, |(most, table)| table.in_use(most));
        by_rate.max(at_once)
    }

    fn overflowed(&self) -> u64 {
        let tables = [self.rate.as_ref().map(|(_, table)| table), self.at_once.as_ref().map(|(_, table)| table)];
        tables.into_iter().flatten().map(Table::overflowed).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((_, table)) = &self.counts.at_once {
            table.give_back(self.place);
        }
    }
}

/// A table of buckets at one moment: words are buckets' times.
struct At<'a> {
    gcra: &'a Gcra,
    now: u64,
}

impl Words for At<'_> {
    fn is_free(&self, word: u64) -> bool {
        word <= self.now
    }

    fn more(&self, word: u64) -> Option<u64> {
        match self.gcra.decide(word, self.now) {
            Decision::Admitted { tat } => Some(tat),
            Decision::Refused { .. } => None,
        }
    }

    fn first(&self, free: u64) -> u64 {
        free.max(self.now).saturating_add(self.gcra.interval())
    }

    fn given_up(&self, free: u64) -> u64 {
        free.saturating_add(1)
    }
}
