//! What the file says, typed: every section of the configuration language with its defaults applied and no logic.
//!
//! Strings end here. Whatever building the gateway may still complain about (a name that dangles, a file that cannot
//! be read) keeps the place it was written at, as [`At`]. Routes come with `[defaults]` already merged in.

mod auth;
mod buffer;
mod limit;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use secrecy::SecretString;

pub use self::auth::{
    Access, ApiKeyEntry, ApiKeyPlace, ApiKeySettings, AuthKind, AuthSettings, BasicSettings, CertificateSubject,
    ClaimPath, ClaimSettings, ClientCertificateSettings, ClientProof, Demands, FetchUrl, IdentityHeaders,
    IntrospectionSettings, JwtAlgorithm, JwtKeys, JwtSettings, Secret, TokenFrom,
};
pub use self::buffer::{BufferSettings, TempSettings};
pub use self::limit::{LimitKey, LimitRules, LimitSettings, RateLimit, StoreSettings, StoreUrl, WhenUnreachable};
pub use self::validate::{OpenApiSettings, OpenApiSource, ValidateMode, ValidateSettings};
use super::source::Span;

/// A value and the place in the file where it was written.
#[derive(Clone)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

/// What a reload compares settings by: a line that moved changes nothing. Whether the value may be shown does.
impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &At<T>) -> bool {
        self.value == other.value && self.span.is_secret() == other.span.is_secret()
    }
}

impl<T: Eq> Eq for At<T> {}

/// Leaves out what was drawn from a secret source.
impl<T: fmt::Debug> fmt::Debug for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.span.is_secret() { f.write_str("(secret)") } else { self.value.fmt(f) }
    }
}

/// The whole file.
#[derive(Debug)]
pub struct Settings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub log: LogSettings,
    pub listeners: BTreeMap<String, ListenerSettings>,
    pub upstreams: BTreeMap<String, UpstreamSettings>,
    pub auths: BTreeMap<String, AuthSettings>,
    pub limits: BTreeMap<String, LimitSettings>,
    pub stores: BTreeMap<String, StoreSettings>,
    pub routes: BTreeMap<String, RouteSettings>,
    /// `[defaults]`, for answers that no route gives.
    pub answers: AnswerSettings,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Data-plane threads; one a core when the file says "auto".
    pub workers: NonZeroUsize,
    pub shutdown_grace: Duration,
    pub drain_delay: Duration,
    pub temp: TempSettings,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub address: At<SocketAddr>,
    /// Demanded by the reader when `address` is beyond loopback.
    pub token: Option<SecretString>,
    pub probe_address: Option<At<SocketAddr>>,
    /// The socket of `passerelle reload` and its kin.
    pub control: Option<At<PathBuf>>,
    pub ready_requires: Vec<At<String>>,
}

impl AdminSettings {
    /// Where the admin listener is when the file does not say.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9600);
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: LogLevel,
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    pub output: LogOutput,
    pub access: bool,
    /// Whether access records name the caller.
    pub subject: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// `[listener.NAME]`
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub addresses: Vec<At<ListenAddress>>,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub max_connections: NonZeroUsize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    /// Bytes of a whole request head.
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub http2: Http2Settings,
    /// The port that clients are sent to.
    pub redirect_to_https: Option<u16>,
    pub tls: Option<ListenerTlsSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    Socket(SocketAddr),
    /// `systemd:NAME`, a socket that systemd passes.
    Systemd(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    pub max_streams: NonZeroU32,
    pub max_resets: Rate,
}

/// "100/s", "1000/min".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

#[derive(Clone, Debug)]
pub struct ListenerTlsSettings {
    /// At least one.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    /// `None`: clients are not asked for a certificate.
    pub client_auth: Option<ClientAuthSettings>,
}

/// `client_ca` and `client_crl`: PEM files, absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthSettings {
    pub ca: At<PathBuf>,
    pub crl: Option<At<PathBuf>>,
}

/// PEM files, absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: At<PathBuf>,
    pub key: At<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `[upstream.NAME]`
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    pub span: Span,
    /// At least one.
    pub servers: Vec<At<ServerSpec>>,
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

/// What `[defaults]` says of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSettings {
    pub errors: ErrorFormat,
    pub security_headers: bool,
    pub hsts: Option<Duration>,
}

/// `[route.NAME]` with `[defaults]` merged in.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// Empty: any host that no other route names.
    pub hosts: Vec<At<HostPattern>>,
    pub path: At<PathPattern>,
    /// `None`: any.
    pub methods: Option<Vec<Method>>,
    pub action: RouteAction,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub access: Access,
    /// `[limit.NAME]`
    pub limits: Vec<At<String>>,
    pub validate: Option<ValidateSettings>,
    /// `None`: the backend is not told who is calling.
    pub forward_identity: Option<IdentityHeaders>,
    /// `None`: Bearer tokens yes; keys, cookies and passwords no.
    pub forward_credential: Option<bool>,
    /// Begins with a slash and does not end with one.
    pub strip_prefix: Option<String>,
    pub timeouts: TimeoutOverrides,
    pub priority: Priority,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    pub max_body: u64,
    pub buffer: BufferSettings,
    /// Bytes a second.
    pub min_upload_rate: Option<NonZeroU64>,
    pub encoded_slashes: bool,
    pub security_headers: bool,
    pub hsts: Option<Duration>,
    pub errors: ErrorFormat,
    pub cors: Option<CorsSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Lower case, no port.
    Exact(String),
    /// `*.example.com`, kept as `example.com`; takes one label or more in its place.
    Suffix(String),
}

/// `/orders/{id}/{*rest}` in parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    pub segments: Vec<PatternSegment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PatternSegment {
    /// As it stands in a normalised path: unreserved characters decoded, hexadecimal digits in upper case. An empty
    /// literal may only be the last (`/orders/`).
    Literal(String),
    /// `{name}`: one segment that is not empty.
    Parameter(String),
    /// `{*name}`: everything beneath; only the last.
    Rest(String),
}

#[derive(Clone, Debug)]
pub enum RouteAction {
    Upstream(At<String>),
    Redirect(RedirectSettings),
    Respond(RespondSettings),
}

#[derive(Clone)]
pub struct RedirectSettings {
    /// Literal text and names of the pattern's parameters, in turn.
    pub to: Vec<RedirectPart>,
    pub status: StatusCode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPart {
    Text(String),
    Parameter(String),
}

/// Leaves out the target: it may be drawn from a secret source.
impl fmt::Debug for RedirectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectSettings").field("status", &self.status).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct RespondSettings {
    pub status: StatusCode,
    pub body: String,
    pub content_type: HeaderValue,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Leaves out the body: it may be drawn from a secret source.
impl fmt::Debug for RespondSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondSettings").field("status", &self.status).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    Problem,
    FastApi,
    Drf,
    Plain,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsSettings {
    pub origins: CorsOrigins,
    /// `None`: the route's.
    pub methods: Option<Vec<Method>>,
    pub headers: Vec<HeaderName>,
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// `["*"]`; refused together with `credentials`.
    Any,
    /// Serialised origins, lower case, as browsers send them.
    List(Vec<String>),
}
