//! The servers of an upstream at one moment: what its `servers` list, with names replaced by their addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Weak};

use http::HeaderValue;
use rustls_pki_types::ServerName;

use super::queue::Queue;
use super::server::{Address, Origin, Receiver, Server};
use super::tls::{CertifiedName, ClientTls, Common};
use crate::config::problem::Problem;
use crate::config::settings::{At, Authority, Endpoint, Host, Protocol, ServerSpec, SlotSettings, UpstreamTlsSettings};
use crate::observe::metrics::UpstreamMetrics;

/// Turns in a round; weights that add up to more are scaled down.
const LONGEST_ROUND: u64 = 1024;

/// The addresses that each name was last known to have.
pub(super) type Addresses = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// One entry of `servers`, compiled.
pub(super) struct Entry {
    place: Place,
    protocol: Protocol,
    weight: u32,
    label: Arc<str>,
    /// Drawn from a secret: what it came out as is not for labels and logs.
    secret: bool,
    host: HeaderValue,
    tls: Option<(CertifiedName, Arc<Common>)>,
}

enum Place {
    Fixed(Address),
    Named { name: Arc<str>, port: u16 },
}

impl Entry {
    /// `index`: its place in the list. `None` when the problems have been told.
    pub(super) fn build(
        index: usize,
        spec: &At<ServerSpec>,
        settings: &UpstreamTlsSettings,
        common: Option<&Arc<Common>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Entry> {
        let (place, own_host, label, certified) = match &spec.value.endpoint {
            Endpoint::HttpUnix(path) => on_socket("http+unix:", path),
            Endpoint::UwsgiUnix(path) => on_socket("uwsgi+unix:", path),
            Endpoint::Http(authority) => at("http://", authority, Some(80)),
            Endpoint::Https(authority) => at("https://", authority, Some(443)),
            Endpoint::Uwsgi(authority) => at("uwsgi://", authority, None),
            Endpoint::H2(authority) => at("h2://", authority, Some(443)),
            Endpoint::H2c(authority) => at("h2c://", authority, Some(80)),
        };
        let tls = match certified.filter(|_| spec.value.endpoint.is_tls()) {
            // Without the common part the files of the upstream's tls were told as problems already.
            Some(authority) => Some((certified_name(authority, settings, spec, problems)?, Arc::clone(common?))),
            None => None,
        };
        let Ok(host) = HeaderValue::from_str(&own_host) else {
            problems.push(Problem::error(&spec.span, "this host cannot be sent as a Host header"));
            return None;
        };
        let secret = spec.span.is_secret();
        let label = if secret { format!("server {}", index.saturating_add(1)) } else { label };
        let protocol = spec.value.endpoint.protocol();
        Some(Entry { place, protocol, weight: spec.value.weight.get(), label: label.into(), secret, host, tls })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn receiver(&self) -> Receiver<'_> {
        Receiver { host: &self.host, protocol: self.protocol }
    }

    /// The name that has to be resolved.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match &self.place {
            Place::Fixed(_) => None,
            Place::Named { name, .. } => Some(name),
        }
    }

    /// The name as the log may have it.
    pub(super) fn shown_name(&self) -> Option<&Arc<str>> {
        self.name().map(|name| if self.secret { &self.label } else { name })
    }

    fn servers(&self, addresses: &Addresses) -> Vec<(Address, Arc<str>)> {
        match &self.place {
            Place::Fixed(address) => vec![(address.clone(), Arc::clone(&self.label))],
            Place::Named { name, port } => addresses
                .get(name)
                .into_iter()
                .flatten()
                .map(|ip| {
                    let label = format!("{} ({ip})", self.label);
                    (Address::Tcp(SocketAddr::new(*ip, *port)), Arc::from(label))
                })
                .collect(),
        }
    }

    fn is_of(&self, server: &Server) -> bool {
        self.host == server.host
            && self.protocol == server.protocol
            && match (&self.tls, &server.tls) {
                (None, None) => true,
                (Some((name, common)), Some(tls)) => tls.is_of(common, name),
                (None, Some(_)) | (Some(_), None) => false,
            }
    }
}

/// A server's place, its own host, its label, and its authority where it has one.
type Whereabouts<'a> = (Place, String, String, Option<&'a Authority>);

