//! What failed for want of something that the operator can change, told as a warning where no access record tells it.
//!
//! One line a second for each cause at most, with the number of those that were left out since the last: a flood of
//! failures must not become a flood of lines. Costs nothing as long as nothing fails.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::request::rejection::Cause;

/// Between two lines of one cause, in milliseconds.
const APART: u64 = 1000;

/// What is told of one failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble<'a> {
    pub listener: &'a str,
    pub request_id: Option<&'a str>,
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub server: Option<&'a str>,
    /// What the operating system or a library said of the failure.
    pub detail: Option<&'a str>,
}

/// Tells it, unless a line of the same cause was written less than a second ago.
pub fn tell(cause: Cause, trouble: &Trouble<'_>) {
    static PACES: [Pace; Cause::ALL.len()] = [const { Pace::new() }; Cause::ALL.len()];
    let Some(left_out) = PACES.get(cause.index()).and_then(|pace| pace.take(now())) else { return };
    let row = cause.row();
    tracing::warn!(
        cause = row.cause,
        blame = row.blame.as_str(),
        status = u64::from(row.status.as_u16()),
        listener = trouble.listener,
        route = trouble.route,
        upstream = trouble.upstream,
        server = trouble.server,
        request_id = trouble.request_id,
        detail = trouble.detail.map(|detail| super::access::cut(detail, super::access::LONGEST_DETAIL)),
        remedy = row.remedy,
        left_out = (left_out > 0).then_some(left_out),
        "{}",
        row.title
    );
}

/// Tells of a client whose certificate the handshake refused; no access record ever does.
pub fn certificate_refused(listener: &str, client: SocketAddr, reason: &dyn Display) {
    static PACE: Pace = Pace::new();
    let Some(left_out) = PACE.take(now()) else { return };
    let left_out = (left_out > 0).then_some(left_out);
    tracing::info!(listener, client = %client, reason = %reason, left_out, "a client's certificate was refused");
}

fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// When the next line may be written, and how many were not.
struct Pace {
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Pace {
    const fn new() -> Pace {
        Pace { next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// How many were left out before this one; `None`: this one is left out too.
    fn take(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let later = now.saturating_add(APART);
        // Of several threads one writes the line.
        let mine = now >= next && self.next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_the_rest_is_counted() {
        let pace = Pace::new();
        assert_eq!(pace.take(5), Some(0));
        assert_eq!((pace.take(5), pace.take(1004)), (None, None));
        assert_eq!(pace.take(1005), Some(2));
        assert_eq!(pace.take(1006), None);
        assert_eq!(pace.take(99_000), Some(1));
    }
}
