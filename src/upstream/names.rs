//! From a name to its addresses: `/etc/hosts`, then DNS as `/etc/resolv.conf` says, with the TTL that came.
//!
//! IPv6 addresses are used only for a name that has no IPv4 address: two addresses of one machine would otherwise
//! count as two servers.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver};

/// The bounds of how long addresses are believed.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(60);
/// `/etc/hosts` knows no TTL; it is read again after this.
const HOSTS_TTL: Duration = Duration::from_secs(30);
/// Between attempts while a name cannot be resolved, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// All servers and search domains together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a name has at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// In order, each once, at least one.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// Where names are looked up.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    /// `None`: what the system says, read again for each name so that its changes are followed.
    fixed: Option<ResolverConfig>,
}

impl Resolvers {
    #[cfg(test)]
    pub(super) fn fixed(config: ResolverConfig) -> Resolvers {
        Resolvers { fixed: Some(config) }
    }

    /// Looks `name` up. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// Why there is no address, for the log.
    pub(super) async fn look_up(&self, name: &str) -> Result<Found, String> {
        if self.fixed.is_none()
            && let Some(found) = Hosts::from_system().ok().and_then(|hosts| in_hosts(&hosts, name))
        {
            return Ok(found);
        }
        let resolver = self.resolver()?;
        let answer = tokio::time::timeout(PATIENCE, resolver.lookup_ip(name))
            .await
            .map_err(|_| format!("no answer in {PATIENCE:?}"))?
            .map_err(|error| error.to_string())?;
        let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        found(answer.iter().collect(), Duration::from_secs(ttl.into())).ok_or_else(|| "it has no address".to_owned())
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let (config, mut options) = match &self.fixed {
            Some(config) => (config.clone(), ResolverOpts::default()),
            None => hickory_resolver::system_conf::read_system_conf()
                .map_err(|error| format!("the system's resolver configuration cannot be used: {error}"))?,
        };
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map_err(|error| error.to_string())
    }
}

fn in_hosts(hosts: &Hosts, name: &str) -> Option<Found> {
    let name = Name::from_str_relaxed(name).ok()?;
    [RecordType::A, RecordType::AAAA].into_iter().find_map(|kind| {
        let lookup = hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
        found(lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect(), HOSTS_TTL)
    })
}

fn found(mut addresses: Vec<IpAddr>, ttl: Duration) -> Option<Found> {
    addresses.sort_unstable();
    addresses.dedup();
    (!addresses.is_empty()).then(|| Found { addresses, ttl: ttl.clamp(SHORTEST_TTL, LONGEST_TTL) })
}

/// How long to wait after `failures` in a row.
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let seconds: Vec<_> = (1..8).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn what_was_found_is_in_order_and_its_ttl_bounded() {
        let addresses = |found: &Found| found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ips = ["10.0.0.2", "10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let brief = found(ips.to_vec(), Duration::ZERO).unwrap();
        assert_eq!(addresses(&brief), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(brief.ttl, SHORTEST_TTL);
        assert_eq!(found(ips.to_vec(), Duration::from_secs(86_400)).unwrap().ttl, LONGEST_TTL);
        assert_eq!(found(Vec::new(), LONGEST_TTL), None);
    }

    #[test]
    fn hosts_are_honoured_ipv4_before_ipv6() {
        let mut hosts = Hosts::default();
        let file = "fd00::1 orders both\n10.0.0.7 both Billing\n10.0.0.8 both\n";
        hosts.read_hosts_conf(file.as_bytes()).unwrap();
        let ips = |name| in_hosts(&hosts, name).map(|found| found.addresses);
        assert_eq!(ips("orders"), Some(vec!["fd00::1".parse().unwrap()]));
        assert_eq!(ips("both"), Some(vec!["10.0.0.7".parse().unwrap(), "10.0.0.8".parse().unwrap()]));
        assert_eq!(ips("billing"), Some(vec!["10.0.0.7".parse().unwrap()]));
        assert_eq!(ips("nobody"), None);
    }
}
