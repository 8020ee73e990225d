//! HTTP/2 towards a server (RFC 9113): one request on one stream, its body and the response's streaming at once, with
//! trailers both ways. The `h2` crate does frames and windows; what a failure means for the request is decided here.

mod answers;
mod body;
pub mod connections;
mod sieve;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request};

use self::answers::Receive;
use self::body::ServerBody;
use self::connections::{Connections, NoPlace, Place};
use super::http1::{ExchangeTimeouts, Failed, HEAD_LIMITS, Interim, MOST_INTERIM, RACE, names_a_file};
use super::journey::Journey;
use super::replay::Replay;
use super::{Lease, Server};
use crate::body::Content;
use crate::fields::Fields;
use crate::headers::{Headers, Name, Value};
use crate::http1::encode::trailing;
use crate::http1::framing::{self, Framing};
use crate::http1::head::{ResponseHead, Seen};
use crate::http1::timer::Timer;
use crate::request::grpc::is_type_of_grpc;
use crate::request::rejection::Cause;

/// What a field takes in HTTP/1.1 beside its name and value: a colon, a blank, a line break.
const FIELD_EXTRA: usize = 4;

/// The fields of a request as HTTP/2 has them: without the host, which is its `:authority`, and without what belongs to
/// a connection of HTTP/1.1.
#[derive(Default)]
pub struct Heads(pub HeaderMap);

impl Fields for Heads {
    fn put<'n>(&mut self, name: impl Into<Name<'n>>, parts: &[&[u8]]) {
        // What is written was parsed before, or made by the gateway.
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(parts.concat())) {
            self.add(name, &value);
        }
    }

    fn add<'n, 'v>(&mut self, name: impl Into<Name<'n>>, value: impl Into<Value<'v>>) {
        let name = name.into();
        if !matches!(name.as_bytes(), b"host" | b"connection" | b"upgrade")
            && let Some(name) = name.owned()
        {
            self.0.append(name, value.into().owned());
        }
    }
}

/// What is sent of the request's body.
enum Sending {
    Body,
    Done,
    /// The server takes no more; it may have answered all the same.
    Refused,
}

/// One request on its way.
pub struct Exchange {
    send: SendStream<Bytes>,
    place: Place,
    lease: Lease,
    journey: Rc<Journey>,
    timeouts: ExchangeTimeouts,
    timer: Timer,
    sending: Sending,
    /// A piece of the request's body that the server's window has no room for yet.
    piece: Bytes,
    /// Whether `sending` has reached its end and the response is timed.
    waiting: bool,
    answered: bool,
    /// Whether both sides may be silent for as long as `between_bytes` allows: neither is timed alone.
    is_stream: bool,
}

/// The response's head, and the exchange that its body continues.
pub struct Answer {
    pub head: ResponseHead,
    receive: RecvStream,
    exchange: Exchange,
}

/// A place for a request to `server`, on a connection that may have to be made.
///
/// # Errors
/// As of [`super::connect::connect`].
pub async fn place(
    connections: &Rc<Connections>,
    server: &Arc<Server>,
    timeouts: ExchangeTimeouts,
    connect: std::time::Duration,
) -> Result<Reserved, NoPlace> {
    connections.place(server, connect, timeouts.keep_alive).await.map(|place| Reserved { place, timeouts })
}

/// See [`place`].
pub struct Reserved {
    place: Place,
    timeouts: ExchangeTimeouts,
}

impl Reserved {
    /// Whether the connection has served before.
    pub fn is_reused(&self) -> bool {
        self.place.reused
    }

    /// Sends the request and reads the head of its answer. `has_body`: whether the request ends with its head.
    ///
    /// # Errors
    /// [`Failed`], which tells what is needed to decide whether the request may be replayed.
    pub async fn answer(
        self,
        request: Request<()>,
        has_body: bool,
        lease: Lease,
        journey: &Rc<Journey>,
        body: &mut Replay,
        interim: &dyn Interim,
    ) -> Result<Answer, Failed> {
        let Reserved { mut place, timeouts } = self;
        let is_stream = is_type_of_grpc(request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes));
        let sent = place.sender.send_request(request, !has_body);
        let (response, send) = sent.map_err(|error| {
            // It ended since it was last looked at, which a server may do to one that nobody used.
            let told = !place.is_first_to_lose_it();
            Failed { wrote: false, stale: place.reused, told, ..failed(&error, false) }
        })?;
        journey.began();
        let mut timer = Timer::new();
        timer.set(timeouts.between_bytes);
        let sending = if has_body { Sending::Body } else { Sending::Done };
        let exchange = Exchange {
            send,
            place,
            lease,
            journey: Rc::clone(journey),
            timeouts,
            timer,
            sending,
            piece: Bytes::new(),
            waiting: false,
            answered: false,
            is_stream,
        };
        exchange.head(response, body, interim).await
    }
}

