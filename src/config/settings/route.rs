//! Settings of `[route.NAME]`: which requests, who may send them, and what becomes of them.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::{Access, At, BufferSettings, IdentityHeaders, Priority, TimeoutOverrides, ValidateSettings};

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
    /// Whether answers are compressed for clients that take it.
    pub compress: bool,
    /// What the service may have sent by naming it.
    pub internal_files: Vec<InternalFilesSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Lower case, no port.
    Exact(String),
    /// `*.example.com`, kept as `example.com`; takes one label or more in its place.
    Suffix(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Suffix(name) => write!(f, "*.{name}"),
        }
    }
}

/// `/orders/{id}/{*rest}` in parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    pub segments: Vec<PatternSegment>,
}

/// As it is written in the file.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        self.segments.iter().try_for_each(|segment| match segment {
            PatternSegment::Literal(literal) => write!(f, "/{literal}"),
            PatternSegment::Parameter(name) => write!(f, "/{{{name}}}"),
            PatternSegment::Rest(name) => write!(f, "/{{*{name}}}"),
        })
    }
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
    Files(FilesSettings),
    Redirect(RedirectSettings),
    Respond(RespondSettings),
}

impl RouteAction {
    /// The upstream that requests may go to.
    pub fn upstream(&self) -> Option<&At<String>> {
        match self {
            RouteAction::Upstream(name) => Some(name),
            RouteAction::Files(files) => files.fallback.as_ref(),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
        }
    }
}

/// `files`, and what goes with it.
#[derive(Clone, Debug)]
pub struct FilesSettings {
    /// A directory, or one file. Absolute.
    pub path: At<PathBuf>,
    pub cache_control: Option<HeaderValue>,
    /// The upstream for what is not there.
    pub fallback: Option<At<String>>,
}

/// One entry of `internal_files`.
#[derive(Clone, Debug)]
pub struct InternalFilesSettings {
    /// Begins with a slash and does not end with one, unless it is that.
    pub prefix: String,
    /// Absolute.
    pub directory: At<PathBuf>,
}

#[derive(Clone)]
pub struct RedirectSettings {
    /// Literal text and names of the pattern's parameters, in turn.
    pub to: Vec<RedirectPart>,
    /// Drawn from a secret source, at least in part.
    pub to_is_secret: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_as_they_are_written() {
        let literal = |text: &str| PatternSegment::Literal(text.to_owned());
        let path = |segments: Vec<PatternSegment>| PathPattern { segments }.to_string();
        assert_eq!(path(vec![]), "/");
        assert_eq!(path(vec![literal("")]), "/");
        assert_eq!(path(vec![literal("orders"), literal("")]), "/orders/");
        let segments =
            vec![literal("a"), PatternSegment::Parameter("id".to_owned()), PatternSegment::Rest("rest".to_owned())];
        assert_eq!(path(segments), "/a/{id}/{*rest}");
        assert_eq!(HostPattern::Suffix("example.com".to_owned()).to_string(), "*.example.com");
    }
}
