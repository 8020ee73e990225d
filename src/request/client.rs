//! Who the client is, and what a server is told of it: `X-Forwarded-…` and `Forwarded` (RFC 7239).
//!
//! Only a peer in `trusted_proxies` may speak for another client. From anyone else these fields are dropped and
//! written anew.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use http::header::FORWARDED;
use ipnet::IpNet;

use super::names;
use super::target::{Host, LONGEST_NAME};
use crate::fields::Fields;
use crate::headers::Headers;
use crate::http1::encode::Lines;
use crate::request::peer::Peer;

/// The client's address: the connection's peer, or behind trusted peers the rightmost address that is not trusted.
pub fn address(peer: &Peer, trusted: &[IpNet], headers: &Headers) -> IpAddr {
    let mut client = peer.remote.ip().to_canonical();
    if !peer.trusted {
        return client;
    }
    let mut told = Vec::new();
    for value in headers.get_all(&names::X_FORWARDED_FOR) {
        told.extend(value.to_str().unwrap_or("-").split(',').map(str::trim));
    }
    if told.is_empty() {
        for value in headers.get_all(FORWARDED) {
            told.extend(value.to_str().unwrap_or("-").split(',').map(forwarded_for));
        }
    }
    for text in told.into_iter().rev() {
        // What cannot be read ends the chain: nobody behind it is vouched for.
        let Some(address) = parse_node(text) else { break };
        client = address;
        if !trusted.iter().any(|net| net.contains(&address)) {
            break;
        }
    }
    client
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> &str {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let node = pairs
        .into_iter()
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map_or("-", |(_, value)| value.trim());
    node.trim_matches('"')
}

/// An address, perhaps with a port, IPv6 perhaps in brackets.
fn parse_node(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

/// Whether a field of the client tells of another client, and so is written by the gateway alone.
pub fn is_forwarding_field(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded-") || matches!(name, b"forwarded" | b"x-real-ip" | b"x-original-forwarded-for")
}

/// What the forwarding fields say.
pub struct Told<'a> {
    pub peer: &'a Peer,
    pub host: Option<&'a Host>,
    /// The route's `strip_prefix`.
    pub prefix: Option<&'a str>,
    /// The request's own fields; looked at only when the peer is trusted.
    pub headers: &'a Headers,
}

/// What the forwarding fields say of a connection, the same for all of its requests.
#[derive(Clone, Debug)]
pub struct Written {
    address: String,
    port: String,
    /// `for=…`
    node: String,
    lines: RefCell<Ready>,
}

/// The lines of the last request, for the next one to the same host.
#[derive(Clone, Debug, Default)]
struct Ready {
    host: Option<Vec<u8>>,
    prefix: Option<String>,
    text: BytesMut,
}

impl Written {
    fn of(peer: &Peer) -> Written {
        let address = peer.remote.ip().to_canonical();
        Written {
            address: address.to_string(),
            port: peer.local.port().to_string(),
            node: forwarded_node(address),
            lines: RefCell::default(),
        }
    }
}

impl Ready {
    fn are_for(&self, host: Option<&Host>, prefix: Option<&str>) -> bool {
        !self.text.is_empty()
            && self.host.as_deref() == host.map(|host| &host.bytes()[..])
            && self.prefix.as_deref() == prefix
    }
}

/// `for=…` (RFC 7239 section 6).
fn forwarded_node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    }
}