impl Exchange {
    async fn head(
        mut self,
        mut response: ResponseFuture,
        body: &mut Replay,
        interim: &dyn Interim,
    ) -> Result<Answer, Failed> {
        let mut left = MOST_INTERIM;
        let polled = |cx: &mut Context<'_>| self.poll_head(cx, &mut response, body, interim, &mut left);
        let answer = std::future::poll_fn(polled).await?;
        let (parts, receive) = answer.into_parts();
        let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_EXTRA);
        if parts.headers.len() > HEAD_LIMITS.fields || fields.fold(0, usize::saturating_add) > HEAD_LIMITS.bytes {
            return Err(Failed { answered: true, wrote: true, ..Failed::unsent(Cause::UpstreamHeadersTooLarge) });
        }
        let headers = Headers::from(parts.headers);
        let seen = Seen::of(&headers);
        let head = ResponseHead { status: parts.status, version: parts.version, headers, seen };
        Ok(Answer { head, receive, exchange: self })
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseFuture,
        body: &mut Replay,
        interim: &dyn Interim,
        left: &mut u32,
    ) -> Poll<Result<http::Response<RecvStream>, Failed>> {
        if let Poll::Ready(Err(cause)) = self.poll_send(cx, body) {
            return Poll::Ready(Err(Failed { wrote: true, answered: self.answered, ..Failed::unsent(cause) }));
        }
        while let Poll::Ready(Some(informational)) = response.poll_informational(cx) {
            let Ok(informational) = informational else { break };
            self.answered = true;
            let Some(rest) = left.checked_sub(1) else {
                let failed = Failed { wrote: true, answered: true, ..Failed::unsent(Cause::UpstreamInvalidResponse) };
                return Poll::Ready(Err(failed));
            };
            *left = rest;
            interim.interim(informational.status(), &informational.headers().clone().into());
            if self.waiting {
                // It is alive, and has as long again for the answer itself.
                self.timer.set(self.timeouts.response);
            }
        }
        match Pin::new(response).poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => {
                let told = is_of_connection(&error) && !self.place.is_first_to_lose_it();
                let raced = error.is_io() && !self.answered && self.journey.age() < RACE;
                let failed = failed(&error, self.answered);
                let stale = failed.stale && self.place.reused || raced && self.place.kept;
                Poll::Ready(Err(Failed { told, stale, ..failed }))
            }
            Poll::Pending => {
                ready!(self.timer.poll_expired(cx));
                self.place.doubt();
                let cause = match (self.waiting, self.waits_for_client()) {
                    (true, _) => Cause::UpstreamTimeout,
                    (false, true) => Cause::StreamSilent,
                    (false, false) => Cause::UpstreamSendTimeout,
                };
                Poll::Ready(Err(Failed { wrote: true, answered: self.answered, ..Failed::unsent(cause) }))
            }
        }
    }

    /// Sends as much as can be sent. Ready once all is, or the server takes no more.
    ///
    /// Errors are the client's: reading its body failed.
    fn poll_send(&mut self, cx: &mut Context<'_>, body: &mut Replay) -> Poll<Result<(), Cause>> {
        while let Sending::Body = self.sending {
            if !self.piece.is_empty() {
                ready!(self.poll_send_piece(cx));
                continue;
            }
            match body.poll_frame(cx) {
                Poll::Pending => {
                    if !self.is_stream {
                        // The client is timed where its body is read.
                        self.timer.clear();
                    } else if !self.timer.is_set() {
                        self.timer.set(self.timeouts.between_bytes);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(Cause::BodyTimeout))) if self.is_stream => {}
                Poll::Ready(Some(Err(cause))) => return Poll::Ready(Err(cause)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(frame) => {
                        let trailers = frame.trailers_ref().map(trailing).unwrap_or_default();
                        let sent = self.send.send_trailers(trailers);
                        self.sending = sent.map_or(Sending::Refused, |()| Sending::Done);
                    }
                },
                Poll::Ready(None) => {
                    let sent = self.send.send_data(Bytes::new(), true);
                    self.sending = sent.map_or(Sending::Refused, |()| Sending::Done);
                }
            }
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.timer.set(self.timeouts.response);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether all that the client has sent so far was passed on, and it is to send more.
    fn waits_for_client(&self) -> bool {
        matches!(self.sending, Sending::Body) && self.piece.is_empty()
    }

    /// Sends as much of the piece as the server's window has room for.
    fn poll_send_piece(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.reserve_capacity(self.piece.len());
        let room = match self.send.capacity() {
            0 => match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(Some(Err(_)) | None) => {
                    self.sending = Sending::Refused;
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    // It is the server's turn to take bytes. While the client's were waited for, nobody timed it.
                    if !self.timer.is_set() {
                        self.timer.set(self.timeouts.between_bytes);
                    }
                    return Poll::Pending;
                }
            },
            room => room,
        };
        let data = self.piece.split_to(room.min(self.piece.len()));
        if self.send.send_data(data, false).is_err() {
            self.sending = Sending::Refused;
        }
        self.timer.set(self.timeouts.between_bytes);
        Poll::Ready(())
    }
}

