//! What a message says of the connection it came over: whether that lives on, and which fields belong to it alone.

use bytes::Bytes;
use http::Version;
use http::header::CONNECTION;

use super::head::{Notable, Seen};
use crate::headers::{Headers, Name, Value};

/// Whether a field belongs to one connection, never to the message, whatever `Connection` says (RFC 9110 section 7.6.1);
/// old relatives of these too.
pub fn is_hop_by_hop(name: Name<'_>) -> bool {
    matches!(Notable::of(name.as_bytes()), Some(Notable::Connection | Notable::HopByHop | Notable::TransferEncoding))
}

/// The members of one line of a field that is a list of tokens (RFC 9110 section 5.6.1), without empty ones.
pub fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What `Connection` lists, over all its lines.
pub fn options(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    headers.get_all(CONNECTION).flat_map(|line| tokens(line.as_bytes()))
}

/// Whether the connection may carry another message after this one (RFC 9112 section 9.3).
pub fn persists(version: Version, headers: &Headers, seen: Seen) -> bool {
    let mut persists = version == Version::HTTP_11;
    if !seen.has(Notable::Connection) {
        return persists;
    }
    for option in options(headers) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        persists |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    persists
}

/// Removes what belonged to the connection that a message came over: the fields that `Connection` lists too.
pub fn remove_hop_by_hop(headers: &mut Headers) {
    let lines: Vec<Bytes> = headers.get_all(CONNECTION).map(Value::bytes).collect();
    let is_listed = |name: Name<'_>| {
        lines.iter().flat_map(|line| tokens(line)).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    };
    headers.retain(|name| !is_hop_by_hop(name) && !is_listed(name));
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn with(connection: &[&'static str]) -> Headers {
        connection.iter().map(|line| (CONNECTION, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn a_connection_persists_as_its_version_and_its_options_say() {
        let cases: [(Version, &[&'static str], bool); 9] = [
            (Version::HTTP_11, &[], true),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_11, &["close"], false),
            (Version::HTTP_11, &["x", "a ,\tClose"], false),
            (Version::HTTP_11, &["closed"], true),
            (Version::HTTP_10, &["Keep-Alive"], true),
            (Version::HTTP_10, &["keep-alive", "close"], false),
            (Version::HTTP_11, &["keep-alive, , upgrade"], true),
            (Version::HTTP_10, &["upgrade"], false),
        ];
        for (version, connection, expected) in cases {
            let headers = with(connection);
            assert_eq!(persists(version, &headers, Seen::of(&headers)), expected, "{version:?} {connection:?}");
        }
    }

    #[test]
    fn what_belongs_to_a_connection_ends_with_it() {
        let mut headers = with(&["X-One, te", "bad name, x-two"]);
        for name in ["x-one", "x-two", "x-three", "te", "keep-alive", "upgrade", "proxy-connection"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(Name::as_str).collect::<Vec<_>>(), ["x-three"]);
    }

    #[test]
    fn some_belong_to_it_whatever_it_lists() {
        let names = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-authentication-info",
            "te",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
        ];
        for name in names {
            assert!(is_hop_by_hop((&HeaderName::from_static(name)).into()), "{name}");
        }
        assert!(!is_hop_by_hop((&http::header::TRAILER).into()));
    }
}