fn on_socket<'a>(scheme: &str, path: &Path) -> Whereabouts<'a> {
    let label = format!("{scheme}{}", path.display());
    (Place::Fixed(Address::Unix(path.to_owned())), "localhost".to_owned(), label, None)
}

fn at<'a>(scheme: &str, authority: &'a Authority, default_port: Option<u16>) -> Whereabouts<'a> {
    let label = format!("{scheme}{}", written(authority, None));
    (place(authority), written(authority, default_port), label, Some(authority))
}

fn place(authority: &Authority) -> Place {
    match &authority.host {
        Host::Ip(ip) => Place::Fixed(Address::Tcp(SocketAddr::new(*ip, authority.port))),
        // RFC 6761 section 6.3. Of the two loopback addresses the one that Python's servers bind to for this name;
        // were both servers of their own, one would always refuse.
        Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
            Place::Fixed(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), authority.port)))
        }
        Host::Name(name) => Place::Named { name: Arc::from(name.as_str()), port: authority.port },
    }
}

/// `HOST:PORT`, without the port where it is the scheme's own.
fn written(authority: &Authority, default_port: Option<u16>) -> String {
    let host = match &authority.host {
        Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Ip(IpAddr::V4(ip)) => ip.to_string(),
        Host::Name(name) => name.clone(),
    };
    if default_port == Some(authority.port) { host } else { format!("{host}:{}", authority.port) }
}

fn certified_name(
    authority: &Authority,
    settings: &UpstreamTlsSettings,
    spec: &At<ServerSpec>,
    problems: &mut Vec<Problem>,
) -> Option<CertifiedName> {
    let (name, span) = match (&settings.server_name, &authority.host) {
        (Some(name), _) => (ServerName::try_from(name.value.clone()), &name.span),
        (None, Host::Name(name)) => (ServerName::try_from(name.clone()), &spec.span),
        (None, Host::Ip(ip)) => (Ok(ServerName::IpAddress((*ip).into())), &spec.span),
    };
    let Ok(name) = name else {
        let message = "this is not a name that a certificate can be for";
        problems.push(Problem::error(span, message).help("write a DNS name or an address as server_name"));
        return None;
    };
    Some(CertifiedName { name, secret: span.is_secret() })
}

/// The servers that requests are spread over.
pub(super) struct Members {
    pub(super) list: Vec<Member>,
    /// Indexes into `list`, each as often as its weight and evenly spread: the order in which turns are taken.
    pub(super) round: Vec<usize>,
    pub(super) addresses: Addresses,
    /// Why nobody is here, when nobody is; and whether, where somebody goes, another will come.
    pub(super) missing: Missing,
    /// Those that are members no more and still have requests: one that returns must know of them.
    left: Vec<Weak<Server>>,
}

/// Why an upstream has no servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Entries there are always: no name among them has an address.
    Addresses,
    /// The app does not run.
    Workers,
    /// The app is being started.
    WorkersForNow,
}

pub(super) struct Member {
    pub(super) server: Arc<Server>,
    pub(super) weight: u32,
    /// The name that its address came from.
    pub(super) name: Option<Arc<str>>,
}

/// What all servers of an upstream have in common.
#[derive(Clone, Copy)]
pub(super) struct Kin<'a> {
    pub(super) upstream: &'a Arc<str>,
    pub(super) metrics: &'a UpstreamMetrics,
    pub(super) slots: SlotSettings,
    pub(super) queue: &'a Arc<Queue>,
}

