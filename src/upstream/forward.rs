//! Sending a request to a server of an upstream, and again to another where that is safe.
//!
//! Safe means: no byte of it was written; or it is idempotent, no byte of a response was seen, and all that was read
//! of its body is still held. Nothing else is ever replayed, and replays stay within the upstream's budget.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Method, Request, StatusCode};

use super::connect::{ConnectError, connect};
use super::health::Failure;
use super::http1::{self, Connection, Exchange, ExchangeTimeouts, Failed, Interim, RACE, SentFraming};
use super::http2::connections::NoPlace;
use super::journey::Journey;
use super::places::Place;
use super::pool::Pool;
use super::replay::Replay;
use super::upgrade::{Open, Upgraded};
use super::{Asking, ChooseBy, Lease, Server, Upstream, http2, uwsgi};
use crate::body::{Content, RequestBody};
use crate::config::settings::{Priority, Protocol, UpstreamTimeouts};
use crate::http1::head::ResponseHead;
use crate::observe::metrics::WorkerId;
use crate::request::rejection::{Blame, Cause};

/// One request, as far as its forwarding goes.
pub struct Call<'a> {
    pub worker: WorkerId,
    pub pool: &'a Rc<Pool>,
    pub upstream: &'a Arc<Upstream>,
    pub timeouts: &'a UpstreamTimeouts,
    pub by: ChooseBy<'a>,
    pub priority: Priority,
    pub method: &'a Method,
    pub head: &'a dyn Head,
    pub framing: SentFraming,
    /// Whether the head asks for an upgrade.
    pub upgrade: bool,
    pub interim: &'a dyn Interim,
    pub journey: &'a Rc<Journey>,
}

/// What a server is sent before the body, whatever it speaks.
pub trait Head {
    /// Writes it for a server of HTTP/1.1 or uwsgi.
    ///
    /// # Errors
    /// `UwsgiVariablesTooLarge`; `BadTarget` where such a server would read the path in two ways.
    fn write(&self, server: &Server, out: &mut BytesMut) -> Result<(), Cause>;

    /// The same for a server of HTTP/2.
    ///
    /// # Errors
    /// `BadHost`, `BadTarget`: the library takes less than HTTP/1.1 does.
    fn request(&self, server: &Server) -> Result<Request<()>, Cause>;
}

/// An answer that has begun.
enum Begun {
    Http1(http1::Answer),
    Http2(http2::Answer),
}

/// What came of it.
pub enum Forwarded {
    Response(ResponseHead, Content),
    Upgraded(ResponseHead, Box<Upgraded>),
}

impl Forwarded {
    fn head(&self) -> &ResponseHead {
        match self {
            Forwarded::Response(head, _) | Forwarded::Upgraded(head, _) => head,
        }
    }
}

/// Forwards a request.
///
/// Whatever is rarely waited for (a slot, a connection, a server of HTTP/2) is waited for on the heap, so that the future
/// of a request that finds everything at hand is small: it is made and moved for each.
///
/// # Errors
/// The cause of the last attempt's failure; its detail is left in the journey.
pub async fn forward(call: &Call<'_>, body: RequestBody) -> Result<Forwarded, Cause> {
    if call.upgrade && !Open::has_room(call.upstream) {
        return Err(Cause::TooManyUpgraded);
    }
    let mut attempts = Attempts::new(call, body);
    call.upstream.budget.request();
    loop {
        let lease = match attempts.seat_at_once() {
            Ok(Some(lease)) => lease,
            Ok(None) => match Box::pin(attempts.wait_for_seat()).await {
                Ok(lease) => lease,
                Err(cause) => return Err(attempts.unseated(cause)),
            },
            Err(cause) => return Err(attempts.unseated(cause)),
        };
        // Only now: whoever waits for a slot has no connection.
        let open = match call.upgrade.then(|| Open::count(call.upstream)).transpose() {
            Ok(open) => open,
            Err(cause) => return Err(attempts.given_up(cause)),
        };
        let server = Arc::clone(lease.server());
        call.journey.attempt(&server);
        let begun = match server.protocol {
            Protocol::Http1 | Protocol::Uwsgi => {
                let kept = attempts.take_kept(&server);
                let reused = kept.is_some();
                let connected = match kept {
                    Some(connection) => Ok(connection),
                    None => Box::pin(connect_in_place(call, &server)).await,
                };
                match connected.and_then(|connection| begin_alone(call, lease, connection, reused)) {
                    Ok((exchange, size)) => match exchange.answer(&mut attempts.body, call.interim).await {
                        Ok(answer) => {
                            if let Some(size) = size {
                                server.largest.took(size);
                            }
                            Ok(Begun::Http1(answer))
                        }
                        Err(failed) => Err(judged_alone(call, &server, failed, reused, size)),
                    },
                    Err(failed) => Err(failed),
                }
            }
            Protocol::Http2 => Box::pin(attempt_shared(call, lease, &mut attempts.body)).await.map(Begun::Http2),
        };
        match begun {
            // What begins as an answer and turns out to be none is no sign of life.
            Ok(answer) => return attempts.finish(answer, open, &server),
            Err(failed) => attempts.another_after(failed, &server)?,
        }
    }
}

