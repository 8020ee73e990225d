//! Reading into a buffer that costs nothing while a connection is silent.
//!
//! A socket is read into a scratch space of its thread; only what came is copied to the connection. So an idle
//! connection holds no buffer, and a short message costs one copy of its own size.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes taken from a socket at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads once and appends to `into`, at most `limit` bytes. Zero means the end of the stream.
///
/// # Errors
/// Those of the stream.
pub fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    SPACE.with_borrow_mut(|space| {
        let limit = limit.min(space.len());
        let mut buffer = ReadBuf::new(space.get_mut(..limit).unwrap_or_default());
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        into.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Reads once and appends to `into`, without a copy, as much as comes of `limit` bytes. Nothing is held while nothing
/// comes. Zero means the end of the stream.
///
/// # Errors
/// Those of the stream.
pub fn poll_read_in_place<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    into.reserve(limit);
    let read = pin!(stream.read_buf(&mut (&mut *into).limit(limit))).poll(cx);
    if into.is_empty() {
        *into = BytesMut::new();
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_read_in_place_is_appended_and_nothing_is_held_meanwhile() {
        use tokio::io::AsyncWriteExt;
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut into = BytesMut::from("head");
        far.write_all(b"0123456789").await.expect("a pipe does not fail");
        let read = std::future::poll_fn(|cx| poll_read_in_place(&mut near, cx, &mut into, 6)).await;
        assert_eq!((read.expect("bytes"), &into[..]), (6, &b"head012345"[..]));
        into.clear();
        let read = std::future::poll_fn(|cx| poll_read_in_place(&mut near, cx, &mut into, 1 << 16)).await;
        assert_eq!((read.expect("bytes"), &into[..]), (4, &b"6789"[..]));
        into.clear();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(poll_read_in_place(&mut near, &mut cx, &mut into, 1 << 16).is_pending());
        assert_eq!(into.capacity(), 0);
    }
}
