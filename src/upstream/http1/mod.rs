//! HTTP/1.1 towards a server: one request on one connection, its body and the response's streaming at once. The same
//! carries uwsgi, whose requests begin differently and whose answers do not.

mod abandoned;
mod body;
mod send;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use self::body::ServerBody;
use super::Lease;
use super::connect::{ServerStream, is_of_tls};
use super::journey::Journey;
use super::places::Place;
use super::pool::Pool;
use super::replay::Replay;
use crate::body::Content;
use crate::config::settings::Protocol;
use crate::headers::Headers;
use crate::http1::at_once;
use crate::http1::buffer::poll_read;
use crate::http1::connection::persists;
use crate::http1::framing::{self, Framing};
use crate::http1::head::{BEGIN, HeadError, HeadScan, Kind, Limits, ResponseHead, take_response};
use crate::http1::queue::Queue;
use crate::http1::timer::Timer;
use crate::request::names::{X_ACCEL_REDIRECT, X_SENDFILE};
use crate::request::rejection::{Blame, Cause};

/// Bounds on a response's head; the remedy of `upstream_headers_too_large` states them.
pub(super) const HEAD_LIMITS: Limits = Limits { bytes: 64 * 1024, target: 0, fields: 256 };

/// Informational responses before the final one; more is no honest server.
pub(super) const MOST_INTERIM: u32 = 16;

/// Bytes of a response read at once.
const READ: usize = 64 * 1024;

/// The memory that a kept connection keeps for the next answer.
const KEPT: usize = 4 * 1024;

/// A server that closes a kept connection just as it is used again does so before it has seen the request. One that took
/// longer to do it has begun to work on it.
pub(super) const RACE: Duration = Duration::from_millis(250);

/// A connection to a server.
pub struct Connection {
    pub stream: ServerStream,
    /// What was read and not yet taken.
    pub read: BytesMut,
    out: Queue,
    timer: Timer,
    /// Given up after the stream is closed: fields go in this order.
    pub(super) place: Option<Place>,
}

impl Connection {
    /// `place`: where connections to its server are bounded.
    pub fn new(stream: ServerStream, place: Option<Place>) -> Box<Connection> {
        Box::new(Connection { place, stream, read: BytesMut::new(), out: Queue::default(), timer: Timer::new() })
    }

    /// Whether nothing came since the last response: neither bytes, which nobody asked for, nor the end.
    pub fn is_silent(&mut self) -> bool {
        self.read.is_empty() && self.stream.is_silent()
    }
}

/// The time-outs of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeTimeouts {
    pub response: Duration,
    pub between_bytes: Duration,
    /// How long the connection may be kept afterwards.
    pub keep_alive: Duration,
}

/// Takes informational responses.
pub trait Interim {
    fn interim(&self, status: StatusCode, headers: &Headers);
}

/// Why there is no response.
#[derive(Debug)]
pub struct Failed {
    pub cause: Cause,
    /// Whether any byte of the request was written.
    pub wrote: bool,
    /// Whether any byte of the response was seen.
    pub answered: bool,
    /// Whether it was a kept connection that ended without a word. That says nothing of the server, which was free to
    /// close it.
    pub stale: bool,
    /// Whether the server's health has been told of it: by another request of the same connection.
    pub told: bool,
    pub detail: Option<String>,
}

impl Failed {
    /// Before anything was sent.
    pub fn unsent(cause: Cause) -> Failed {
        Failed { cause, wrote: false, answered: false, stale: false, told: false, detail: None }
    }
}

/// How the request's body is framed towards the server; the request's head says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentFraming {
    None,
    Length(u64),
    Chunked,
}

/// What is sent of the request's body.
enum Sending {
    Body {
        chunked: bool,
    },
    Done,
    /// The server takes no more; it may have answered all the same.
    Refused(std::io::ErrorKind),
}

/// One request on its way.
pub struct Exchange {
    connection: Box<Connection>,
    lease: Lease,
    journey: Rc<Journey>,
    pool: Rc<Pool>,
    timeouts: ExchangeTimeouts,
    sending: Sending,
    /// Whether `sending` has reached its end and the response is timed.
    waiting: bool,
    wrote: bool,
    answered: bool,
    /// Whether the answer has begun, so that both sides may be silent for as long as `between_bytes` allows: neither is
    /// timed alone.
    is_stream: bool,
}

/// An exchange whose answer is waited for: sends the request and reads the head of its answer.
///
/// Ready with [`Failed`] when there is none, which tells what is needed to decide whether the request may be replayed.
/// Dropped before, nobody wants the answer any more.
pub struct Answering<'a> {
    /// Taken when it is ready.
    exchange: Option<Exchange>,
    scan: HeadScan,
    /// Informational responses that may still come.
    left: u32,
    body: &'a mut Replay,
    interim: &'a dyn Interim,
}

