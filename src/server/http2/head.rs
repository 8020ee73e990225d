//! From hyper's request to ours: what bounds a head, and what is put right in it.

use bytes::Bytes;
use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::body::RequestBody;
use crate::config::settings::ListenerSettings;
use crate::headers::Headers;
use crate::http1::head::Seen;
use crate::request::inbound::Inbound;
use crate::request::rejection::Cause;
use crate::server::http1::TARGET;

/// What a field takes in HTTP/1.1 beside its name and value: a colon, a blank, a line break.
const FIELD_EXTRA: usize = 4;

/// What a request line takes beside method and target.
const LINE_EXTRA: usize = 12;

/// The request as every protocol hands it over. Its head is counted as it would be in HTTP/1.1.
///
/// # Errors
/// `TargetTooLong`, or `HeadersTooLarge` past `max_header_bytes` or `max_headers`.
pub(super) fn inbound(mut parts: Parts, body: RequestBody, settings: &ListenerSettings) -> Result<Inbound, Cause> {
    join_cookies(&mut parts.headers);
    let authority = parts.uri.authority().map(|authority| Bytes::copy_from_slice(authority.as_str().as_bytes()));
    let target = match parts.uri.path_and_query() {
        Some(target) => Bytes::copy_from_slice(target.as_str().as_bytes()),
        // CONNECT alone has none.
        None => authority.clone().unwrap_or_default(),
    };
    if target.len() > TARGET.min(settings.max_header_bytes) {
        return Err(Cause::TargetTooLong);
    }
    let host = authority.as_ref().map_or(0, Bytes::len);
    let line = parts.method.as_str().len().saturating_add(target.len()).saturating_add(host).saturating_add(LINE_EXTRA);
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_EXTRA);
    if parts.headers.len() > settings.max_headers
        || fields.fold(line, usize::saturating_add) > settings.max_header_bytes
    {
        return Err(Cause::HeadersTooLarge);
    }
    let headers = Headers::from(parts.headers);
    Ok(Inbound {
        method: parts.method,
        version: parts.version,
        target,
        authority,
        seen: Seen::of(&headers),
        headers,
        body,
        upgradable: false,
    })
}

/// HTTP/2 lets clients send a cookie in crumbs; everything behind expects one field, RFC 9113 section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) else { return };
    let mut cookie = first.as_bytes().to_vec();
    for crumb in headers.get_all(COOKIE).iter().skip(1) {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb.as_bytes());
    }
    // Made of valid values and a valid separator.
    if let Ok(cookie) = HeaderValue::from_maybe_shared(Bytes::from(cookie)) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        join_cookies(&mut headers);
        assert_eq!(headers[COOKIE], "a=1");
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"c=\xff").unwrap());
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(headers[COOKIE].as_bytes(), b"a=1; b=2; c=\xff");
    }
}
