//! What is remembered of a request until it has ended: then it is counted and told, once, however it ended.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::USER_AGENT;
use http::{HeaderValue, Method, StatusCode, Version};
use tokio::time::Instant;

use super::inbound::Inbound;
use super::names::{TRACEPARENT, X_REQUEST_ID};
use super::rejection::Cause;
use super::route::{Action, Route};
use super::target::{Host, NormalPath};
use crate::admit::identity::Identity;
use crate::admit::limit::Held;
use crate::body::{OnEnd, Outcome};
use crate::clock;
use crate::headers::Value;
use crate::observe::access::{self, AccessRecord};
use crate::observe::metrics::Finished;
use crate::request::peer::Peer;
use crate::upstream::journey::Journey;
use crate::worker::Worker;

/// The longest request ID that is taken over from a trusted peer.
const LONGEST_ID: usize = 128;

/// What a request is recorded with whose client left before its answer; no client ever sees it.
pub fn client_closed() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// A request in the making of its record; written when dropped.
pub struct Record {
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    began: Instant,
    pub request_id: HeaderValue,
    pub client: IpAddr,
    method: Method,
    version: Version,
    pub host: Option<Host>,
    pub path: Option<NormalPath>,
    route: Option<Arc<Route>>,
    /// Another route of the path, where none takes the method.
    pub beside: Option<Arc<Route>>,
    /// Who is calling, where records are to name callers.
    pub caller: Option<Arc<Identity>>,
    /// What the request holds of limits until it has ended.
    pub held: Held,
    user_agent: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    pub journey: Rc<Journey>,
    pub sent: Cell<u64>,
    pub status: Option<StatusCode>,
    pub cause: Option<Cause>,
}

impl Record {
    /// For a request whose head was read.
    pub fn begin(worker: &Rc<Worker>, peer: &Rc<Peer>, inbound: &Inbound) -> Box<Record> {
        let given =
            if peer.trusted { inbound.headers.get(X_REQUEST_ID).filter(|id| is_plain(id.as_bytes())) } else { None };
        let mut record = Record::new(worker, peer, given.map(Value::owned));
        record.method = inbound.method.clone();
        record.version = inbound.version;
        if access::enabled() {
            record.user_agent = inbound.headers.get(USER_AGENT).map(Value::owned);
            let traceparent = inbound.headers.get(TRACEPARENT).filter(|value| is_traceparent(value.as_bytes()));
            record.traceparent = traceparent.map(Value::owned);
        }
        record
    }

    /// For what never became a request.
    pub fn headless(worker: &Rc<Worker>, peer: &Rc<Peer>) -> Box<Record> {
        Record::new(worker, peer, None)
    }

    fn new(worker: &Rc<Worker>, peer: &Rc<Peer>, request_id: Option<HeaderValue>) -> Box<Record> {
        Box::new(Record {
            worker: Rc::clone(worker),
            peer: Rc::clone(peer),
            began: clock::recent(),
            request_id: request_id.unwrap_or_else(fresh_id),
            client: peer.remote.ip().to_canonical(),
            method: Method::default(),
            version: Version::HTTP_11,
            host: None,
            path: None,
            route: None,
            beside: None,
            caller: None,
            held: Held::default(),
            user_agent: None,
            traceparent: None,
            journey: Rc::default(),
            sent: Cell::default(),
            status: None,
            cause: None,
        })
    }

    /// The request entered a route, once: it is in flight there until it is written.
    pub fn enter(&mut self, route: &Arc<Route>) {
        route.metrics.began(self.worker.id);
        self.route = Some(Arc::clone(route));
    }

    /// The route that says what answers look like.
    pub fn manners(&self) -> Option<&Arc<Route>> {
        self.route.as_ref().or(self.beside.as_ref())
    }

    /// Why the exchange was given up when nothing else says so.
    fn abandoned(&self) -> Cause {
        if std::thread::panicking() {
            Cause::Internal
        } else if self.worker.drain.is_over() {
            Cause::ShutDown
        } else {
            // Without an answer nobody was left to have one.
            Cause::ClientClosed
        }
    }

