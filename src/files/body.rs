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
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use tokio::time::Instant;

use super::Readers;
use crate::body::AnswerBody;
use crate::request::rejection::Cause;

/// Bytes that are read at a time.
pub const PIECE: u64 = 128 * 1024;

/// For clients that took their time over the piece before: many of them shall not hold much.
const SMALL_PIECE: u64 = 16 * 1024;
const SLOW: Duration = Duration::from_millis(250);

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
    /// The piece that was handed out last: once nobody else holds it, the next is read into its place, which needs neither
    /// be made nor cleared.
    last: Bytes,
    /// When that was.
    handed: Instant,
    readers: Readers,
}

impl FileBody {
    pub fn new(file: OwnedFd, pieces: VecDeque<Piece>, readers: Readers) -> FileBody {
        let left = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.length()));
        FileBody {
            file: Arc::new(file),
            pieces,
            left,
            reading: None,
            last: Bytes::new(),
            handed: Instant::now(),
            readers,
        }
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
        self.last = bytes.clone();
        self.handed = Instant::now();
        self.hand_out(bytes)
    }

    /// Where the next piece is read to.
    fn space(&mut self, want: u64) -> BytesMut {
        let want = usize::try_from(want).unwrap_or(0);
        match std::mem::take(&mut self.last).try_into_mut() {
            Ok(mut space) if space.len() >= want => {
                space.truncate(want);
                space
            }
            Ok(_) | Err(_) => BytesMut::zeroed(want),
        }
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

impl AnswerBody for FileBody {}

impl Body for FileBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        if this.reading.is_none() {
            let (from, want) = match this.pieces.front() {
                None => return Poll::Ready(None),
                Some(Piece::Span(span)) => {
                    let most = if this.handed.elapsed() > SLOW { SMALL_PIECE } else { PIECE };
                    (span.start, span.end.saturating_sub(span.start).min(most))
                }
                Some(Piece::Text(text)) => {
                    let text = text.clone();
                    this.pieces.pop_front();
                    return this.hand_out(text);
                }
            };
            let space = this.space(want);
            match read_now(&this.file, from, space) {
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

/// Reads what is in the page cache, as much as fits into `space`, without waiting; `None`: it has to be waited for.
///
/// # Errors
/// `UnexpectedEof` when the file ends before `from`.
pub fn read_now(file: &OwnedFd, from: u64, mut space: BytesMut) -> io::Result<Option<Bytes>> {
    match preadv2(file, &mut [IoSliceMut::new(&mut space)], from, ReadWriteFlags::NOWAIT) {
        Ok(count) => filled(space, count).map(Some),
        // Not every file system and kernel can tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_patiently(file: &OwnedFd, from: u64, want: u64) -> io::Result<Bytes> {
    let mut space = Vec::with_capacity(usize::try_from(want).unwrap_or(0));
    loop {
        match pread(file, spare_capacity(&mut space), from) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(Bytes::from(space)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn filled(mut space: BytesMut, count: usize) -> io::Result<Bytes> {
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    space.truncate(count);
    Ok(space.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_long_is_given_less_at_a_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 500_000]).unwrap();
        let mut body = FileBody::new(file.into(), VecDeque::from([Piece::Span(0..500_000)]), Readers::default());
        let mut lengths = Vec::new();
        for waited in [0, 300, 300, 0] {
            tokio::time::advance(Duration::from_millis(waited)).await;
            let piece = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            lengths.push(piece.unwrap().unwrap().into_data().unwrap().len() as u64);
        }
        assert_eq!(lengths, [PIECE, SMALL_PIECE, SMALL_PIECE, PIECE]);
    }

    #[tokio::test]
    async fn a_piece_takes_the_place_of_the_one_that_was_sent() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        file.write_all(&content).unwrap();
        for held in [false, true] {
            let pieces = VecDeque::from([Piece::Span(0..content.len() as u64)]);
            let mut body = FileBody::new(file.try_clone().unwrap().into(), pieces, Readers::default());
            let (mut read, mut kept, mut places) = (Vec::new(), Vec::new(), Vec::new());
            while let Some(piece) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let piece = piece.unwrap().into_data().unwrap();
                read.extend_from_slice(&piece);
                places.push(piece.as_ptr());
                if held {
                    kept.push(piece);
                }
            }
            assert!(
                read == content && kept.iter().zip(content.chunks(PIECE as usize)).all(|(one, other)| one == other)
            );
            places.dedup();
            assert_eq!(places.len(), if held { 3 } else { 1 }, "{places:?}");
        }
    }
}
