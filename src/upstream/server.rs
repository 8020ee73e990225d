//! One member of an upstream, and a request's hold on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use http::HeaderValue;

use super::health::{Health, State};
use super::tls::ClientTls;
use crate::config::settings::Protocol;
use crate::observe::metrics::{ServerMetrics, UpstreamMetrics};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One member of an upstream. The same again in the next snapshot while address, TLS and host are the same.
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
    in_flight: AtomicUsize,
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
}

impl Server {
    pub(super) fn new(origin: Origin<'_>) -> Server {
        let Origin { upstream, metrics, label, address, protocol, tls, host } = origin;
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
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Requests that it runs for all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
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
    pub weight: u32,
}

/// A request's hold on a server: counted in flight until it is dropped.
pub struct Lease {
    server: Arc<Server>,
}

impl Lease {
    pub(super) fn new(server: Arc<Server>) -> Lease {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { server }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
