//! What is counted of an upstream and its servers.

use std::sync::Arc;
use std::time::Duration;

use prometheus::proto;

use super::WorkerId;
use super::cells::Cells;
use super::histogram;
use super::kept::Kept;

// The layout of an upstream's cells.
const RETRIES: usize = 0;
const RETRIES_REFUSED: usize = 1;
const DROPPED: usize = 2;
const WAITED: usize = DROPPED + Dropped::ALL.len();
const UNSERVED: usize = WAITED + histogram::WIDTH;
const CELLS: usize = UNSERVED + 1;

/// Why a request that wanted to wait for a slot, or did, got none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full.
    Full,
    /// It waited for as long as it may.
    Timeout,
    /// It was refused early, in lasting overload.
    Overload,
    /// Its client left.
    ClientLeft,
    /// No server was left to wait for.
    NoServer,
}

impl Dropped {
    pub(crate) const ALL: [Dropped; 5] =
        [Dropped::Full, Dropped::Timeout, Dropped::Overload, Dropped::ClientLeft, Dropped::NoServer];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Dropped::Full => "full",
            Dropped::Timeout => "timeout",
            Dropped::Overload => "overload",
            Dropped::ClientLeft => "client_left",
            Dropped::NoServer => "no_server",
        }
    }
}

/// The counters of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    cells: Cells<CELLS>,
    servers: Kept<ServerMetrics>,
    workers: usize,
}

impl UpstreamMetrics {
    pub(super) fn new(workers: usize) -> UpstreamMetrics {
        UpstreamMetrics { cells: Cells::new(workers), servers: Kept::default(), workers }
    }

    /// The cells of one server, by its label; the same again while anybody holds them.
    pub fn server(&self, label: &str) -> Arc<ServerMetrics> {
        self.servers.get_or_make(label, || ServerMetrics::new(self.workers))
    }

    /// A request was sent again after a failure.
    pub fn retried(&self, worker: WorkerId) {
        self.cells.of(worker).add(RETRIES, 1);
    }

    /// A retry that the budget forbade.
    pub fn retry_refused(&self, worker: WorkerId) {
        self.cells.of(worker).add(RETRIES_REFUSED, 1);
    }

    /// A request that waited for a slot has got one.
    pub fn waited(&self, worker: WorkerId, time: Duration) {
        histogram::observe(&self.cells.of(worker), WAITED, time);
    }

    /// One got none.
    pub fn dropped(&self, worker: WorkerId, why: Dropped) {
        self.cells.of(worker).add(DROPPED + why as usize, 1);
    }

    /// A request failed that no server was found for.
    pub fn unserved(&self, worker: WorkerId) {
        self.cells.of(worker).add(UNSERVED, 1);
    }

    pub(crate) fn unserved_total(&self) -> u64 {
        self.cells.sum(UNSERVED)
    }

    pub(crate) fn waits(&self) -> proto::Histogram {
        histogram::read(&self.cells, WAITED)
    }

    pub(crate) fn dropped_total(&self, why: Dropped) -> u64 {
        self.cells.sum(DROPPED + why as usize)
    }

    pub(super) fn retries_total(&self) -> u64 {
        self.cells.sum(RETRIES)
    }

    pub(super) fn retries_refused_total(&self) -> u64 {
        self.cells.sum(RETRIES_REFUSED)
    }

    pub(super) fn servers(&self) -> Vec<(Arc<str>, Arc<ServerMetrics>)> {
        self.servers.all()
    }
}

// The layout of a server's cells.
const MADE: usize = 0;
const REUSED: usize = 1;
const CONNECT_FAILED: usize = 2;
const EJECTED: usize = 3;

/// The counters of one server. Its health and its requests in flight are not counted here: the collector asks the
/// servers of the current snapshot.
#[derive(Debug)]
pub struct ServerMetrics {
    cells: Cells<4>,
}

impl ServerMetrics {
    fn new(workers: usize) -> ServerMetrics {
        ServerMetrics { cells: Cells::new(workers) }
    }

    /// A request was sent over a connection that was kept (`true`) or made for it.
    pub fn connection_used(&self, worker: WorkerId, reused: bool) {
        self.cells.of(worker).add(if reused { REUSED } else { MADE }, 1);
    }

    pub fn connect_failed(&self, worker: WorkerId) {
        self.cells.of(worker).add(CONNECT_FAILED, 1);
    }

    /// Not on a worker thread's way alone: probes eject too, so this is an atomic increment.
    pub fn ejected(&self) {
        self.cells.shared().add(EJECTED, 1);
    }

    pub(super) fn connections_total(&self, reused: bool) -> u64 {
        self.cells.sum(if reused { REUSED } else { MADE })
    }

    pub(super) fn connects_failed_total(&self) -> u64 {
        self.cells.sum(CONNECT_FAILED)
    }

    pub(super) fn ejections_total(&self) -> u64 {
        self.cells.sum(EJECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_cell_of_its_own() {
        let upstream = UpstreamMetrics::new(1);
        upstream.retried(WorkerId(0));
        upstream.retried(WorkerId(0));
        upstream.retry_refused(WorkerId(0));
        assert_eq!((upstream.retries_total(), upstream.retries_refused_total()), (2, 1));
        for (index, why) in Dropped::ALL.into_iter().enumerate() {
            (0..=index).for_each(|_| upstream.dropped(WorkerId(0), why));
        }
        upstream.waited(WorkerId(0), Duration::from_millis(3));
        assert_eq!(Dropped::ALL.map(|why| upstream.dropped_total(why)), [1, 2, 3, 4, 5]);
        assert_eq!(upstream.waits().get_sample_count(), 1);
        assert_eq!((upstream.retries_total(), upstream.retries_refused_total()), (2, 1));

        let server = upstream.server("http://127.0.0.1:8001");
        server.connection_used(WorkerId(0), true);
        server.connection_used(WorkerId(0), true);
        server.connection_used(WorkerId(0), false);
        server.connect_failed(WorkerId(0));
        server.ejected();
        assert_eq!((server.connections_total(true), server.connections_total(false)), (2, 1));
        assert_eq!((server.connects_failed_total(), server.ejections_total()), (1, 1));
    }

    #[test]
    fn a_server_that_is_gone_is_forgotten() {
        let upstream = UpstreamMetrics::new(1);
        let stays = upstream.server("a");
        let goes = upstream.server("b");
        stays.ejected();
        goes.ejected();
        drop(goes);
        assert_eq!(upstream.servers().len(), 1);
        assert_eq!(upstream.server("a").ejections_total(), 1);
        assert_eq!(upstream.server("b").ejections_total(), 0);
    }
}
