//! Pools of Python workers: choosing a server, reaching it, speaking to it.

pub mod balance;
pub mod connect;
pub mod health;
pub mod names;
pub mod retry;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::config::problem::Problem;
use crate::config::settings::{HashKey, HostHeader, UpstreamSettings, UpstreamTimeouts};
use crate::observe::metrics::{Metrics, ServerMetrics, UpstreamMetrics};
use crate::request::rejection::Cause;

/// One `[upstream.NAME]` of a snapshot.
///
/// What changes while requests run (the servers that names resolve to, their health, requests in flight, the retry
/// budget) is shared with the snapshot before it where name and settings are the same.
pub struct Upstream {
    pub name: Arc<str>,
    pub settings: UpstreamSettings,
    pub metrics: Arc<UpstreamMetrics>,
    pub budget: Arc<retry::Budget>,
    /// Upgraded connections that are open.
    pub upgraded: Arc<AtomicUsize>,
    servers: Arc<ArcSwap<Vec<Arc<Server>>>>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One member of an upstream.
pub struct Server {
    /// Never used again in this process: the key of the workers' pools of kept connections.
    pub id: u64,
    /// As in the file, with the address that a name resolved to: metric label, `/status`, logs.
    pub label: Arc<str>,
    pub address: Address,
    pub tls: Option<tls::ClientTls>,
    /// The server's own `Host`.
    pub host: HeaderValue,
    pub weight: u32,
    pub health: health::Health,
    pub metrics: Arc<ServerMetrics>,
    in_flight: AtomicUsize,
}

/// What `hash:…` balancing looks at.
#[derive(Clone, Copy, Debug)]
pub struct ChooseBy<'a> {
    pub client: IpAddr,
    /// The value of the header or cookie, when the upstream hashes one and the request has it.
    pub key: Option<&'a [u8]>,
}

impl Upstream {
    /// Takes servers, health and budget over from `before` where the settings allow it.
    pub fn build(
        name: &str,
        settings: &UpstreamSettings,
        before: Option<&Upstream>,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Upstream {
        let _ = (before, problems);
        let upstream_metrics = metrics.upstream(name);
        let servers = Vec::new();
        Upstream {
            name: Arc::from(name),
            settings: settings.clone(),
            metrics: upstream_metrics,
            budget: Arc::new(retry::Budget::default()),
            upgraded: Arc::new(AtomicUsize::new(0)),
            servers: Arc::new(ArcSwap::from_pointee(servers)),
        }
    }

    /// The header or cookie that `hash:…` needs of a request.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.settings.balance {
            crate::config::settings::Balance::Hash(key) => Some(key),
            crate::config::settings::Balance::LeastRequests
            | crate::config::settings::Balance::RoundRobin
            | crate::config::settings::Balance::RandomTwo => None,
        }
    }

    /// Chooses a server for one attempt, preferring those whose ids are not in `tried`.
    ///
    /// # Errors
    /// `NoHealthyServer`, or `UpstreamUnresolved` while no name has an address.
    pub fn choose(&self, by: ChooseBy<'_>, tried: &[u64]) -> Result<Lease, Cause> {
        balance::choose(&self.servers.load(), &self.settings.balance, by, tried).map(Lease::new)
    }

    /// The servers of this moment.
    pub fn servers(&self) -> Arc<Vec<Arc<Server>>> {
        self.servers.load_full()
    }

    pub fn timeouts(&self) -> &UpstreamTimeouts {
        &self.settings.timeouts
    }

    pub fn host(&self) -> &HostHeader {
        &self.settings.host
    }
}

impl Server {
    /// Requests that it runs for all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request's hold on a server: counted in flight until it is dropped.
pub struct Lease {
    server: Arc<Server>,
}

impl Lease {
    fn new(server: Arc<Server>) -> Lease {
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

/// A fresh server id.
#[allow(dead_code)]
fn next_server_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
