//! A request's body that is held whole: its first bytes in memory, the rest in a temporary file. It can be read again
//! and again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::file::{OnDisk, PIECE, SMALL_PIECE, TempFile};
use super::pieces::Pieces;
use super::spool::{Bounds, InMemory, Spool, SpoolError};
use super::{RequestBody, Source};
use crate::observe::metrics::Direction;
use crate::request::rejection::Cause;

/// A body of at most this many bytes that is here already is taken as it is and not counted: its head may be as large.
const UNCOUNTED: usize = 16 * 1024;

/// A body that has come whole.
#[derive(Debug)]
pub struct Held {
    memory: Vec<Bytes>,
    /// Counts for the process as long as the body is there.
    _in_memory: InMemory,
    file: Option<Arc<TempFile>>,
    /// Bytes in the file.
    filed: u64,
    length: u64,
    trailers: Option<HeaderMap>,
    /// How far it has been read: pieces of memory, bytes of the file, whether its trailers were given.
    next: usize,
    at: u64,
    ended: bool,
    /// From the file, under way.
    reading: Option<OnDisk<Bytes>>,
}

/// Takes a body in, whole; what is held already, or there is none of, stays as it is. A small one that is here costs
/// nothing: no copy, no file.
///
/// # Errors
/// The body's own failure; `BodyPastBuffer` beyond `bounds`, as soon as that is known; what kept it from its file.
pub async fn hold(body: RequestBody, bounds: Bounds, spool: &Arc<Spool>) -> Result<RequestBody, SpoolError> {
    let RequestBody::Stream(mut source) = body else { return Ok(body) };
    if source.size_hint().exact().is_some_and(|stated| stated > bounds.most()) {
        return Err(Cause::BodyPastBuffer.into());
    }
    let mut first = poll_fn(|cx| Poll::Ready(source.as_mut().poll_frame(cx))).await;
    if let Poll::Ready(Some(Ok(frame))) = first {
        match frame.into_data() {
            Ok(data) if data.len() <= UNCOUNTED.min(bounds.memory) && source.is_end_stream() => {
                return Ok(if data.is_empty() { RequestBody::Empty } else { RequestBody::whole(data) });
            }
            Ok(data) => first = Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(frame) => first = Poll::Ready(Some(Ok(frame))),
        }
    }
    // On the heap: most bodies are small.
    Box::pin(Taking::new(bounds, spool).take_in(source, first)).await
}

/// A body that is being taken in.
struct Taking {
    bounds: Bounds,
    in_memory: InMemory,
    memory: Pieces,
    file: Option<Arc<TempFile>>,
    filed: u64,
    /// On their way to the file.
    batch: Pieces,
    trailers: Option<HeaderMap>,
}

impl Taking {
    fn new(bounds: Bounds, spool: &Arc<Spool>) -> Taking {
        Taking {
            bounds,
            in_memory: InMemory::none(spool),
            memory: Pieces::default(),
            file: None,
            filed: 0,
            batch: Pieces::default(),
            trailers: None,
        }
    }

