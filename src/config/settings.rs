//! What the file says, typed: every section of the configuration language with its defaults applied and no logic.
//!
//! Strings end here. Whatever building the gateway may still complain about (a name that dangles, a file that cannot
//! be read) keeps the place it was written at, as [`At`]. Routes come with `[defaults]` already merged in.

mod app;
mod auth;
mod buffer;
mod limit;
mod listener;
mod route;
mod server;
mod upstream;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use self::app::{
    AppServer, AppSettings, EntryPoint, NoEntry, PackageFile, Packages, WatchSettings, WorkerSettings,
};
pub use self::auth::{
    Access, ApiKeyEntry, ApiKeyPlace, ApiKeySettings, AuthKind, AuthSettings, BasicSettings, CertificateSubject,
    ClaimPath, ClaimSettings, ClientCertificateSettings, ClientProof, Demands, FetchUrl, IdentityHeaders,
    IntrospectionSettings, JwtAlgorithm, JwtKeys, JwtSettings, Secret, TokenFrom,
};
pub use self::buffer::{BufferSettings, TempSettings};
pub use self::limit::{LimitKey, LimitRules, LimitSettings, RateLimit, StoreSettings, StoreUrl, WhenUnreachable};
pub use self::listener::{
    CertificateFiles, ClientAuthSettings, Http2Settings, ListenAddress, ListenerSettings, ListenerTlsSettings, Rate,
    TlsVersion,
};
pub use self::route::{
    CorsOrigins, CorsSettings, ErrorFormat, FilesSettings, HeaderChanges, HostPattern, InternalFilesSettings,
    PathPattern, PatternSegment, RedirectPart, RedirectSettings, RespondSettings, RouteAction, RouteSettings,
};
pub use self::server::{AdminSettings, LogFormat, LogLevel, LogOutput, LogSettings, ServerSettings};
pub use self::upstream::{
    Authority, Balance, Endpoint, HashKey, HealthSettings, Host, HostHeader, Priority, Protocol, QueueSettings,
    RetrySettings, ServerSpec, SlotSettings, TimeoutOverrides, UpstreamSettings, UpstreamTimeouts, UpstreamTlsSettings,
    UwsgiParams,
};
pub use self::validate::{OpenApiSettings, OpenApiSource, ValidateMode, ValidateSettings};
use super::lines::Lines;
use super::source::Span;

/// A value and the place in the file where it was written.
#[derive(Clone)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T: fmt::Display> At<T> {
    /// As text, unless it was drawn from a secret.
    pub fn shown(&self) -> String {
        if self.span.is_secret() { "(secret)".to_owned() } else { self.value.to_string() }
    }
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
    /// Each is one of `upstreams` too.
    pub apps: BTreeMap<String, AppSettings>,
    pub auths: BTreeMap<String, AuthSettings>,
    pub limits: BTreeMap<String, LimitSettings>,
    pub stores: BTreeMap<String, StoreSettings>,
    pub routes: BTreeMap<String, RouteSettings>,
    /// `[defaults]`, for answers that no route gives.
    pub answers: AnswerSettings,
    /// Where all of this is written.
    pub lines: Lines,
}

/// What `[defaults]` says of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSettings {
    pub errors: ErrorFormat,
    pub security_headers: bool,
    pub hsts: Option<Duration>,
}
