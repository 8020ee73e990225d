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
    let mut body = ResponseBody::new(content);
    body.on_end(Box::new(Told(Rc::clone(&told))));
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

/// An answer without end, which counts how often its request was to go on.
struct Endless(Rc<Cell<usize>>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        Poll::Ready(Some(Ok(Frame::data(bytes(0, 1000)))))
    }
}

impl AnswerBody for Endless {
    fn poll_request(self: Pin<&mut Self>, _: &mut Context<'_>) {
        self.0.set(self.0.get() + 1);
    }
}

#[tokio::test]
async fn the_request_goes_on_when_its_answer_may_be_read_no_further() {
    let (_directory, spool, _) = spool(0);
    let asked = Rc::new(Cell::new(0));
    let stream = || ResponseBody::new(Content::Stream(Box::pin(Endless(Rc::clone(&asked)))));
    let bounds = Bounds { memory: 10_000, disk: 0 };
    let mut ahead = stream();
    ahead.read_ahead(|| Ahead::new(&spool, bounds, std::time::Duration::from_secs(1)));
    let bodies = [stream(), ahead];
    for (before, mut body) in bodies.into_iter().enumerate() {
        let asks = std::future::poll_fn(|cx| {
            body.poll_ahead(cx);
            if asked.get() > before { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(std::time::Duration::from_secs(20), asks).await.unwrap();
    }
}
