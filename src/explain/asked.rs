//! The request that is asked about, made into one as it would arrive.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use serde::{Deserialize, Serialize};

use crate::body::RequestBody;
use crate::config::settings::{ListenAddress, ListenerSettings};
use crate::gateway::Gateway;
use crate::http1::framing::{self, Framing};
use crate::http1::head::{HeadError, HeadScan, Kind, Limits, take_request};
use crate::request::inbound::Inbound;
use crate::request::peer::Peer;
use crate::request::rejection::Cause;
use crate::server::http1::{cause_of, limits};

/// A request that nobody sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub method: String,
    /// Whether the client speaks TLS: `https://`.
    pub tls: bool,
    /// The URL's host, and its port where it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path and the query.
    pub target: String,
    /// In their order; a `Host` among them goes before `host`.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// In base64; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Whose connection it comes by; absent: 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The `[listener.NAME]` that it arrives at; absent: the one that fits the URL best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
}

/// Why something cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unaskable {
    /// The configuration has none of this name.
    Listener {
        wanted: String,
        there_are: Vec<String>,
    },
    /// A line break in something that is one line.
    LineBreak(&'static str),
    Body,
}

impl fmt::Display for Unaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unaskable::Listener { wanted, there_are } if there_are.is_empty() => {
                write!(f, "there is no listener `{}`: the configuration has none", wanted.escape_debug())
            }
            Unaskable::Listener { wanted, there_are } => {
                write!(f, "there is no listener `{}`: there are {}", wanted.escape_debug(), there_are.join(", "))
            }
            Unaskable::LineBreak(what) => write!(f, "{what} has a line break in it"),
            Unaskable::Body => f.write_str("the body is not base64"),
        }
    }
}

impl std::error::Error for Unaskable {}

/// A request as its connection would hand it over.
pub(super) struct Arrived {
    pub(super) inbound: Inbound,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: u64,
    /// The head states another length than the body has that is here.
    pub(super) body_is_elsewhere: bool,
}

/// Why a head is not read.
pub(super) struct Unread {
    pub(super) cause: Cause,
    /// The bound that it exceeds, a key of the listener.
    pub(super) bound: Option<&'static str>,
}

impl Unread {
    /// `length`: of the head, in bytes.
    fn of(error: HeadError, length: usize, bounds: &Limits) -> Unread {
        let bound = match error {
            HeadError::TooLarge if length <= bounds.bytes => Some("max_headers"),
            HeadError::TooLarge | HeadError::TargetTooLong => Some("max_header_bytes"),
            HeadError::Malformed | HeadError::Version => None,
        };
        Unread { cause: cause_of(error), bound }
    }
}

impl Asked {
    pub(super) fn check(&self) -> Result<(), Unaskable> {
        let broken = |text: &str| text.contains(['\r', '\n']);
        for (what, text) in [("the method", &self.method), ("the target", &self.target)] {
            if broken(text) {
                return Err(Unaskable::LineBreak(what));
            }
        }
        if self.host.as_deref().is_some_and(broken) {
            return Err(Unaskable::LineBreak("the host"));
        }
        if self.headers.iter().any(|(name, value)| broken(name) || broken(value)) {
            return Err(Unaskable::LineBreak("a header"));
        }
        self.body().map(drop)
    }

    fn body(&self) -> Result<Bytes, Unaskable> {
        let decoded = self.body.as_ref().map(|text| STANDARD.decode(text).map_err(|_| Unaskable::Body)).transpose()?;
        Ok(decoded.unwrap_or_default().into())
    }

