//! A request's body that can be sent again while all that was read of it is still held; one that has come whole always
//! can.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::body::RequestBody;
use crate::request::rejection::Cause;

/// Bytes held for a replay.
const MOST_HELD: usize = 64 * 1024;

/// Pieces held for a replay: each costs beside its bytes.
const MOST_PIECES: usize = 256;

/// A body and what was read of it.
pub struct Replay {
    body: RequestBody,
    /// `None` once more was read than may be held, or trailers came.
    held: Option<Vec<Bytes>>,
    bytes: usize,
    /// The next piece to be sent again.
    next: usize,
}

impl Replay {
    pub fn new(body: RequestBody) -> Replay {
        Replay { body, held: Some(Vec::new()), next: 0, bytes: 0 }
    }

    /// Lets go of all of it: nothing of it will be sent any more.
    pub fn let_go(&mut self) {
        *self = Replay::new(RequestBody::Empty);
    }

    /// Begins again from the first byte, if that can be done.
    pub fn rewind(&mut self) -> bool {
        self.next = 0;
        self.body.rewind() || self.held.is_some()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let RequestBody::Stream(_) = &self.body else { return self.body.poll_frame(cx) };
        if let Some(piece) = self.held.as_ref().and_then(|held| held.get(self.next)) {
            self.next = self.next.saturating_add(1);
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = self.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.hold(frame.data_ref());
        }
        polled
    }

    fn hold(&mut self, data: Option<&Bytes>) {
        let Some(data) = data else {
            self.held = None;
            return;
        };
        self.bytes = self.bytes.saturating_add(data.len());
        match &mut self.held {
            Some(held) if self.bytes <= MOST_HELD && held.len() < MOST_PIECES => {
                held.push(data.clone());
                self.next = held.len();
            }
            Some(_) | None => self.held = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;

    use super::*;

    struct Pieces(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Cause;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn replay(sizes: &[usize]) -> Replay {
        let pieces = sizes.iter().map(|&size| Frame::data(Bytes::from(vec![b'x'; size]))).collect();
        Replay::new(RequestBody::Stream(Box::pin(Pieces(pieces))))
    }

    fn read(replay: &mut Replay, pieces: usize) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sum = 0;
        for _ in 0..pieces {
            match replay.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => sum += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => break,
            }
        }
        sum
    }

    #[test]
    fn what_was_read_comes_again_and_then_the_rest() {
        let mut body = replay(&[10, 20, 30]);
        assert_eq!(read(&mut body, 2), 30);
        assert!(body.rewind());
        assert_eq!(read(&mut body, 9), 60);
        assert!(body.rewind());
        assert_eq!(read(&mut body, 9), 60);
    }

    #[test]
    fn too_much_cannot_come_again() {
        let mut body = replay(&[MOST_HELD, 1, 5]);
        assert_eq!(read(&mut body, 1), MOST_HELD);
        assert!(body.rewind());
        assert_eq!(read(&mut body, 2), MOST_HELD + 1);
        assert!(!body.rewind());
    }
}
