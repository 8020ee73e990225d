//! A route of a snapshot, compiled, and all of them in one table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::cors::Cors;
use super::files::{Files, unusable};
use super::routes::{RouteTable, Unmatched, captures};
use super::style::Style;
use crate::admit::auth::{Auths, Building};
use crate::admit::gate::Gate;
use crate::admit::limit::{AllLimits, Limits};
use crate::config::problem::Problem;
use crate::config::settings::{
    AnswerSettings, FilesSettings, HostPattern, IdentityHeaders, PathPattern, PatternSegment, RedirectPart,
    RedirectSettings, RespondSettings, RouteAction, RouteSettings, Settings, UpstreamTimeouts,
};
use crate::files::internal::InternalFiles;
use crate::headers::Headers;
use crate::http1::encode::may_trail;
use crate::observe::metrics::RouteMetrics;
use crate::upstream::Upstream;
use crate::validate::Validation;

/// One `[route.NAME]`, compiled. Aligned as servers are, and for the same reason.
#[repr(align(128))]
pub struct Route {
    pub name: Arc<str>,
    pub settings: RouteSettings,
    pub action: Action,
    pub metrics: Arc<RouteMetrics>,
    pub gate: Gate,
    pub limits: Limits,
    pub validation: Option<Validation>,
    pub cors: Option<Cors>,
    /// What a service may have sent by naming it.
    pub internal: Option<InternalFiles>,
    pub style: Style,
}

/// What routes are made of.
pub struct Parts<'a> {
    pub upstreams: &'a BTreeMap<Arc<str>, Arc<Upstream>>,
    pub auths: &'a Auths,
    pub limits: &'a AllLimits,
}

/// What a route does with a request.
pub enum Action {
    Forward {
        upstream: Arc<Upstream>,
        timeouts: UpstreamTimeouts,
    },
    /// What is not there goes to the fallback.
    Files {
        files: Files,
        fallback: Option<(Arc<Upstream>, UpstreamTimeouts)>,
    },
    Redirect(RedirectSettings),
    Respond(FixedAnswer),
}

/// A `respond`, ready to be sent.
pub struct FixedAnswer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// All routes of a snapshot.
pub struct Routes {
    table: RouteTable,
    list: Vec<Arc<Route>>,
    /// Whether any route names a host.
    name_hosts: bool,
    /// Of answers that no route gives.
    pub unrouted: Style,
    /// The fields that tell backends who is calling, of any route: what a client sends under these names is dropped.
    pub identity_fields: Vec<HeaderName>,
    /// What no trailer may hold, since a server may merge it with the fields of the head: those of them that could be
    /// trailers, and whatever any route sets or removes.
    pub reserved_trailers: Option<Arc<[HeaderName]>>,
}

/// Why no route takes a request.
pub enum NoRoute {
    /// No host and path match.
    Path,
    /// The best path has no route for the method.
    Method {
        allow: HeaderValue,
        /// One of the path's routes: what it says of answers holds for this one too.
        beside: Arc<Route>,
    },
}

impl Routes {
    /// Routes to something that does not exist were refused when the configuration was read; any that is left is left
    /// out.
    pub fn build(
        settings: &Settings,
        parts: &Parts<'_>,
        before: Option<&Routes>,
        building: &mut Building<'_>,
    ) -> Routes {
        let AnswerSettings { errors, security_headers, hsts } = settings.answers;
        let unrouted = Style::new(errors, security_headers, hsts);
        let mut routes = Routes {
            table: RouteTable::default(),
            list: Vec::new(),
            name_hosts: false,
            unrouted,
            reserved_trailers: reserved_trailers(&settings.routes),
            identity_fields: identity_fields(&settings.routes),
        };
        for (name, settings) in &settings.routes {
            let before = before.and_then(|before| before.named(name));
            let Some(route) = Route::build(name, settings, parts, before, building) else { continue };
            let hosts: Vec<HostPattern> = settings.hosts.iter().map(|host| host.value.clone()).collect();
            routes.name_hosts |= !hosts.is_empty();
            routes.table.add(&hosts, &settings.path.value, settings.methods.as_deref(), routes.list.len());
            routes.list.push(Arc::new(route));
        }
        routes
    }

    fn named(&self, name: &str) -> Option<&Route> {
        // They are in the order of their names, as the settings have them.
        let index = self.list.binary_search_by(|route| (*route.name).cmp(name)).ok()?;
        self.list.get(index).map(Arc::as_ref)
    }

