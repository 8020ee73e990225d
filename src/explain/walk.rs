//! The way of a request, from its listener to its route; `admission.rs` and `forwarding.rs` go on from there.

use std::net::IpAddr;

use http::Method;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};

use super::Moment;
use super::asked::{Arrived, Asked, Unread};
use super::credentials;
use super::explanation::{Decision, Explanation, Line, Outcome, Place, Refusal, Step};
use super::wording::{count, listed, printable, size, text, without_query, without_userinfo};
use crate::config::settings::{HostPattern, ListenerSettings, RedirectSettings};
use crate::config::source::without;
use crate::gateway::Gateway;
use crate::headers::Headers;
use crate::request::client;
use crate::request::cors::preflight_method;
use crate::request::decisions::{NotRouted, choose_route, is_expected, is_served, passing_query, to_https};
use crate::request::inbound::{Inbound, authority};
use crate::request::peer::Peer;
use crate::request::rejection::{Cause, Rejection};
use crate::request::route::{Action, Route, location};
use crate::request::target::{Host, NormalPath, Path, Target};

pub(super) struct Walk<'g> {
    pub(super) gateway: &'g Gateway,
    pub(super) moment: Moment,
    steps: Vec<Step>,
    provided: Vec<String>,
    /// What the request showed and must not be told.
    credentials: Vec<String>,
}

/// A request behind its listener.
pub(super) struct Normal<'a> {
    pub(super) peer: &'a Peer,
    pub(super) inbound: &'a Inbound,
    pub(super) host: Option<Host>,
    pub(super) client: IpAddr,
    pub(super) path: NormalPath,
    pub(super) query: Option<&'a [u8]>,
    pub(super) body_bytes: u64,
    pub(super) body_is_elsewhere: bool,
}

impl<'g> Walk<'g> {
    pub(super) fn new(gateway: &'g Gateway, moment: Moment) -> Walk<'g> {
        Walk { gateway, moment, steps: Vec::new(), provided: Vec::new(), credentials: Vec::new() }
    }

    pub(super) async fn go(
        &mut self,
        asked: &Asked,
        name: &str,
        settings: Option<&'g ListenerSettings>,
    ) -> Result<Outcome, Rejection> {
        let peer = asked.peer(name, settings);
        self.listener(asked, name, settings);
        let Arrived { mut inbound, head_bytes, body_bytes, body_is_elsewhere } =
            asked.arrive(settings).map_err(|Unread { cause, bound }| {
                let place = bound.and_then(|bound| self.place(&[&format!("listener.{name}.{bound}")]));
                self.refuse("head", "it is not served as it is", place, cause.into())
            })?;
        self.credentials = credentials::shown(self.gateway, &inbound);
        let body = std::mem::replace(&mut inbound.body, crate::body::RequestBody::Empty);
        let fields = inbound.headers.len();
        let place = self.place(&[&format!("listener.{name}.max_header_bytes")]);
        let most =
            settings.map_or(String::new(), |settings| format!(" of at most {}", size(settings.max_header_bytes)));
        self.pass("head", format!("{head_bytes} bytes{most}, {}", count(fields, "field")), place);
        let (target, host, client) = self.normalise(&inbound, &peer, name, settings)?;
        let path = match target.path {
            Path::Normal(path) => path,
            Path::Asterisk => {
                self.pass("target", "about the gateway itself, which answers", None);
                return Ok(Outcome::Answered { status: 204 });
            }
        };
        let query = target.query.as_deref();
        if let Some(port) = settings.and_then(|settings| settings.redirect_to_https) {
            let place = self.place(&[&format!("listener.{name}.redirect_to_https")]);
            return match to_https(&self.gateway.routes, port, host.as_ref(), &path, query) {
                Ok((status, location)) => {
                    self.pass("https", "the client is sent to https://", place);
                    Ok(Outcome::Redirected { status: status.as_u16(), location: without_query(&text(&location)) })
                }
                Err(rejection) => Err(self.refuse("https", "no route names this host", place, rejection)),
            };
        }
        let normal =
            Normal { peer: &peer, inbound: &inbound, host, client, path, query, body_bytes, body_is_elsewhere };
        self.routed(&normal, body).await
    }

    async fn routed(&mut self, normal: &Normal<'_>, body: crate::body::RequestBody) -> Result<Outcome, Rejection> {
        let route = self.route(normal)?;
        self.address(route, normal.client)?;
        self.limits(route, normal, None)?;
        if let (Some(cors), Some(_)) = (&route.cors, preflight_method(&normal.inbound.method, &normal.inbound.headers))
        {
            let mut answer = Headers::new();
            cors.answer_preflight(&normal.inbound.headers, &mut answer);
            let said = match answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
                true => "answered here: the origin may",
                false => "answered here: the origin is not listed, so the browser will not send the request",
            };
            let place = self.of_route(route, "cors");
            self.pass("preflight", said, place);
            return Ok(Outcome::Answered { status: 204 });
        }
        self.cors(route, normal.inbound);
        let admitted = self.admit(route, normal).await?;
        self.limits(route, normal, Some(&admitted.who))?;
        let query = passing_query(normal.query, &route.gate);
        let query = query.as_deref();
        match &route.action {
            Action::Respond(fixed) => {
                let place = self.route_key(route, "respond");
                self.pass("respond", "the gateway answers by itself", place);
                Ok(Outcome::Answered { status: fixed.status.as_u16() })
            }
            Action::Redirect(redirect) => {
                let location = leads_to(redirect, route, &normal.path, query)?;
                let place = self.route_key(route, "redirect");
                self.pass("redirect", "the client is sent elsewhere", place);
                Ok(Outcome::Redirected { status: redirect.status.as_u16(), location })
            }
            Action::Files { files, fallback } => {
                let fallback = fallback.as_ref().map(|(upstream, timeouts)| (upstream, timeouts));
                self.files(route, (files, fallback), normal, query, &admitted, body).await
            }
            Action::Forward { upstream, timeouts } => {
                self.forward(route, (upstream, timeouts), normal, query, &admitted, body).await
            }
        }
    }

