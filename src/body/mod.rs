//! Message bodies, as they pass from one side to the other: frames of bytes, then perhaps trailers.
//!
//! This module knows neither side. What a connection reads is put behind [`Source`]; errors are causes of the one
//! table, so that whoever reads a body can tell the client from the upstream without downcasts.
//!
//! Neither side waits for the other where it need not: a request's body is held until it has come whole ([`hold`]), a
//! response's is read ahead of its client ([`Ahead`]). What outgrows memory goes to a file of the [`Spool`].

mod ahead;
mod fifo;
mod file;
mod held;
mod pieces;
mod pipe;
mod spool;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

pub use self::ahead::Ahead;
pub use self::held::{Held, hold};
pub use self::pieces::Pieces;
pub use self::pipe::{Pipe, WORTH_A_PIPE};
pub use self::spool::{Bounds, Spool, SpoolError};
use crate::request::rejection::Cause;

/// A body that is read from somewhere.
pub type Source = Pin<Box<dyn Body<Data = Bytes, Error = Cause>>>;

/// A response's body that is read from somewhere.
pub type AnswerSource = Pin<Box<dyn AnswerBody>>;

/// What a response's body is read from. That of a server sends the request's body meanwhile.
pub trait AnswerBody: Body<Data = Bytes, Error = Cause> {
    /// Goes on with the request's body alone and reads nothing of the response: its client does not take it, and may
    /// not do so before it has sent everything. Wakes the task when more of the request can be sent.
    fn poll_request(self: Pin<&mut Self>, _: &mut Context<'_>) {}

    /// How much is known to come next that [`AnswerBody::poll_move`] would move.
    fn movable(&self) -> u64 {
        0
    }

    /// Moves what comes next into a pipe that is empty; how much. Only where there is something [`AnswerBody::movable`]:
    /// everything else is read as frames.
    fn poll_move(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut Pipe) -> Poll<Result<usize, Cause>> {
        Poll::Pending
    }
}

/// The body of a request: from the client, to an upstream.
pub enum RequestBody {
    Empty,
    /// It has come whole.
    Whole(Whole),
    Held(Box<Held>),
    /// Its size hint is exact where the client stated a length.
    Stream(Source),
}

/// A body in one piece, which may be read again and again.
pub struct Whole {
    bytes: Bytes,
    given: bool,
}

impl RequestBody {
    pub fn whole(bytes: Bytes) -> RequestBody {
        RequestBody::Whole(Whole { bytes, given: false })
    }

    /// Its length in bytes, where it is known. One with trailers has none: they need a framing that can carry them.
    pub fn length(&self) -> Option<u64> {
        match self {
            RequestBody::Empty => Some(0),
            RequestBody::Whole(whole) => Some(whole.bytes.len() as u64),
            RequestBody::Held(held) => (!held.has_trailers()).then_some(held.length()),
            RequestBody::Stream(source) => source.size_hint().exact(),
        }
    }

    /// For a server that cannot be told of trailers: the length of what has come whole is known then.
    pub fn drop_trailers(&mut self) {
        match self {
            RequestBody::Held(held) => held.drop_trailers(),
            RequestBody::Empty | RequestBody::Whole(_) | RequestBody::Stream(_) => {}
        }
    }

    /// Begins again from the first byte, if it has come whole.
    pub fn rewind(&mut self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole(whole) => {
                whole.given = false;
                true
            }
            RequestBody::Held(held) => {
                held.rewind();
                true
            }
            RequestBody::Stream(_) => false,
        }
    }

    /// Whether nothing is left to be read.
    pub fn is_end(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole(whole) => whole.given,
            RequestBody::Held(held) => held.is_end(),
            RequestBody::Stream(source) => source.is_end_stream(),
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        match self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Whole(whole) => {
                let given = std::mem::replace(&mut whole.given, true);
                Poll::Ready((!given).then(|| Ok(Frame::data(whole.bytes.clone()))))
            }
            RequestBody::Held(held) => held.poll_frame(cx),
            RequestBody::Stream(source) => source.as_mut().poll_frame(cx),
        }
    }
}

/// Where a response's bytes come from.
pub enum Content {
    Empty,
    /// Made by the gateway.
    Full(Bytes),
    /// From an upstream.
    Stream(AnswerSource),
}

/// Told how a response went, once: when its body is dropped.
pub trait OnEnd {
    /// `sent` counts the body's bytes; `outcome` is how it ended.
    fn ended(self: Box<Self>, sent: u64, outcome: Outcome);
}

/// How the sending of a response's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// Reading it failed.
    Failed(Cause),
    /// Dropped before its end: the client left.
    Abandoned,
}

/// The body of a response: to the client.
pub struct ResponseBody {
    content: Content,
    /// Of a stream that may be read ahead of the client. On the heap: most answers are here as a whole, and are moved often.
    ahead: Option<Box<Ahead>>,
    sent: u64,
    outcome: Outcome,
    on_end: Option<Box<dyn OnEnd>>,
}

