//! What becomes of bodies.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use super::*;
use crate::observe::metrics::SpoolMetrics;

/// A place for files, which is gone with what comes first.
pub(super) fn spool(limit: u64) -> (tempfile::TempDir, Arc<Spool>, Arc<SpoolMetrics>) {
    let directory = tempfile::tempdir().unwrap();
    let metrics = Arc::default();
    let spool = Spool::new(directory.path().to_owned(), limit, Arc::clone(&metrics));
    (directory, Arc::new(spool), metrics)
}

/// Bytes that differ by place and by `seed`.
pub(super) fn bytes(seed: usize, length: usize) -> Bytes {
    (0..length).map(|n| ((n + seed * 31) % 251) as u8).collect()
}

/// A body of these pieces, of unknown length.
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    pub(super) fn of(pieces: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> RequestBody {
        RequestBody::Stream(Box::pin(Pieces { pieces: pieces.into_iter().collect(), trailers }))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let data = self.pieces.pop_front().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }
}

struct Told(Rc<Cell<Option<(u64, Outcome)>>>);

impl OnEnd for Told {
    fn ended(self: Box<Self>, sent: u64, outcome: Outcome) {
        self.0.set(Some((sent, outcome)));
    }
}

/// What is told of a body to which `then` happens before it is dropped.
fn told(content: Content, then: impl FnOnce(&mut ResponseBody)) -> Option<(u64, Outcome)> {
    let told = Rc::default();
    let mut body = ResponseBody::new(content).on_end(Box::new(Told(Rc::clone(&told))));
    then(&mut body);
    assert_eq!(told.get(), None, "only once it is over");
    drop(body);
    told.get()
}

#[test]
fn an_empty_body_is_complete_though_nobody_reads_it() {
    for content in [Content::Empty, Content::Full(Bytes::new())] {
        assert_eq!(told(content, |_| {}), Some((0, Outcome::Complete)));
    }
}

#[test]
fn a_body_that_is_not_taken_was_abandoned() {
    let content = || Content::Full(Bytes::from_static(b"four"));
    assert_eq!(told(content(), |_| {}), Some((0, Outcome::Abandoned)));
    assert_eq!(told(content(), |body| assert!(body.take_full().is_some())), Some((4, Outcome::Complete)));
}
