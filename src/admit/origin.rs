//! Whose page a request comes from: a browser sends a cookie whoever made it send the request.
//!
//! What changes something, or opens a WebSocket, must come from a page of this site, or of an origin that `cors` names.

use http::Method;
use http::header::ORIGIN;

use super::gate::Asking;
use crate::headers::Value;

/// Whether a cookie may speak for the caller in this request.
pub fn fits(asking: &Asking<'_>) -> bool {
    let harmless = matches!(*asking.method, Method::GET | Method::HEAD | Method::OPTIONS) && !asking.upgrade;
    harmless || is_named(asking)
}

fn is_named(asking: &Asking<'_>) -> bool {
    let mut origins = asking.headers.get_all(ORIGIN);
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    asking.cors.is_some_and(|cors| cors.names(origin)) || is_own(origin, asking)
}

/// Whether a page of this very host made the request. Over TLS a page that came without it may be anybody's.
fn is_own(origin: Value<'_>, asking: &Asking<'_>) -> bool {
    let Some(host) = asking.host else { return false };
    let origin = origin.as_bytes();
    let forwarded = || asking.headers.get(crate::request::names::X_FORWARDED_PROTO);
    let secure = asking.peer.tls || (asking.peer.trusted && forwarded().is_some_and(|proto| proto == "https"));
    let after = |scheme: &str| {
        let (before, rest) = origin.split_at_checked(scheme.len())?;
        before.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    let (authority, default_port) = match (after("https://"), after("http://")) {
        (Some(authority), _) => (authority, &b":443"[..]),
        (None, Some(authority)) if !secure => (authority, &b":80"[..]),
        (None, Some(_) | None) => return false,
    };
    let host = host.as_str().as_bytes();
    let host = host.strip_suffix(default_port).unwrap_or(host);
    authority.eq_ignore_ascii_case(host)
}
