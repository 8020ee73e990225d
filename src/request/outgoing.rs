//! The head that a server gets: what of the client's fields goes on, and what the gateway adds.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, IF_MATCH, TE, UPGRADE, VIA};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::client::{Told, is_forwarding_field};
use super::inbound::Inbound;
use super::names::X_REQUEST_ID;
use super::rejection::Cause;
use super::route::Route;
use super::target::{Host, NormalPath};
use crate::admit::credential::{Withheld, without_cookie};
use crate::admit::identity::Identity;
use crate::body::RequestBody;
use crate::config::settings::{HeaderChanges, HostHeader, IdentityHeaders, Protocol, UwsgiParams};
use crate::fields::Fields;
use crate::headers::{Headers, Name, Value};
use crate::http1::connection::{is_hop_by_hop, options, remove_hop_by_hop, tokens};
use crate::http1::encode::{Lines, content_length, field};
use crate::http1::head::{Notable, Seen};
use crate::http1::tags::tags;
use crate::upstream::forward::Head;
use crate::upstream::http1::SentFraming;
use crate::upstream::http2::Heads;
use crate::upstream::uwsgi::{Packet, TooLarge, split_host};
use crate::upstream::{Receiver, Server};

/// The upgrade that a request asks for and that may be passed on. One to HTTP/2 may not: behind it requests would
/// pass unseen.
pub fn wanted_upgrade(inbound: &Inbound, body: &RequestBody) -> Option<HeaderValue> {
    let possible = inbound.upgradable
        && inbound.seen.has(Notable::HopByHop)
        && inbound.version == Version::HTTP_11
        && inbound.method == Method::GET
        && body.length() == Some(0)
        && options(&inbound.headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    if !possible {
        return None;
    }
    let mut values = inbound.headers.get_all(UPGRADE);
    let value = values.next()?;
    let is_http = |token: &[u8]| {
        ["h2", "http/"]
            .iter()
            .any(|http| token.get(..http.len()).is_some_and(|start| start.eq_ignore_ascii_case(http.as_bytes())))
    };
    let refused = values.next().is_some() || tokens(value.as_bytes()).any(is_http);
    (!refused).then(|| value.owned())
}

/// What a server's 101 says that it switches to, when that is what was `asked` for: one field, each of its protocols
/// among those of the request.
pub fn switched_to(asked: &HeaderValue, answer: &Headers) -> Option<HeaderValue> {
    let mut values = answer.get_all(UPGRADE);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let was_asked_for = |token: &[u8]| tokens(asked.as_bytes()).any(|asked| asked.eq_ignore_ascii_case(token));
    let mut switched = tokens(value.as_bytes()).peekable();
    (switched.peek().is_some() && switched.all(was_asked_for)).then(|| value.owned())
}

/// The fields without those that `Connection` lists and that end here: a server that gets no `Content-Type` guesses, and
/// what it guesses was not judged.
pub fn end_to_end(headers: &Headers, seen: Seen) -> Cow<'_, Headers> {
    let ends = |option: &[u8]| {
        HeaderName::from_bytes(option).is_ok_and(|name| !is_hop_by_hop((&name).into()) && headers.contains_key(&name))
    };
    if !seen.has(Notable::Connection) || !options(headers).any(ends) {
        return Cow::Borrowed(headers);
    }
    let mut passing = headers.clone();
    remove_hop_by_hop(&mut passing);
    Cow::Owned(passing)
}

/// Everything of a request that its head towards a server is written from.
pub struct Outgoing<'a> {
    pub method: &'a Method,
    pub version: Version,
    pub path: &'a NormalPath,
    pub query: Option<&'a [u8]>,
    pub host: Option<&'a Host>,
    pub headers: &'a Headers,
    pub seen: Seen,
    pub route: &'a Route,
    pub host_rule: &'a HostHeader,
    pub told: Told<'a>,
    /// The client's address.
    pub client: IpAddr,
    /// What the upstream's `uwsgi_params` set.
    pub uwsgi_params: &'a UwsgiParams,
    pub request_id: &'a HeaderValue,
    pub upgrade: Option<&'a HeaderValue>,
    pub framing: SentFraming,
    /// Who is calling, where the backend is told.
    pub identity: Option<(&'a Identity, &'a IdentityHeaders)>,
    /// The names that only the gateway writes such things under.
    pub identity_fields: &'a [HeaderName],
    /// The credential, where it is not for the backend.
    pub withheld: Withheld<'a>,
}

impl Head for Outgoing<'_> {
    fn write(&self, server: &Server, out: &mut BytesMut) -> Result<(), Cause> {
        self.write_to(server.receiver(), out)
    }

    fn request(&self, server: &Server) -> Result<Request<()>, Cause> {
        self.request_to(server.receiver(), if server.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP })
    }
}