impl Told<'_> {
    /// Writes every forwarding field. What a stranger is told of is the same for all its requests to one host.
    pub fn write(&self, out: &mut impl Fields) {
        match out.lines() {
            Some(lines) if !self.peer.trusted && self.is_kept() => self.write_ready(lines),
            Some(_) | None => self.write_each(out),
        }
    }

    /// Whether it is short enough to be remembered for as long as the connection is kept.
    fn is_kept(&self) -> bool {
        self.host.is_none_or(|host| host.bytes().len() <= LONGEST_NAME)
    }

    fn write_ready(&self, out: &mut BytesMut) {
        let mut ready = self.written().lines.borrow_mut();
        if !ready.are_for(self.host, self.prefix) {
            let mut text = BytesMut::new();
            self.write_each(&mut Lines(&mut text));
            let host = self.host.map(|host| host.bytes().to_vec());
            *ready = Ready { host, prefix: self.prefix.map(str::to_owned), text };
        }
        out.extend_from_slice(&ready.text);
    }

    fn write_each(&self, out: &mut impl Fields) {
        let written = self.written();
        let earlier = self.earlier(&names::X_FORWARDED_FOR);
        out.put(&names::X_FORWARDED_FOR, &[earlier.as_bytes(), written.address.as_bytes()]);
        out.put(&names::X_FORWARDED_PROTO, &[self.proto().as_bytes()]);
        out.put(&names::X_FORWARDED_PORT, &[self.port().as_bytes()]);
        let valid_host = |text: &str| Host::parse(Bytes::copy_from_slice(text.as_bytes())).is_ok();
        let host = self.trusted(&names::X_FORWARDED_HOST, valid_host).or(self.host.map(Host::as_str));
        if let Some(host) = host {
            out.put(&names::X_FORWARDED_HOST, &[host.as_bytes()]);
        }
        let (before, prefix) = self.prefixes();
        if !before.is_empty() || !prefix.is_empty() {
            out.put(&names::X_FORWARDED_PREFIX, &[before.as_bytes(), prefix.as_bytes()]);
        }
        let earlier = self.earlier(&FORWARDED);
        let (open, host, close) = match self.host {
            Some(host) => (&b";host=\""[..], &host.bytes()[..], &b"\""[..]),
            None => (&b""[..], &b""[..], &b""[..]),
        };
        let scheme = self.own_scheme().as_bytes();
        out.put(&FORWARDED, &[earlier.as_bytes(), written.node.as_bytes(), open, host, close, b";proto=", scheme]);
    }

    fn written(&self) -> &Written {
        self.peer.written.get_or_init(|| Written::of(self.peer))
    }

    fn own_scheme(&self) -> &'static str {
        if self.peer.tls { "https" } else { "http" }
    }

    /// The scheme that the client used, as a trusted peer tells it or the connection does.
    fn proto(&self) -> &str {
        let is_scheme = |text: &str| matches!(text, "http" | "https" | "ws" | "wss");
        self.trusted(&names::X_FORWARDED_PROTO, is_scheme).unwrap_or(self.own_scheme())
    }

    /// Whether the client used TLS.
    pub fn is_https(&self) -> bool {
        matches!(self.proto(), "https" | "wss")
    }

    /// The port that the client used.
    pub fn port(&self) -> &str {
        let is_port = |text: &str| text.parse::<u16>().is_ok();
        self.trusted(&names::X_FORWARDED_PORT, is_port).unwrap_or(&self.written().port)
    }

    /// What was stripped of the path: by a trusted peer, and then by the route.
    pub fn prefixes(&self) -> (&str, &str) {
        let is_prefix = |text: &str| text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        let before = self.trusted(&names::X_FORWARDED_PREFIX, is_prefix).unwrap_or_default().trim_end_matches('/');
        (before, self.prefix.unwrap_or_default())
    }

    /// A trusted peer's value, when there is one and it is of the right form.
    fn trusted(&self, name: &HeaderName, valid: impl Fn(&str) -> bool) -> Option<&str> {
        if !self.peer.trusted {
            return None;
        }
        let mut values = self.headers.get_all(name);
        let value = values.next().and_then(|value| value.to_str().ok()).filter(|text| valid(text))?;
        values.next().is_none().then_some(value)
    }

    /// What a trusted peer's list says already, with a comma behind it.
    fn earlier(&self, name: &HeaderName) -> String {
        if !self.peer.trusted {
            return String::new();
        }
        let values = self.headers.get_all(name).filter_map(|value| value.to_str().ok());
        values.flat_map(|value| [value, ", "]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(trusted: bool, remote: &str) -> Peer {
        Peer {
            listener: "l".into(),
            remote: remote.parse().expect("an address"),
            local: "192.0.2.1:8443".parse().expect("an address"),
            trusted,
            tls: true,
            certificate: None,
            written: Default::default(),
            host: Default::default(),
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> Headers {
        let field =
            |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().expect("a value"));
        fields.iter().map(field).collect()
    }

    fn client(trusted: bool, fields: &[(&'static str, &str)]) -> String {
        let nets = ["10.0.0.0/8".parse().expect("a net")];
        address(&peer(trusted, "10.0.0.1:9"), &nets, &headers(fields)).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_trusted() {
        let told = [("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.7")];
        assert_eq!(client(true, &told), "2.2.2.2");
        assert_eq!(client(false, &told), "10.0.0.1");
        assert_eq!(client(true, &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "3.3.3.3")]), "3.3.3.3");
        assert_eq!(client(true, &[("x-forwarded-for", "10.0.0.9, 10.0.0.8")]), "10.0.0.9");
        assert_eq!(client(true, &[("x-forwarded-for", "1.1.1.1, nonsense, 10.0.0.8")]), "10.0.0.8");
        assert_eq!(client(true, &[("x-forwarded-for", "[2001:db8::1]:80")]), "2001:db8::1");
        assert_eq!(client(true, &[("forwarded", "for=1.1.1.1;proto=http, for=\"[2001:db8::2]\"")]), "2001:db8::2");
        assert_eq!(client(true, &[]), "10.0.0.1");
    }

    fn told(trusted: bool, fields: &[(&'static str, &str)], prefix: Option<&str>) -> String {
        let host = Host::parse("shop.example:8443".into()).expect("a host");
        let (peer, headers) = (peer(trusted, "[::ffff:10.0.0.1]:9"), headers(fields));
        let mut out = BytesMut::new();
        Told { peer: &peer, host: Some(&host), prefix, headers: &headers }.write(&mut Lines(&mut out));
        String::from_utf8(out.to_vec()).expect("ASCII")
    }

    #[test]
    fn what_is_ready_is_for_the_same_host_and_prefix() {
        let (peer, headers) = (peer(false, "10.0.0.1:9"), Headers::new());
        let told = |host: Option<&'static str>, prefix: Option<&str>| {
            let host = host.map(|host| Host::parse(host.into()).expect("a host"));
            let told = Told { peer: &peer, host: host.as_ref(), prefix, headers: &headers };
            let (mut ready, mut anew) = (BytesMut::new(), BytesMut::new());
            told.write(&mut Lines(&mut ready));
            told.write_each(&mut Lines(&mut anew));
            assert_eq!(ready, anew, "{prefix:?}");
        };
        for (host, prefix) in [(Some("a"), None), (Some("a"), None), (Some("b"), None), (None, None), (None, None)] {
            told(host, prefix);
        }
        for (host, prefix) in [(None, Some("/p")), (Some("b"), Some("/p")), (Some("b"), Some("/q")), (Some("b"), None)]
        {
            told(host, prefix);
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let fields = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=6.6.6.6"),
        ];
        assert_eq!(
            told(false, &fields, Some("/shop")),
            "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-port: 8443\r\n\
             x-forwarded-host: shop.example:8443\r\nx-forwarded-prefix: /shop\r\n\
             forwarded: for=10.0.0.1;host=\"shop.example:8443\";proto=https\r\n"
        );
    }

    #[test]
    fn a_trusted_peer_is_added_to() {
        let fields = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-prefix", "/outer/"),
            ("forwarded", "for=6.6.6.6"),
        ];
        assert_eq!(
            told(true, &fields, Some("/shop")),
            "x-forwarded-for: 6.6.6.6, 10.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-port: 80\r\n\
             x-forwarded-host: a.example\r\nx-forwarded-prefix: /outer/shop\r\n\
             forwarded: for=6.6.6.6, for=10.0.0.1;host=\"shop.example:8443\";proto=https\r\n"
        );
        assert!(told(true, &[("x-forwarded-proto", "gopher")], None).contains("x-forwarded-proto: https\r\n"));
    }
}
