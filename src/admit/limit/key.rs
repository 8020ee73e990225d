//! Whose requests are counted together.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use http::HeaderName;

use crate::admit::Caller;
use crate::admit::identity::Method;
use crate::config::settings::LimitKey;
use crate::headers::{Headers, Value};

/// What one request is counted under. Of different kinds, none is equal to another.
#[derive(Clone, Copy)]
pub enum CountedBy<'a> {
    Network(u128),
    /// A caller nobody knows, on a route that is open: a space of its own.
    Anonymous(u128),
    Subject(&'a str),
    ApiKey(&'a str),
    Header(&'a Headers, &'a HeaderName),
    Route(&'a str),
}

/// An address, or the /64 of one: whoever has one IPv6 address has all of those.
fn network(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        // Past all that an IPv4 address can be.
        IpAddr::V6(address) => (address.to_bits() >> 64 << 64) | (1 << 63),
    }
}

impl<'a> CountedBy<'a> {
    /// `None`: such requests are not counted.
    pub fn new(
        key: &'a LimitKey,
        client: IpAddr,
        headers: &'a Headers,
        route: &'a str,
        caller: &'a Caller,
    ) -> Option<CountedBy<'a>> {
        match (key, caller) {
            (LimitKey::ClientIp, _) => Some(CountedBy::Network(network(client))),
            (LimitKey::Header(name), _) => Some(CountedBy::Header(headers, name)),
            (LimitKey::Route, _) => Some(CountedBy::Route(route)),
            (LimitKey::Subject, Caller::Known(identity)) => Some(CountedBy::Subject(identity.qualified())),
            (LimitKey::Subject, Caller::Anonymous) => Some(CountedBy::Anonymous(network(client))),
            (LimitKey::ApiKey, Caller::Known(identity)) if identity.method() == Method::ApiKey => {
                Some(CountedBy::ApiKey(identity.qualified()))
            }
            (LimitKey::ApiKey, Caller::Known(_) | Caller::Anonymous) => None,
        }
    }

    /// The bytes that tell it from all others, piece by piece.
    pub fn bytes(&self, mut take: impl FnMut(&[u8])) {
        match self {
            CountedBy::Network(network) => {
                take(b"i");
                take(&network.to_be_bytes());
            }
            CountedBy::Anonymous(network) => {
                take(b"a");
                take(&network.to_be_bytes());
            }
            CountedBy::Subject(subject) => {
                take(b"s");
                take(subject.as_bytes());
            }
            CountedBy::ApiKey(name) => {
                take(b"k");
                take(name.as_bytes());
            }
            // Several fields of one name are one, in pieces (RFC 9110 section 5.3); none is not the same as empty.
            CountedBy::Header(headers, name) => {
                take(b"h");
                for (index, value) in headers.get_all(*name).map(Value::as_bytes).enumerate() {
                    take(if index == 0 { b"=" } else { b", " });
                    take(value);
                }
            }
            CountedBy::Route(route) => {
                take(b"r");
                take(route.as_bytes());
            }
        }
    }
}

impl Hash for CountedBy<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes(|bytes| state.write(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::admit::identity::Identity;

    fn bytes(
        key: &LimitKey,
        client: &str,
        headers: &[(&'static str, &'static str)],
        caller: &Caller,
    ) -> Option<Vec<u8>> {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let map: Headers = headers.iter().map(field).collect();
        let by = CountedBy::new(key, client.parse().unwrap(), &map, "orders", caller)?;
        let mut all = Vec::new();
        by.bytes(|bytes| all.extend_from_slice(bytes));
        Some(all)
    }

    fn known(auth: &str, method: Method, subject: &str) -> Caller {
        Caller::Known(Arc::new(Identity::new(&Arc::from(auth), method, subject, [], [])))
    }

    #[test]
    fn addresses_count_by_network() {
        let of = |client: &str| bytes(&LimitKey::ClientIp, client, &[], &Caller::Anonymous).unwrap();
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("0.0.0.1"), of("::1"));
    }

    #[test]
    fn callers_count_by_their_qualified_name() {
        let of = |caller: &Caller| bytes(&LimitKey::Subject, "192.0.2.1", &[], caller).unwrap();
        assert_ne!(of(&known("staff", Method::Jwt, "alice")), of(&known("ops", Method::Basic, "alice")));
        assert_eq!(of(&known("staff", Method::Jwt, "alice")), of(&known("staff", Method::Jwt, "alice")));
        let by_address = bytes(&LimitKey::ClientIp, "192.0.2.1", &[], &Caller::Anonymous).unwrap();
        assert_ne!(of(&Caller::Anonymous), by_address, "a space of their own");
    }

    #[test]
    fn only_callers_with_an_api_key_count_by_it() {
        let of = |caller: &Caller| bytes(&LimitKey::ApiKey, "192.0.2.1", &[], caller);
        assert!(of(&known("partners", Method::ApiKey, "acme")).is_some());
        assert_eq!(of(&known("staff", Method::Jwt, "acme")), None);
        assert_eq!(of(&Caller::Anonymous), None);
    }

    #[test]
    fn repeated_fields_are_one_and_none_is_not_empty() {
        let key = LimitKey::Header(HeaderName::from_static("x-tenant"));
        let of = |headers: &[(&'static str, &'static str)]| bytes(&key, "192.0.2.1", headers, &Caller::Anonymous);
        assert_eq!(of(&[("x-tenant", "a"), ("x-tenant", "b")]), of(&[("x-tenant", "a, b")]));
        assert_ne!(of(&[]), of(&[("x-tenant", "")]));
        assert_ne!(of(&[("x-tenant", "a")]), of(&[("x-tenant", "b")]));
    }
}
