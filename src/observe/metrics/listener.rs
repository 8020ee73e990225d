//! What is counted of a listener's connections.

use super::WorkerId;
use super::cells::Cells;

/// What a connection speaks. One that is upgraded is closed as the one and opened as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// WebSocket and other upgrades.
    Upgraded,
}

impl Protocol {
    pub(super) const ALL: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Upgraded];

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Upgraded => "upgraded",
        }
    }
}

/// Why a connection ended before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    Timeout,
    Tls,
    ProxyProtocol,
    Closed,
}

impl HandshakeFailure {
    /// Those of the TLS handshake; the PROXY protocol has a counter of its own.
    pub(super) const TLS: [HandshakeFailure; 3] =
        [HandshakeFailure::Timeout, HandshakeFailure::Tls, HandshakeFailure::Closed];

    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::Tls => "tls",
            HandshakeFailure::ProxyProtocol => "proxy_protocol",
            HandshakeFailure::Closed => "closed",
        }
    }
}

// The layout of a listener's cells.
const OPENED: usize = 0;
const CLOSED: usize = 3;
const TURNED_AWAY: usize = 6;
const HANDSHAKES: usize = 7;
const HANDSHAKES_FAILED: usize = 8;
const FLOODS: usize = 12;
const CELLS: usize = 13;

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    cells: Cells<CELLS>,
}

impl ListenerMetrics {
    pub(super) fn new(workers: usize) -> ListenerMetrics {
        ListenerMetrics { cells: Cells::new(workers) }
    }

    /// A connection's protocol is known: the open ones go up.
    pub fn opened(&self, worker: WorkerId, protocol: Protocol) {
        self.cells.of(worker).add(OPENED + protocol as usize, 1);
    }

    /// It ended, or became an upgraded one: the open ones go down.
    pub fn closed(&self, worker: WorkerId, protocol: Protocol) {
        self.cells.of(worker).add(CLOSED + protocol as usize, 1);
    }

    /// A connection was turned away at `max_connections`.
    pub fn turned_away(&self, worker: WorkerId) {
        self.cells.of(worker).add(TURNED_AWAY, 1);
    }

    /// A TLS handshake was completed.
    pub fn handshake(&self, worker: WorkerId) {
        self.cells.of(worker).add(HANDSHAKES, 1);
    }

    pub fn handshake_failed(&self, worker: WorkerId, why: HandshakeFailure) {
        self.cells.of(worker).add(HANDSHAKES_FAILED + why as usize, 1);
    }

    /// An HTTP/2 connection was closed for what its client made it do.
    pub fn flooded(&self, worker: WorkerId) {
        self.cells.of(worker).add(FLOODS, 1);
    }

    /// Connections of this protocol that are open.
    pub fn open(&self, protocol: Protocol) -> u64 {
        self.cells.gauge(OPENED + protocol as usize, CLOSED + protocol as usize)
    }

    pub(super) fn opened_total(&self, protocol: Protocol) -> u64 {
        self.cells.sum(OPENED + protocol as usize)
    }

    pub(super) fn turned_away_total(&self) -> u64 {
        self.cells.sum(TURNED_AWAY)
    }

    pub(super) fn floods_total(&self) -> u64 {
        self.cells.sum(FLOODS)
    }

    pub(super) fn handshakes_total(&self) -> u64 {
        self.cells.sum(HANDSHAKES)
    }

    pub(super) fn handshakes_failed_total(&self, why: HandshakeFailure) -> u64 {
        self.cells.sum(HANDSHAKES_FAILED + why as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_cell_of_its_own() {
        let listener = ListenerMetrics::new(2);
        for (times, protocol) in Protocol::ALL.into_iter().enumerate() {
            for _ in 0..times + 2 {
                listener.opened(WorkerId(0), protocol);
            }
            listener.closed(WorkerId(0), protocol);
        }
        listener.turned_away(WorkerId(1));
        listener.handshake(WorkerId(1));
        listener.flooded(WorkerId(1));
        listener.handshake_failed(WorkerId(0), HandshakeFailure::Tls);
        listener.handshake_failed(WorkerId(1), HandshakeFailure::Closed);
        assert_eq!(Protocol::ALL.map(|protocol| listener.open(protocol)), [1, 2, 3]);
        assert_eq!(Protocol::ALL.map(|protocol| listener.opened_total(protocol)), [2, 3, 4]);
        assert_eq!((listener.turned_away_total(), listener.handshakes_total(), listener.floods_total()), (1, 1, 1));
        assert_eq!(HandshakeFailure::TLS.map(|why| listener.handshakes_failed_total(why)), [0, 1, 1]);
        assert_eq!(listener.handshakes_failed_total(HandshakeFailure::ProxyProtocol), 0);
    }
}