impl Members {
    /// The members that `entries` make with `addresses`. Servers that `before` has, or that have left it, are taken over
    /// where they are the same.
    pub(super) fn assemble(entries: &[Entry], addresses: Addresses, before: &[Arc<Members>], kin: Kin<'_>) -> Members {
        let known: Vec<Arc<Server>> = before.iter().flat_map(|members| members.known()).collect();
        let mut list: Vec<Member> = Vec::new();
        let mut seen = HashSet::new();
        for entry in entries {
            for (address, label) in entry.servers(&addresses) {
                // Two names, or a name and an address, may lead to the same server: it is then one for each label.
                if !seen.insert((address.clone(), Arc::clone(&label))) {
                    continue;
                }
                let is_same =
                    |server: &&Arc<Server>| server.address == address && server.label == label && entry.is_of(server);
                let server = known.iter().find(is_same).cloned().unwrap_or_else(|| {
                    let tls = entry.tls.as_ref().map(|(name, common)| ClientTls::new(common, name, entry.protocol));
                    let host = entry.host.clone();
                    let protocol = entry.protocol;
                    let Kin { upstream, metrics, slots, queue } = kin;
                    Arc::new(Server::new(Origin {
                        upstream,
                        metrics,
                        label,
                        address,
                        protocol,
                        tls,
                        host,
                        slots,
                        queue,
                    }))
                });
                list.push(Member { server, weight: entry.weight, name: entry.name().cloned() });
            }
        }
        let round = round_of(&list.iter().map(|member| member.weight).collect::<Vec<_>>());
        let mut left: Vec<Weak<Server>> = Vec::new();
        for server in known {
            let weak = Arc::downgrade(&server);
            let is_member = list.iter().any(|member| Arc::ptr_eq(&member.server, &server));
            if !is_member && !left.iter().any(|other| other.ptr_eq(&weak)) {
                left.push(weak);
            }
        }
        Members { list, round, addresses, missing: Missing::Addresses, left }
    }

    /// The workers of an app.
    pub(super) fn of_workers(workers: &[Arc<Server>], missing: Missing) -> Members {
        let member = |server: &Arc<Server>| Member { server: Arc::clone(server), weight: 1, name: None };
        let list: Vec<Member> = workers.iter().map(member).collect();
        let round = (0..list.len()).collect();
        Members { list, round, addresses: Addresses::new(), missing, left: Vec::new() }
    }

    /// Whether an app has no worker that could take anything, and will have one soon: whoever comes waits for it.
    pub(super) fn awaits_workers(&self) -> bool {
        let is_expected = match self.missing {
            Missing::WorkersForNow => true,
            Missing::Addresses | Missing::Workers => false,
        };
        // What checks found down comes back by itself, or not at all.
        let is_down = |server: &Arc<Server>| server.health.takes_nothing();
        let is_gone = |server: &Arc<Server>| server.health.is_gone();
        is_expected && (self.list.is_empty() || (self.servers().all(is_down) && self.servers().any(is_gone)))
    }

    /// Its servers, and those that have left it.
    fn known(&self) -> impl Iterator<Item = Arc<Server>> {
        self.servers().cloned().chain(self.left.iter().filter_map(Weak::upgrade))
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> + Clone {
        self.list.iter().map(|member| &member.server)
    }
}

/// A round of turns in which each index comes as often as its weight says, as evenly spread as can be: at each turn
/// everyone gains their weight, the richest goes and pays what all gained.
fn round_of(weights: &[u32]) -> Vec<usize> {
    let shares = scaled(weights);
    let total: i64 = shares.iter().sum();
    let mut credit = vec![0_i64; shares.len()];
    let mut round = Vec::new();
    for _ in 0..total {
        let mut richest: Option<(usize, i64)> = None;
        for (index, (credit, share)) in credit.iter_mut().zip(&shares).enumerate() {
            *credit = credit.saturating_add(*share);
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((index, *credit));
            }
        }
        if let Some((index, _)) = richest
            && let Some(credit) = credit.get_mut(index)
        {
            *credit = credit.saturating_sub(total);
            round.push(index);
        }
    }
    round
}

/// Weights in lowest terms, and scaled down where a round would be too long.
fn scaled(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let longest = LONGEST_ROUND.max(u64::try_from(weights.len()).unwrap_or(LONGEST_ROUND));
    weights
        .iter()
        .map(|weight| {
            let weight = u64::from(weight / divisor);
            let share = if sum > longest { weight.saturating_mul(longest) / sum } else { weight };
            i64::try_from(share.max(1)).unwrap_or(1)
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_smoothly() {
        assert_eq!(round_of(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round_of(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round_of(&[10, 20]), [1, 0, 1]);
        assert_eq!(round_of(&[7]), [0]);
        assert!(round_of(&[]).is_empty());
    }

    #[test]
    fn a_round_is_bounded_and_leaves_no_one_out() {
        let round = round_of(&[u32::MAX, 1, u32::MAX - 1]);
        assert!(round.len() <= 1030, "{}", round.len());
        for index in 0..3 {
            assert!(round.contains(&index));
        }
        let many = vec![1; 3000];
        assert_eq!(round_of(&many).len(), 3000);
    }
}
