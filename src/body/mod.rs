//! Message bodies, as they pass from one side to the other: frames of bytes, then perhaps trailers.
//!
//! This module knows neither side. What a connection reads is put behind [`Source`]; errors are causes of the one
//! table, so that whoever reads a body can tell the client from the upstream without downcasts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::request::rejection::Cause;

/// A body that is read from somewhere.
pub type Source = Pin<Box<dyn Body<Data = Bytes, Error = Cause>>>;

/// The body of a request: from the client, to an upstream.
pub enum RequestBody {
    Empty,
    /// Its size hint is exact where the client stated a length.
    Stream(Source),
}

impl RequestBody {
    /// Its length in bytes, where the client stated one.
    pub fn length(&self) -> Option<u64> {
        match self {
            RequestBody::Empty => Some(0),
            RequestBody::Stream(source) => source.size_hint().exact(),
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        match self {
            RequestBody::Empty => Poll::Ready(None),
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
    Stream(Source),
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
    sent: u64,
    outcome: Outcome,
    on_end: Option<Box<dyn OnEnd>>,
}

impl ResponseBody {
    pub fn new(content: Content) -> ResponseBody {
        let mut body = ResponseBody { content, sent: 0, outcome: Outcome::Abandoned, on_end: None };
        if body.is_end_stream() {
            // Nobody needs to read it to its end.
            body.outcome = Outcome::Complete;
        }
        body
    }

    pub fn on_end(mut self, on_end: Box<dyn OnEnd>) -> ResponseBody {
        self.on_end = Some(on_end);
        self
    }

    /// Whether it comes from a server, which may still be taking the request's body meanwhile.
    pub fn is_stream(&self) -> bool {
        matches!(self.content, Content::Stream(_))
    }

    /// For an answer whose content is not sent (to HEAD, 204, 304): being dropped unread is its proper end.
    pub fn discard(mut self) -> ResponseBody {
        self.content = Content::Empty;
        self.outcome = Outcome::Complete;
        self
    }

    /// What it is made of, for whoever makes another body of it.
    pub fn take_content(&mut self) -> Content {
        std::mem::replace(&mut self.content, Content::Empty)
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
        let polled = source.as_mut().poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.sent = this.sent.wrapping_add(frame.data_ref().map_or(0, |data| data.len() as u64));
                if source.is_end_stream() {
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
            Content::Stream(source) => source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(source) => source.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            // The source first: it gives the server's slot back, and its failures are counted before the request's.
            self.content = Content::Empty;
            on_end.ended(self.sent, self.outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

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
}
