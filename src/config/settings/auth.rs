//! `[auth.NAME]`: who may be calling, and what a route demands of callers.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{At, Span};

/// `[auth.NAME]`
#[derive(Clone, Debug)]
pub struct AuthSettings {
    pub span: Span,
    pub kind: AuthKind,
}

/// How callers prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthKind {
    Jwt(JwtSettings),
    Introspection(IntrospectionSettings),
    ApiKey(ApiKeySettings),
    ClientCertificate(ClientCertificateSettings),
    Basic(BasicSettings),
}

/// A secret of the configuration: comparable in constant time, never shown.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(SecretString::from(text))
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `kind = "jwt"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Compared exactly.
    pub issuer: String,
    /// At least one; a token must name one of them.
    pub audience: Vec<String>,
    pub keys: JwtKeys,
    /// At least one, all of a kind that `keys` can hold.
    pub algorithms: Vec<JwtAlgorithm>,
    pub claims: ClaimSettings,
    pub leeway: Duration,
    pub token_from: TokenFrom,
    /// The `typ` that a token must have, such as `at+jwt` (RFC 9068). `None`: any.
    pub token_type: Option<String>,
    /// How long the last good keys serve when the issuer is away.
    pub max_stale: Duration,
    /// `None`: the system's authorities.
    pub ca: Option<At<PathBuf>>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// OIDC discovery: beneath the issuer.
    Discovery(FetchUrl),
    Url(FetchUrl),
    File(At<PathBuf>),
    /// For HS256 to HS512.
    Secret(Secret),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwtAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

impl JwtAlgorithm {
    /// Every algorithm by its name (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub const ALL: [(&'static str, JwtAlgorithm); 12] = [
        ("RS256", JwtAlgorithm::Rs256),
        ("RS384", JwtAlgorithm::Rs384),
        ("RS512", JwtAlgorithm::Rs512),
        ("PS256", JwtAlgorithm::Ps256),
        ("PS384", JwtAlgorithm::Ps384),
        ("PS512", JwtAlgorithm::Ps512),
        ("ES256", JwtAlgorithm::Es256),
        ("ES384", JwtAlgorithm::Es384),
        ("EdDSA", JwtAlgorithm::EdDsa),
        ("HS256", JwtAlgorithm::Hs256),
        ("HS384", JwtAlgorithm::Hs384),
        ("HS512", JwtAlgorithm::Hs512),
    ];

    /// As `alg` has it.
    pub fn as_str(self) -> &'static str {
        JwtAlgorithm::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }

    /// The one that `alg` names.
    pub fn named(name: &str) -> Option<JwtAlgorithm> {
        JwtAlgorithm::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Bytes that a secret has at least (RFC 7518 section 3.2). `None`: the algorithm takes no secret.
    pub fn secret_bytes(self) -> Option<usize> {
        match self {
            JwtAlgorithm::Hs256 => Some(32),
            JwtAlgorithm::Hs384 => Some(48),
            JwtAlgorithm::Hs512 => Some(64),
            JwtAlgorithm::Rs256
            | JwtAlgorithm::Rs384
            | JwtAlgorithm::Rs512
            | JwtAlgorithm::Ps256
            | JwtAlgorithm::Ps384
            | JwtAlgorithm::Ps512
            | JwtAlgorithm::Es256
            | JwtAlgorithm::Es384
            | JwtAlgorithm::EdDsa => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFrom {
    /// `Authorization: Bearer`
    Header,
    Cookie(String),
}

/// What claims say of roles and scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSettings {
    pub roles: ClaimPath,
    pub scopes: ClaimPath,
    /// Names of the issuer to roles of ours; what is not in it is no role. `None`: as they are.
    pub roles_map: Option<BTreeMap<String, Vec<String>>>,
}

/// `realm_access.roles`: a claim, or one within claims that are objects. A claim whose own name has dots, such as
/// `https://example.com/roles`, goes before what its parts would lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    /// As written.
    pub whole: String,
    /// At least one; none is empty.
    pub segments: Vec<String>,
}

/// `https://`, or `http://` on loopback. Shown without its query; holds no user and password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FetchUrl {
    pub https: bool,
    pub authority: super::Authority,
    /// Begins with a slash; with the query.
    pub path: String,
}

