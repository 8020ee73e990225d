//! The body of a server's response as it comes, and the end of the exchange with it.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Exchange, Failed, READ, Replay, Sending};
use crate::body::{AnswerBody, Content, Pipe};
use crate::http1::buffer::{poll_read, poll_read_in_place};
use crate::http1::chunked::{Decoded, Decoder};
use crate::http1::encode;
use crate::http1::framing::Framing;
use crate::request::rejection::{Blame, Cause};
use crate::upstream::health::Failure;

/// What is known to come of a body from which on it is read into memory of its own, and how much of it at once.
const LONG: u64 = 32 * 1024;
const READ_IN_PLACE: usize = 128 * 1024;

/// The body of a server's response; goes on sending the request's while it is read.
pub(super) struct ServerBody {
    /// Taken when it is complete.
    exchange: Option<Exchange>,
    body: Replay,
    decoder: Decoder,
    keep: bool,
    /// Whether the client took something since the server was last waited for: only then is the server timed anew.
    taken: bool,
    /// What came with the head: looked at before the head is passed on.
    first: Option<Frame<Bytes>>,
}

impl ServerBody {
    /// `keep`: whether the connection may serve again afterwards.
    pub(super) fn new(exchange: Exchange, body: Replay, framing: Framing, keep: bool) -> ServerBody {
        ServerBody { exchange: Some(exchange), body, decoder: Decoder::new(framing), keep, taken: false, first: None }
    }

    /// The content, unless it fails at once: as long as nothing was passed on, the client can be told.
    ///
    /// # Errors
    /// The failure, of which the server's health and the journey have been told.
    pub(super) fn begin(mut self) -> Result<Content, Failed> {
        // Whoever reads it polls again.
        match Pin::new(&mut self).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(None) => return Ok(Content::Empty),
            Poll::Ready(Some(Err(cause))) => {
                return Err(Failed { wrote: true, answered: true, told: true, ..Failed::unsent(cause) });
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if self.exchange.is_none() => return Ok(Content::Full(data)),
                Ok(data) => self.first = Some(Frame::data(data)),
                Err(trailers) => self.first = Some(trailers),
            },
        }
        Ok(Content::Stream(Box::pin(self)))
    }

    fn finish(&mut self) {
        self.body.let_go();
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(self.keep);
        }
    }

    fn fail(&mut self, cause: Cause, detail: Option<String>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        Poll::Ready(Some(Err(self.failed(cause, detail))))
    }

    fn failed(&mut self, cause: Cause, detail: Option<String>) -> Cause {
        self.body.let_go();
        if let Some(exchange) = self.exchange.take() {
            exchange.journey.ended();
            exchange.journey.failed(detail);
            if cause.row().blame == Blame::Client {
                exchange.abandon();
            } else if !matches!(cause, Cause::UpstreamBodyTimeout | Cause::StreamSilent) {
                exchange.lease.server().health.failed(Failure::Broken);
            }
        }
        cause
    }

    /// Ready when the server has been waited for in vain.
    fn poll_waited(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let timer = &mut exchange.connection.timer;
        if std::mem::take(&mut self.taken) {
            timer.set(exchange.timeouts.between_bytes);
        }
        ready!(timer.poll_expired(cx));
        let both = exchange.waits_for_client();
        Poll::Ready(self.failed(if both { Cause::StreamSilent } else { Cause::UpstreamBodyTimeout }, None))
    }
}

impl Drop for ServerBody {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abandon();
        }
    }
}

impl Exchange {
    /// Sends what can be sent of the request while it is answered.
    fn send_on(&mut self, cx: &mut Context<'_>, body: &mut Replay) {
        // A client that breaks its own body off still gets the answer that was already on its way.
        if let Poll::Ready(Err(_)) = self.poll_send(cx, body) {
            self.sending = Sending::Refused(std::io::ErrorKind::ConnectionAborted);
        }
        if !matches!(self.sending, Sending::Body { .. }) {
            // The answer may take long, and the request is not sent again once it has begun.
            body.let_go();
        }
    }
}

impl AnswerBody for ServerBody {
    fn poll_request(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let this = self.get_mut();
        if let Some(exchange) = &mut this.exchange {
            exchange.send_on(cx, &mut this.body);
        }
    }

    fn movable(&self) -> u64 {
        match &self.exchange {
            Some(Exchange { connection, .. })
                if self.first.is_none() && connection.read.is_empty() && connection.stream.is_plain() =>
            {
                self.decoder.remaining().unwrap_or(0)
            }
            Some(_) | None => 0,
        }
    }

    fn poll_move(self: Pin<&mut Self>, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<usize, Cause>> {
        let this = self.get_mut();
        let Some(exchange) = &mut this.exchange else { return Poll::Pending };
        exchange.send_on(cx, &mut this.body);
        Poll::Ready(match exchange.connection.stream.poll_move(cx, pipe, this.decoder.remaining().unwrap_or(0)) {
            Poll::Ready(Ok(length @ 1..)) => {
                this.taken = true;
                this.decoder.passed(length as u64);
                if this.decoder.is_end() {
                    this.finish();
                }
                Ok(length)
            }
            Poll::Ready(Ok(0)) => Err(this.failed(Cause::UpstreamCutShort, None)),
            Poll::Ready(Err(error)) => Err(this.failed(Cause::UpstreamCutShort, Some(error.to_string()))),
            Poll::Pending => Err(ready!(this.poll_waited(cx))),
        })
    }
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        exchange.send_on(cx, &mut this.body);
        let was_reset = exchange.was_reset();
        loop {
            let connection = &mut *exchange.connection;
            match this.decoder.decode(&mut connection.read) {
                Ok(Decoded::Data(data)) => {
                    this.taken = true;
                    if this.decoder.is_end() {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    this.finish();
                    // Cleaned here, since HTTP/2 has no encoder of ours that would.
                    return Poll::Ready(Some(Ok(Frame::trailers(encode::trailing(&trailers)))));
                }
                Ok(Decoded::End) => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => {
                    return this.fail(Cause::UpstreamInvalidResponse, Some("its chunks are malformed".to_owned()));
                }
            }
            let read = if this.decoder.coming() >= LONG {
                poll_read_in_place(&mut connection.stream, cx, &mut connection.read, READ_IN_PLACE)
            } else {
                poll_read(&mut connection.stream, cx, &mut connection.read, READ)
            };
            match read {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if !was_reset && this.decoder.closed() => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(error)) if connection.stream.is_end(&error) && this.decoder.closed() => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return this.fail(Cause::UpstreamCutShort, None),
                Poll::Ready(Err(error)) => return this.fail(Cause::UpstreamCutShort, Some(error.to_string())),
                Poll::Pending => return this.poll_waited(cx).map(|cause| Some(Err(cause))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none() && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let left = self.decoder.remaining();
        left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left.saturating_add(first)))
    }
}
