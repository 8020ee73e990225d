//! What is counted of a route's requests.

use std::time::Duration;

use http::{Method, StatusCode};

use super::WorkerId;
use super::cells::Cells;
use super::histogram;

/// The label values of `method`, in the order of their index.
pub(super) const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
/// The label values of `status`, likewise.
pub(super) const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

// The layout of a route's cells: the table of requests comes first.
const DURATION: usize = METHODS.len() * STATUSES.len();
const UPSTREAM_DURATION: usize = DURATION + histogram::WIDTH;
const BEGAN: usize = UPSTREAM_DURATION + histogram::WIDTH;
const ENDED: usize = BEGAN + 1;
const RECEIVED: usize = ENDED + 1;
const SENT: usize = RECEIVED + 1;
const CELLS: usize = SENT + 1;

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

/// The counters of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    cells: Cells<CELLS>,
}

impl RouteMetrics {
    pub(super) fn new(workers: usize) -> RouteMetrics {
        RouteMetrics { cells: Cells::new(workers) }
    }

    /// A request entered the route: in flight goes up. One [`finished`](Self::finished) must follow on the same thread;
    /// the request's record, which is told however it ends, sees to that.
    pub fn began(&self, worker: WorkerId) {
        self.cells.of(worker).add(BEGAN, 1);
    }

    /// It left: in flight goes down, everything else is counted.
    pub fn finished(&self, worker: WorkerId, what: Finished<'_>) {
        let cells = self.cells.of(worker);
        cells.add(request_cell(method_index(what.method), status_index(what.status)), 1);
        histogram::observe(&cells, DURATION, what.duration);
        if let Some(duration) = what.upstream_duration {
            histogram::observe(&cells, UPSTREAM_DURATION, duration);
        }
        cells.add(RECEIVED, what.received);
        cells.add(SENT, what.sent);
        cells.add(ENDED, 1);
    }

    /// The number of requests with this method and status.
    pub(super) fn requests(&self, method: usize, status: usize) -> u64 {
        self.cells.sum(request_cell(method, status))
    }

    pub(super) fn duration(&self) -> prometheus::proto::Histogram {
        histogram::read(&self.cells, DURATION)
    }

    pub(super) fn upstream_duration(&self) -> prometheus::proto::Histogram {
        histogram::read(&self.cells, UPSTREAM_DURATION)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.cells.gauge(BEGAN, ENDED)
    }

    pub(super) fn received(&self) -> u64 {
        self.cells.sum(RECEIVED)
    }

    pub(super) fn sent(&self) -> u64 {
        self.cells.sum(SENT)
    }
}

fn request_cell(method: usize, status: usize) -> usize {
    method * STATUSES.len() + status
}

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => 7,
    }
}

fn status_index(status: StatusCode) -> usize {
    match status.as_u16() / 100 {
        class @ 1..=5 => usize::from(class) - 1,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(method: &Method, status: u16) -> Finished<'_> {
        Finished {
            method,
            status: StatusCode::from_u16(status).unwrap(),
            duration: Duration::from_millis(7),
            upstream_duration: None,
            received: 3,
            sent: 5,
        }
    }

    #[test]
    fn methods_and_statuses_have_their_labels() {
        for (index, name) in METHODS.iter().enumerate() {
            assert_eq!(method_index(&Method::from_bytes(name.as_bytes()).unwrap()), index);
        }
        for (status, label) in [(101, "1xx"), (204, "2xx"), (304, "3xx"), (499, "4xx"), (503, "5xx"), (700, "other")] {
            assert_eq!(STATUSES[status_index(StatusCode::from_u16(status).unwrap())], label);
        }
    }

    #[test]
    fn a_request_is_counted_once_everywhere() {
        let route = RouteMetrics::new(1);
        route.began(WorkerId(0));
        assert_eq!(route.in_flight(), 1);
        route.finished(WorkerId(0), finished(&Method::PUT, 201));
        assert_eq!(route.in_flight(), 0);
        assert_eq!(route.requests(3, 1), 1);
        assert_eq!((route.received(), route.sent()), (3, 5));
        assert_eq!(route.duration().get_sample_count(), 1);
        assert_eq!(route.upstream_duration().get_sample_count(), 0);
    }
}
