//! The head that a server would get, line by line, as it may be told: with the values that the gateway itself writes.

use bytes::BytesMut;
use http::uri::{Authority, PathAndQuery, Scheme};

use super::wording::{text, without_query};
use crate::config::settings::{HostHeader, Protocol};
use crate::request::client::is_forwarding_field;
use crate::request::outgoing::Outgoing;
use crate::request::rejection::Cause;
use crate::upstream::{Receiver, Upstream};

/// What decides which values may be told.
pub(super) struct Telling<'a> {
    pub(super) outgoing: &'a Outgoing<'a>,
    pub(super) upstream: &'a Upstream,
}

impl Telling<'_> {
    /// The head in the form of the server's protocol.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) fn head(&self, receiver: Receiver<'_>) -> Result<Vec<String>, Cause> {
        let mut written = BytesMut::new();
        match receiver.protocol {
            Protocol::Http1 => {
                self.outgoing.write_to(receiver, &mut written)?;
                let text = String::from_utf8_lossy(&written);
                let mut lines = text.lines().filter(|line| !line.is_empty());
                let first = lines.next().map(|line| match line.rsplit_once(' ') {
                    Some((target, version)) => format!("{} {version}", without_query(target)),
                    None => line.to_owned(),
                });
                let fields = lines.filter_map(|line| line.split_once(": "));
                Ok(first.into_iter().chain(fields.map(|(name, value)| self.field(name, value))).collect())
            }
            Protocol::Http2 => {
                let request = self.outgoing.request_to(receiver, Scheme::HTTP)?;
                let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
                let first = format!("{} {} HTTP/2", request.method(), without_query(target));
                let host = self.field("host", request.uri().authority().map_or("", Authority::as_str));
                let fields = request.headers().iter();
                let fields = fields.map(|(name, value)| self.field(name.as_str(), &text(value)));
                Ok([first, host].into_iter().chain(fields).collect())
            }
            Protocol::Uwsgi => {
                self.outgoing.write_to(receiver, &mut written)?;
                Ok(variables(&written).iter().map(|(name, value)| self.variable(name, value)).collect())
            }
        }
    }

    fn field(&self, name: &str, value: &str) -> String {
        let settings = &self.outgoing.route.settings;
        let set = settings.request_headers.set.iter().any(|(set, _)| set.as_str() == name);
        let identity = settings.forward_identity.as_ref().is_some_and(|names| names.holds(name));
        let forwarding = is_forwarding_field(name.as_bytes());
        let ours = matches!(name, "host" | "via" | "content-length" | "transfer-encoding" | "connection" | "upgrade");
        match (set, identity || forwarding || ours) {
            (true, _) => format!("{name}: (set by the route)"),
            (false, true) if name == "host" => format!("{name}: {}", self.host(value)),
            (false, true) => format!("{name}: {value}"),
            (false, false) => format!("{name}: ..."),
        }
    }

    fn host<'t>(&self, value: &'t str) -> &'t str {
        let is_secret = || self.upstream.settings.servers.iter().any(|server| server.span.is_secret());
        match self.outgoing.host_rule {
            HostHeader::Literal(_) => "(of the upstream)",
            HostHeader::Server if is_secret() => "(secret)",
            HostHeader::Server | HostHeader::Preserve => value,
        }
    }

    /// A variable of uwsgi.
    fn variable(&self, name: &str, value: &str) -> String {
        if self.outgoing.uwsgi_params.iter().any(|(set, _)| set == name) {
            return format!("{name}: (set by the upstream)");
        }
        if let Some(field) = name.strip_prefix("HTTP_") {
            let told = self.field(&field.to_ascii_lowercase().replace('_', "-"), value);
            return told.split_once(": ").map_or_else(|| format!("{name}:"), |(_, told)| format!("{name}: {told}"));
        }
        match name {
            "REQUEST_URI" => format!("{name}: {}", without_query(value)),
            "SERVER_NAME" => format!("{name}: {}", self.host(value)),
            "QUERY_STRING" if !value.is_empty() => format!("{name}: ..."),
            "CONTENT_TYPE" => format!("{name}: ..."),
            _ => format!("{name}: {value}"),
        }
    }
}

/// The variables of a packet of uwsgi.
fn variables(packet: &[u8]) -> Vec<(String, String)> {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        *rest = after;
        Some(text)
    }
    let mut rest = packet.get(4..).unwrap_or_default();
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (text(&mut rest), text(&mut rest)) {
        variables.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
    }
    variables
}