    fn write(&mut self) {
        // Without an answer nobody was left to have one.
        let cause = if self.status.is_none() { self.cause.or(Some(self.abandoned())) } else { self.cause };
        let status = self.status.unwrap_or(match cause {
            Some(cause) if cause != Cause::ClientClosed => cause.row().status,
            Some(_) | None => client_closed(),
        });
        // The clock was looked at when the last of a server's answer had come.
        let duration = clock::recent().saturating_duration_since(self.began);
        let worker = self.worker.id;
        if let Some(cause) = cause {
            self.worker.metrics.rejected(worker, cause);
        }
        let metrics = match &self.route {
            Some(route) => &route.metrics,
            None => {
                let none = self.worker.metrics.no_route();
                none.began(worker);
                none
            }
        };
        metrics.finished(
            worker,
            Finished {
                method: &self.method,
                status,
                duration,
                upstream_duration: self.journey.took(),
                received: self.journey.received.get(),
                sent: self.sent.get(),
            },
        );
        if !access::wanted(cause) {
            return;
        }
        let upstream = self.route.as_ref().and_then(|route| match &route.action {
            Action::Forward { upstream, .. } => Some(&upstream.name),
            Action::Files { fallback: Some((upstream, _)), .. } if self.journey.attempts() > 0 => Some(&upstream.name),
            Action::Files { .. } | Action::Redirect(_) | Action::Respond(_) => None,
        });
        let user_agent = self.user_agent.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (server, detail) = (self.journey.server(), self.journey.take_detail());
        access::record(&AccessRecord {
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.client,
            subject: self.caller.as_ref().map(|caller| caller.qualified()),
            listener: &self.peer.listener,
            route: self.route.as_ref().map(|route| &*route.name),
            upstream: upstream.map(|name| &**name),
            server: server.as_ref().map(|server| &*server.label),
            method: self.method.as_str(),
            host: self.host.as_ref().map(Host::as_str).unwrap_or_default(),
            path: self.path.as_ref().map(NormalPath::as_str).unwrap_or_default(),
            version: self.version,
            status: status.as_u16(),
            cause,
            detail: detail.as_deref(),
            duration,
            upstream_duration: self.journey.took(),
            queued: self.journey.queued(),
            received: self.journey.received.get(),
            sent: self.sent.get(),
            attempts: self.journey.attempts(),
            traceparent: self.traceparent.as_ref().and_then(|value| value.to_str().ok()),
            user_agent: user_agent.as_deref(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Whoever reads the record may count on the places being free.
        self.held = Held::default();
        self.write();
    }
}

impl OnEnd for Record {
    fn ended(mut self: Box<Self>, sent: u64, outcome: Outcome) {
        self.sent.set(sent);
        match outcome {
            Outcome::Complete => {}
            Outcome::Failed(cause) => self.cause = Some(cause),
            Outcome::Abandoned => self.cause = self.cause.or(Some(self.abandoned())),
        }
    }
}

/// 128 random bits in hexadecimal. Several are made at once, since all of them share one piece of memory then.
pub fn fresh_id() -> HeaderValue {
    const LENGTH: usize = 32;
    const AT_ONCE: usize = 16;
    thread_local! {
        static READY: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
    }
    let id = READY.with_borrow_mut(|ready| {
        if ready.len() < LENGTH {
            let mut block = BytesMut::with_capacity(AT_ONCE * LENGTH);
            for _ in 0..AT_ONCE * LENGTH / 8 {
                block.extend_from_slice(&hexadecimal(fastrand::u32(..)));
            }
            *ready = block.freeze();
        }
        ready.split_to(LENGTH.min(ready.len()))
    });
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("0"))
}

/// The eight digits at once: a nibble is spread to each byte, and those of ten and more are lifted to the letters.
fn hexadecimal(bits: u32) -> [u8; 8] {
    let mut nibbles = u64::from(bits);
    nibbles = (nibbles | (nibbles << 16)) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | (nibbles << 8)) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | (nibbles << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles.wrapping_add(0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let lift = letters.wrapping_mul(u64::from(b'a' - b'0' - 10));
    nibbles.wrapping_add(0x3030_3030_3030_3030).wrapping_add(lift).to_be_bytes()
}

/// Short, and of characters that no log and no shell takes for anything else.
fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !id.is_empty() && id.len() <= LONGEST_ID && id.iter().all(plain)
}

/// W3C Trace Context section 3.2: `00-TRACE-PARENT-FLAGS`.
fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'-');
    let mut is_hex = |length: usize| {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().is_some_and(|part| part.len() == length && part.iter().all(hex))
    };
    is_hex(2) && is_hex(32) && is_hex(16) && is_hex(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        for bits in [0, 1, 0x0123_4567, 0x89ab_cdef, 0x9a9a_a9a9, u32::MAX] {
            assert_eq!(hexadecimal(bits), *format!("{bits:08x}").as_bytes());
        }
    }

    #[test]
    fn ids_are_plain_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| fresh_id().as_bytes().to_vec()).collect();
        assert!(ids.len() == 100 && ids.iter().all(|id| id.len() == 32));
        let (one, other) = (fresh_id(), fresh_id());
        assert!(is_plain(one.as_bytes()) && one != other && one.len() == 32);
        for id in ["", "a b", "a\"b", "a\u{e9}", &"a".repeat(129)] {
            assert!(!is_plain(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn traceparents() {
        let is = |text: &'static str| is_traceparent(text.as_bytes());
        assert!(is("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!is("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"));
        assert!(!is("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
        assert!(!is("\"injected\""));
    }
}
