//! Which fleet of an app is on: its workers, and nobody else's, are the servers of the app's upstream.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::tally::Tally;
use crate::upstream::{Retired, Server, Upstream};

/// One for each app, for as long as the gateway runs it.
#[derive(Debug)]
pub(super) struct Stage {
    /// As the newest snapshot has it.
    pub(super) upstream: ArcSwap<Upstream>,
    pub(super) tally: Arc<Tally>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How long what workers still do may hold up their end.
    grace: Duration,
    /// The fleet that is on.
    fleet: Option<u64>,
    fleets: u64,
    /// The numbers of workers that are in use, of whichever fleet.
    numbers: BTreeSet<u32>,
    /// Sets of servers that some request may still be about to choose from.
    retired: Vec<Retired>,
}

impl Stage {
    pub(super) fn new(upstream: Arc<Upstream>, tally: Arc<Tally>, grace: Duration) -> Stage {
        let inner = Inner { grace, ..Inner::default() };
        Stage { upstream: ArcSwap::new(upstream), tally, inner: Mutex::new(inner) }
    }

    /// As the newest snapshot has it.
    pub(super) fn grace(&self) -> Duration {
        self.with(|inner| inner.grace)
    }

    pub(super) fn set_grace(&self, grace: Duration) {
        self.with(|inner| inner.grace = grace);
    }

    /// The number of another fleet.
    pub(super) fn fleet(&self) -> u64 {
        self.with(|inner| {
            inner.fleets = inner.fleets.saturating_add(1);
            inner.fleets
        })
    }

    pub(super) fn is_on(&self, fleet: u64) -> bool {
        self.with(|inner| inner.fleet == Some(fleet))
    }

    /// The least number that no worker has.
    pub(super) fn number(&self) -> u32 {
        self.with(|inner| {
            let number = (1..=u32::MAX).find(|number| !inner.numbers.contains(number)).unwrap_or(u32::MAX);
            inner.numbers.insert(number);
            number
        })
    }

    pub(super) fn give_back(&self, number: u32) {
        self.with(|inner| inner.numbers.remove(&number));
    }

    /// The switch: from now on these are the servers. `expected`: see [`Upstream::set_workers`].
    pub(super) fn enter(&self, fleet: u64, servers: &[Arc<Server>], expected: bool) {
        self.with(|inner| inner.fleet = Some(fleet));
        self.publish(fleet, servers, expected);
    }

    /// A fleet that is on has these workers now. Of another it is of no interest.
    pub(super) fn publish(&self, fleet: u64, servers: &[Arc<Server>], expected: bool) {
        self.with(|inner| {
            if inner.fleet == Some(fleet) {
                inner.retired.push(self.upstream.load().set_workers(servers, expected));
            }
        });
    }

    /// Whether whoever was taken off before has been given everything that it will ever be given.
    pub(super) fn is_clear(&self) -> bool {
        self.with(|inner| {
            inner.retired.retain(|retired| !retired.is_over());
            inner.retired.is_empty()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
