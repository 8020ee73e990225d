//! A response that is read ahead of its client: the server is done as soon as it has written everything, however
//! slowly the client reads.
//!
//! Nothing is ever delayed: as long as the client takes what comes, each piece goes straight on. Only while it does not
//! does whoever writes to it call [`Ahead::poll`], which goes on reading from the server and lets the pieces wait.
//! There is no task beside the request's own, and an answer whose client keeps up pays nothing.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::AnswerSource;
use super::fifo::Fifo;
use super::spool::{Bounds, Spool};
use crate::clock;
use crate::request::rejection::Cause;

/// How far a response may be read ahead, and what was.
pub struct Ahead {
    spool: Arc<Spool>,
    bounds: Bounds,
    /// `None`: it is no stream, however long it pauses.
    stream_after: Option<Duration>,
    /// Since when the server has been waited for.
    waits: Option<Instant>,
    /// It paused for longer than `stream_after`.
    is_stream: bool,
    /// Made when the client falls behind for the first time.
    fifo: Option<Box<Fifo>>,
    /// What comes behind it.
    ended: Option<Ended>,
}

/// How the server's part ended.
enum Ended {
    /// And, once it is told, the whole.
    Complete,
    Trailers(Box<HeaderMap>),
    Failed(Cause),
}

impl Ahead {
    /// `stream_after`: an answer of unknown length that pauses for longer is a stream from then on, and read no faster
    /// than its client takes it.
    pub fn new(spool: &Arc<Spool>, bounds: Bounds, stream_after: Duration) -> Ahead {
        Ahead {
            spool: Arc::clone(spool),
            bounds,
            stream_after: Some(stream_after),
            waits: None,
            is_stream: false,
            fifo: None,
            ended: None,
        }
    }

    /// It has a length, and so an end.
    pub(super) fn is_no_stream(&mut self) {
        self.stream_after = None;
    }

    /// Whether nothing waits here for the client, and no pause of the server's is to be timed.
    pub(super) fn is_idle(&self) -> bool {
        self.fifo.is_none() && self.ended.is_none() && self.stream_after.is_none()
    }

    /// Reads on from the server while the client takes nothing; wakes the task when there is more to do. What may not be
    /// read yet still lets the request be sent: a client may want to read only after that.
    pub(super) fn poll(&mut self, source: &mut AnswerSource, cx: &mut Context<'_>) {
        match (&self.ended, self.is_stream) {
            (None, false) => self.read_on(source, cx),
            (None, true) => source.as_mut().poll_request(cx),
            (Some(_), _) => {}
        }
        if let Some(fifo) = &mut self.fifo {
            fifo.poll_work(cx);
        }
    }

    fn read_on(&mut self, source: &mut AnswerSource, cx: &mut Context<'_>) {
        loop {
            if let Some(fifo) = &mut self.fifo
                && !fifo.has_room()
            {
                fifo.poll_work(cx);
                if !fifo.has_room() {
                    // It is not the server that is waited for.
                    self.waits = None;
                    source.as_mut().poll_request(cx);
                    return;
                }
            }
            let Poll::Ready(frame) = self.poll_source(source, cx) else { return };
            let ended = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    let (spool, bounds) = (&self.spool, self.bounds);
                    self.fifo.get_or_insert_with(|| Box::new(Fifo::new(bounds, spool))).push(data);
                    if self.is_stream {
                        return;
                    }
                    continue;
                }
                Some(Ok(Err(frame))) => match frame.into_trailers() {
                    Ok(trailers) => Ended::Trailers(Box::new(trailers)),
                    Err(_) => continue,
                },
                Some(Err(cause)) => Ended::Failed(cause),
                None => Ended::Complete,
            };
            self.ended = Some(ended);
            return;
        }
    }

    /// The next frame for the client.
    pub(super) fn poll_frame(
        &mut self,
        source: &mut AnswerSource,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        if let Some(fifo) = &mut self.fifo {
            match fifo.poll_pop(cx) {
                Poll::Ready(Some(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Poll::Ready(Some(Err(cause))) => return Poll::Ready(Some(Err(cause))),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        match self.ended.take() {
            None => self.poll_source(source, cx),
            Some(ended) => {
                self.ended = Some(Ended::Complete);
                Poll::Ready(match ended {
                    Ended::Complete => None,
                    Ended::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
                    Ended::Failed(cause) => Some(Err(cause)),
                })
            }
        }
    }

    fn poll_source(
        &mut self,
        source: &mut AnswerSource,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let polled = source.as_mut().poll_frame(cx);
        let Some(stream_after) = self.stream_after else { return polled };
        if polled.is_pending() {
            self.waits.get_or_insert_with(clock::recent);
        } else if let Some(since) = self.waits.take() {
            self.is_stream |= clock::recent().saturating_duration_since(since) > stream_after;
        }
        polled
    }

    pub(super) fn is_end_stream(&self, source: &AnswerSource) -> bool {
        if self.fifo.as_ref().is_some_and(|fifo| !fifo.is_empty()) {
            return false;
        }
        match &self.ended {
            None => source.is_end_stream(),
            Some(Ended::Complete) => true,
            Some(Ended::Trailers(_) | Ended::Failed(_)) => false,
        }
    }

    pub(super) fn size_hint(&self, source: &AnswerSource) -> SizeHint {
        let waiting = self.fifo.as_ref().map_or(0, |fifo| fifo.len());
        let exact = source.size_hint().exact();
        exact.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left.saturating_add(waiting)))
    }
}
