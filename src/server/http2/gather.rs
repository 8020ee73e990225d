//! Writes of many streams gathered into one.
//!
//! The codec writes each larger frame by itself and flushes after it, so every stream's data would take a system call
//! and a TLS record of its own. Here they are put together, and sent once each time the connection has been polled.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::stream::ClientStream;

/// What is gathered at most before it is sent in between.
const GATHER: usize = 64 * 1024;

/// What a buffer that has been emptied may keep for the next time.
const KEEP: usize = 16 * 1024;

/// A handle to the stream: hyper holds one, the connection's course another.
pub(super) struct Gather<S = ClientStream>(Rc<RefCell<Inner<S>>>);

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Gather(Rc::clone(&self.0))
    }
}

struct Inner<S> {
    stream: S,
    gathered: BytesMut,
    /// Whether the stream itself may still hold back something that it took: a TLS record, for one.
    unflushed: bool,
    written: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(stream: S) -> Gather<S> {
        Gather(Rc::new(RefCell::new(Inner { stream, gathered: BytesMut::new(), unflushed: false, written: 0 })))
    }

    /// Sends what has been gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// Bytes that the stream has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.0.borrow().written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            self.unflushed = true;
            let length = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(length);
            self.written = self.written.saturating_add(length as u64);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            if self.gathered.capacity() > KEEP {
                self.gathered = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.gathered.len() >= GATHER {
            ready!(inner.poll_send(cx))?;
        }
        let length = data.len().min(GATHER.saturating_sub(inner.gathered.len()));
        inner.gathered.extend_from_slice(data.get(..length).unwrap_or_default());
        Poll::Ready(Ok(length))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.gathered.len() >= GATHER {
            ready!(inner.poll_send(cx))?;
        }
        let mut taken = 0_usize;
        for piece in data {
            let length = piece.len().min(GATHER.saturating_sub(inner.gathered.len()));
            inner.gathered.extend_from_slice(piece.get(..length).unwrap_or_default());
            taken = taken.saturating_add(length);
            if length < piece.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: what is gathered is sent once the connection has been polled.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn is_sent_when_told_and_in_order() {
        let (near, mut far) = tokio::io::duplex(100);
        let mut gather = Gather::new(near);
        gather.write_all(b"one ").await.unwrap();
        gather.flush().await.unwrap();
        assert_eq!(gather.write_vectored(&[io::IoSlice::new(b"two "), io::IoSlice::new(b"three")]).await.unwrap(), 9);
        assert_eq!(gather.written(), 0);
        poll_fn(|cx| gather.poll_send(cx)).await.unwrap();
        assert_eq!(gather.written(), 13);
        let mut read = [0; 13];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two three");
    }

    #[tokio::test]
    async fn more_than_the_bound_goes_through() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut gather = Gather::new(near);
        let data: Vec<u8> = (0..3 * GATHER + 5).map(|n| (n % 251) as u8).collect();
        let expected = data.clone();
        let write = async move {
            gather.write_all(&data).await.unwrap();
            assert!(gather.0.borrow().gathered.len() <= GATHER);
            gather.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, length) = tokio::join!(write, far.read_to_end(&mut read));
        assert_eq!((length.unwrap(), read), (expected.len(), expected));
    }
}