impl Future for Answering<'_> {
    type Output = Result<Answer, Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Answer, Failed>> {
        let this = self.get_mut();
        let Some(exchange) = &mut this.exchange else { return Poll::Pending };
        let head = ready!(exchange.poll_answer(cx, &mut this.scan, &mut this.left, this.body, this.interim));
        let Some(exchange) = this.exchange.take() else { return Poll::Pending };
        Poll::Ready(match head {
            Ok(head) => Ok(Answer { head, exchange }),
            Err(failed) => {
                // The client has left in the middle of its request, of which the server has a part.
                if failed.cause.row().blame == Blame::Client {
                    exchange.abandon();
                }
                Err(failed)
            }
        })
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abandon();
        }
    }
}

/// The response's head, and the exchange that its body continues.
pub struct Answer {
    pub head: ResponseHead,
    pub exchange: Exchange,
}

impl Exchange {
    /// `write_head` puts the request's head into the buffer that it is given.
    ///
    /// # Errors
    /// Those of `write_head`: the head does not suit the server.
    pub fn new(
        // Parameters are dropped from the last to the first: the connection before the slot.
        lease: Lease,
        mut connection: Box<Connection>,
        journey: Rc<Journey>,
        pool: Rc<Pool>,
        timeouts: ExchangeTimeouts,
        framing: SentFraming,
        write_head: impl FnOnce(&mut BytesMut) -> Result<(), Cause>,
    ) -> Result<Exchange, Cause> {
        write_head(connection.out.gather())?;
        journey.began();
        let sending = match framing {
            SentFraming::None => Sending::Done,
            SentFraming::Length(_) => Sending::Body { chunked: false },
            SentFraming::Chunked => Sending::Body { chunked: true },
        };
        let (waiting, wrote, answered, is_stream) = (false, false, false, false);
        Ok(Exchange { connection, lease, journey, pool, timeouts, sending, waiting, wrote, answered, is_stream })
    }

    /// Sends the request and reads the head of its answer.
    pub fn answer<'a>(self, body: &'a mut Replay, interim: &'a dyn Interim) -> Answering<'a> {
        Answering { exchange: Some(self), scan: HeadScan::default(), left: MOST_INTERIM, body, interim }
    }