/// The attempts that a request has made so far.
struct Attempts<'a> {
    call: &'a Call<'a>,
    body: Replay,
    idempotent: bool,
    /// The ids of the servers that failed.
    tried: Vec<u64>,
    left: u32,
    /// Why the last one failed.
    last: Option<Cause>,
    /// The server of the last one that failed.
    failed_on: Option<Arc<Server>>,
}

impl<'a> Attempts<'a> {
    fn new(call: &'a Call<'a>, body: RequestBody) -> Attempts<'a> {
        Attempts {
            call,
            body: Replay::new(body),
            idempotent: call.method.is_idempotent(),
            tried: Vec::new(),
            left: call.upstream.settings.retry.attempts,
            last: None,
            failed_on: None,
        }
    }

    fn asking(&self) -> Asking<'_> {
        let Call { worker, by, priority, journey, .. } = *self.call;
        Asking { worker, by, tried: &self.tried, priority, journey }
    }

    fn seat_at_once(&self) -> Result<Option<Lease>, Cause> {
        self.call.upstream.seat_at_once(&self.asking())
    }

    async fn wait_for_seat(&self) -> Result<Lease, Cause> {
        self.call.upstream.wait_for_seat(self.asking()).await
    }

    /// Only the first attempt uses a kept connection, since one that fails hints at more that will.
    fn take_kept(&self, server: &Server) -> Option<Box<Connection>> {
        if self.tried.is_empty() { self.call.pool.take(server.id) } else { None }
    }

    /// What became of the attempt before says more than that there is no server for another.
    fn unseated(self, cause: Cause) -> Cause {
        if cause == Cause::UpstreamUnresolved {
            let name = &self.call.upstream.name;
            let detail = format!("no name in servers of [upstream.{name}] has an address yet");
            self.call.journey.failed(Some(detail));
        }
        let cause = self.last.unwrap_or(cause);
        self.given_up(cause)
    }

    /// Counts against whoever left the request unanswered.
    fn given_up(&self, cause: Cause) -> Cause {
        if cause.row().blame == Blame::Upstream {
            match &self.failed_on {
                Some(server) => server.health.left_unanswered(),
                None => self.call.upstream.metrics.unserved(self.call.worker),
            }
        }
        cause
    }

    fn finish(mut self, begun: Begun, open: Option<Open>, server: &Arc<Server>) -> Result<Forwarded, Cause> {
        let body = std::mem::replace(&mut self.body, Replay::new(RequestBody::Empty));
        match finish(self.call, begun, body, open) {
            Ok(answer) => {
                server.health.answered(answer.head().status);
                Ok(answer)
            }
            Err(failed) => {
                self.call.journey.failed(failed.detail);
                if !failed.told {
                    report(server, failed.cause);
                }
                self.failed_on = Some(Arc::clone(server));
                Err(self.given_up(failed.cause))
            }
        }
    }

    /// Prepares for another attempt after one that has failed.
    ///
    /// # Errors
    /// There must be none, or may be none any more: the cause that the request fails with.
    fn another_after(&mut self, failed: Failed, server: &Arc<Server>) -> Result<(), Cause> {
        let call = self.call;
        // Nobody is asked twice for what was never sent, and another will come: that is no failure of the request's.
        if server.health.is_gone() && !failed.wrote && self.body.rewind() {
            call.journey.failed(failed.detail);
            return Ok(());
        }
        call.journey.failed(failed.detail);
        let broke =
            matches!(failed.cause, Cause::UpstreamClosedEarly | Cause::UpstreamStreamReset | Cause::UpstreamTlsFailed);
        let unseen = !failed.wrote || (self.idempotent && !failed.answered && broke);
        let again = unseen && failed.cause.row().blame == Blame::Upstream && self.body.rewind();
        let cause = if failed.stale { Cause::UpstreamKeptConnectionClosed } else { failed.cause };
        self.failed_on = Some(Arc::clone(server));
        if !again || self.left == 0 {
            return Err(self.given_up(cause));
        }
        // Replays of what kept connections lost need no budget: they are bounded by those connections.
        if !failed.stale && !call.upstream.budget.take() {
            call.upstream.metrics.retry_refused(call.worker);
            return Err(self.given_up(cause));
        }
        call.upstream.metrics.retried(call.worker);
        self.left = self.left.saturating_sub(1);
        self.last = Some(cause);
        self.tried.push(server.id);
        Ok(())
    }
}