impl ResponseBody {
    pub fn new(content: Content) -> ResponseBody {
        let mut body = ResponseBody { content, ahead: None, sent: 0, outcome: Outcome::Abandoned, on_end: None };
        if body.is_end_stream() {
            // Nobody needs to read it to its end.
            body.outcome = Outcome::Complete;
        }
        body
    }

    /// Has its end told.
    pub fn on_end(&mut self, on_end: Box<dyn OnEnd>) {
        self.on_end = Some(on_end);
    }

    /// Lets it be read ahead of the client, if it comes from a server.
    pub fn read_ahead(&mut self, ahead: impl FnOnce() -> Ahead) {
        if let Content::Stream(source) = &self.content
            && !source.is_end_stream()
        {
            let mut ahead = ahead();
            if source.size_hint().exact().is_some() {
                ahead.is_no_stream();
            }
            self.ahead = Some(Box::new(ahead));
        }
    }

    /// To be called while the client does not take what it was given: goes on sending the request, and reading from the
    /// server where that is allowed. Wakes the task when there is more to do.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        match (&mut self.content, &mut self.ahead) {
            (Content::Stream(source), Some(ahead)) => ahead.poll(source, cx),
            (Content::Stream(source), None) => source.as_mut().poll_request(cx),
            (Content::Empty | Content::Full(_), _) => {}
        }
    }

    /// How much is known to come next that can be moved through a pipe.
    pub fn movable(&self) -> u64 {
        match (&self.content, &self.ahead) {
            (Content::Stream(source), None) => source.movable(),
            (Content::Stream(source), Some(ahead)) if ahead.is_idle() => source.movable(),
            (Content::Stream(_) | Content::Empty | Content::Full(_), _) => 0,
        }
    }

    /// Moves it, or a part, into a pipe that is empty: in the place of the next frame, where something is movable.
    pub fn poll_move(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<usize, Cause>> {
        let Content::Stream(source) = &mut self.content else { return Poll::Pending };
        let moved = ready!(source.as_mut().poll_move(cx, pipe));
        match moved {
            Ok(length) => {
                self.sent = self.sent.wrapping_add(length as u64);
                if self.is_end_stream() {
                    self.outcome = Outcome::Complete;
                }
            }
            Err(cause) => self.outcome = Outcome::Failed(cause),
        }
        Poll::Ready(moved)
    }

    /// It is dropped before its end for this cause.
    pub fn give_up(&mut self, cause: Cause) {
        self.outcome = Outcome::Failed(cause);
    }

    /// Whether it comes from a server, which may still be taking the request's body meanwhile.
    pub fn is_stream(&self) -> bool {
        matches!(self.content, Content::Stream(_))
    }

    /// For an answer whose content is not sent (to HEAD, 204, 304): being dropped unread is its proper end.
    pub fn discard(mut self) -> ResponseBody {
        self.content = Content::Empty;
        self.ahead = None;
        self.outcome = Outcome::Complete;
        self
    }

    /// What it is made of, and how far that may be read ahead, for whoever makes another body of it: before anybody has
    /// read of it or waits for its end.
    pub fn take_apart(&mut self) -> (Content, Option<Box<Ahead>>) {
        (std::mem::replace(&mut self.content, Content::Empty), self.ahead.take())
    }

    /// The other body: it may be read ahead as the first one was.
    pub fn of(content: Content, ahead: Option<Box<Ahead>>) -> ResponseBody {
        let mut body = ResponseBody::new(content);
        body.ahead = ahead;
        body
    }

    /// Its bytes, if they are all there: whoever takes them sends them.
    pub fn take_full(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Empty => Some(Bytes::new()),
            Content::Full(bytes) => {
                self.sent = bytes.len() as u64;
                self.outcome = Outcome::Complete;
                Some(bytes)
            }
            stream @ Content::Stream(_) => {
                self.content = stream;
                None
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = &mut *self;
        let Content::Stream(source) = &mut this.content else {
            let bytes = this.take_full().filter(|bytes| !bytes.is_empty());
            return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
        };
        let polled = match &mut this.ahead {
            Some(ahead) => ahead.poll_frame(source, cx),
            None => source.as_mut().poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.sent = this.sent.wrapping_add(frame.data_ref().map_or(0, |data| data.len() as u64));
                if this.is_end_stream() {
                    this.outcome = Outcome::Complete;
                }
            }
            Poll::Ready(Some(Err(cause))) => this.outcome = Outcome::Failed(*cause),
            Poll::Ready(None) => this.outcome = Outcome::Complete,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(source) => match &self.ahead {
                Some(ahead) => ahead.is_end_stream(source),
                None => source.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(source) => match &self.ahead {
                Some(ahead) => ahead.size_hint(source),
                None => source.size_hint(),
            },
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            // The source first: it gives the server's slot back, and its failures are counted before the request's.
            self.content = Content::Empty;
            self.ahead = None;
            on_end.ended(self.sent, self.outcome);
        }
    }
}