impl FetchUrl {
    /// As a person writes it, with its query: without the scheme's own port.
    pub fn written(&self) -> String {
        let FetchUrl { https, authority, path } = self;
        let (scheme, default_port) = if *https { ("https", 443) } else { ("http", 80) };
        let host = match &authority.host {
            super::Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
            super::Host::Ip(ip) => ip.to_string(),
            super::Host::Name(name) => name.clone(),
        };
        if authority.port == default_port {
            format!("{scheme}://{host}{path}")
        } else {
            format!("{scheme}://{host}:{}{path}", authority.port)
        }
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        match &self.authority.host {
            super::Host::Ip(std::net::IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{}{path}", self.authority.port),
            super::Host::Ip(ip) => write!(f, "{scheme}://{ip}:{}{path}", self.authority.port),
            super::Host::Name(name) => write!(f, "{scheme}://{name}:{}{path}", self.authority.port),
        }
    }
}

impl fmt::Debug for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `kind = "introspection"`, RFC 7662
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionSettings {
    pub url: FetchUrl,
    pub client_id: String,
    pub client: ClientProof,
    /// How long an answer holds, a refusal too; never past the token's own `exp`.
    pub cache: Duration,
    /// Questions to the server at one time.
    pub max_in_flight: NonZeroUsize,
    pub timeout: Duration,
    /// `None`: any; the answer's `iss` and `aud` are compared where these are given.
    pub issuer: Option<String>,
    pub audience: Option<Vec<String>>,
    pub claims: ClaimSettings,
    /// `None`: the system's authorities.
    pub ca: Option<At<PathBuf>>,
}

/// How the gateway proves who it is to the introspection server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// `client_secret_basic` (RFC 6749 section 2.3.1)
    Secret(Secret),
    /// `private_key_jwt` (RFC 7523)
    PrivateKey {
        key: At<PathBuf>,
        /// `None`: what fits the key.
        algorithm: Option<JwtAlgorithm>,
        key_id: Option<String>,
    },
}

/// `kind = "api_key"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySettings {
    pub place: ApiKeyPlace,
    pub keys: Vec<ApiKeyEntry>,
    pub keys_file: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeyPlace {
    Header(HeaderName),
    /// Cut out before logs and upstream.
    Query(String),
}

#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyEntry {
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

/// Leaves out the hash.
impl fmt::Debug for ApiKeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `kind = "client_certificate"`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificateSettings {
    /// `CN=batch`, `DNS:batch.internal`, `URI:…`, `EMAIL:…`, `IP:…` to roles.
    pub roles: BTreeMap<String, Vec<String>>,
    pub subject: CertificateSubject,
}

/// What of a certificate is the caller's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateSubject {
    /// The subject's distinguished name; the first alternative name where it is empty.
    #[default]
    Subject,
    /// The first alternative name; a certificate without one is refused.
    San,
}

/// `kind = "basic"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicSettings {
    pub htpasswd: At<PathBuf>,
    pub roles: BTreeMap<String, Vec<String>>,
    /// Those whom `roles` names, where it does.
    pub named: Vec<At<String>>,
}

/// Whom a route lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// `auth = "public"`
    Public,
    Demands(Demands),
}

impl Access {
    /// A route that no caller could satisfy.
    pub fn nobody() -> Access {
        Access::Demands(Demands { auths: Vec::new(), roles: Vec::new(), scopes: Vec::new() })
    }
}

/// What a route demands of callers. There is no demand for roles without somebody who says who has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demands {
    /// `[auth.NAME]`; at least one where the route could be read.
    pub auths: Vec<At<String>>,
    /// Any one of these; empty: none is demanded.
    pub roles: Vec<String>,
    /// All of these.
    pub scopes: Vec<String>,
}

/// The fields that tell a backend who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    pub subject: HeaderName,
    pub roles: HeaderName,
    pub scopes: HeaderName,
    pub method: HeaderName,
}

impl IdentityHeaders {
    /// Whether a field of this name could be taken for one of them: a service that reads fields as CGI has them sees
    /// no difference between dashes and underscores.
    pub fn holds(&self, name: &str) -> bool {
        let alike = |one: &HeaderName| one.as_str().bytes().map(plain).eq(name.bytes().map(plain));
        [&self.subject, &self.roles, &self.scopes, &self.method].into_iter().any(alike)
    }
}

fn plain(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        IdentityHeaders {
            subject: HeaderName::from_static("x-auth-subject"),
            roles: HeaderName::from_static("x-auth-roles"),
            scopes: HeaderName::from_static("x-auth-scopes"),
            method: HeaderName::from_static("x-auth-method"),
        }
    }
}
