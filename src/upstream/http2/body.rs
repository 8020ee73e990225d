//! The body of a server's response as it comes, and the end of the exchange with it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body, Frame, SizeHint};

use super::answers::Receive;
use super::{Exchange, Failed, Replay, Sending, failed, is_of_connection};
use crate::body::{AnswerBody, Content};
use crate::http1::encode::trailing;
use crate::request::rejection::Cause;
use crate::upstream::health::Failure;

/// The body of a server's response; goes on sending the request's while it is read.
pub(super) struct ServerBody {
    /// Taken when it is complete. With it goes the stream, which is reset if the request was not sent whole.
    exchange: Option<Exchange>,
    receive: Receive,
    body: Replay,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    /// Whether the client took something since the server was last waited for: only then is the server timed anew.
    taken: bool,
    /// Why the request will not come whole.
    broken: Option<Cause>,
}

impl ServerBody {
    pub(super) fn new(exchange: Exchange, receive: Receive, body: Replay, length: Option<u64>) -> ServerBody {
        ServerBody { exchange: Some(exchange), receive, body, left: length, taken: false, broken: None }
    }

    /// The content, unless it fails at once: as long as nothing was passed on, the client can be told.
    ///
    /// # Errors
    /// The failure, of which the server's health and the journey have been told.
    pub(super) fn begin(mut self) -> Result<Content, Failed> {
        let Some(error) = self.receive.look().err().filter(|error| !is_farewell(error)) else {
            return Ok(Content::Stream(Box::pin(self)));
        };
        let cause = self.broke(&error);
        Err(Failed { wrote: true, answered: true, told: true, ..Failed::unsent(cause) })
    }

    /// Sends what can be sent of the request while it is answered.
    fn send_on(&mut self, cx: &mut Context<'_>) {
        let Some(exchange) = &mut self.exchange else { return };
        if let Poll::Ready(Err(cause)) = exchange.poll_send(cx, &mut self.body) {
            exchange.sending = Sending::Refused;
            self.broken = Some(cause);
        }
        if !matches!(exchange.sending, Sending::Body) {
            // The answer may take long, and the request is not sent again once it has begun.
            self.body.let_go();
        }
    }

    fn finish(&mut self) {
        self.body.let_go();
        if let Some(exchange) = self.exchange.take() {
            exchange.journey.ended();
        }
    }

    fn stalled(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.body.let_go();
        let Some(exchange) = self.exchange.take() else { return Poll::Ready(None) };
        exchange.journey.ended();
        exchange.place.doubt();
        let both = exchange.waits_for_client();
        Poll::Ready(Some(Err(if both { Cause::StreamSilent } else { Cause::UpstreamBodyTimeout })))
    }

    fn broke(&mut self, error: &h2::Error) -> Cause {
        let failed = failed(error, true);
        self.body.let_go();
        if let Some(exchange) = self.exchange.take() {
            exchange.journey.ended();
            exchange.journey.failed(failed.detail);
            if !is_of_connection(error) || exchange.place.is_first_to_lose_it() {
                exchange.lease.server().health.failed(Failure::Broken);
            }
        }
        let broke_off = matches!(failed.cause, Cause::UpstreamClosedEarly | Cause::UpstreamStreamReset);
        if broke_off { Cause::UpstreamCutShort } else { failed.cause }
    }
}

impl AnswerBody for ServerBody {
    fn poll_request(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        self.get_mut().send_on(cx);
    }
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        this.send_on(cx);
        if this.exchange.is_none() {
            return Poll::Ready(None);
        }
        loop {
            let pending = match this.receive.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    this.taken = true;
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    if this.receive.is_end_stream() {
                        this.finish();
                    } else if data.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                Poll::Ready(None) => this.receive.poll_trailers(cx),
                Poll::Pending => Poll::Pending,
            };
            return match pending {
                Poll::Ready(Ok(trailers)) => {
                    this.finish();
                    // Cleaned here, since HTTP/2 towards clients has no encoder of ours that would.
                    Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailing(&trailers)))))
                }
                Poll::Ready(Err(error)) if is_farewell(&error) && this.left.is_none_or(|left| left == 0) => {
                    this.finish();
                    Poll::Ready(None)
                }
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(this.broke(&error)))),
                Poll::Pending => {
                    let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
                    // What has come of the answer is passed on. The server must not take half a request for one that
                    // pauses: its stream is reset.
                    if let Some(cause) = this.broken {
                        this.finish();
                        return Poll::Ready(Some(Err(cause)));
                    }
                    if std::mem::take(&mut this.taken) {
                        exchange.timer.set(exchange.timeouts.between_bytes);
                    }
                    ready!(exchange.timer.poll_expired(cx));
                    this.stalled()
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Whether the server has answered whole, and wants no more of the request (RFC 9113 section 8.1).
fn is_farewell(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}
