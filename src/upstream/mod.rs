//! Pools of Python workers: choosing a server, reaching it, speaking to it.

pub mod balance;
mod clock;
pub mod connect;
pub mod health;
mod members;
pub mod names;
pub mod retry;
mod server;
#[cfg(test)]
mod testing;
pub mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;

use crate::config::problem::Problem;
use crate::config::settings::{Balance, Endpoint, HashKey, HostHeader, UpstreamSettings, UpstreamTimeouts};
use crate::observe::metrics::{Metrics, UpstreamMetrics};
use crate::request::rejection::Cause;
use members::{Entry, Members};
use tls::{Common, SystemRoots};

pub use server::{Address, Lease, Server, ServerStatus};

/// One `[upstream.NAME]` of a snapshot.
///
/// What changes while requests run (servers with their health and requests in flight, the addresses of names, the
/// retry budget) is taken over from the snapshot before it where name and settings are the same.
pub struct Upstream {
    pub name: Arc<str>,
    pub settings: UpstreamSettings,
    pub metrics: Arc<UpstreamMetrics>,
    pub budget: Arc<retry::Budget>,
    /// Upgraded connections that are open.
    pub upgraded: Arc<AtomicUsize>,
    tls: Option<Arc<Common>>,
    entries: Vec<Entry>,
    /// Turns that were taken by round robin and between equals.
    turn: Arc<AtomicUsize>,
    members: ArcSwap<Members>,
}

/// What `hash:…` balancing looks at.
#[derive(Clone, Copy, Debug)]
pub struct ChooseBy<'a> {
    pub client: IpAddr,
    /// The value of the header or cookie, when the upstream hashes one and the request has it.
    pub key: Option<&'a [u8]>,
}

impl Upstream {
    /// Compiles `settings`: files are read, nothing is contacted. Takes over from `before` what the settings allow.
    pub fn build(
        name: &str,
        settings: &UpstreamSettings,
        system_roots: &SystemRoots,
        before: Option<&Upstream>,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Upstream {
        let name: Arc<str> = Arc::from(name);
        let metrics = metrics.upstream(&name);
        let tls = build_tls(settings, system_roots, before, problems);
        let entries: Vec<Entry> = settings
            .servers
            .iter()
            .filter_map(|spec| Entry::build(spec, &settings.tls, tls.as_ref(), problems))
            .collect();
        let members_before = before.map(|before| before.members.load_full());
        let mut addresses = members_before.as_ref().map(|members| members.addresses.clone()).unwrap_or_default();
        addresses.retain(|name, _| entries.iter().any(|entry| entry.name() == Some(name)));
        let known = members_before.iter().flat_map(|members| members.servers());
        let members = Members::assemble(&entries, addresses, known, &name, &metrics);
        let percent = settings.retry.budget_percent;
        let budget = before
            .map(|before| &before.budget)
            .filter(|budget| budget.percent() == u64::from(percent))
            .map_or_else(|| Arc::new(retry::Budget::new(percent)), Arc::clone);
        Upstream {
            name,
            settings: settings.clone(),
            metrics,
            budget,
            upgraded: before.map(|before| Arc::clone(&before.upgraded)).unwrap_or_default(),
            tls,
            entries,
            turn: before.map(|before| Arc::clone(&before.turn)).unwrap_or_default(),
            members: ArcSwap::from_pointee(members),
        }
    }

    /// The header or cookie that `hash:…` needs of a request.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.settings.balance {
            Balance::Hash(key) => Some(key),
            Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => None,
        }
    }

    /// Chooses a server for one attempt, preferring those whose ids are not in `tried`.
    ///
    /// # Errors
    /// `NoHealthyServer`, or `UpstreamUnresolved` while no name has an address.
    pub fn choose(&self, by: ChooseBy<'_>, tried: &[u64]) -> Result<Lease, Cause> {
        balance::choose(&self.members.load(), &self.settings.balance, &self.turn, by, tried).map(Lease::new)
    }

    /// The servers of this moment.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.members.load().servers().cloned().collect()
    }

    /// The servers of this moment, for `/status` and the gauges of `/metrics`.
    pub fn status(&self) -> Vec<ServerStatus> {
        self.members.load().list.iter().map(|member| member.server.status(member.weight)).collect()
    }

    /// Whether some server is up; where there are active checks, one of them must have said so. For `/ready`.
    pub fn is_healthy(&self) -> bool {
        self.members.load().servers().any(|server| server.health.state().is_usable() && !server.health.is_unproven())
    }

    pub fn timeouts(&self) -> &UpstreamTimeouts {
        &self.settings.timeouts
    }

    pub fn host(&self) -> &HostHeader {
        &self.settings.host
    }
}

/// What the upstream's `https://` servers share; `None` where there are none, or when problems have been told.
fn build_tls(
    settings: &UpstreamSettings,
    system_roots: &SystemRoots,
    before: Option<&Upstream>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Common>> {
    let is_https = |endpoint: &Endpoint| match endpoint {
        Endpoint::Https(_) => true,
        Endpoint::Http(_) | Endpoint::HttpUnix(_) => false,
    };
    if settings.servers.iter().any(|spec| is_https(&spec.value.endpoint)) {
        let before = before.and_then(|before| before.tls.as_ref());
        return Common::build(&settings.tls, &settings.span, system_roots, before, problems);
    }
    let given = &settings.tls;
    let spans = [
        given.ca.as_ref().map(|at| &at.span),
        given.client.as_ref().map(|at| &at.span),
        given.server_name.as_ref().map(|at| &at.span),
    ];
    if let Some(span) = spans.into_iter().flatten().next() {
        problems.push(
            Problem::warning(span, "no server of this upstream is spoken to over TLS")
                .help("write its servers as https://, or remove the upstream's tls"),
        );
    }
    None
}
