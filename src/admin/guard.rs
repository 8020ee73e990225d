//! Who may ask the admin listener.
//!
//! With `token` set, a request must carry it. Without, the listener is on loopback, and what remains to be kept out is
//! a browser of the same machine that a hostile page made ask (DNS rebinding): its `Host` is the page's own name, so
//! only addresses and `localhost` are let through. Probes carry no secrets and answer none, so `/live` and `/ready`
//! are open to all who reach them.

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Unauthorized,
    /// The request was meant for another host.
    ForeignHost,
}

/// Lets a request through, or says why not.
pub(super) fn check(request: &Parts, token: Option<&SecretString>) -> Result<(), Refusal> {
    match token {
        Some(token) if carries(request, token) => Ok(()),
        Some(_) => Err(Refusal::Unauthorized),
        None if hosts(request).all(is_local) => Ok(()),
        None => Err(Refusal::ForeignHost),
    }
}

/// RFC 6750, section 2.1; the scheme's name is not case-sensitive.
fn carries(request: &Parts, token: &SecretString) -> bool {
    let mut values = request.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, given)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
    // An empty token would be none at all.
    let expected = token.expose_secret().as_bytes();
    scheme.eq_ignore_ascii_case(b"Bearer ") && !expected.is_empty() && bool::from(given.ct_eq(expected))
}

/// Every host that the request names. Browsers always name one; a request without comes from a tool.
fn hosts(request: &Parts) -> impl Iterator<Item = &[u8]> {
    let named = request.headers.get_all(HOST).iter().map(|value| value.as_bytes());
    named.chain(request.uri.authority().map(|authority| authority.as_str().as_bytes()))
}

fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some((address, port)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return (port.is_empty() || port.starts_with(':')) && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<std::net::Ipv4Addr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(fields: &[(&str, &str)], token: Option<&str>) -> Result<(), Refusal> {
        let mut request = Request::get("/status");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, token.map(SecretString::from).as_ref())
    }

    #[test]
    fn the_token_is_demanded() {
        let token = Some("s3cret");
        assert_eq!(asked(&[("authorization", "Bearer s3cret")], token), Ok(()));
        assert_eq!(asked(&[("authorization", "bearer s3cret"), ("host", "admin.example.com")], token), Ok(()));
        for wrong in ["Bearer s3cre", "Bearer s3cret ", "Bearer", "Basic s3cret", "s3cret", ""] {
            assert_eq!(asked(&[("authorization", wrong)], token), Err(Refusal::Unauthorized), "{wrong}");
        }
        assert_eq!(asked(&[], token), Err(Refusal::Unauthorized));
        let twice = [("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")];
        assert_eq!(asked(&twice, token), Err(Refusal::Unauthorized));
        assert_eq!(asked(&[("authorization", "Bearer ")], Some("")), Err(Refusal::Unauthorized));
    }

    #[test]
    fn without_a_token_the_host_must_be_this_machine() {
        for host in ["127.0.0.1:9600", "localhost", "LocalHost.:9600", "a.localhost", "[::1]:9600", "192.0.2.1"] {
            assert_eq!(asked(&[("host", host)], None), Ok(()), "{host}");
        }
        assert_eq!(asked(&[], None), Ok(()));
        for host in ["evil.example", "evil.example:9600", "127.0.0.1.evil.example", "[::1].evil", "localhost.evil", ""]
        {
            assert_eq!(asked(&[("host", host)], None), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(asked(&[("host", "localhost"), ("host", "evil")], None), Err(Refusal::ForeignHost));
    }
}