    /// Every route.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.list.iter()
    }

    /// # Errors
    /// What did not match.
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Result<&Arc<Route>, NoRoute> {
        match self.table.find(host, path, method) {
            Ok(index) => self.list.get(index).ok_or(NoRoute::Path),
            Err(Unmatched::Path) => Err(NoRoute::Path),
            Err(Unmatched::Method { allow, beside }) => match self.list.get(beside) {
                Some(beside) => Err(NoRoute::Method { allow, beside: Arc::clone(beside) }),
                None => Err(NoRoute::Path),
            },
        }
    }

    /// Whether a redirect to this host leads to a route: one names it, or none names any.
    pub fn serve_host(&self, host: &str) -> bool {
        !self.name_hosts || self.table.names_host(host)
    }
}

impl Route {
    fn build(
        name: &str,
        settings: &RouteSettings,
        parts: &Parts<'_>,
        before: Option<&Route>,
        building: &mut Building<'_>,
    ) -> Option<Route> {
        let upstream = match settings.action.upstream() {
            Some(name) => Some(parts.upstreams.get(name.value.as_str())?),
            None => None,
        };
        let before = before.and_then(|before| before.validation.as_ref());
        let validation = Validation::build(name, settings, upstream, before, building);
        let action = match &settings.action {
            RouteAction::Upstream(_) => {
                let upstream = Arc::clone(upstream?);
                let timeouts = merged(upstream.timeouts(), settings);
                Action::Forward { upstream, timeouts }
            }
            RouteAction::Files(files) => {
                let fallback = upstream.map(|fallback| (Arc::clone(fallback), merged(fallback.timeouts(), settings)));
                building.problems.extend(unreachable(settings, files));
                Action::Files { files: Files::build(files, building.problems), fallback }
            }
            RouteAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
            RouteAction::Respond(respond) => Action::Respond(FixedAnswer::build(respond)),
        };
        let internal = InternalFiles::build(&settings.internal_files);
        for (root, settings) in internal.iter().flat_map(InternalFiles::roots).zip(&settings.internal_files) {
            building.problems.extend(root.trouble().map(|why| unusable(root, &why, &settings.directory.span)));
        }
        let metrics = building.metrics;
        Some(Route {
            name: Arc::from(name),
            settings: settings.clone(),
            action,
            metrics: metrics.route(name),
            gate: Gate::build(name, &settings.access, parts.auths, metrics)?,
            limits: Limits::build(name, &settings.limits, parts.limits, metrics),
            validation,
            internal,
            cors: settings.cors.as_ref().map(|cors| Cors::build(cors, settings.methods.as_deref())),
            style: Style::new(settings.errors, settings.security_headers, settings.hsts),
        })
    }

    /// Whether `allow` and `deny` let this client in.
    pub fn admits(&self, client: IpAddr) -> bool {
        let (allow, deny) = (&self.settings.allow, &self.settings.deny);
        !deny.iter().any(|net| net.contains(&client))
            && (allow.is_empty() || allow.iter().any(|net| net.contains(&client)))
    }

    /// Puts the route's own fields onto an answer.
    pub fn finish_headers(&self, headers: &mut Headers, tls: bool) {
        let changes = &self.settings.response_headers;
        for name in &changes.remove {
            headers.remove(name);
        }
        for (name, value) in &changes.set {
            headers.insert(name, value.clone());
        }
        self.style.mark(headers, tls, &changes.remove);
    }
}

/// The usual names, and those that routes give them.
fn identity_fields(routes: &BTreeMap<String, RouteSettings>) -> Vec<HeaderName> {
    let usual = IdentityHeaders::default();
    let named = routes.values().filter_map(|route| route.forward_identity.clone());
    let mut fields: Vec<HeaderName> = std::iter::once(usual)
        .chain(named)
        .flat_map(|names| [names.subject, names.roles, names.scopes, names.method])
        .collect();
    fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    fields.dedup();
    fields
}

fn reserved_trailers(routes: &BTreeMap<String, RouteSettings>) -> Option<Arc<[HeaderName]>> {
    let changed = routes.values().map(|route| &route.request_headers);
    let changed = changed.flat_map(|changes| changes.set.iter().map(|(name, _)| name).chain(&changes.remove)).cloned();
    let mut fields: Vec<HeaderName> = identity_fields(routes).into_iter().chain(changed).filter(may_trail).collect();
    fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    fields.dedup();
    (!fields.is_empty()).then(|| fields.into())
}

