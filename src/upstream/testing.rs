//! What the tests of this module build upstreams from.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tls::SystemRoots;
use super::{ChooseBy, Upstream};
use crate::config::problem::Problem;
use crate::config::settings::{
    At, Authority, Balance, Endpoint, Host, HostHeader, RetrySettings, ServerSpec, UpstreamSettings, UpstreamTimeouts,
    UpstreamTlsSettings,
};
use crate::config::source::{SourceFile, Span};
use crate::observe::metrics::Metrics;

pub(super) fn span() -> Span {
    Span { file: Arc::new(SourceFile::new("test.toml", "")), start: 0, end: 0 }
}

pub(super) fn at<T>(value: T) -> At<T> {
    At { value, span: span() }
}

/// `http://HOST:PORT`, `https://HOST:PORT` or `http+unix:/PATH`.
pub(super) fn server(url: &str, weight: u32) -> At<ServerSpec> {
    let endpoint = if let Some(path) = url.strip_prefix("http+unix:") {
        Endpoint::HttpUnix(PathBuf::from(path))
    } else {
        let (scheme, authority) = url.split_once("://").unwrap();
        let (host, port) = authority.rsplit_once(':').unwrap();
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
        let authority = Authority { host, port: port.parse().unwrap() };
        if scheme == "https" { Endpoint::Https(authority) } else { Endpoint::Http(authority) }
    };
    at(ServerSpec { endpoint, weight: NonZeroU32::new(weight).unwrap() })
}

pub(super) fn settings(servers: &[(&str, u32)], balance: Balance) -> UpstreamSettings {
    UpstreamSettings {
        span: span(),
        servers: servers.iter().map(|(url, weight)| server(url, *weight)).collect(),
        balance,
        host: HostHeader::Preserve,
        max_upgraded: NonZeroUsize::new(10).unwrap(),
        health: None,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            between_bytes: Duration::from_secs(60),
            upgraded: Duration::from_secs(3600),
            keep_alive: Duration::from_millis(1500),
        },
        retry: RetrySettings { attempts: 2, budget_percent: 20 },
        tls: UpstreamTlsSettings::default(),
    }
}

/// Builds without complaint.
pub(super) fn build(settings: &UpstreamSettings, before: Option<&Upstream>) -> Upstream {
    let (upstream, problems) = try_build(settings, before);
    assert_eq!(problems, []);
    upstream
}

pub(super) fn try_build(settings: &UpstreamSettings, before: Option<&Upstream>) -> (Upstream, Vec<Problem>) {
    let mut problems = Vec::new();
    let metrics = Metrics::new(1);
    let upstream = Upstream::build("test", settings, &SystemRoots::default(), before, &metrics, &mut problems);
    (upstream, problems)
}

pub(super) const ANYONE: ChooseBy<'static> = ChooseBy { client: IpAddr::V4(Ipv4Addr::LOCALHOST), key: None };
