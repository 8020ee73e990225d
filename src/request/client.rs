//! Who the client is, and what a server is told of it: `X-Forwarded-…` and `Forwarded` (RFC 7239).
//!
//! Only a peer in `trusted_proxies` may speak for another client. From anyone else these fields are dropped and
//! written anew.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::names;
use super::target::Host;
use crate::http1::encode::field;
use crate::request::peer::Peer;

/// The client's address: the connection's peer, or behind trusted peers the rightmost address that is not trusted.
pub fn address(peer: &Peer, trusted: &[IpNet], headers: &HeaderMap) -> IpAddr {
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
pub fn is_forwarding_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "x-original-forwarded-for")
}

/// What the forwarding fields say.
pub struct Told<'a> {
    pub peer: &'a Peer,
    pub host: Option<&'a Host>,
    /// The route's `strip_prefix`.
    pub prefix: Option<&'a str>,
    /// The request's own fields; looked at only when the peer is trusted.
    pub headers: &'a HeaderMap,
}

/// The parts of the forwarding fields that stay the same for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Written {
    /// `x-forwarded-for`, `-proto` and `-port` of a peer that is not believed.
    fields: String,
    /// `forwarded: for=…`
    forwarded: String,
    /// `;proto=…` and the line's end.
    proto: &'static str,
}

impl Written {
    fn of(peer: &Peer) -> Written {
        let address = peer.remote.ip().to_canonical();
        let (scheme, proto) = if peer.tls { ("https", ";proto=https\r\n") } else { ("http", ";proto=http\r\n") };
        let port = peer.local.port();
        Written {
            fields: format!(
                "x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\nx-forwarded-port: {port}\r\n"
            ),
            forwarded: format!("forwarded: {}", forwarded_node(address)),
            proto,
        }
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
    /// Writes every forwarding field.
    pub fn write(&self, out: &mut BytesMut) {
        if self.peer.trusted {
            return self.add_to_what_is_told(out);
        }
        let written = self.peer.written.get_or_init(|| Written::of(self.peer));
        out.extend_from_slice(written.fields.as_bytes());
        if let Some(host) = self.host {
            field(out, b"x-forwarded-host", host.bytes());
        }
        if let Some(prefix) = self.prefix {
            field(out, b"x-forwarded-prefix", prefix.as_bytes());
        }
        out.extend_from_slice(written.forwarded.as_bytes());
        self.write_host(out);
        out.extend_from_slice(written.proto.as_bytes());
    }

    fn write_host(&self, out: &mut BytesMut) {
        if let Some(host) = self.host {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host.bytes());
            out.extend_from_slice(b"\"");
        }
    }

    /// The same behind a trusted peer, whose word stands and whose lists grow.
    fn add_to_what_is_told(&self, out: &mut BytesMut) {
        let peer = self.peer.remote.ip().to_canonical();
        let mut text = self.earlier(&names::X_FORWARDED_FOR);
        // Writing to a string does not fail.
        let _ = write!(text, "{peer}");
        field(out, b"x-forwarded-for", text.as_bytes());

        let scheme = if self.peer.tls { "https" } else { "http" };
        let proto = self.trusted(&names::X_FORWARDED_PROTO, |text| matches!(text, "http" | "https" | "ws" | "wss"));
        field(out, b"x-forwarded-proto", proto.unwrap_or(scheme).as_bytes());
        match self.trusted(&names::X_FORWARDED_PORT, |text| text.parse::<u16>().is_ok()) {
            Some(port) => field(out, b"x-forwarded-port", port.as_bytes()),
            None => field(out, b"x-forwarded-port", itoa::Buffer::new().format(self.peer.local.port()).as_bytes()),
        }
        let valid_host = |text: &str| Host::parse(Bytes::copy_from_slice(text.as_bytes())).is_ok();
        let host = self.trusted(&names::X_FORWARDED_HOST, valid_host).or(self.host.map(Host::as_str));
        if let Some(host) = host {
            field(out, b"x-forwarded-host", host.as_bytes());
        }
        let is_prefix = |text: &str| text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        let before = self.trusted(&names::X_FORWARDED_PREFIX, is_prefix).unwrap_or_default().trim_end_matches('/');
        let prefix = self.prefix.unwrap_or_default();
        if !before.is_empty() || !prefix.is_empty() {
            field(out, b"x-forwarded-prefix", format!("{before}{prefix}").as_bytes());
        }

        out.extend_from_slice(b"forwarded: ");
        out.extend_from_slice(self.earlier(&FORWARDED).as_bytes());
        out.extend_from_slice(forwarded_node(peer).as_bytes());
        self.write_host(out);
        out.extend_from_slice(format!(";proto={scheme}\r\n").as_bytes());
    }

    /// A trusted peer's value, when there is one and it is of the right form.
    fn trusted(&self, name: &HeaderName, valid: impl Fn(&str) -> bool) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().and_then(|value| value.to_str().ok()).filter(|text| valid(text))?;
        values.next().is_none().then_some(value)
    }

    /// What a trusted peer's list says already, with a comma behind it.
    fn earlier(&self, name: &HeaderName) -> String {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
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
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().expect("a value"));
        }
        map
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
        Told { peer: &peer, host: Some(&host), prefix, headers: &headers }.write(&mut out);
        String::from_utf8(out.to_vec()).expect("ASCII")
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
