//! Settings of `[upstream.NAME]`: the servers behind a route, how they are reached, chosen, checked and spared.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::super::source::Span;
use super::{At, CertificateFiles};
/// `[upstream.NAME]`
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    pub span: Span,
    /// At least one, unless they are the workers of an app.
    pub servers: Vec<At<ServerSpec>>,
    /// Of an `[app.NAME]`, whose servers are the workers that the gateway runs, as many as there are just now: what they
    /// speak.
    pub workers: Option<Protocol>,
    pub balance: Balance,
    pub host: HostHeader,
    pub slots: SlotSettings,
    pub queue: QueueSettings,
    pub max_upgraded: NonZeroUsize,
    pub health: Option<HealthSettings>,
    pub timeouts: UpstreamTimeouts,
    pub retry: RetrySettings,
    pub tls: UpstreamTlsSettings,
    /// Variables for servers that speak uwsgi, over those of the gateway.
    pub uwsgi_params: UwsgiParams,
}

/// Names and values, each name once.
pub type UwsgiParams = Vec<(String, HeaderValue)>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerSpec {
    pub endpoint: Endpoint,
    pub weight: NonZeroU32,
}

/// Where a server is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `http://HOST:PORT`
    Http(Authority),
    /// `https://HOST:PORT`
    Https(Authority),
    /// `http+unix:/PATH`
    HttpUnix(PathBuf),
    /// `uwsgi://HOST:PORT`
    Uwsgi(Authority),
    /// `uwsgi+unix:/PATH`
    UwsgiUnix(PathBuf),
    /// `h2://HOST:PORT`, over TLS
    H2(Authority),
    /// `h2c://HOST:PORT`, without
    H2c(Authority),
}

/// What a server is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// uWSGI's own: variables in a packet, then the body; the answer is like that of HTTP/1.1.
    Uwsgi,
    Http2,
}

impl Endpoint {
    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        match self {
            Endpoint::Https(_) | Endpoint::H2(_) => true,
            Endpoint::Http(_)
            | Endpoint::HttpUnix(_)
            | Endpoint::Uwsgi(_)
            | Endpoint::UwsgiUnix(_)
            | Endpoint::H2c(_) => false,
        }
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Endpoint::Http(_) | Endpoint::Https(_) | Endpoint::HttpUnix(_) => Protocol::Http1,
            Endpoint::Uwsgi(_) | Endpoint::UwsgiUnix(_) => Protocol::Uwsgi,
            Endpoint::H2(_) | Endpoint::H2c(_) => Protocol::Http2,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// Lower case.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastRequests,
    RoundRobin,
    RandomTwo,
    Hash(HashKey),
}

impl Balance {
    /// As the file has it, without the name of a header or cookie.
    pub fn kind(&self) -> &'static str {
        match self {
            Balance::LeastRequests => "least_requests",
            Balance::RoundRobin => "round_robin",
            Balance::RandomTwo => "random_two",
            Balance::Hash(HashKey::ClientIp) => "hash:client_ip",
            Balance::Hash(HashKey::Header(_)) => "hash:header",
            Balance::Hash(HashKey::Cookie(_)) => "hash:cookie",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    ClientIp,
    Header(HeaderName),
    Cookie(String),
}

/// The `Host` that a server gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Preserve,
    Server,
    Literal(HeaderValue),
}

/// `[upstream.NAME.health]`: active checks.
#[derive(Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// Begins with a slash.
    pub path: String,
    pub host: Option<HeaderValue>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub status: Vec<std::ops::RangeInclusive<u16>>,
    pub interval: Duration,
    pub timeout: Duration,
    pub fall: NonZeroU32,
    pub rise: NonZeroU32,
}

/// Leaves out the path: a query in it may hold a secret.
impl fmt::Debug for HealthSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthSettings").field("interval", &self.interval).finish_non_exhaustive()
    }
}

/// `[upstream.NAME.timeouts]`, and what a route puts over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    pub response: Duration,
    pub between_bytes: Duration,
    pub upgraded: Duration,
    pub keep_alive: Duration,
}

/// A route's `timeouts`: those that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutOverrides {
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
    pub between_bytes: Option<Duration>,
    pub upgraded: Option<Duration>,
}

/// How many requests one server runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotSettings {
    Unlimited,
    Fixed(NonZeroUsize),
    /// Learnt from latency and throughput.
    Auto,
}

/// `[upstream.NAME.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// Requests that may wait for a slot at once.
    pub size: usize,
    /// How long one may wait, all its attempts together.
    pub max_wait: Duration,
}

/// Who leaves an upstream's queue first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    High,
    Normal,
    Low,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// After the first.
    pub attempts: u32,
    /// Share of the requests of the last ten seconds, 0 to 100.
    pub budget_percent: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTlsSettings {
    pub ca: Option<At<PathBuf>>,
    pub client: Option<CertificateFiles>,
    pub server_name: Option<At<String>>,
}
