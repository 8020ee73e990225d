//! One member of an upstream, and a request's hold on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use http::HeaderValue;

use super::health::{Health, State};
use super::places::Places;
use super::queue::Queue;
use super::slots::{Slots, Taken};
use super::tls::ClientTls;
use super::uwsgi;
use crate::config::settings::{Protocol, SlotSettings};
use crate::observe::metrics::{ServerMetrics, UpstreamMetrics};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What a server must be known by for a request to be written.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    /// Its own `Host`.
    pub host: &'a HeaderValue,
    pub protocol: Protocol,
}

/// One member of an upstream. The same again in the next snapshot while address, TLS and host are the same.
///
/// Aligned so that the count of those who hold it, which every request of every worker changes, does not lie on a line
/// with what they only read.
#[repr(align(128))]
pub struct Server {
    /// Never used again in this process: the key of the workers' pools of kept connections.
    pub id: u64,
    /// As in the file, with the address that a name resolved to: metric label, `/status`, logs.
    pub label: Arc<str>,
    pub address: Address,
    pub protocol: Protocol,
    pub tls: Option<ClientTls>,
    /// The server's own `Host`.
    pub host: HeaderValue,
    pub health: Health,
    pub metrics: Arc<ServerMetrics>,
    /// What `hash:…` balancing knows the server by: the same in every gateway and after every restart.
    pub(super) seed: u64,
    pub(super) slots: Slots,
    /// Who must listen at its Unix socket; `None`: whoever does.
    pub(super) owner: Option<u32>,
    /// Whether it is a worker of an app, of which another will come in its place once it listens no more.
    pub(super) is_worker: bool,
    /// What it takes at once where its upstream does not say: as many as a worker of an app has threads.
    pub(super) own_slots: SlotSettings,
    /// Where slots are bounded, connections are too.
    pub(super) places: Places,
    /// Of the requests over uwsgi.
    pub(super) largest: uwsgi::Largest,
    /// Connections that were upgraded: they hold no slot, and are a load all the same.
    upgraded: AtomicUsize,
    /// Where those wait who find no slot free.
    queue: Arc<Queue>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.label).finish()
    }
}

/// What a new server is made of.
pub(super) struct Origin<'a> {
    pub(super) upstream: &'a Arc<str>,
    pub(super) metrics: &'a UpstreamMetrics,
    pub(super) label: Arc<str>,
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<ClientTls>,
    pub(super) host: HeaderValue,
    pub(super) slots: SlotSettings,
    pub(super) queue: &'a Arc<Queue>,
}

impl Server {
    pub(super) fn new(origin: Origin<'_>) -> Server {
        let Origin { upstream, metrics, label, address, protocol, tls, host, slots, queue } = origin;
        let metrics = metrics.server(&label);
        Server {
            id: next_id(),
            health: Health::new(Arc::clone(upstream), Arc::clone(&label), Arc::clone(&metrics)),
            seed: super::balance::hash(label.as_bytes()),
            label,
            address,
            protocol,
            tls,
            host,
            metrics,
            slots: Slots::new(slots),
            owner: None,
            is_worker: false,
            own_slots: SlotSettings::Unlimited,
            places: Places::default(),
            largest: uwsgi::Largest::default(),
            upgraded: AtomicUsize::new(0),
            queue: Arc::clone(queue),
        }
    }

    /// What a request to it is written for.
    pub fn receiver(&self) -> Receiver<'_> {
        Receiver { host: &self.host, protocol: self.protocol }
    }

    /// What its slots are where the upstream has these settings.
    pub(super) fn slots_of(&self, settings: SlotSettings) -> SlotSettings {
        match settings {
            SlotSettings::Unlimited => self.own_slots,
            SlotSettings::Fixed(_) | SlotSettings::Auto => settings,
        }
    }

    /// Requests that it runs for all workers, upgraded connections among them.
    pub fn in_flight(&self) -> usize {
        self.slots.busy().saturating_add(self.upgraded.load(Ordering::Relaxed))
    }

    /// Slots that are taken.
    pub fn busy(&self) -> usize {
        self.slots.busy()
    }

    /// How many slots there are; `None`: any number.
    pub fn slot_count(&self) -> Option<usize> {
        self.slots.count()
    }

    /// What `/status` tells of it; `weight` is the snapshot's, not the server's.
    pub fn status(&self, weight: u32) -> ServerStatus {
        let report = self.health.report();
        ServerStatus {
            label: Arc::clone(&self.label),
            state: report.state,
            reason: report.reason,
            since: report.since,
            in_flight: self.in_flight(),
            busy: self.slots.busy(),
            slots: self.slots.count(),
            weight,
        }
    }
}

/// A server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    pub label: Arc<str>,
    pub state: State,
    /// Why it is not up.
    pub reason: Option<String>,
    /// When it came into this state.
    pub since: SystemTime,
    pub in_flight: usize,
    /// Slots that are taken.
    pub busy: usize,
    /// How many there are; `None`: any number.
    pub slots: Option<usize>,
    pub weight: u32,
}

/// A request's hold on a server: a slot of it, until this is dropped.
pub struct Lease {
    server: Arc<Server>,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    Slot(Taken),
    /// An upgraded connection.
    Open,
    Nothing,
}

impl Lease {
    /// Takes a slot if one is free.
    pub(super) fn take(server: &Arc<Server>) -> Option<Lease> {
        server.slots.take().map(|taken| Lease { server: Arc::clone(server), holds: Holds::Slot(taken) })
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The connection was upgraded: from now on it holds no slot.
    pub(super) fn upgraded(mut self) -> Lease {
        self.server.upgraded.fetch_add(1, Ordering::Relaxed);
        self.give_back(Holds::Open);
        self.server.queue.freed();
        self
    }

    /// Gives the slot back without looking for those who wait: for whoever does that next.
    pub(super) fn give_back_quietly(mut self) {
        self.give_back(Holds::Nothing);
    }

    /// Whether what it held until now was a slot.
    fn give_back(&mut self, holds: Holds) -> bool {
        match std::mem::replace(&mut self.holds, holds) {
            Holds::Slot(taken) => {
                self.server.slots.give_back(taken);
                true
            }
            Holds::Open => {
                self.server.upgraded.fetch_sub(1, Ordering::Relaxed);
                false
            }
            Holds::Nothing => false,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.give_back(Holds::Nothing) {
            self.server.queue.freed();
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
