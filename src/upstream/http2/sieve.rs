//! A connection to a server, read without the frames that say nothing.
//!
//! A DATA frame without bytes that does not end its stream has no meaning, and some servers send one for each empty
//! piece that a service yields. The library ends a connection at the hundred-and-first of its life, with everything that
//! is under way, and tells nobody of those before. So it is not shown any.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::buffer::poll_read;

/// Bytes read at once.
const READ: usize = 32 * 1024;

/// A frame's head, RFC 9113 section 4.1: the length of what follows in three bytes, type, flags, stream.
const HEAD: usize = 9;

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

pub(super) struct Sieve<S> {
    stream: S,
    read: BytesMut,
    /// Bytes of the frame under way that are still to be handed on.
    left: usize,
}

impl<S> Sieve<S> {
    pub(super) fn new(stream: S) -> Sieve<S> {
        Sieve { stream, read: BytesMut::new(), left: 0 }
    }

    /// Steps over frames that say nothing; whether the next that says something has begun.
    fn is_in_frame(&mut self) -> bool {
        while self.left == 0 {
            let Some(&[high, middle, low, kind, flags, ..]) = self.read.first_chunk::<HEAD>() else { return false };
            match u32::from_be_bytes([0, high, middle, low]) {
                0 if kind == DATA && flags & (END_STREAM | PADDED) == 0 => self.read.advance(HEAD),
                length => self.left = HEAD.saturating_add(length as usize),
            }
        }
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sieve<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            while out.remaining() > 0 && this.is_in_frame() && !this.read.is_empty() {
                let length = this.left.min(this.read.len()).min(out.remaining());
                out.put_slice(&this.read.split_to(length));
                this.left = this.left.saturating_sub(length);
            }
            if out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if ready!(poll_read(&mut this.stream, cx, &mut this.read, READ))? == 0 {
                // Half a head is the library's to judge.
                let rest = this.read.len().min(out.remaining());
                out.put_slice(&this.read.split_to(rest));
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sieve<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        [&[0, 0, content.len() as u8, kind, flags, 0, 0, 0, 1], content].concat()
    }

    #[tokio::test]
    async fn only_what_says_nothing_is_left_out() {
        let empty = || frame(DATA, 0, b"");
        let says = [
            frame(4, 0, b""),
            frame(DATA, 0, b"some"),
            frame(DATA, PADDED, &[0]),
            frame(DATA, PADDED, b""),
            frame(1, 4, b"head"),
            frame(DATA, END_STREAM, b""),
        ];
        let sent: Vec<u8> =
            says.iter().flat_map(|frame| [empty(), empty(), frame.clone(), empty()]).flatten().collect();
        for piece in [1, 7, 10, 1000] {
            for room in [1, 8, 9, 1000] {
                let (mut far, near) = tokio::io::duplex(piece);
                let sending = async {
                    far.write_all(&sent).await.unwrap();
                    far.write_all(&[0, 0, 0]).await.unwrap();
                    drop(far);
                };
                let mut sieve = Sieve::new(near);
                let reading = async {
                    let mut got = Vec::new();
                    loop {
                        let mut buffer = vec![0; room];
                        match sieve.read(&mut buffer).await.unwrap() {
                            0 => return got,
                            length => got.extend_from_slice(&buffer[..length]),
                        }
                    }
                };
                let ((), got) = tokio::join!(sending, reading);
                assert_eq!(got, [says.concat(), vec![0, 0, 0]].concat(), "pieces of {piece}, room for {room}");
            }
        }
    }
}
