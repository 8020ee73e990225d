//! A request that was let in, on its way to a server: what validation judges of it and what its head is written from.
//! `handle` and `explain` have both made here, so that they cannot differ in it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::client::Told;
use super::decisions::hash_value;
use super::inbound::Inbound;
use super::outgoing::{Outgoing, end_to_end, is_reserved, sent_framing};
use super::peer::Peer;
use super::route::Route;
use super::target::{Host, NormalPath};
use crate::admit::Caller;
use crate::admit::credential::Withheld;
use crate::http1::head::Notable;
use crate::upstream::{ChooseBy, Upstream};
use crate::validate::{Judging, Reserved};

/// See the module.
#[derive(Clone, Copy)]
pub struct Onward<'a> {
    pub peer: &'a Peer,
    pub inbound: &'a Inbound,
    pub host: Option<&'a Host>,
    /// The client's address.
    pub client: IpAddr,
    pub path: &'a NormalPath,
    /// Without the credential that stood in it.
    pub query: Option<&'a [u8]>,
    pub route: &'a Route,
    pub upstream: &'a Arc<Upstream>,
    pub caller: &'a Caller,
    pub withheld: Withheld<'a>,
    /// The names that only the gateway tells of callers under.
    pub identity_fields: &'a [HeaderName],
}

impl<'a> Onward<'a> {
    /// What `judge` makes of what is judged.
    pub async fn judged<T>(&self, judge: impl AsyncFnOnce(&Judging<'_>) -> T) -> T {
        let Onward { inbound, route, withheld, identity_fields, .. } = *self;
        let changes = &route.settings.request_headers;
        let reserved = Reserved {
            field: &|name| is_reserved(name.into(), changes, identity_fields, withheld),
            cookie: withheld.cookie(),
        };
        let judging = Judging {
            method: &inbound.method,
            path: self.path.behind(route.settings.strip_prefix.as_deref()),
            query: self.query,
            headers: &end_to_end(&inbound.headers, inbound.seen),
            reserved: &reserved,
            caller: self.caller,
            gate: &route.gate,
        };
        judge(&judging).await
    }

    /// What the head is written from; `length`: of the body as it is sent.
    pub fn outgoing(
        &self,
        length: Option<u64>,
        upgrade: Option<&'a HeaderValue>,
        request_id: &'a HeaderValue,
    ) -> Outgoing<'a> {
        let Onward { peer, inbound, host, client, path, query, route, upstream, withheld, identity_fields, .. } = *self;
        Outgoing {
            method: &inbound.method,
            version: inbound.version,
            path,
            query,
            host,
            headers: &inbound.headers,
            seen: inbound.seen,
            route,
            host_rule: upstream.host(),
            told: Told { peer, host, prefix: route.settings.strip_prefix.as_deref(), headers: &inbound.headers },
            client,
            uwsgi_params: &upstream.settings.uwsgi_params,
            request_id,
            upgrade,
            framing: sent_framing(&inbound.method, inbound.seen.has(Notable::ContentLength), length),
            identity: self.caller.identity().zip(route.settings.forward_identity.as_ref()),
            identity_fields,
            withheld,
        }
    }

    /// What a server is chosen by.
    pub fn choose_by(&self) -> ChooseBy<'a> {
        ChooseBy { client: self.client, key: hash_value(self.upstream, &self.inbound.headers) }
    }
}
