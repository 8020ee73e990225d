//! What a message says of the connection it came over: whether that lives on, and which fields belong to it alone.

use http::header::{CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Version};

use super::head::{Notable, Seen};
use crate::headers::{Headers, Name};

/// Fields that belong to one connection, never to the message (RFC 9110 section 7.6.1), and their old relatives.
static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Whether a field belongs to one connection whatever `Connection` says.
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
    let listed: Vec<HeaderName> = options(headers).filter_map(|option| HeaderName::from_bytes(option).ok()).collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
    fn whatever_is_hop_by_hop_is_noted_as_such() {
        for name in &HOP_BY_HOP {
            assert!(is_hop_by_hop(name.into()), "{name}");
        }
    }
}