fn exchange_timeouts(call: &Call<'_>) -> ExchangeTimeouts {
    ExchangeTimeouts {
        response: call.timeouts.response,
        between_bytes: call.timeouts.between_bytes,
        keep_alive: call.timeouts.keep_alive,
    }
}

fn not_connected(call: &Call<'_>, server: &Server, error: ConnectError) -> Failed {
    server.metrics.connect_failed(call.worker);
    if error.nobody && server.is_worker {
        server.health.has_gone();
        call.upstream.queue.worker_gone.notify_waiters();
    } else if let Some(failure) = error.failure {
        server.health.failed(failure);
    }
    Failed { detail: error.detail, ..Failed::unsent(error.cause) }
}

/// On a stream of a connection that requests share.
async fn attempt_shared(call: &Call<'_>, lease: Lease, body: &mut Replay) -> Result<http2::Answer, Failed> {
    if call.upgrade {
        return Err(Failed::unsent(Cause::UpgradeNotSupported));
    }
    let server = Arc::clone(lease.server());
    let request = call.head.request(&server).map_err(Failed::unsent)?;
    let place = http2::place(&call.pool.http2, &server, exchange_timeouts(call), call.timeouts.connect).await;
    let place = place.map_err(|NoPlace { error, told }| match told {
        // Of a connection that many wait for, one tells.
        true => Failed { detail: error.detail, ..Failed::unsent(error.cause) },
        false => not_connected(call, &server, error),
    })?;
    server.metrics.connection_used(call.worker, place.is_reused());
    let has_body = call.framing != SentFraming::None;
    let answer = place.answer(request, has_body, lease, call.journey, body, call.interim).await;
    answer.inspect_err(|failed| {
        // A server may end a connection, and say that it has too much to do: neither is a failure.
        if failed.wrote && !failed.told {
            report(&server, failed.cause);
        }
    })
}

/// Begins an attempt on a connection that it has to itself. What comes second is how much a request over uwsgi took.
fn begin_alone(
    call: &Call<'_>,
    lease: Lease,
    connection: Box<Connection>,
    reused: bool,
) -> Result<(Exchange, Option<uwsgi::Size>), Failed> {
    lease.server().metrics.connection_used(call.worker, reused);
    let mut size = None;
    let server = Arc::clone(lease.server());
    let write_head = |out: &mut BytesMut| {
        let before = out.len();
        call.head.write(&server, out)?;
        size = match server.protocol {
            Protocol::Http1 | Protocol::Http2 => None,
            Protocol::Uwsgi => out.get(before..).map(uwsgi::Size::of),
        };
        Ok(())
    };
    let journey = Rc::clone(call.journey);
    let pool = Rc::clone(call.pool);
    let timeouts = exchange_timeouts(call);
    let exchange = Exchange::new(lease, connection, journey, pool, timeouts, call.framing, write_head);
    let exchange = exchange.map_err(|cause| {
        // What such a path may hold has been judged before; what decodes it twice finds another.
        let twice = cause == Cause::BadTarget;
        Failed { detail: twice.then(|| "the path could be decoded twice".to_owned()), ..Failed::unsent(cause) }
    })?;
    Ok((exchange, size))
}

