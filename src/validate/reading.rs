//! A request's body that is read here as far as judging it needs, and then given on: its bytes and trailers unchanged,
//! and whatever has not come yet behind them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::memory::{Full, Held};
use crate::body::RequestBody;
use crate::request::rejection::Cause;

/// A body under way.
pub(super) struct Reading {
    rest: RequestBody,
    buffer: Buffer,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Its whole length, where the client stated it.
    stated: Option<u64>,
    held: Held,
}

/// What was read. A body that came in one piece, as small ones do, is not copied.
enum Buffer {
    Nothing,
    One(Bytes),
    Joined(BytesMut),
}

impl Buffer {
    fn len(&self) -> usize {
        match self {
            Buffer::Nothing => 0,
            Buffer::One(bytes) => bytes.len(),
            Buffer::Joined(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, data: Bytes) {
        *self = match std::mem::replace(self, Buffer::Nothing) {
            Buffer::Nothing => Buffer::One(data),
            Buffer::One(first) => {
                let mut joined = BytesMut::with_capacity(first.len().saturating_add(data.len()));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                Buffer::Joined(joined)
            }
            Buffer::Joined(mut joined) => {
                joined.extend_from_slice(&data);
                Buffer::Joined(joined)
            }
        };
    }

    fn freeze(self) -> Bytes {
        match self {
            Buffer::Nothing => Bytes::new(),
            Buffer::One(bytes) => bytes,
            Buffer::Joined(bytes) => bytes.freeze(),
        }
    }
}

/// Why reading ended before the body did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The body failed: nothing can be done with it any more.
    Failed(Cause),
    /// It is longer than asked for.
    TooLarge,
    /// There is no memory for it.
    Full(Full),
}

impl Reading {
    pub(super) fn new(body: RequestBody) -> Reading {
        let stated = body.length();
        let ended = matches!(body, RequestBody::Empty);
        Reading { rest: body, buffer: Buffer::Nothing, trailers: None, ended, stated, held: Held::nothing() }
    }

    /// The length that the client stated.
    pub(super) fn stated(&self) -> Option<u64> {
        self.stated
    }

    /// Whether there is any content; waits for its first bytes where the client did not state a length.
    ///
    /// # Errors
    /// When the body fails.
    pub(super) async fn has_content(&mut self) -> Result<bool, Halt> {
        if let Some(stated) = self.stated {
            return Ok(stated > 0);
        }
        while self.buffer.len() == 0 && !self.ended {
            self.read_on().await?;
        }
        Ok(self.buffer.len() > 0)
    }

    /// Reads it to its end; what is read beyond `most` bytes stays read.
    ///
    /// # Errors
    /// When it fails or is too large.
    pub(super) async fn read_to_end(&mut self, most: u64) -> Result<(), Halt> {
        while !self.ended {
            self.read_on().await?;
            if self.buffer.len() as u64 > most {
                return Err(Halt::TooLarge);
            }
        }
        Ok(())
    }

    async fn read_on(&mut self) -> Result<(), Halt> {
        let Some(frame) = poll_fn(|cx| self.rest.poll_frame(cx)).await else {
            self.ended = true;
            return Ok(());
        };
        match frame.map_err(Halt::Failed)?.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => {
                // A buffer that grows holds up to twice what is in it.
                let charged = self.held.grow(data.len().saturating_mul(2));
                self.buffer.push(data);
                charged.map_err(Halt::Full)
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.trailers = Some(trailers);
                    self.ended = true;
                }
                Ok(())
            }
        }
    }

    /// All that was read.
    pub(super) fn bytes(&mut self) -> Bytes {
        let bytes = std::mem::replace(&mut self.buffer, Buffer::Nothing).freeze();
        if !bytes.is_empty() {
            self.buffer = Buffer::One(bytes.clone());
        }
        bytes
    }

    /// The body as it came.
    pub(super) fn into_body(self) -> RequestBody {
        let Reading { rest, buffer, trailers, ended, stated, held } = self;
        match buffer.freeze() {
            bytes if !bytes.is_empty() || trailers.is_some() => {
                let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
                let rest = if ended { RequestBody::Empty } else { rest };
                RequestBody::Stream(Box::pin(GivenOn { bytes, rest, trailers, left: stated, _held: held }))
            }
            _ if ended => RequestBody::Empty,
            _ => rest,
        }
    }
}

/// What was read, then what was not.
struct GivenOn {
    bytes: Option<Bytes>,
    rest: RequestBody,
    trailers: Option<HeaderMap>,
    /// Bytes that are still to be given, where the client stated a length.
    left: Option<u64>,
    /// Until the body is dropped: who sends it on may hold it to send it again.
    _held: Held,
}

impl Body for GivenOn {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let polled = match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => self.rest.poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(length));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            failed @ Poll::Ready(Some(Err(_))) => failed,
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.trailers.is_none() && self.rest.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderValue;

    use super::*;

    struct Pieces {
        pieces: VecDeque<Result<Frame<Bytes>, Cause>>,
        stated: Option<u64>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Cause;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
            Poll::Ready(self.pieces.pop_front())
        }

        fn size_hint(&self) -> SizeHint {
            self.stated.map(SizeHint::with_exact).unwrap_or_default()
        }
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, Cause> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn trailers() -> Result<Frame<Bytes>, Cause> {
        Ok(Frame::trailers(HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))])))
    }

    fn reading(pieces: impl IntoIterator<Item = Result<Frame<Bytes>, Cause>>, stated: Option<u64>) -> Reading {
        let pieces = pieces.into_iter().collect();
        Reading::new(RequestBody::Stream(Box::pin(Pieces { pieces, stated })))
    }

    /// What comes of the body, frame by frame.
    async fn drained(mut body: RequestBody) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            all.push(match frame.expect("a frame").into_data() {
                Ok(data) => String::from_utf8(data.to_vec()).expect("UTF-8"),
                Err(_) => "(trailers)".to_owned(),
            });
        }
        all
    }

    #[tokio::test]
    async fn a_whole_body_is_read_and_given_on_with_its_trailers() {
        let mut body = reading([data("ab"), data(""), data("cd"), data("e"), trailers()], None);
        assert_eq!(body.has_content().await, Ok(true));
        assert_eq!(body.read_to_end(5).await, Ok(()));
        assert_eq!(body.bytes(), "abcde");
        let given = body.into_body();
        assert_eq!(given.length(), None, "a body without a length stays one");
        assert_eq!(drained(given).await, ["abcde", "(trailers)"]);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_can_still_be_given_on() {
        let mut body = reading([data("ab"), data("cd"), data("e")], Some(5));
        assert_eq!(body.read_to_end(3).await, Err(Halt::TooLarge));
        let given = body.into_body();
        assert_eq!(given.length(), Some(5));
        assert_eq!(drained(given).await, ["abcd", "e"]);
    }

    #[tokio::test]
    async fn nothing_is_nothing() {
        let mut none = Reading::new(RequestBody::Empty);
        assert_eq!(none.has_content().await, Ok(false));
        assert!(matches!(none.into_body(), RequestBody::Empty));
        let mut empty = reading([data("")], None);
        assert_eq!(empty.has_content().await, Ok(false));
        assert!(matches!(empty.into_body(), RequestBody::Empty));
        let unread = reading([data("ab")], Some(2));
        assert_eq!(drained(unread.into_body()).await, ["ab"]);
    }

    #[tokio::test]
    async fn a_body_that_fails_says_why() {
        let mut body = reading([data("ab"), Err(Cause::BodyTimeout)], None);
        assert_eq!(body.read_to_end(9).await, Err(Halt::Failed(Cause::BodyTimeout)));
    }
}
