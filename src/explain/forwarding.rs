//! The body, and where the request would be sent.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use http::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};

use super::Moment;
use super::admission::{LetIn, Who};
use super::explanation::{Decision, Outcome, Sent};
use super::walk::{Normal, Walk, listed, size, text};
use crate::admit::credential::Withheld;
use crate::body::RequestBody;
use crate::config::settings::{HostHeader, Priority, Protocol, QueueSettings, SlotSettings, UpstreamTimeouts};
use crate::http1::head::Notable;
use crate::request::buffering::{bounds, is_taken_in};
use crate::request::client::{Told, is_forwarding_field};
use crate::request::decisions::hash_value;
use crate::request::limited::limit;
use crate::request::outgoing::{Outgoing, end_to_end, is_reserved, sent_framing, wanted_upgrade};
use crate::request::rejection::{Cause, Rejection};
use crate::request::route::{Action, Route};
use crate::upstream::{ChooseBy, Receiver, Upstream};
use crate::validate::{Found, Judging, Reserved, Validation};

impl<'g> Walk<'g> {
    pub(super) async fn forward(
        &mut self,
        route: &'g Route,
        (upstream, timeouts): (&'g Arc<Upstream>, &UpstreamTimeouts),
        normal: &Normal<'_>,
        query: Option<&[u8]>,
        admitted: &LetIn<'_>,
        body: RequestBody,
    ) -> Result<Outcome, Rejection> {
        let buffer = &route.settings.buffer;
        let taken_in = is_taken_in(&body, &normal.inbound.headers, buffer, upstream.needs_lengths());
        let (stated, most) = (body.length(), bounds(buffer).most());
        self.body(route, normal, query, admitted, body).await?;
        // Once it is here its length is known.
        let length = stated.or_else(|| taken_in.then_some(normal.body_bytes));
        if taken_in {
            let place = self.of_route(route, "buffer");
            let said = format!("taken in whole before a server is chosen, at most {}", size(most));
            // What validation has read whole is here already.
            if route.validation.is_none() && length.is_some_and(|length| length > most) {
                return Err(self.refuse("buffer", &said, place, Cause::BodyPastBuffer.into()));
            }
            self.pass("buffer", said, place);
        }
        let key = match &route.action {
            Action::Files { .. } => "fallback",
            Action::Forward { .. } | Action::Redirect(_) | Action::Respond(_) => "upstream",
        };
        let place = self.route_key(route, key);
        let balance = upstream.settings.balance.kind();
        self.pass("upstream", format!("{}, balanced by {balance}", upstream.name), place);
        let next = self.servers(route, upstream, normal)?;
        self.timeouts(route, upstream, timeouts);
        let head = self.head(route, upstream, normal, query, admitted, length)?;
        let servers = upstream.entries().map(|(label, _)| label.to_owned()).collect();
        Ok(Outcome::Forwarded(Sent { upstream: upstream.name.to_string(), servers, next, head }))
    }

    async fn body(
        &mut self,
        route: &Route,
        normal: &Normal<'_>,
        query: Option<&[u8]>,
        admitted: &LetIn<'_>,
        body: RequestBody,
    ) -> Result<(), Rejection> {
        let validation = route.validation.as_ref();
        let most = validation.map_or(route.settings.max_body, Validation::hard_limit);
        let (name, length) = (&route.name, body.length());
        let keys =
            [&*format!("route.{name}.validate.max_body"), &format!("route.{name}.max_body"), "defaults.max_body"];
        let place = self.place(if validation.is_some() { &keys } else { keys.get(1..).unwrap_or_default() });
        let said = match length {
            Some(0) => "none".to_owned(),
            Some(length) => format!("{} of at most {}", size(length), size(most)),
            None => format!("of a length that is not stated, at most {}", size(most)),
        };
        let reserved = self.gateway.routes.reserved_trailers.as_ref();
        let body = match limit(body, most, &Rc::new(Cell::new(0)), reserved, None) {
            Ok(body) => body,
            Err(cause) => return Err(self.refuse("body", &said, place, cause.into())),
        };
        self.pass("body", said, place);
        let Some(validation) = validation else { return Ok(()) };
        let place = self.route_key(route, "validate");
        if normal.body_is_elsewhere {
            let said = "the body is not here: -d shows it";
            self.step("validate", Decision::Unknown, said, place);
            self.provided("the body is valid".to_owned());
            return Ok(());
        }
        if self.moment == Moment::Offline && validation.openapi().is_some_and(|openapi| openapi.published().is_some()) {
            let said = "the OpenAPI document is fetched from the upstream by the running gateway: --live judges by it";
            self.step("validate", Decision::Unknown, said, place);
            self.provided("the request is valid by the OpenAPI document of the upstream".to_owned());
            return Ok(());
        }
        let (changes, identity_fields) = (&route.settings.request_headers, &self.gateway.routes.identity_fields);
        let reserved = Reserved {
            field: &|name| is_reserved(name, changes, identity_fields, admitted.withheld),
            cookie: admitted.withheld.cookie(),
        };
        let caller = admitted.who.caller();
        let judging = Judging {
            method: &normal.inbound.method,
            path: normal.path.behind(route.settings.strip_prefix.as_deref()),
            query,
            headers: &end_to_end(&normal.inbound.headers, normal.inbound.seen),
            reserved: &reserved,
            caller: &caller,
            gate: &route.gate,
        };
        match validation.judge_for_nobody(&judging, body).await {
            Found::Nothing => self.pass("validate", "nothing is wrong with it", place),
            Found::LetThrough(told) => {
                self.pass("validate", format!("mode = \"report\" lets it through: {told}"), place);
            }
            Found::Refused(rejection) => {
                if rejection.cause == Cause::ScopeMissing && matches!(admitted.who, Who::Somebody) {
                    let said = "the OpenAPI document demands scopes; those of the caller are not known here";
                    self.step("validate", Decision::Unknown, said, place);
                    return Ok(());
                }
                let said = rejection.detail().unwrap_or_else(|| rejection.cause.row().title).to_owned();
                return Err(self.refuse("validate", &said, place, rejection));
            }
        }
        Ok(())
    }

    /// The one whose turn it is, of a running gateway.
    fn servers(
        &mut self,
        route: &Route,
        upstream: &Upstream,
        normal: &Normal<'_>,
    ) -> Result<Option<String>, Rejection> {
        let place = self.place(&[&format!("upstream.{}.servers", upstream.name)]);
        if self.moment == Moment::Offline {
            let servers = listed(upstream.entries().map(|(label, _)| label));
            let said = format!("any of {servers}; --live tells how they fare");
            self.step("servers", Decision::Unknown, said, place);
            self.slots(route, upstream);
            return Ok(None);
        }
        for server in upstream.status() {
            let (state, for_long) = (server.state, ago(server.since));
            let reason = server.reason.map_or(String::new(), |reason| format!(": {reason}"));
            let slots = server.slots.map_or(String::new(), |slots| format!(", {} of {slots} slots busy", server.busy));
            let said = format!("{} for {for_long}{reason}; {} in flight{slots}", state.as_str(), server.in_flight);
            let decision = if state.is_usable() { Decision::Passed } else { Decision::Refused };
            self.step(&format!("server {}", server.label), decision, said, place.clone());
        }
        let by = ChooseBy { client: normal.client, key: hash_value(upstream, &normal.inbound.headers) };
        match upstream.would_choose(by) {
            Ok(Some(server)) => Ok(Some(server.label.to_string())),
            Ok(None) => {
                let queue = &upstream.settings.queue;
                let said = format!(
                    "no slot is free: {} of at most {} wait, none for more than {:?}",
                    upstream.queue.len(),
                    queue.size,
                    queue.max_wait
                );
                let place = self.place(&[&format!("upstream.{}.queue", upstream.name)]);
                self.step("queue", Decision::Unknown, said, place);
                self.provided("a slot is free in time".to_owned());
                Ok(None)
            }
            Err(cause) => Err(self.refuse("servers", "none can take it", place, cause.into())),
        }
    }

    /// What a request may have to wait for, where that is bounded.
    fn slots(&mut self, route: &Route, upstream: &Upstream) {
        let slots = match upstream.settings.slots {
            SlotSettings::Unlimited => return,
            SlotSettings::Fixed(slots) => format!("{slots} at once on each server"),
            SlotSettings::Auto => "as many at once on each server as it is found to carry".to_owned(),
        };
        let QueueSettings { size, max_wait, .. } = upstream.settings.queue;
        let priority = match route.settings.priority {
            Priority::High => ", before others",
            Priority::Normal => "",
            Priority::Low => ", behind others",
        };
        let said = format!("{slots}; up to {size} more wait{priority}, none for more than {max_wait:?}");
        let place = self.place(&[&format!("upstream.{}.slots", upstream.name)]);
        self.step("slots", Decision::Unknown, said, place);
    }

    fn timeouts(&mut self, route: &Route, upstream: &Upstream, timeouts: &UpstreamTimeouts) {
        let UpstreamTimeouts { connect, response, between_bytes, .. } = timeouts;
        let retries = upstream.settings.retry.attempts;
        let said = format!(
            "connect {connect:?}, response {response:?}, between bytes {between_bytes:?}; {retries} more attempts where \
             that is safe"
        );
        let place =
            self.place(&[&format!("route.{}.timeouts", route.name), &format!("upstream.{}.timeouts", upstream.name)]);
        self.pass("timeouts", said, place);
    }

    /// The request's head as the server would get it. Values are told where the gateway itself writes them.
    fn head(
        &mut self,
        route: &Route,
        upstream: &Upstream,
        normal: &Normal<'_>,
        query: Option<&[u8]>,
        admitted: &LetIn<'_>,
        length: Option<u64>,
    ) -> Result<Vec<String>, Rejection> {
        let Normal { peer, inbound, host, path, .. } = normal;
        let framing = sent_framing(&inbound.method, inbound.seen.has(Notable::ContentLength), length);
        let upgrade = wanted_upgrade(inbound, &RequestBody::Empty).filter(|_| length == Some(0));
        let told = Told {
            peer,
            host: host.as_ref(),
            prefix: route.settings.strip_prefix.as_deref(),
            headers: &inbound.headers,
        };
        let caller = admitted.who.caller();
        let outgoing = Outgoing {
            method: &inbound.method,
            version: inbound.version,
            path,
            query,
            host: host.as_ref(),
            headers: &inbound.headers,
            seen: inbound.seen,
            route,
            host_rule: upstream.host(),
            told,
            client: normal.client,
            uwsgi_params: &upstream.settings.uwsgi_params,
            request_id: &HeaderValue::from_static("..."),
            upgrade: upgrade.as_ref(),
            framing,
            identity: caller.identity().zip(route.settings.forward_identity.as_ref()),
            identity_fields: &self.gateway.routes.identity_fields,
            withheld: admitted.withheld,
        };
        let Some((_, receiver)) = upstream.entries().next() else { return Ok(Vec::new()) };
        let head = match written(&outgoing, receiver, route, upstream) {
            Ok(head) => head,
            Err(cause) => return Err(self.refuse("head", "no server of this kind can be sent it", None, cause.into())),
        };
        let kept = match admitted.withheld {
            Withheld::Nothing => None,
            Withheld::Authorization => Some("Authorization".to_owned()),
            Withheld::Header(name) => Some(name.to_string()),
            Withheld::Cookie(name) => Some(format!("the cookie {name}")),
        };
        if let Some(kept) = kept {
            let place = self.route_key(route, "forward_credential");
            self.pass("withheld", format!("{kept} ends here"), place);
        }
        Ok(head)
    }
}

/// The head in the form of the server's protocol, line by line, as it may be told.
fn written(
    outgoing: &Outgoing<'_>,
    receiver: Receiver<'_>,
    route: &Route,
    upstream: &Upstream,
) -> Result<Vec<String>, Cause> {
    let mut written = BytesMut::new();
    match receiver.protocol {
        Protocol::Http1 => {
            outgoing.write_to(receiver, &mut written)?;
            let text = String::from_utf8_lossy(&written);
            let mut lines = text.lines().filter(|line| !line.is_empty());
            let first = lines.next().map(without_query);
            let fields = lines.filter_map(|line| line.split_once(": "));
            let fields = fields.map(|(name, value)| masked(name, value, route, upstream.host()));
            Ok(first.into_iter().chain(fields).collect())
        }
        Protocol::Http2 => {
            let request = outgoing.request_to(receiver, Scheme::HTTP)?;
            let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
            let first = without_query(&format!("{} {target} HTTP/2", request.method()));
            let authority = request.uri().authority().map_or("", Authority::as_str);
            let host = masked("host", authority, route, upstream.host());
            let fields = request.headers().iter();
            let fields = fields.map(|(name, value)| masked(name.as_str(), &text(value), route, upstream.host()));
            Ok([first, host].into_iter().chain(fields).collect())
        }
        Protocol::Uwsgi => {
            outgoing.write_to(receiver, &mut written)?;
            let variables = variables(&written);
            Ok(variables.iter().map(|(name, value)| variable(name, value, route, upstream)).collect())
        }
    }
}

/// A request line as it may be told.
fn without_query(line: &str) -> String {
    match (line.split_once('?'), line.rsplit_once(' ')) {
        (Some((before, _)), Some((_, version))) => format!("{before}?... {version}"),
        (Some(_) | None, Some(_) | None) => line.to_owned(),
    }
}

/// The variables of a packet of uwsgi.
fn variables(packet: &[u8]) -> Vec<(String, String)> {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        *rest = after;
        Some(text)
    }
    let mut rest = packet.get(4..).unwrap_or_default();
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (text(&mut rest), text(&mut rest)) {
        variables.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
    }
    variables
}