    async fn take_in(
        mut self,
        mut source: Source,
        mut first: Poll<Option<Result<Frame<Bytes>, Cause>>>,
    ) -> Result<RequestBody, SpoolError> {
        loop {
            let frame = match std::mem::replace(&mut first, Poll::Pending) {
                Poll::Ready(frame) => frame,
                Poll::Pending => poll_fn(|cx| source.as_mut().poll_frame(cx)).await,
            };
            let Some(frame) = frame.transpose()? else { break };
            match frame.into_data() {
                Ok(data) => self.push(data).await?,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    break;
                }
            }
        }
        if !self.batch.is_empty() {
            self.flush().await?;
        }
        let length = self.filed.saturating_add(self.memory.len() as u64);
        if length == 0 && self.trailers.is_none() {
            return Ok(RequestBody::Empty);
        }
        Ok(RequestBody::Held(Box::new(Held {
            memory: self.memory.take(),
            _in_memory: self.in_memory,
            file: self.file,
            filed: self.filed,
            length,
            trailers: self.trailers,
            next: 0,
            at: 0,
            ended: false,
            reading: None,
        })))
    }

    async fn push(&mut self, data: Bytes) -> Result<(), SpoolError> {
        let behind = self.filed.saturating_add(self.batch.len() as u64);
        let in_memory = self.memory.len().saturating_add(data.len());
        if behind.saturating_add(in_memory as u64) > self.bounds.most() {
            return Err(Cause::BodyPastBuffer.into());
        }
        let short = self.in_memory.spool().is_short();
        self.in_memory.grow(data.len());
        if behind == 0 && in_memory <= self.bounds.memory && !short {
            self.memory.push(data);
            return Ok(());
        }
        self.batch.push(data);
        if self.batch.len() >= if short { SMALL_PIECE } else { PIECE } {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes the batch. A body that is dropped meanwhile leaves its file to the write, which ends soon.
    async fn flush(&mut self) -> Result<(), SpoolError> {
        let (at, length) = (self.filed, self.batch.len());
        self.filed = self.filed.saturating_add(length as u64);
        let spool = self.in_memory.spool();
        let file = self.file.get_or_insert_with(|| Arc::new(TempFile::new(spool, Direction::Request)));
        file.reserve(self.filed)?;
        let written = file.write(at, self.batch.take()).await;
        self.in_memory.shrink(length);
        written
    }
}

impl Held {
    /// Bytes without trailers.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// RFC 9110 section 6.5.1 lets trailers be dropped by whom they cannot be passed on by.
    pub fn drop_trailers(&mut self) {
        self.trailers = None;
    }

    pub(super) fn is_end(&self) -> bool {
        self.ended || (self.next >= self.memory.len() && self.at >= self.filed && self.trailers.is_none())
    }

    /// Begins again from the first byte.
    pub fn rewind(&mut self) {
        (self.next, self.at, self.ended, self.reading) = (0, 0, false, None);
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        if let Some(piece) = self.memory.get(self.next) {
            self.next = self.next.saturating_add(1);
            let piece = piece.clone();
            self.read_ahead();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.read_ahead();
        if let Some(reading) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            let piece = match read {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::warn!(detail = error.detail, "a request's body could not be read again");
                    return Poll::Ready(Some(Err(error.cause)));
                }
            };
            self.at = self.at.saturating_add(piece.len() as u64);
            // While the server takes this one.
            self.read_ahead();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(self.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Has the next piece of the file read once those in memory are given.
    fn read_ahead(&mut self) {
        let left = self.filed.saturating_sub(self.at);
        let Some(file) = self.file.as_ref().filter(|_| left > 0 && self.next >= self.memory.len()) else { return };
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        self.reading.get_or_insert_with(|| file.read(self.at, length));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::tests::{Pieces, bytes, spool};
    use super::*;

    const BOUNDS: Bounds = Bounds { memory: 100_000, disk: 1_000_000 };

    /// Everything that comes of a body, and whether trailers came last.
    async fn read(body: &mut RequestBody) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            match frame.unwrap().into_data() {
                Ok(data) => all.extend_from_slice(&data),
                Err(_) => return (all, true),
            }
        }
        (all, false)
    }

    #[tokio::test]
    async fn a_small_body_that_is_here_is_taken_as_it_is() {
        let (_directory, spool, metrics) = spool(0);
        let data = bytes(1, UNCOUNTED);
        let body = hold(Pieces::of([data.clone()], None), BOUNDS, &spool).await.unwrap();
        let RequestBody::Whole(whole) = &body else { panic!("it was here") };
        assert_eq!((whole.bytes.as_ptr(), metrics.memory()), (data.as_ptr(), 0));
        assert!(matches!(hold(Pieces::of([], None), BOUNDS, &spool).await, Ok(RequestBody::Empty)));
    }

    #[tokio::test]
    async fn a_body_of_any_size_comes_whole_again_and_again() {
        let (directory, spool, metrics) = spool(2_000_000);
        for sizes in [&[20_000][..], &[100, 30_000, 60_000], &[1; 50_000], &[90_000, 20_000, 5, 300_000, 400_000, 1]] {
            let pieces: Vec<Bytes> = sizes.iter().enumerate().map(|(n, &size)| bytes(n, size)).collect();
            let expected = pieces.concat();
            let mut body = hold(Pieces::of(pieces, None), BOUNDS, &spool).await.unwrap();
            assert_eq!(body.length(), Some(expected.len() as u64));
            let spilled = expected.len() > BOUNDS.memory;
            assert_eq!((metrics.files() == 1, metrics.disk() > 0), (spilled, spilled));
            assert!(metrics.memory() <= BOUNDS.memory as u64);
            assert_eq!(read(&mut body).await, (expected.clone(), false));
            assert!(body.is_end() && body.rewind());
            // Broken off in the middle of it.
            poll_fn(|cx| body.poll_frame(cx)).await;
            assert!(body.rewind());
            assert_eq!(read(&mut body).await, (expected, false));
            drop(body);
            assert_eq!((metrics.files(), metrics.disk(), metrics.memory()), (0, 0, 0));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn trailers_stay_and_leave_the_length_open() {
        let (_directory, spool, _) = spool(0);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        let mut body = hold(Pieces::of([bytes(0, 10)], Some(trailers)), BOUNDS, &spool).await.unwrap();
        assert_eq!((body.length(), read(&mut body).await), (None, (bytes(0, 10).to_vec(), true)));
        body.drop_trailers();
        assert!(body.rewind());
        assert_eq!((body.length(), read(&mut body).await), (Some(10), (bytes(0, 10).to_vec(), false)));
    }

    #[tokio::test]
    async fn what_cannot_be_held_is_refused_for_what_it_is() {
        let (_directory, spool, metrics) = spool(200_000);
        let refused = async |sizes: &[usize]| {
            let pieces: Vec<Bytes> = sizes.iter().map(|&size| bytes(0, size)).collect();
            let cause = hold(Pieces::of(pieces, None), BOUNDS, &spool).await.err().map(|error| error.cause);
            assert_eq!((metrics.files(), metrics.disk(), metrics.memory()), (0, 0, 0));
            cause
        };
        assert_eq!(refused(&[90_000, 200_000]).await, None);
        assert_eq!(refused(&[90_000, 200_001]).await, Some(Cause::TempLimitReached));
        assert_eq!(refused(&[90_000, 150_000, 150_000]).await, Some(Cause::TempLimitReached));
        assert_eq!(refused(&[90_000, 1_010_001]).await, Some(Cause::BodyPastBuffer));
        let nowhere = Arc::new(Spool::new("/does/not/exist".into(), 1 << 30, Arc::default()));
        let error = hold(Pieces::of([bytes(0, 200_000)], None), BOUNDS, &nowhere).await.err().unwrap();
        assert_eq!(error.cause, Cause::TempFileFailed);
        assert!(error.detail.unwrap().starts_with("a file in /does/not/exist: "));
    }
}
