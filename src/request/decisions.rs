//! What is decided of a request by the snapshot alone: `handle` acts on it, `explain` tells of it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ALLOW, EXPECT, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Method, StatusCode};

use super::cors::preflight_method;
use super::inbound::Inbound;
use super::peer::Peer;
use super::plain::SERVED;
use super::rejection::{Cause, Rejection};
use super::route::{NoRoute, Route, Routes};
use super::target::{Host, NormalPath, normalise};
use crate::admit::credential::{cookies, without_parameters};
use crate::admit::gate::{Asking, Gate};
use crate::config::settings::{HashKey, PatternSegment, RouteSettings};
use crate::headers::{Headers, Value};
use crate::http1::head::Notable;
use crate::upstream::Upstream;

/// # Errors
/// `CONNECT` and `TRACE` are not.
pub fn is_served(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::CONNECT | Method::TRACE => Err(Rejection::from(Cause::MethodRefused).with_fields([(ALLOW, SERVED)])),
        _ => Ok(()),
    }
}

/// # Errors
/// It expects something else than `100-continue` (RFC 9110 section 10.1.1).
pub fn is_expected(inbound: &Inbound) -> Result<(), Cause> {
    let continues = |value: Value<'_>| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if inbound.seen.has(Notable::Expect) && !inbound.headers.get_all(EXPECT).all(continues) {
        return Err(Cause::ExpectationFailed);
    }
    Ok(())
}

/// Where a listener with `redirect_to_https` sends a client. Only to hosts that lead to a route: a made-up `Host` must
/// not decide where a browser goes.
///
/// # Errors
/// There is no such host, or nothing that can be sent as one.
pub fn to_https(
    routes: &Routes,
    port: u16,
    host: Option<&Host>,
    path: &NormalPath,
    query: Option<&[u8]>,
) -> Result<(StatusCode, HeaderValue), Rejection> {
    let host = host.map(Host::name).ok_or(Cause::BadHost)?;
    if !routes.serve_host(host) {
        return Err(Cause::NoRoute.into());
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let mark = if query.is_some() { "?" } else { "" };
    let query = std::str::from_utf8(query.unwrap_or_default()).map_err(|_| Cause::BadTarget)?;
    let location = format!("https://{host}{port}{}{mark}{query}", path.as_str());
    let location = HeaderValue::try_from(location).map_err(|_| Cause::BadTarget)?;
    Ok((StatusCode::PERMANENT_REDIRECT, location))
}

/// Why a request enters no route.
pub struct NotRouted {
    pub rejection: Rejection,
    /// Another route of the path, where none takes the method.
    pub beside: Option<Arc<Route>>,
}

impl From<Cause> for NotRouted {
    fn from(cause: Cause) -> NotRouted {
        NotRouted { rejection: cause.into(), beside: None }
    }
}

/// The route of a request: host, path, method. `%2F` is refused wherever no route allows it.
///
/// # Errors
/// Why there is none.
pub fn choose_route<'g>(
    routes: &'g Routes,
    inbound: &Inbound,
    host: Option<&Host>,
    path: &NormalPath,
) -> Result<&'g Arc<Route>, NotRouted> {
    let asked = preflight_method(&inbound.method, &inbound.headers);
    let method = asked.as_ref().unwrap_or(&inbound.method);
    let host = host.map(Host::name);
    let mut found = routes.find(host, path.as_str(), method);
    if asked.is_some() && found.as_ref().is_ok_and(|route| route.cors.is_none()) {
        // Nothing of ours to answer a preflight with: it is an OPTIONS like any other.
        found = routes.find(host, path.as_str(), &inbound.method);
    }
    match found {
        Ok(route) if path.encoded_slash && !may_hold_slashes(routes, route, host, path, method) => {
            Err(Cause::BadTarget.into())
        }
        Ok(route) => Ok(route),
        Err(_) if path.encoded_slash => Err(Cause::BadTarget.into()),
        Err(NoRoute::Path) => Err(Cause::NoRoute.into()),
        Err(NoRoute::Method { allow, beside }) => Err(NotRouted {
            rejection: Rejection::from(Cause::MethodNotAllowed).with_fields([(ALLOW, allow)]),
            beside: Some(beside),
        }),
    }
}

/// What the gate of `route` looks at.
pub fn asking<'a>(
    peer: &'a Peer,
    inbound: &'a Inbound,
    host: Option<&'a Host>,
    query: Option<&'a [u8]>,
    route: &'a Route,
) -> Asking<'a> {
    Asking {
        peer,
        method: &inbound.method,
        host,
        headers: &inbound.headers,
        query,
        upgrade: inbound.seen.has(Notable::HopByHop) && inbound.headers.contains_key(UPGRADE),
        cors: route.cors.as_ref(),
        forward_credential: route.settings.forward_credential,
    }
}

/// The query without the credentials that `gate` takes out of it; `None` where nothing else is left.
pub fn passing_query<'q>(query: Option<&'q [u8]>, gate: &Gate) -> Option<Cow<'q, [u8]>> {
    let query = query?;
    match without_parameters(query, gate.query_keys()) {
        Some(cut) => (!cut.is_empty()).then_some(Cow::Owned(cut)),
        None => Some(Cow::Borrowed(query)),
    }
}

/// Why a request got no answer of a server; one that came at a bad moment is told when to come again.
pub fn unserved(cause: Cause, upstream: &Upstream) -> Rejection {
    let rejection = Rejection::from(cause);
    match upstream.retry_after(cause) {
        Some(seconds) => rejection.with_fields([(RETRY_AFTER, HeaderValue::from(seconds))]),
        None => rejection,
    }
}

/// Whether the route takes `%2F` in this path. Python servers read it as a slash, so where that would lead past this route
/// into one that is as special or more, or is guarded in another way, the request would go round what guards that.
fn may_hold_slashes(
    routes: &Routes,
    route: &Arc<Route>,
    host: Option<&str>,
    path: &NormalPath,
    method: &Method,
) -> bool {
    if !route.settings.encoded_slashes {
        return false;
    }
    let Ok(decoded) = normalise(path.as_str().replace("%2F", "/").into()) else { return false };
    let other = match routes.find(host, decoded.as_str(), method) {
        Ok(other) => Arc::clone(other),
        Err(NoRoute::Method { beside, .. }) => beside,
        Err(NoRoute::Path) => return true,
    };
    Arc::ptr_eq(&other, route) || (depth(&other) < depth(route) && are_guarded_alike(&other.settings, &route.settings))
}

fn are_guarded_alike(one: &RouteSettings, other: &RouteSettings) -> bool {
    one.access == other.access
        && one.allow == other.allow
        && one.deny == other.deny
        && one.limits == other.limits
        && one.validate.is_some() == other.validate.is_some()
}

/// How much of a path the route's own names and parameters take.
fn depth(route: &Route) -> usize {
    let fixed = |segment: &&PatternSegment| match segment {
        PatternSegment::Literal(_) | PatternSegment::Parameter(_) => true,
        PatternSegment::Rest(_) => false,
    };
    route.settings.path.value.segments.iter().filter(fixed).count()
}

/// The value that an upstream balances by.
pub fn hash_value<'a>(upstream: &'a Upstream, headers: &'a Headers) -> Option<&'a [u8]> {
    match upstream.hash_key()? {
        HashKey::ClientIp => None,
        HashKey::Header(name) => headers.get(name).map(Value::as_bytes),
        HashKey::Cookie(name) => cookies(headers, name).next(),
    }
}
