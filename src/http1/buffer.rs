//! Reading into a buffer that costs nothing while a connection is silent.
//!
//! A socket is read into a scratch space of its thread; only what came is copied to the connection. So an idle
//! connection holds no buffer, and a short message costs one copy of its own size.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

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