    /// The listener that it arrives at: the one that is named, or of those that speak TLS or do not, as the URL does,
    /// the one at the URL's port, or the one that fits the scheme better. `None`: the configuration has none.
    pub(super) fn arrives_at<'g>(
        &self,
        gateway: &'g Gateway,
    ) -> Result<(&'g str, Option<&'g ListenerSettings>), Unaskable> {
        // Of equals the last is taken.
        let listeners = gateway.listeners.iter().rev().map(|(name, listener)| (&**name, &listener.settings));
        if let Some(wanted) = &self.listener {
            let found = listeners.clone().find(|(name, _)| name == wanted);
            let there_are = || listeners.rev().map(|(name, _)| name.to_owned()).collect();
            return found
                .map(|(name, settings)| (name, Some(settings)))
                .ok_or_else(|| Unaskable::Listener { wanted: wanted.clone(), there_are: there_are() });
        }
        let port = self.port();
        let best = listeners.max_by_key(|(_, settings)| {
            let fits = settings.tls.is_some() == self.tls;
            // Behind a proxy that ends TLS, what came by https arrives where nobody is sent elsewhere.
            let suits = settings.redirect_to_https.is_some() != self.tls;
            let at_port = settings.addresses.iter().any(|address| match &address.value {
                ListenAddress::Socket(address) => address.port() == port,
                ListenAddress::Systemd(_) => false,
            });
            (fits, at_port, suits)
        });
        Ok(best.map_or(("", None), |(name, settings)| (name, Some(settings))))
    }

    fn port(&self) -> u16 {
        let written = self.host.as_ref().and_then(|host| host.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// The port of the listener: of its addresses the one that the URL has, or its first. That of the URL where no
    /// address says one.
    fn arrives_on(&self, settings: Option<&ListenerSettings>) -> u16 {
        let addresses = settings.into_iter().flat_map(|settings| &settings.addresses);
        let ports = addresses.filter_map(|address| match &address.value {
            ListenAddress::Socket(address) => Some(address.port()).filter(|port| *port != 0),
            ListenAddress::Systemd(_) => None,
        });
        let port = self.port();
        ports.clone().find(|of_listener| *of_listener == port).or(ports.clone().next()).unwrap_or(port)
    }

    /// Whom it comes from.
    pub(super) fn peer(&self, listener: &str, settings: Option<&ListenerSettings>) -> Peer {
        let client = self.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let trusted = settings.is_some_and(|settings| {
            let client = client.to_canonical();
            settings.trusted_proxies.iter().any(|net| net.contains(&client))
        });
        Peer {
            listener: Arc::from(listener),
            remote: SocketAddr::new(client, 50_000),
            local: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.arrives_on(settings)),
            trusted,
            tls: settings.map_or(self.tls, |settings| settings.tls.is_some()),
            certificate: None,
            written: Default::default(),
            host: Default::default(),
        }
    }

    /// Reads it as a connection of HTTP/1.1 would.
    ///
    /// # Errors
    /// What such a head is refused for.
    pub(super) fn arrive(&self, settings: Option<&ListenerSettings>) -> Result<Arrived, Unread> {
        let body = self.body().unwrap_or_default();
        let mut head = BytesMut::from(self.head(body.len()).as_slice());
        let bounds = settings.map_or(Limits { bytes: 32 * 1024, target: 8 * 1024, fields: 100 }, limits);
        let written = head.len();
        let unread = |error| Unread::of(error, written, &bounds);
        let found = HeadScan::default().advance(&head, &bounds, Kind::Request).map_err(unread)?;
        let length = found.ok_or(HeadError::Malformed).map_err(unread)?;
        let head = take_request(&mut head, length, &bounds).map_err(unread)?;
        let framing = framing::of_request(head.version, &head.headers, head.seen);
        let framing = framing.map_err(|_| Unread { cause: Cause::AmbiguousFraming, bound: None })?;
        let here = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let (stated, body_is_elsewhere) = match framing {
            Framing::None => (Some(0), here != 0),
            Framing::Length(length) => (Some(length), here != length),
            Framing::Chunked | Framing::UntilClose => (None, self.body.is_none()),
        };
        let inbound = Inbound {
            method: head.method,
            version: head.version,
            target: head.target,
            authority: None,
            headers: head.headers,
            seen: head.seen,
            body: match framing {
                Framing::None => RequestBody::Empty,
                Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                    RequestBody::Stream(Box::pin(Given { pieces: [body].into(), stated }))
                }
            },
            upgradable: true,
        };
        Ok(Arrived { inbound, head_bytes: length, body_bytes: here, body_is_elsewhere })
    }

    fn head(&self, body: usize) -> Vec<u8> {
        let names = |name: &str| self.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = self.host.as_ref().filter(|_| !names("host")) {
            head.extend(["host: ", host, "\r\n"]);
        }
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if self.body.is_some() && !names("content-length") && !names("transfer-encoding") {
            head.push_str(&format!("content-length: {body}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// A body that is here, of the length that its head states.
struct Given {
    pieces: VecDeque<Bytes>,
    stated: Option<u64>,
}

impl Body for Given {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let piece = self.pieces.pop_front().filter(|piece| !piece.is_empty());
        Poll::Ready(piece.map(|piece| {
            self.stated = self.stated.map(|stated| stated.saturating_sub(piece.len() as u64));
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.stated.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
