//! A body that is coded while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Coding;
use super::encoder::Encoder;
use super::encoders::Open;
use crate::body::Source;
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
    Source(Source),
}

/// Codes what comes. When nothing comes, whatever came before is sent: nobody waits for more than the service sends.
pub(super) struct CodedBody {
    from: Input,
    /// Read and not coded yet.
    input: Bytes,
    /// `None` once the last byte is coded.
    encoder: Option<(Encoder, Open)>,
    /// Whether a pause is to be made up for. Not where the length was known: then there is an end to wait for.
    flushes: bool,
    /// Whether the encoder holds anything that came since it was last flushed.
    unflushed: bool,
    turn: usize,
    trailers: Option<HeaderMap>,
}

impl CodedBody {
    pub(super) fn new(from: Input, encoder: Encoder, open: Open, flushes: bool) -> CodedBody {
        CodedBody {
            from,
            input: Bytes::new(),
            encoder: Some((encoder, open)),
            flushes,
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
                    if this.flushes && this.unflushed {
                        if encoder.flush().is_err() {
                            return Poll::Ready(Some(Err(Cause::Internal)));
                        }
                        this.unflushed = false;
                    }
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