/// What it says of the server and of its connection that there was no answer.
fn judged_alone(
    call: &Call<'_>,
    server: &Server,
    mut failed: Failed,
    reused: bool,
    size: Option<uwsgi::Size>,
) -> Failed {
    let unheard = !failed.answered && failed.cause == Cause::UpstreamClosedEarly;
    failed.stale = reused && unheard && call.journey.age() < RACE;
    let too_large = size.filter(|_| unheard).and_then(|size| server.largest.refused(size));
    // A client that sends much must not have a server ejected that takes little.
    if too_large.is_none() && !failed.stale {
        report(server, failed.cause);
    }
    failed.detail = too_large.or(failed.detail);
    failed
}

async fn connect_in_place(call: &Call<'_>, server: &Arc<Server>) -> Result<Box<Connection>, Failed> {
    let place = Place::take(server);
    let connected = connect(server, call.timeouts.connect).await;
    let stream = connected.map_err(|error| not_connected(call, server, error))?;
    Ok(Connection::new(stream, place))
}

/// Tells the server's health of a failure that is the server's.
fn report(server: &Server, cause: Cause) {
    if let Some(failure) = Failure::of(cause) {
        server.health.failed(failure);
    }
}

fn finish(call: &Call<'_>, begun: Begun, body: Replay, open: Option<Open>) -> Result<Forwarded, Failed> {
    let http1::Answer { head, exchange } = match begun {
        Begun::Http1(answer) => answer,
        Begun::Http2(answer) => {
            let (head, content) = answer.into_content(call.method, body)?;
            return Ok(Forwarded::Response(head, content));
        }
    };
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let content = exchange.into_content(call.method, &head, body)?;
        return Ok(Forwarded::Response(head, content));
    }
    // A switch that nobody asked for would be a tunnel that nobody checks.
    let Some(open) = open else { return Err(Failed::unsent(Cause::UpstreamInvalidResponse)) };
    call.journey.ended();
    let (stream, early, lease) = exchange.into_upgraded();
    Ok(Forwarded::Upgraded(
        head,
        Box::new(Upgraded { stream, early, silence: call.timeouts.upgraded, _lease: lease.upgraded(), _open: open }),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ANYONE, Backend, Behaviour, build, settings};
    use super::*;
    use crate::config::settings::Balance;
    use crate::headers::Headers;
    use crate::upstream::health::State;

    struct Root;

    impl Head for Root {
        fn write(&self, _: &Server, out: &mut BytesMut) -> Result<(), Cause> {
            out.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            Ok(())
        }

        fn request(&self, _: &Server) -> Result<Request<()>, Cause> {
            Ok(Request::get("http://a/").body(()).unwrap())
        }
    }

    struct Nobody;

    impl Interim for Nobody {
        fn interim(&self, _: StatusCode, _: &Headers) {}
    }

    async fn get(upstream: &Arc<Upstream>) -> Result<StatusCode, Cause> {
        let call = Call {
            worker: WorkerId(0),
            pool: &Rc::default(),
            upstream,
            timeouts: upstream.timeouts(),
            by: ANYONE,
            priority: Priority::Normal,
            method: &Method::GET,
            head: &Root,
            framing: SentFraming::None,
            upgrade: false,
            interim: &Nobody,
            journey: &Rc::default(),
        };
        forward(&call, RequestBody::Empty).await.map(|forwarded| match forwarded {
            Forwarded::Response(head, _) | Forwarded::Upgraded(head, _) => head.status,
        })
    }

    #[tokio::test]
    async fn a_server_whose_answers_are_ambiguous_is_ejected_like_one_whose_answers_break() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        ] {
            let backend = Backend::start(Behaviour::Answer(answer)).await;
            let upstream = Arc::new(build(&settings(&[(&backend.url(), 1)], Balance::LeastRequests), None));
            for _ in 0..3 {
                assert_eq!(get(&upstream).await, Err(Cause::UpstreamInvalidResponse), "{answer}");
            }
            assert_eq!(upstream.servers()[0].health.state(), State::Ejected, "{answer}");
            backend.behave(Behaviour::Answer("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"));
            assert_eq!(get(&upstream).await, Ok(StatusCode::NO_CONTENT), "the only server is tried all the same");
        }
    }
}