impl Answer {
    /// Turns the rest of the exchange into the content of a response to `method`.
    ///
    /// # Errors
    /// `UpstreamInvalidResponse` when the head states an ambiguous length.
    pub fn into_content(self, method: &Method, body: Replay) -> Result<(ResponseHead, Content), Failed> {
        let Answer { head, receive, mut exchange } = self;
        let invalid = || Failed { wrote: true, answered: true, ..Failed::unsent(Cause::UpstreamInvalidResponse) };
        let framing = framing::of_response(method, head.status, head.version, &head.headers, head.seen);
        let length = match framing.map_err(|_| invalid())? {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => return Err(invalid()),
            Framing::UntilClose => None,
        };
        if receive.is_end_stream() || framing::has_no_content(method, head.status) {
            exchange.journey.ended();
            return Ok((head, Content::Empty));
        }
        exchange.is_stream = true;
        // Should the request end only now, it is the body that is waited for, no longer the head.
        exchange.timeouts.response = exchange.timeouts.between_bytes;
        exchange.timer.set(exchange.timeouts.between_bytes);
        let receive = Receive::new(exchange.place.answers(), receive);
        let unread = names_a_file(&head.headers);
        let content = ServerBody::new(exchange, receive, body, length);
        Ok((head, if unread { Content::Stream(Box::pin(content)) } else { content.begin()? }))
    }
}

/// Whether the whole connection is lost, not a stream of it.
fn is_of_connection(error: &h2::Error) -> bool {
    error.is_io() || (error.is_library() && error.is_go_away())
}

/// What a stream's failure means. `answered`: whether any of the answer was seen.
fn failed(error: &h2::Error, answered: bool) -> Failed {
    let reason = error.reason();
    // Streams past the last that a GOAWAY names, and those that were refused, have not been looked at (RFC 9113
    // section 8.7).
    let unseen = error.is_remote() && (error.is_go_away() || reason == Some(Reason::REFUSED_STREAM));
    let stale = error.is_remote() && error.is_go_away() && reason == Some(Reason::NO_ERROR);
    let floods = || error.to_string().contains("too_many_data_frames");
    let cause = if error.is_library() && reason == Some(Reason::ENHANCE_YOUR_CALM) && !floods() {
        // What the library calls it when a head comes in more frames than it takes.
        Cause::UpstreamHeadersTooLarge
    } else if error.is_remote() && error.is_reset() {
        Cause::UpstreamStreamReset
    } else if error.is_io() || error.is_remote() {
        Cause::UpstreamClosedEarly
    } else if error.is_library() {
        Cause::UpstreamInvalidResponse
    } else {
        Cause::UpstreamClosedEarly
    };
    Failed { cause, wrote: !unseen, answered, stale, told: false, detail: Some(error.to_string()) }
}