/// A variable as it may be told.
fn variable(name: &str, value: &str, route: &Route, upstream: &Upstream) -> String {
    if upstream.settings.uwsgi_params.iter().any(|(set, _)| set == name) {
        return format!("{name}: (set by the upstream)");
    }
    match (name.strip_prefix("HTTP_"), name) {
        (Some(field), _) => {
            let field = field.to_ascii_lowercase().replace('_', "-");
            let told = masked(&field, value, route, upstream.host());
            told.split_once(": ").map_or_else(|| format!("{name}:"), |(_, told)| format!("{name}: {told}"))
        }
        (None, "REQUEST_URI") => match value.split_once('?') {
            Some((path, _)) => format!("{name}: {path}?..."),
            None => format!("{name}: {value}"),
        },
        (None, "QUERY_STRING") if !value.is_empty() => format!("{name}: ..."),
        (None, "CONTENT_TYPE") => format!("{name}: ..."),
        (None, _) => format!("{name}: {value}"),
    }
}

/// A field as it may be told: with its value where the gateway writes it.
fn masked(name: &str, value: &str, route: &Route, host: &HostHeader) -> String {
    let set = route.settings.request_headers.set.iter().any(|(set, _)| set.as_str() == name);
    let literal_host = name == "host" && matches!(host, HostHeader::Literal(_));
    let identity = route.settings.forward_identity.as_ref().is_some_and(|names| names.holds(name));
    let forwarding = name.parse().is_ok_and(|name| is_forwarding_field(&name));
    let ours = matches!(name, "host" | "via" | "content-length" | "transfer-encoding" | "connection" | "upgrade");
    match (set, literal_host, identity || forwarding || ours) {
        (true, ..) => format!("{name}: (set by the route)"),
        (false, true, _) => format!("{name}: (of the upstream)"),
        (false, false, true) => format!("{name}: {value}"),
        (false, false, false) => format!("{name}: ..."),
    }
}

fn ago(since: SystemTime) -> String {
    format!("{}s", since.elapsed().map_or(0, |since| since.as_secs()))
}
