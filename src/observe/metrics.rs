//! Every metric's name and labels, in one place.
//!
//! Handles are resolved when a snapshot is built. A worker counts in cells of its own, with plain loads and stores;
//! a `Collector` sums the cells when `/metrics` is scraped. So nothing that a request counts is shared or locked.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::request::rejection::Cause;
use crate::server::WorkerId;

/// Every counter of the process. Created once, before the workers.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    pub fn new(_workers: usize) -> Arc<Metrics> {
        Arc::new(Metrics {})
    }

    /// The cells of a route; the same again for the same name, so that counters outlive a snapshot.
    pub fn route(&self, _name: &str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics {})
    }

    /// The cells of a listener, likewise.
    pub fn listener(&self, _name: &str) -> Arc<ListenerMetrics> {
        Arc::new(ListenerMetrics {})
    }

    /// The cells of an upstream, likewise.
    pub fn upstream(&self, _name: &str) -> Arc<UpstreamMetrics> {
        Arc::new(UpstreamMetrics {})
    }

    /// A request was refused by the gateway, or failed.
    pub fn rejected(&self, _worker: WorkerId, _cause: Cause) {}
}

/// What is counted of a finished request.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    pub method: &'a Method,
    pub status: StatusCode,
    pub duration: Duration,
    /// From the request's first byte to the server to the response's last from it.
    pub upstream_duration: Option<Duration>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
}

#[derive(Debug)]
pub struct RouteMetrics {}

impl RouteMetrics {
    /// A request entered the route: in flight goes up.
    pub fn began(&self, _worker: WorkerId) {}

    /// It left: in flight goes down, everything else is counted.
    pub fn finished(&self, _worker: WorkerId, _what: Finished<'_>) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// WebSocket and other upgrades.
    Upgraded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    Timeout,
    Tls,
    ProxyProtocol,
    Closed,
}

#[derive(Debug)]
pub struct ListenerMetrics {}

impl ListenerMetrics {
    pub fn opened(&self, _worker: WorkerId, _protocol: Protocol) {}
    pub fn closed(&self, _worker: WorkerId, _protocol: Protocol) {}
    /// A connection was turned away at `max_connections`.
    pub fn turned_away(&self, _worker: WorkerId) {}
    pub fn handshake(&self, _worker: WorkerId) {}
    pub fn handshake_failed(&self, _worker: WorkerId, _why: HandshakeFailure) {}
}

#[derive(Debug)]
pub struct UpstreamMetrics {}

impl UpstreamMetrics {
    /// The cells of one server, by its label.
    pub fn server(&self, _label: &str) -> Arc<ServerMetrics> {
        Arc::new(ServerMetrics {})
    }

    pub fn retried(&self, _worker: WorkerId) {}
    /// A retry that the budget forbade.
    pub fn retry_refused(&self, _worker: WorkerId) {}
}

/// Health and in-flight gauges are not counted here: the collector asks the servers of the current snapshot.
#[derive(Debug)]
pub struct ServerMetrics {}

impl ServerMetrics {
    /// A request was sent over a connection that was kept (`true`) or made for it.
    pub fn connection_used(&self, _worker: WorkerId, _reused: bool) {}
    pub fn connect_failed(&self, _worker: WorkerId) {}
    /// Not on a worker thread's way alone: probes eject too, so this is an atomic increment.
    pub fn ejected(&self) {}
}
