//! The body of an answer that is a file, or parts of one, read while it is sent.
//!
//! What lies in the page cache is read at once; what does not is waited for on a thread that may block. At most one piece
//! is in memory. The descriptor is the file: whatever is put in its place meanwhile, the answer goes on from this one.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::Readers;
use crate::request::rejection::Cause;

/// Bytes that are read at a time.
pub const PIECE: u64 = 128 * 1024;

/// What a body is made of, in turn.
#[derive(Debug)]
pub enum Piece {
    Text(Bytes),
    /// Of the file; not empty.
    Span(Range<u64>),
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>>>>;

/// A file's bytes, perhaps with text in between.
pub struct FileBody {
    file: Arc<OwnedFd>,
    pieces: VecDeque<Piece>,
    left: u64,
    reading: Option<Reading>,
    readers: Readers,
}

impl FileBody {
    pub fn new(file: OwnedFd, pieces: VecDeque<Piece>, readers: Readers) -> FileBody {
        let left = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.length()));
        FileBody { file: Arc::new(file), pieces, left, reading: None, readers }
    }

    /// Bytes that came of the span in front.
    fn came(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let length = bytes.len() as u64;
        if let Some(Piece::Span(span)) = self.pieces.front_mut() {
            span.start = span.start.saturating_add(length);
            if span.start >= span.end {
                self.pieces.pop_front();
            }
        }
        self.hand_out(bytes)
    }

    fn hand_out(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 {
            self.pieces.clear();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// An answer that cannot be completed breaks off.
    fn failed(&mut self, error: &io::Error) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.pieces.clear();
        tracing::debug!(%error, "a file could not be read to its end");
        let shrunk = error.kind() == io::ErrorKind::UnexpectedEof;
        Poll::Ready(Some(Err(if shrunk { Cause::FileChanged } else { Cause::FileUnreadable })))
    }
}

impl Piece {
    pub fn length(&self) -> u64 {
        match self {
            Piece::Text(text) => text.len() as u64,
            Piece::Span(span) => span.end.saturating_sub(span.start),
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        if this.reading.is_none() {
            let (from, want) = match this.pieces.front() {
                None => return Poll::Ready(None),
                Some(Piece::Span(span)) => (span.start, span.end.saturating_sub(span.start).min(PIECE)),
                Some(Piece::Text(text)) => {
                    let text = text.clone();
                    this.pieces.pop_front();
                    return this.hand_out(text);
                }
            };
            match read_now(&this.file, from, want) {
                Ok(Some(bytes)) => return this.came(bytes),
                Ok(None) => {
                    let (file, readers) = (Arc::clone(&this.file), this.readers.clone());
                    this.reading =
                        Some(Box::pin(async move { readers.run(move || read_patiently(&file, from, want)).await }));
                }
                Err(error) => return this.failed(&error),
            }
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let read = ready!(reading.as_mut().poll(cx));
        this.reading = None;
        match read {
            Ok(bytes) => this.came(bytes),
            Err(error) => this.failed(&error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads what is in the page cache, up to `want` bytes, without waiting; `None`: it has to be waited for.
///
/// # Errors
/// `UnexpectedEof` when the file ends before `from`.
pub fn read_now(file: &OwnedFd, from: u64, want: u64) -> io::Result<Option<Bytes>> {
    let mut space = vec![0; usize::try_from(want).unwrap_or(0)];
    match preadv2(file, &mut [IoSliceMut::new(&mut space)], from, ReadWriteFlags::NOWAIT) {
        Ok(count) => filled(space, count).map(Some),
        // Not every file system and kernel can tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_patiently(file: &OwnedFd, from: u64, want: u64) -> io::Result<Bytes> {
    let mut space = vec![0; usize::try_from(want).unwrap_or(0)];
    loop {
        match pread(file, &mut space[..], from) {
            Ok(count) => return filled(space, count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn filled(mut space: Vec<u8>, count: usize) -> io::Result<Bytes> {
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    space.truncate(count);
    Ok(Bytes::from(space))
}
