//! A body that is coded while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Coding;
use super::encoder::Encoder;
use super::encoders::Open;
use crate::body::{AnswerBody, AnswerSource};
use crate::http1::timer::Timer;
use crate::request::rejection::Cause;

/// Bytes that are coded in one go, and between two turns of whoever else the thread serves.
const STEP: usize = 16 * 1024;
const TURN: usize = 64 * 1024;

/// Coded bytes that are worth sending.
const ENOUGH: usize = 8 * 1024;

/// Where the bytes to be coded come from.
pub(super) enum Input {
    /// They are all there.
    Full(Bytes),
    Source(AnswerSource),
}

/// How often what came is sent though it is less than `ENOUGH`. Each time costs some bytes, and what the encoder could
/// have learnt from: a service that sends row by row would lose most of what is gained.
const PAUSE: Duration = Duration::from_millis(20);

/// Codes what comes. When nothing comes, whatever came before is sent at once, and again after each pause: nobody waits for
/// more than the service sends.
pub(super) struct CodedBody {
    from: Input,
    /// Read and not coded yet.
    input: Bytes,
    /// `None` once the last byte is coded.
    encoder: Option<(Encoder, Open)>,
    /// Not flushed before then.
    rest: Timer,
    /// Whether the encoder holds anything that came since it was last flushed.
    unflushed: bool,
    turn: usize,
    trailers: Option<HeaderMap>,
}

impl CodedBody {
    /// `ends`: whether its length is known. Such a body hardly ever pauses, so not even its first bytes leave at once.
    pub(super) fn new(from: Input, encoder: Encoder, open: Open, ends: bool) -> CodedBody {
        let mut rest = Timer::new();
        if ends {
            rest.set(PAUSE);
        }
        CodedBody {
            from,
            input: Bytes::new(),
            encoder: Some((encoder, open)),
            rest,
            unflushed: false,
            turn: 0,
            trailers: None,
        }
    }

    /// The rest of it, which is small, at once.
    fn finish(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let Some((encoder, mut open)) = self.encoder.take() else { return self.end() };
        match encoder.finish() {
            Ok(rest) => {
                open.came_out(rest.len());
                if rest.is_empty() { self.end() } else { Poll::Ready(Some(Ok(Frame::data(rest)))) }
            }
            Err(_) => Poll::Ready(Some(Err(Cause::Internal))),
        }
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Body for CodedBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        loop {
            let Some((encoder, open)) = &mut this.encoder else { return this.end() };
            if !this.input.is_empty() {
                if this.turn >= TURN {
                    // The others' turn: coding takes its time.
                    this.turn = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let piece = this.input.split_to(this.input.len().min(STEP));
                this.turn = this.turn.saturating_add(piece.len());
                open.went_in(piece.len());
                this.unflushed = true;
                if encoder.write(&piece).is_err() {
                    return Poll::Ready(Some(Err(Cause::Internal)));
                }
                if encoder.ready() >= ENOUGH {
                    let out = encoder.take();
                    open.came_out(out.len());
                    return Poll::Ready(Some(Ok(Frame::data(out))));
                }
                continue;
            }
            let polled = match &mut this.from {
                Input::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
                Input::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
                Input::Source(source) => source.as_mut().poll_frame(cx),
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        return this.finish();
                    }
                },
                Poll::Ready(None) => return this.finish(),
                Poll::Ready(Some(Err(cause))) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(cause)));
                }
                Poll::Pending => {
                    if !this.unflushed || (this.rest.is_set() && this.rest.poll_expired(cx).is_pending()) {
                        return Poll::Pending;
                    }
                    if encoder.flush().is_err() {
                        return Poll::Ready(Some(Err(Cause::Internal)));
                    }
                    this.unflushed = false;
                    this.rest.set(PAUSE);
                    let out = encoder.take();
                    if out.is_empty() {
                        return Poll::Pending;
                    }
                    open.came_out(out.len());
                    return Poll::Ready(Some(Ok(Frame::data(out))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl AnswerBody for CodedBody {
    fn poll_request(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        match &mut self.get_mut().from {
            Input::Source(source) => source.as_mut().poll_request(cx),
            Input::Full(_) => {}
        }
    }
}

/// A body that is all there, coded at once.
///
/// # Errors
/// The library's.
pub(super) fn code_at_once(bytes: &[u8], coding: Coding, mut open: Open) -> std::io::Result<Bytes> {
    let mut encoder = Encoder::new(coding, Some(bytes.len() as u64))?;
    open.went_in(bytes.len());
    encoder.write(bytes)?;
    let coded = encoder.finish()?;
    open.came_out(coded.len());
    Ok(coded)
}

#[cfg(test)]
mod tests {

    use tokio::time::{Instant, Sleep, sleep};

    use super::super::encoders::Encoders;
    use super::*;
    use crate::observe::metrics::{Metrics, WorkerId};

    /// Rows, each a while after the one before.
    struct Rows {
        left: usize,
        every: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl Body for Rows {
        type Data = Bytes;
        type Error = Cause;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.next.as_mut().poll(cx));
            self.next = Box::pin(sleep(self.every));
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("{{\"row\": {}, \"item\": \"tea\"}}\n", self.left))))))
        }
    }

    impl AnswerBody for Rows {}

    /// When each piece of the coded rows came, and how many bytes they are together.
    async fn coded(rows: usize, every: Duration, ends: bool) -> (Vec<Duration>, usize) {
        let began = Instant::now();
        let source = Rows { left: rows, every, next: Box::pin(sleep(Duration::ZERO)) };
        let encoders = Encoders::new(WorkerId(0), Metrics::new(1));
        let encoder = Encoder::new(Coding::Gzip, None).unwrap();
        let from = Input::Source(Box::pin(source));
        let mut body = CodedBody::new(from, encoder, encoders.open(Coding::Gzip).unwrap(), ends);
        let (mut came, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            came.push(began.elapsed());
            bytes += piece.unwrap().into_data().unwrap().len();
        }
        (came, bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_leaves_at_once() {
        let second = Duration::from_secs(1);
        let (came, _) = coded(3, second, false).await;
        assert!(came[0] < Duration::from_millis(5), "{came:?}");
        assert_eq!(came.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 2], "{came:?}");
        // Of a known length: a pause is waited for first.
        let (came, _) = coded(3, second, true).await;
        assert_eq!(came.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 2], "{came:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_row_by_row_still_shrinks() {
        let (came, bytes) = coded(3000, Duration::from_millis(1), false).await;
        let pauses = 3000 / PAUSE.as_millis() as usize;
        assert!(came.len() <= pauses + 5 && came.len() >= pauses / 2, "{} pieces", came.len());
        assert!(bytes < 3000 * 33 / 4, "{bytes} bytes");
    }
}
