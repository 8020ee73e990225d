//! Bytes on their way out: small ones gathered, a large one lent, all written with one call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::encode;

/// Up to here data is copied next to the head, so that one plain write sends both.
const COPY: usize = 8 * 1024;

/// The memory that an empty queue keeps for the next message; its owner gives it back when it falls idle.
const KEPT: usize = 4 * 1024;

/// Gathered bytes past which writing comes before gathering more.
const FULL: usize = 16 * 1024;

/// What is to be written, in this order: gathered bytes, one large piece, the end of its chunk.
#[derive(Default)]
pub struct Queue {
    small: BytesMut,
    large: Bytes,
    tail: &'static [u8],
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether more may be pushed before it is flushed. Bounds what one connection holds.
    pub fn has_room(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty() && self.small.len() < FULL
    }

    /// For heads and the like; only while there is room.
    pub fn gather(&mut self) -> &mut BytesMut {
        &mut self.small
    }

    /// A piece of a body, as it is; only while there is room.
    pub fn push_data(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.small.extend_from_slice(&data);
        } else {
            self.large = data;
        }
    }

    /// A piece of a body, as a chunk; only while there is room. An empty one is left out: it would end the body.
    pub fn push_chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        encode::chunk_size(&mut self.small, data.len());
        if data.len() <= COPY {
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(b"\r\n");
        } else {
            self.large = data;
            self.tail = b"\r\n";
        }
    }

    /// Gives the memory back that is kept for the next message.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.small = BytesMut::new();
        }
    }

    /// Forgets everything, for a connection that is used no more or a request that is begun again.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }

    /// Writes once; the number of bytes written. Does nothing and is ready with zero when empty.
    ///
    /// # Errors
    /// Those of the stream; `WriteZero` when it takes nothing.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let stream = Pin::new(stream);
        let mut written = if self.large.is_empty() && self.tail.is_empty() {
            ready!(stream.poll_write(cx, &self.small))?
        } else {
            let parts = [IoSlice::new(&self.small), IoSlice::new(&self.large), IoSlice::new(self.tail)];
            ready!(stream.poll_write_vectored(cx, &parts))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let total = written;
        for part in [&mut self.small as &mut dyn Buf, &mut self.large, &mut self.tail] {
            let taken = written.min(part.remaining());
            part.advance(taken);
            written = written.saturating_sub(taken);
        }
        if self.small.is_empty() && self.small.capacity() > KEPT {
            self.small = BytesMut::new();
        }
        Poll::Ready(Ok(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write_all(queue: &mut Queue, pipe: usize) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let (mut near, mut far) = tokio::io::duplex(pipe);
        let reader = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.expect("a pipe does not fail");
            got
        };
        let writer = async {
            while !queue.is_empty() {
                std::future::poll_fn(|cx| queue.poll_write(&mut near, cx)).await.expect("a pipe does not fail");
            }
            drop(near);
        };
        tokio::join!(reader, writer).0
    }

    #[tokio::test]
    async fn order_is_kept_through_partial_writes() {
        for size in [1, COPY, COPY + 1, 100_000] {
            let mut queue = Queue::default();
            queue.gather().extend_from_slice(b"head");
            queue.push_chunk(Bytes::from(vec![b'x'; size]));
            let expected = format!("head{size:x}\r\n{}\r\n", "x".repeat(size));
            assert_eq!(write_all(&mut queue, 7).await, expected.as_bytes());
        }
    }

    #[test]
    fn an_empty_piece_does_not_end_a_chunked_body() {
        let mut queue = Queue::default();
        queue.push_chunk(Bytes::new());
        assert!(queue.is_empty());
    }
}
