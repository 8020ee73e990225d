//! Where a request would be sent: what is changed of it, the servers and their slots, the head.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::Moment;
use super::admission::LetIn;
use super::body::Carried;
use super::explanation::{Decision, Outcome, Place, Sent};
use super::sent::Telling;
use super::walk::{Normal, Walk};
use super::wording::{ago, listed};
use crate::admit::credential::Withheld;
use crate::body::RequestBody;
use crate::config::settings::{
    HeaderChanges, HostHeader, Priority, Protocol, QueueSettings, SlotSettings, UpstreamTimeouts,
};
use crate::request::decisions::unserved;
use crate::request::onward::Onward;
use crate::request::rejection::{Cause, Rejection};
use crate::request::route::{Action, Route};
use crate::upstream::upgrade::Open;
use crate::upstream::{Server, Upstream};

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
        let caller = admitted.who.caller();
        let onward = Onward {
            peer: normal.peer,
            inbound: normal.inbound,
            host: normal.host.as_ref(),
            client: normal.client,
            path: &normal.path,
            query,
            route,
            upstream,
            caller: &caller,
            withheld: admitted.withheld,
            identity_fields: &self.gateway.routes.identity_fields,
        };
        let carried = self.body(&onward, normal, &admitted.who, body).await?;
        let key = match &route.action {
            Action::Files { .. } => "fallback",
            Action::Forward { .. } | Action::Redirect(_) | Action::Respond(_) => "upstream",
        };
        let place = self.route_key(route, key);
        let balance = upstream.settings.balance.kind();
        self.pass("upstream", format!("{}, balanced by {balance}", upstream.name), place);
        self.changes(&onward);
        if carried.upgrade.is_some() {
            self.upgrade(upstream)?;
        }
        let next = self.servers(&onward)?;
        self.timeouts(route, upstream, timeouts);
        let head = self.head(&onward, next.as_deref(), &carried)?;
        let servers = upstream.entries().map(|(label, _)| label.to_owned()).collect();
        let next = next.map(|server| server.label.to_string());
        Ok(Outcome::Forwarded(Sent { upstream: upstream.name.to_string(), servers, next, head }))
    }

    /// What of the request is not as the client sent it because the file says so.
    fn changes(&mut self, onward: &Onward<'_>) {
        let (route, upstream) = (onward.route, onward.upstream);
        let settings = &route.settings;
        if let Some(prefix) = &settings.strip_prefix {
            let place = self.route_key(route, "strip_prefix");
            self.pass("prefix", format!("{prefix} is taken off the path"), place);
        }
        let host = match upstream.host() {
            HostHeader::Preserve => None,
            HostHeader::Server => Some("the server's own"),
            HostHeader::Literal(_) => Some("what the upstream says"),
        };
        if let Some(host) = host {
            let place = self.place(&[&key_of(upstream, "host")]);
            self.pass("host", format!("{host}, in place of the client's"), place);
        }
        let directions = [("server", &settings.request_headers), ("client", &settings.response_headers)];
        let changes: Vec<String> = directions
            .iter()
            .filter_map(|(whom, changes)| Some(format!("to the {whom} {}", changed(changes)?)))
            .collect();
        if !changes.is_empty() {
            let place = self.route_key(route, "headers");
            self.pass("headers", changes.join("; "), place);
        }
    }

    /// Whether one more upgraded connection may be opened.
    fn upgrade(&mut self, upstream: &Upstream) -> Result<(), Rejection> {
        let place = self.place(&[&key_of(upstream, "max_upgraded")]);
        let most = upstream.settings.max_upgraded;
        if self.moment == Moment::Offline {
            self.step("upgrade", Decision::Unknown, format!("at most {most} are open at once"), place);
            return Ok(());
        }
        let said = format!("{} of at most {most} are open", Open::how_many(upstream));
        if !Open::has_room(upstream) {
            return Err(self.refuse("upgrade", &said, place, unserved(Cause::TooManyUpgraded, upstream)));
        }
        self.pass("upgrade", said, place);
        Ok(())
    }

    /// The one whose turn it is, of a running gateway.
    fn servers(&mut self, onward: &Onward<'_>) -> Result<Option<Arc<Server>>, Rejection> {
        let (route, upstream) = (onward.route, onward.upstream);
        let place = self.servers_place(upstream);
        if self.moment == Moment::Offline && upstream.settings.workers.is_some() {
            let said = "the app's workers, which run with the gateway; --live tells how they fare";
            self.step("servers", Decision::Unknown, said.to_owned(), place);
            self.slots(route, upstream);
            return Ok(None);
        }
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
            // Of a server whose address is secret only the number is told: "server 1".
            let label = server.label.strip_prefix("server ").unwrap_or(&server.label);
            self.step(&format!("server {label}"), decision, said, place.clone());
        }
        match upstream.would_choose(onward.choose_by()) {
            Ok(Some(server)) => Ok(Some(server)),
            Ok(None) => self.queue(route, upstream).map(|()| None),
            Err(cause) => Err(self.refuse("servers", "none can take it", place, unserved(cause, upstream))),
        }
    }

    /// Where the file says which servers there are.
    fn servers_place(&self, upstream: &Upstream) -> Option<Place> {
        match upstream.settings.workers.is_some() {
            true => self.place(&[&key_of(upstream, "workers"), &format!("app.{}", upstream.name)]),
            false => self.place(&[&key_of(upstream, "servers")]),
        }
    }

    /// No slot is free.
    fn queue(&mut self, route: &Route, upstream: &Upstream) -> Result<(), Rejection> {
        let QueueSettings { size, max_wait } = upstream.settings.queue;
        let waiting = upstream.queue.len();
        let said = format!("no slot is free: {waiting} of at most {size} wait, none for more than {max_wait:?}");
        let key = |key: &str| key_of(upstream, &format!("queue{key}"));
        if !upstream.queue.has_room(route.settings.priority) {
            let place = self.place(&[&key(".size"), &key("")]);
            return Err(self.refuse("queue", &said, place, unserved(Cause::QueueFull, upstream)));
        }
        let place = self.place(&[&key("")]);
        self.step("queue", Decision::Unknown, said, place);
        self.provided("a slot is free in time".to_owned());
        Ok(())
    }

    /// What a request may have to wait for, where that is bounded.
    fn slots(&mut self, route: &Route, upstream: &Upstream) {
        let slots = match upstream.settings.slots {
            SlotSettings::Unlimited => return,
            SlotSettings::Fixed(slots) => format!("{slots} at once on each server"),
            SlotSettings::Auto => "as many at once on each server as it is found to carry".to_owned(),
        };
        let QueueSettings { size, max_wait } = upstream.settings.queue;
        let priority = match route.settings.priority {
            Priority::High => ", before others",
            Priority::Normal => "",
            Priority::Low => ", behind others",
        };
        let said = format!("{slots}; up to {size} more wait{priority}, none for more than {max_wait:?}");
        let place = self.place(&[&key_of(upstream, "slots")]);
        self.step("slots", Decision::Unknown, said, place);
    }

    fn timeouts(&mut self, route: &Route, upstream: &Upstream, timeouts: &UpstreamTimeouts) {
        let UpstreamTimeouts { connect, response, between_bytes, .. } = timeouts;
        let said = format!("connect {connect:?}, response {response:?}, between bytes {between_bytes:?}");
        let keys = [format!("route.{}.timeouts", route.name), key_of(upstream, "timeouts")];
        let place = self.place(&keys.each_ref().map(String::as_str));
        self.pass("timeouts", said, place);
        let said = match upstream.settings.retry.attempts {
            0 => "one attempt alone".to_owned(),
            more => format!("{more} more attempts where that is safe"),
        };
        let place = self.place(&[&key_of(upstream, "retry")]);
        self.pass("retry", said, place);
    }

    /// The request's head as `next` would get it, or the first.
    fn head(
        &mut self,
        onward: &Onward<'_>,
        next: Option<&Server>,
        carried: &Carried,
    ) -> Result<Vec<String>, Rejection> {
        let upstream = onward.upstream;
        let Some((label, receiver)) = upstream.entries().next() else { return Ok(Vec::new()) };
        let receiver = next.map_or(receiver, Server::receiver);
        let mixed = upstream.entries().any(|(_, other)| other.protocol != receiver.protocol);
        if mixed && next.is_none() {
            let said = format!("what is shown is for {label}: others here speak another protocol");
            self.step("protocol", Decision::Unknown, said, None);
        }
        // Of several protocols the server that is chosen decides.
        let chosen = next.is_some() || !mixed;
        let takes_none = match chosen {
            true => receiver.protocol == Protocol::Http2,
            false => upstream.entries().any(|(_, server)| server.protocol == Protocol::Http2),
        };
        if carried.upgrade.is_some() && takes_none {
            if chosen {
                let place = self.servers_place(upstream);
                let said = "there is none to a server of HTTP/2";
                return Err(self.refuse("upgrade", said, place, unserved(Cause::UpgradeNotSupported, upstream)));
            }
            self.provided("no server of HTTP/2 is chosen".to_owned());
        }
        let request_id = HeaderValue::from_static("...");
        let outgoing = onward.outgoing(carried.length, carried.upgrade.as_ref(), &request_id);
        let head = match (Telling { outgoing: &outgoing, upstream }).head(receiver) {
            Ok(head) => head,
            Err(Cause::BadTarget) => {
                let said = "a server of uwsgi could decode the path twice";
                return Err(self.refuse("head", said, None, Cause::BadTarget.into()));
            }
            Err(cause) => return Err(self.refuse("head", "no server of this kind can be sent it", None, cause.into())),
        };
        let kept = match onward.withheld {
            Withheld::Nothing => None,
            Withheld::Authorization => Some("Authorization".to_owned()),
            Withheld::Header(name) => Some(name.to_string()),
            Withheld::Cookie(name) => Some(format!("the cookie {name}")),
        };
        if let Some(kept) = kept {
            let place = self.route_key(onward.route, "forward_credential");
            self.pass("withheld", format!("{kept} ends here"), place);
        }
        Ok(head)
    }
}

/// Which fields are set and which are taken away; their values are nobody's business. `None`: none.
fn changed(changes: &HeaderChanges) -> Option<String> {
    let HeaderChanges { set, remove } = changes;
    let set = (!set.is_empty()).then(|| format!("with {}", listed(set.iter().map(|(name, _)| name))));
    let remove = (!remove.is_empty()).then(|| format!("without {}", listed(remove.iter().map(HeaderName::as_str))));
    match (set, remove) {
        (Some(set), Some(remove)) => Some(format!("{set}, {remove}")),
        (one, other) => one.or(other),
    }
}

/// A key of the section that the upstream is from, dotted from the top.
fn key_of(upstream: &Upstream, key: &str) -> String {
    let section = if upstream.settings.workers.is_some() { "app" } else { "upstream" };
    format!("{section}.{}.{key}", upstream.name)
}