/// Of a directory only its index can be asked for where the path does not go on beneath it.
fn unreachable(settings: &RouteSettings, files: &FilesSettings) -> Option<Problem> {
    let (pattern, directory) = (&settings.path.value, &files.path.value);
    let goes_on = matches!(pattern.segments.last(), Some(PatternSegment::Rest(_)));
    if goes_on || !directory.is_dir() || directory.join("index.html").is_file() {
        return None;
    }
    let message = "`files` names a directory, and the route's path leads to nothing in it";
    let help = "a directory needs {*rest} at the end of `path`; or name one file";
    Some(Problem::warning(&files.path.span, message).help(help))
}

fn merged(upstream: &UpstreamTimeouts, route: &RouteSettings) -> UpstreamTimeouts {
    let over = &route.timeouts;
    UpstreamTimeouts {
        connect: over.connect.unwrap_or(upstream.connect),
        response: over.response.unwrap_or(upstream.response),
        between_bytes: over.between_bytes.unwrap_or(upstream.between_bytes),
        upgraded: over.upgraded.unwrap_or(upstream.upgraded),
        keep_alive: upstream.keep_alive,
    }
}

impl FixedAnswer {
    fn build(settings: &RespondSettings) -> FixedAnswer {
        let mut headers = Headers::new();
        if !settings.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, settings.content_type.clone());
        }
        for (name, value) in &settings.headers {
            headers.insert(name, value.clone());
        }
        FixedAnswer { status: settings.status, headers, body: Bytes::from(settings.body.clone()) }
    }
}

/// Where a redirect leads: parameters filled in from the path, the query kept unless the target has one.
pub fn location(
    redirect: &RedirectSettings,
    pattern: &PathPattern,
    path: &str,
    query: Option<&str>,
) -> Option<HeaderValue> {
    let mut text = String::new();
    for part in &redirect.to {
        match part {
            RedirectPart::Text(literal) => text.push_str(literal),
            RedirectPart::Parameter(wanted) => {
                let value = captures(pattern, path).find(|(name, _)| name == wanted).map(|(_, value)| value);
                text.push_str(value.unwrap_or_default());
            }
        }
    }
    if let Some(query) = query.filter(|_| !text.contains('?')) {
        // Writing to a string does not fail.
        let _ = write!(text, "?{query}");
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Outside, load_text};

    #[test]
    fn redirects_fill_in_parameters_and_keep_the_query() {
        let pattern =
            PathPattern { segments: vec![PatternSegment::Literal("a".into()), PatternSegment::Rest("rest".into())] };
        let to = |parts: &[RedirectPart]| RedirectSettings {
            to: parts.to_vec(),
            to_is_secret: false,
            status: StatusCode::PERMANENT_REDIRECT,
        };
        let with_rest = to(&[RedirectPart::Text("https://b/".into()), RedirectPart::Parameter("rest".into())]);
        assert_eq!(location(&with_rest, &pattern, "/a/x/y", Some("q=1")).expect("a value"), "https://b/x/y?q=1");
        assert_eq!(location(&with_rest, &pattern, "/a", None).expect("a value"), "https://b/");
        let own_query = to(&[RedirectPart::Text("/c?d".into())]);
        assert_eq!(location(&own_query, &pattern, "/a", Some("q=1")).expect("a value"), "/c?d");
    }

    #[test]
    fn directories_need_a_path_that_goes_on() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("icon"), "").expect("a file");
        let warned = |path: &str, files: &str| {
            let listener = "[listener.http]\naddress = \"127.0.0.1:8080\"";
            let text = format!("{listener}\n[route.a]\npath = \"{path}\"\nfiles = \"{files}\"\n");
            let loaded = load_text("p.toml", &text, home.path(), &Outside::new(&|_| None));
            let route = loaded.settings().and_then(|settings| settings.routes.get("a")).expect("a route");
            let RouteAction::Files(files) = &route.action else { panic!("{route:?}") };
            unreachable(route, files).is_some()
        };
        assert!(warned("/static", ".") && !warned("/static/{*rest}", ".") && !warned("/icon", "icon"));
        std::fs::write(home.path().join("index.html"), "").expect("a file");
        assert!(!warned("/static", "."));
    }
}