impl Outgoing<'_> {
    /// All that a server of HTTP/2 is sent before the body.
    ///
    /// # Errors
    /// `BadHost`, `BadTarget`.
    pub fn request_to(&self, server: Receiver<'_>, scheme: Scheme) -> Result<Request<()>, Cause> {
        let authority = Authority::try_from(self.host(server)).map_err(|_| Cause::BadHost)?;
        let path = self.path.behind(self.route.settings.strip_prefix.as_deref());
        let target = match self.query {
            Some(query) => [path.as_bytes(), b"?", query].concat(),
            None => path.as_bytes().to_vec(),
        };
        let target =
            PathAndQuery::try_from(target.as_slice()).or_else(|_| PathAndQuery::try_from(encode_unsafe(&target)));
        let mut uri = uri::Parts::default();
        uri.scheme = Some(scheme);
        uri.authority = Some(authority);
        uri.path_and_query = Some(target.map_err(|_| Cause::BadTarget)?);
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Cause::BadTarget)?;
        let mut heads = Heads::default();
        self.write_fields(server, &mut heads);
        if let SentFraming::Length(length) = self.framing {
            heads.add(&CONTENT_LENGTH, &HeaderValue::from(length));
        }
        if self.takes_trailers() {
            heads.put(&TE, &[b"trailers"]);
        }
        *request.headers_mut() = heads.0;
        Ok(request)
    }

    /// Writes all that a server of HTTP/1.1 or uwsgi is sent before the body.
    ///
    /// # Errors
    /// `UwsgiVariablesTooLarge`, `BadTarget`.
    pub fn write_to(&self, server: Receiver<'_>, out: &mut BytesMut) -> Result<(), Cause> {
        out.reserve(1024);
        match server.protocol {
            Protocol::Http1 | Protocol::Http2 => {
                self.write_head(server, out);
                Ok(())
            }
            // The variables hold the path decoded, and gunicorn decodes it once more.
            Protocol::Uwsgi if is_encoded_twice(self.path.as_str()) => Err(Cause::BadTarget),
            Protocol::Uwsgi => self.write_packet(server, out).map_err(|TooLarge| Cause::UwsgiVariablesTooLarge),
        }
    }

    /// Whether the client takes trailers (RFC 9110 section 6.5.1), which gRPC asks for.
    fn takes_trailers(&self) -> bool {
        let lines = || self.headers.get_all(TE);
        self.seen.has(Notable::HopByHop)
            && lines().any(|line| tokens(line.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers")))
    }

    fn write_head(&self, server: Receiver<'_>, out: &mut BytesMut) {
        self.write_request_line(out);
        self.write_fields(server, &mut Lines(out));
        match self.framing {
            SentFraming::None => {}
            SentFraming::Length(length) => content_length(out, length),
            SentFraming::Chunked => field(out, b"transfer-encoding", b"chunked"),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What CGI, and WSGI after it, call what a head says.
    fn write_packet(&self, server: Receiver<'_>, out: &mut BytesMut) -> Result<(), TooLarge> {
        let mut packet = Packet::begin(out, self.uwsgi_params);
        let prefix = self.route.settings.strip_prefix.as_deref();
        let (before, stripped) = self.told.prefixes();
        let query = self.query.unwrap_or_default();
        let mark: &[u8] = if self.query.is_some() { b"?" } else { b"" };
        packet.var("REQUEST_METHOD", &[self.method.as_str().as_bytes()]);
        packet.var("REQUEST_URI", &[self.path.as_str().as_bytes(), mark, query]);
        packet.decoded("SCRIPT_NAME", &[before, stripped]);
        packet.decoded("PATH_INFO", &[self.path.behind(prefix)]);
        packet.var("QUERY_STRING", &[query]);
        // uWSGI answers in the version that it reads here.
        packet.var("SERVER_PROTOCOL", &[b"HTTP/1.1"]);
        packet.var("SERVER_NAME", &[split_host(self.host(server)).0]);
        packet.var("SERVER_PORT", &[self.told.port().as_bytes()]);
        packet.var("REMOTE_ADDR", &[self.client.to_string().as_bytes()]);
        let peer = self.told.peer.remote;
        if peer.ip().to_canonical() == self.client {
            packet.var("REMOTE_PORT", &[itoa::Buffer::new().format(peer.port()).as_bytes()]);
        }
        if self.told.is_https() {
            packet.var("REQUEST_SCHEME", &[b"https"]);
            packet.var("HTTPS", &[b"on"]);
        } else {
            packet.var("REQUEST_SCHEME", &[b"http"]);
        }
        if let Some((identity, _)) = self.identity {
            packet.var("REMOTE_USER", &[identity.told_subject()]);
        }
        // A body whose length nobody knows was taken in whole before.
        if let SentFraming::Length(length) = self.framing {
            packet.var("CONTENT_LENGTH", &[itoa::Buffer::new().format(length).as_bytes()]);
        }
        self.write_fields(server, &mut packet);
        if self.upgrade.is_none() {
            // gunicorn would wait for another request.
            packet.put(&CONNECTION, &[b"close"]);
        }
        packet.finish()
    }

    fn host<'s>(&'s self, server: Receiver<'s>) -> &'s [u8] {
        match (self.host_rule, self.host) {
            (HostHeader::Preserve, Some(host)) => host.bytes(),
            (HostHeader::Preserve, None) | (HostHeader::Server, _) => server.host.as_bytes(),
            (HostHeader::Literal(host), _) => host.as_bytes(),
        }
    }

    /// Every field but those that frame the body, whatever they are written into.
    fn write_fields<F: Fields>(&self, server: Receiver<'_>, out: &mut F) {
        out.put(&HOST, &[self.host(server)]);
        let listed: Vec<&[u8]> =
            if self.seen.has(Notable::Connection) { options(self.headers).collect() } else { Vec::new() };
        match out.lines() {
            Some(lines) if !self.changes_some() => {
                self.headers.write_lines(lines, |name| self.goes_on(name, &listed));
            }
            Some(_) | None => {
                let pass = |(name, value)| {
                    if self.goes_on(name, &listed) {
                        self.pass_on(name, value, out);
                    }
                };
                if F::SORTED {
                    self.headers.sorted().into_iter().for_each(pass)
                } else {
                    self.headers.iter().for_each(pass)
                }
            }
        }
        if let Some((identity, names)) = self.identity {
            identity.write(names, out);
        }
        for (name, value) in &self.route.settings.request_headers.set {
            out.add(name, value);
        }
        self.told.write(out);
        out.add(&X_REQUEST_ID, self.request_id);
        self.write_via(out);
        if let Some(upgrade) = self.upgrade {
            out.put(&CONNECTION, &[b"upgrade"]);
            out.add(&UPGRADE, upgrade);
        }
    }

    /// Whether a field that goes on may go on with another value.
    fn changes_some(&self) -> bool {
        let cuts_cookie = match self.withheld {
            Withheld::Cookie(_) => true,
            Withheld::Nothing | Withheld::Authorization | Withheld::Header(_) => false,
        };
        cuts_cookie || (self.route.settings.compress && self.headers.contains_key(IF_MATCH))
    }

    fn pass_on(&self, name: Name<'_>, value: Value<'_>, out: &mut impl Fields) {
        if name == IF_MATCH && self.route.settings.compress {
            return out.put(name, &[&also_strong(value.as_bytes())]);
        }
        match self.withheld {
            Withheld::Cookie(cookie) if name == COOKIE => {
                if let Some(rest) = without_cookie(value.as_bytes(), cookie) {
                    out.put(name, &[&rest]);
                }
            }
            Withheld::Nothing | Withheld::Authorization | Withheld::Header(_) | Withheld::Cookie(_) => {
                out.add(name, value);
            }
        }
    }

    fn write_request_line(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.extend_from_slice(b" ");
        // The very path that was judged.
        out.extend_from_slice(self.path.behind(self.route.settings.strip_prefix.as_deref()).as_bytes());
        if let Some(query) = self.query {
            out.extend_from_slice(b"?");
            out.extend_from_slice(query);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    /// `listed`: what the request's `Connection` lists.
    fn goes_on(&self, name: Name<'_>, listed: &[&[u8]]) -> bool {
        !is_reserved(name, &self.route.settings.request_headers, self.identity_fields, self.withheld)
            && !listed.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// RFC 9110 section 7.6.3.
    fn write_via(&self, out: &mut impl Fields) {
        let mut earlier = Vec::new();
        if self.seen.has(Notable::Via) {
            for value in self.headers.get_all(VIA) {
                earlier.extend_from_slice(value.as_bytes());
                earlier.extend_from_slice(b", ");
            }
        }
        let version: &[u8] = match self.version {
            Version::HTTP_10 => b"1.0",
            Version::HTTP_2 => b"2.0",
            _ => b"1.1",
        };
        out.put(&VIA, &[&earlier, version, b" passerelle"]);
    }
}

/// Whether a path in its one form, decoded, could be decoded again and be another.
fn is_encoded_twice(path: &str) -> bool {
    let mut parts = path.split("%25");
    parts.next();
    parts.any(|rest| rest.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)))
}

/// The tags of `If-Match`, weak ones in both forms: those of compressed answers were weakened by the gateway, and weak ones
/// never match there (RFC 9110 section 13.1.1); but some services give weak ones themselves and look for them.
fn also_strong(line: &[u8]) -> Cow<'_, [u8]> {
    let tags: Vec<&[u8]> =
        tags(line).flat_map(|tag| [Some(tag), tag.strip_prefix(b"W/".as_slice())]).flatten().collect();
    if tags.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(tags.join(&b", "[..])) }
}

/// Whether the gateway writes the field itself or takes it away, so that nothing that a client sends under this name
/// goes on.
pub fn is_reserved(
    name: Name<'_>,
    changes: &HeaderChanges,
    identity_fields: &[HeaderName],
    withheld: Withheld<'_>,
) -> bool {
    let text = name.as_bytes();
    let is_withheld = match withheld {
        Withheld::Nothing | Withheld::Cookie(_) => false,
        Withheld::Authorization => name == AUTHORIZATION,
        Withheld::Header(header) => name == *header,
    };
    // Python servers turn both dashes and underscores into underscores: what one guards, the other could forge.
    // `Proxy` becomes HTTP_PROXY there.
    matches!(text, b"host" | b"content-length" | b"expect" | b"via" | b"x-request-id" | b"proxy")
        || is_hop_by_hop(name)
        || is_forwarding_field(text)
        || text.contains(&b'_')
        || identity_fields.iter().any(|field| name == *field)
        || is_withheld
        || changes.remove.iter().any(|removed| name == *removed)
        || changes.set.iter().any(|(set, _)| is_same_variable(set, name))
}

/// Whether two fields are one to a Python server, which tells neither case nor underscores from dashes.
fn is_same_variable(one: &HeaderName, other: Name<'_>) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let (one, other) = (one.as_str().as_bytes(), other.as_bytes());
    one.len() == other.len() && one.iter().map(plain).eq(other.iter().map(plain))
}

/// The framing towards the server of a body of this length; a method that means to send one says so even of none.
pub fn sent_framing(method: &Method, stated: bool, length: Option<u64>) -> SentFraming {
    let expects = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    match length {
        None => SentFraming::Chunked,
        Some(0) if !expects && !stated => SentFraming::None,
        Some(length) => SentFraming::Length(length),
    }
}

/// A target with the bytes as percent codes that clients send as they are and RFC 3986 knows only so.
fn encode_unsafe(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len().saturating_add(16));
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|' | b'^' | 0x80.. => {
                encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            byte => encoded.push(byte),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_writes_or_takes_away_is_not_the_clients() {
        let name = |text: &str| text.parse::<HeaderName>().unwrap();
        let changes = HeaderChanges {
            set: vec![(name("x-tenant"), HeaderValue::from_static("a"))],
            remove: vec![name("x-debug")],
        };
        let reserved = |text: &str, withheld: Withheld<'_>| {
            is_reserved((&name(text)).into(), &changes, &[name("x-auth-subject")], withheld)
        };
        for ours in [
            "X-Auth-Subject",
            "X-Tenant",
            "X-Debug",
            "X-Request-Id",
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
            "Via",
            "Host",
            "a_b",
        ] {
            assert!(reserved(ours, Withheld::Nothing), "{ours}");
        }
        assert!(!reserved("X-Page", Withheld::Nothing) && !reserved("X-Key", Withheld::Cookie("x-key")));
        assert!(
            reserved("X-Key", Withheld::Header(&name("x-key"))) && reserved("Authorization", Withheld::Authorization)
        );
    }

    #[test]
    fn whatever_a_target_may_hold_has_a_form_for_http2() {
        let refused_anyway = |byte: &u8| byte.is_ascii_control() || *byte == b' ';
        for byte in (0..=u8::MAX).filter(|byte| !refused_anyway(byte)) {
            for target in [[b'/', byte].to_vec(), [b"/?", [byte].as_slice()].concat()] {
                assert!(PathAndQuery::try_from(encode_unsafe(&target)).is_ok(), "{byte:#x}");
            }
        }
        assert_eq!(encode_unsafe(b"/a?q=\"<\xe9%22"), b"/a?q=%22%3C%E9%22");
    }

    #[test]
    fn only_what_was_asked_for_is_switched_to() {
        let switched = |asked: &'static str, answers: &[&'static str]| {
            let mut answer = Headers::new();
            for value in answers {
                answer.append(UPGRADE, HeaderValue::from_static(value));
            }
            switched_to(&HeaderValue::from_static(asked), &answer).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(switched("websocket", &["WebSocket"]).as_deref(), Some("WebSocket"));
        assert_eq!(switched("foo, websocket", &["websocket"]).as_deref(), Some("websocket"));
        for answers in [&[][..], &[""], &["h2c"], &["websocket, h2c"], &["websocket", "websocket"]] {
            assert_eq!(switched("websocket", answers), None, "{answers:?}");
        }
    }
}