    /// Whether a script of another origin may read the answer.
    fn cors(&mut self, route: &Route, inbound: &Inbound) {
        let Some(cors) = route.cors.as_ref().filter(|_| inbound.headers.contains_key(ORIGIN)) else { return };
        let mut answer = Headers::new();
        cors.mark(&inbound.headers, &mut answer);
        let place = self.of_route(route, "cors");
        match answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            true => self.pass("cors", "scripts of the origin may read the answer", place),
            false => {
                let said = "the origin is not listed: browsers keep the answer from its scripts";
                self.step("cors", Decision::Skipped, said, place);
            }
        }
    }

    fn listener(&mut self, asked: &Asked, name: &str, settings: Option<&ListenerSettings>) {
        let Some(settings) = settings else {
            return self.step("listener", Decision::Skipped, "the configuration has none", None);
        };
        let speaks = if settings.tls.is_some() { "TLS" } else { "plain HTTP" };
        let how = match &asked.listener {
            Some(_) => "",
            None if (settings.tls.is_some()) == asked.tls => ", which fits the URL best (--listener names another)",
            None => "; none fits the scheme of the URL (--listener names another)",
        };
        let place = self.place(&[&format!("listener.{name}")]);
        self.pass("listener", format!("{name}: {speaks}{how}"), place);
    }

    /// The target in its one form, the host, and who the client is.
    fn normalise(
        &mut self,
        inbound: &Inbound,
        peer: &Peer,
        name: &str,
        settings: Option<&ListenerSettings>,
    ) -> Result<(Target, Option<Host>, IpAddr), Rejection> {
        is_served(&inbound.method)
            .map_err(|rejection| self.refuse("method", inbound.method.as_str(), None, rejection))?;
        let target = Target::parse(&inbound.method, &inbound.target)
            .map_err(|cause| self.refuse("target", "it could be read in two ways", None, cause.into()))?;
        let host = authority(inbound, &target, peer).map_err(|cause| {
            self.refuse("host", "there must be one, and it must be the same everywhere", None, cause.into())
        })?;
        if let Path::Normal(path) = &target.path {
            let at = host.as_ref().map_or_else(String::new, |host| format!(" at {}", host.as_str()));
            self.pass("target", format!("{}{at}", path.as_str()), None);
        }
        let trusted = settings.map_or(&[][..], |settings| &settings.trusted_proxies);
        let client = client::address(peer, trusted, &inbound.headers);
        let told = inbound.headers.keys().any(|name| client::is_forwarding_field(name.as_bytes()));
        let how = match (client == peer.remote.ip().to_canonical(), peer.trusted, told) {
            (false, ..) => format!("as the trusted proxy {} says", peer.remote.ip()),
            (true, false, true) => {
                "its own forwarding fields are not believed: it is not in trusted_proxies".to_owned()
            }
            (true, true, _) => "a trusted proxy that tells of nobody else".to_owned(),
            (true, false, false) => "the connection's other end".to_owned(),
        };
        let place = self.place(&[&format!("listener.{name}.trusted_proxies")]);
        self.pass("client", format!("{client}: {how}"), place);
        is_expected(inbound)
            .map_err(|cause| self.refuse("expect", "only 100-continue can be met", None, cause.into()))?;
        Ok((target, host, client))
    }

    fn route(&mut self, normal: &Normal<'_>) -> Result<&'g Route, Rejection> {
        let gateway = self.gateway;
        match choose_route(&gateway.routes, normal.inbound, normal.host.as_ref(), &normal.path) {
            Ok(route) => {
                let hosts = match route.settings.hosts.is_empty() {
                    true => "any host that no route names".to_owned(),
                    false => format!("host {}", listed(route.settings.hosts.iter().map(|host| host.shown()))),
                };
                let methods = match &route.settings.methods {
                    None => "any method".to_owned(),
                    Some(methods) => format!("method {}", listed(methods.iter().map(Method::as_str))),
                };
                let said = format!("{}: {hosts}, path {}, {methods}", route.name, route.settings.path.shown());
                let place = self.route_key(route, "path");
                self.pass("route", said, place);
                Ok(route)
            }
            Err(NotRouted { rejection, beside: Some(beside) }) => {
                let allow = rejection.fields().first().map(|(_, value)| text(value)).unwrap_or_default();
                let said = format!("{} has the path, but not for {}: {allow}", beside.name, normal.inbound.method);
                let place = self.route_key(&beside, "methods");
                Err(self.refuse("route", &said, place, rejection))
            }
            Err(NotRouted { rejection, beside: None }) if rejection.cause == Cause::NoRoute => {
                let said = self.why_no_route(normal.host.as_ref());
                Err(self.refuse("route", &said, None, rejection))
            }
            Err(NotRouted { rejection, beside: None }) => {
                Err(self.refuse("route", "%2F is taken only by a route with encoded_slashes = true", None, rejection))
            }
        }
    }

    /// Hosts are decided before paths: a route of any host does not take what one that names the host leaves.
    fn why_no_route(&self, host: Option<&Host>) -> String {
        let Some(host) = host.map(|host| host.name().trim_end_matches('.').to_ascii_lowercase()) else {
            return "no route of any host has this path".to_owned();
        };
        let routes = || self.gateway.routes.iter();
        let exact = |pattern: &HostPattern| matches!(pattern, HostPattern::Exact(name) if *name == host);
        let by_suffix = |pattern: &HostPattern| match pattern {
            HostPattern::Suffix(suffix) => host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.')),
            HostPattern::Exact(_) => false,
        };
        let naming = |names: &dyn Fn(&HostPattern) -> bool| -> Vec<&str> {
            let naming = routes().filter(|route| route.settings.hosts.iter().any(|host| names(&host.value)));
            naming.map(|route| &*route.name).collect()
        };
        let mut named = naming(&exact);
        if named.is_empty() {
            named = naming(&by_suffix);
        }
        match named.as_slice() {
            [] => format!("no route names the host {host}, and none of any host has this path"),
            [one] => format!("{one} names the host, and does not have this path"),
            more => format!("{} name the host, and none of them has this path", listed(more.iter())),
        }
    }

    fn address(&mut self, route: &Route, client: IpAddr) -> Result<(), Rejection> {
        let settings = &route.settings;
        let denied = settings.deny.iter().find(|net| net.contains(&client));
        let allowed = settings.allow.iter().find(|net| net.contains(&client));
        let (key, said) = match (denied, allowed) {
            (Some(net), _) => ("deny", format!("{client} is in {net}")),
            (None, Some(net)) => ("allow", format!("{client} is in {net}")),
            (None, None) if settings.allow.is_empty() => match settings.deny.is_empty() {
                true => ("allow", "every address may come in".to_owned()),
                false => ("deny", format!("{client} is in none of these")),
            },
            (None, None) => ("allow", format!("{client} is in none of these")),
        };
        let place = self.route_key(route, key);
        if !route.admits(client) {
            return Err(self.refuse("address", &said, place, Cause::AddressDenied.into()));
        }
        self.pass("address", said, place);
        Ok(())
    }

    /// The end: nothing of it may tell what is secret.
    pub(super) fn finish(self, asked: &Asked, outcome: Result<Outcome, Rejection>) -> Explanation {
        let path = asked.target.split(['?', '#']).next().unwrap_or_default();
        let url = match &asked.host {
            Some(host) => format!("http{}://{host}{path}", if asked.tls { "s" } else { "" }),
            None => path.to_owned(),
        };
        let mut explanation = Explanation {
            request: format!("{} {}", asked.method, without_userinfo(&url)),
            steps: self.steps,
            outcome: outcome.unwrap_or_else(|rejection| Outcome::Refused(Refusal::of(&rejection))),
            provided: self.provided,
            in_force: None,
        };
        let (lines, credentials) = (&self.gateway.settings.lines, &self.credentials);
        explanation
            .rewrite(|text| printable(&without(&lines.without_secrets(text), credentials.iter().map(String::as_str))));
        explanation
    }

    pub(super) fn step(&mut self, step: &str, decision: Decision, text: impl Into<String>, place: Option<Place>) {
        self.steps.push(Step { step: step.to_owned(), decision, text: text.into(), place });
    }

    pub(super) fn pass(&mut self, step: &str, text: impl Into<String>, place: Option<Place>) {
        self.step(step, Decision::Passed, text, place);
    }

    /// Notes the refusal, and hands it back.
    pub(super) fn refuse(&mut self, step: &str, text: &str, place: Option<Place>, rejection: Rejection) -> Rejection {
        self.step(step, Decision::Refused, text, place);
        rejection
    }

    /// What must be so for the outcome to be that.
    pub(super) fn provided(&mut self, condition: String) {
        self.provided.push(condition);
    }

    /// Where the first of these keys is written that is; else the first, of which the default holds.
    pub(super) fn place(&self, keys: &[&str]) -> Option<Place> {
        let lines = &self.gateway.settings.lines;
        let written = keys.iter().find_map(|key| lines.find(key).map(|line| (key, line)));
        match written {
            Some((key, line)) => {
                let line = Some(Line { file: lines.file().to_owned(), line });
                Some(Place { key: (*key).to_owned(), line })
            }
            None => keys.first().map(|key| Place { key: (*key).to_owned(), line: None }),
        }
    }

    /// Of a key of the route alone.
    pub(super) fn route_key(&self, route: &Route, key: &str) -> Option<Place> {
        self.place(&[&format!("route.{}.{key}", route.name)])
    }

    /// Of a key that `[defaults]` may have too.
    pub(super) fn of_route(&self, route: &Route, key: &str) -> Option<Place> {
        self.place(&[&format!("route.{}.{key}", route.name), &format!("defaults.{key}")])
    }
}

/// Where a redirect leads, as it may be told.
fn leads_to(
    redirect: &RedirectSettings,
    route: &Route,
    path: &NormalPath,
    query: Option<&[u8]>,
) -> Result<String, Rejection> {
    let query = query.and_then(|query| std::str::from_utf8(query).ok());
    let to = |query| location(redirect, &route.settings.path.value, path.as_str(), query).ok_or(Cause::Internal);
    to(query)?;
    if redirect.to_is_secret {
        return Ok("(secret)".to_owned());
    }
    Ok(text(&to(query.map(|_| "..."))?))
}