    /// Passes informational responses on until the final one is here.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut HeadScan,
        left: &mut u32,
        body: &mut Replay,
        interim: &dyn Interim,
    ) -> Poll<Result<ResponseHead, Failed>> {
        loop {
            let head = ready!(self.poll_head(cx, scan, body))?;
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            *left = left.checked_sub(1).ok_or_else(|| self.failed(Cause::UpstreamInvalidResponse))?;
            interim.interim(head.status, &head.headers);
            if self.waiting {
                // It is alive, and has as long again for the answer itself.
                self.connection.timer.set(self.timeouts.response);
            }
            *scan = HeadScan::default();
        }
    }

    /// Nobody wants the rest any more.
    fn abandon(self) {
        if self.wrote {
            abandoned::see_out(self.connection, self.lease, self.timeouts.response);
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut HeadScan,
        body: &mut Replay,
    ) -> Poll<Result<ResponseHead, Failed>> {
        if let Poll::Ready(Err(cause)) = self.poll_send(cx, body) {
            return Poll::Ready(Err(self.failed(cause)));
        }
        let mut has_begun = false;
        loop {
            if scan.is_fresh()
                && let Some(head) = at_once::response(&mut self.connection.read, &HEAD_LIMITS)
            {
                return Poll::Ready(Ok(head));
            }
            match scan.advance(&self.connection.read, &HEAD_LIMITS, Kind::Response) {
                Ok(Some(length)) => {
                    let head = take_response(&mut self.connection.read, length, &HEAD_LIMITS);
                    return Poll::Ready(head.map_err(|error| self.bad_head(error)));
                }
                // A head is no body: once begun it must come whole, not byte by byte.
                Ok(None) if std::mem::take(&mut has_begun) => self.connection.timer.set(self.timeouts.between_bytes),
                Ok(None) => {}
                Err(error) => {
                    let detail = begin_of_other(&self.connection.read);
                    return Poll::Ready(Err(Failed { detail, ..self.bad_head(error) }));
                }
            }
            let connection = &mut *self.connection;
            let begun = !connection.read.is_empty();
            match poll_read(&mut connection.stream, cx, &mut connection.read, READ) {
                Poll::Ready(Ok(1..)) => {
                    self.answered = true;
                    has_begun = !begun;
                }
                Poll::Ready(Ok(0)) => {
                    let detail = match self.sending {
                        Sending::Refused(kind) => Some(format!("sending: {kind}")),
                        Sending::Body { .. } | Sending::Done => None,
                    };
                    return Poll::Ready(Err(Failed { detail, ..self.failed(Cause::UpstreamClosedEarly) }));
                }
                Poll::Ready(Err(error)) => {
                    let is_of_tls = is_of_tls(&error);
                    let cause = if is_of_tls { Cause::UpstreamTlsFailed } else { Cause::UpstreamClosedEarly };
                    return Poll::Ready(Err(Failed { detail: Some(error.to_string()), ..self.failed(cause) }));
                }
                Poll::Pending => {
                    ready!(connection.timer.poll_expired(cx));
                    let cause = if self.waiting { Cause::UpstreamTimeout } else { Cause::UpstreamSendTimeout };
                    let detail = begun.then(|| "the answer's head began and stopped: between_bytes".to_owned());
                    return Poll::Ready(Err(Failed { detail, ..self.failed(cause) }));
                }
            }
        }
    }

    /// Turns the rest of the exchange into the content of a response to `method`.
    ///
    /// # Errors
    /// `UpstreamInvalidResponse` when the head states an ambiguous length.
    pub fn into_content(mut self, method: &Method, head: &ResponseHead, body: Replay) -> Result<Content, Failed> {
        let framing = framing::of_response(method, head.status, head.version, &head.headers, head.seen)
            .map_err(|_| self.failed(Cause::UpstreamInvalidResponse))?;
        let keep = self.persists(head) && framing != Framing::UntilClose;
        let all_here = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => usize::try_from(length).ok().filter(|&n| n <= self.connection.read.len()),
            Framing::Chunked | Framing::UntilClose => None,
        };
        if let (Some(length), Sending::Done, true) = (all_here, &self.sending, self.connection.out.is_empty()) {
            let content = self.connection.read.split_to(length).freeze();
            self.finish(keep);
            return Ok(if content.is_empty() { Content::Empty } else { Content::Full(content) });
        }
        self.is_stream = true;
        // Should the request end only now, it is the body that is waited for, no longer the head.
        self.timeouts.response = self.timeouts.between_bytes;
        self.connection.timer.set(self.timeouts.between_bytes);
        let content = ServerBody::new(self, body, framing, keep);
        if names_a_file(&head.headers) { Ok(Content::Stream(Box::pin(content))) } else { content.begin() }
    }

    /// Whether the connection may serve again.
    fn persists(&self, head: &ResponseHead) -> bool {
        match self.lease.server().protocol {
            Protocol::Http1 | Protocol::Http2 => persists(head.version, &head.headers, head.seen),
            // uWSGI closes after each answer, and gunicorn takes the end of a connection that it was to keep for an
            // error.
            Protocol::Uwsgi => false,
        }
    }

    /// The response is complete: the connection may serve again, unless more came than was asked for, or the request
    /// was not sent whole.
    fn finish(mut self, keep: bool) {
        self.journey.ended();
        let sent = matches!(self.sending, Sending::Done) && self.connection.out.is_empty();
        // One that was made while connections were not bounded has no place among those that are.
        let is_counted = self.connection.place.is_some() || self.lease.server().slots.limit().is_none();
        if keep && sent && is_counted && self.connection.read.is_empty() {
            self.connection.timer.clear();
            if self.connection.read.capacity() > KEPT {
                self.connection.read = BytesMut::new();
            }
            self.pool.put(self.lease.server().id, self.connection, self.timeouts.keep_alive);
        }
    }

    /// The connection after a 101, and what came behind the head.
    pub fn into_upgraded(self) -> (ServerStream, Bytes, Lease) {
        let connection = *self.connection;
        if let Some(place) = connection.place {
            place.leave();
        }
        (connection.stream, connection.read.freeze(), self.lease)
    }

    /// Whether all that the client has sent so far was passed on, and it is to send more.
    fn waits_for_client(&self) -> bool {
        matches!(self.sending, Sending::Body { .. }) && self.connection.out.is_empty()
    }

    /// Whether the server closed while it was still sent to, and the system threw away what it had answered: an answer
    /// that ends with its connection may have been cut.
    fn was_reset(&self) -> bool {
        matches!(self.sending, Sending::Refused(std::io::ErrorKind::ConnectionReset))
    }

    fn bad_head(&self, error: HeadError) -> Failed {
        let cause = match error {
            HeadError::TooLarge | HeadError::TargetTooLong => Cause::UpstreamHeadersTooLarge,
            HeadError::Malformed | HeadError::Version => Cause::UpstreamInvalidResponse,
        };
        self.failed(cause)
    }

    fn failed(&self, cause: Cause) -> Failed {
        Failed { wrote: self.wrote, answered: self.answered, ..Failed::unsent(cause) }
    }
}

/// Whether the answer may be one in whose place a file is sent. Such bodies may be shorter than they say, and nobody reads
/// them: Flask states the file's length and sends nothing.
pub(super) fn names_a_file(head: &Headers) -> bool {
    head.contains_key(X_SENDFILE) || head.contains_key(X_ACCEL_REDIRECT)
}

/// How much is told of what is no answer.
const TOLD: usize = 24;

/// What came, where it is another protocol's.
fn begin_of_other(read: &[u8]) -> Option<String> {
    let told = read.get(..TOLD).unwrap_or(read);
    (!read.starts_with(BEGIN)).then(|| format!("it begins with \"{}\"", told.escape_ascii()))
}
