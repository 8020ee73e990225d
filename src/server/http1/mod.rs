//! HTTP/1.1 towards clients: heads in, answers out, one request after the other.

#[cfg(test)]
mod allocations;
mod respond;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Buf;
use http::{Method, Version};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use self::respond::{After, Asked, respond};
use self::wire::{Gone, Wire, WireInterim, request_body};
use super::counted::Counted;
use super::stream::ClientStream;
use crate::config::settings::ListenerSettings;
use crate::gateway::Gateway;
use crate::http1::at_once;
use crate::http1::chunked::Decoder;
use crate::http1::connection::persists;
use crate::http1::encode;
use crate::http1::framing;
use crate::http1::head::{HeadError, HeadScan, Kind, Limits, Notable, RequestHead, take_request};
use crate::http1::timer::Timer;
use crate::observe::metrics::Protocol;
use crate::request::handle::{Answer, handle, refuse_head};
use crate::request::inbound::Inbound;
use crate::request::peer::Peer;
use crate::request::record::Record;
use crate::request::rejection::Cause;
use crate::response::Response;
use crate::upstream::upgrade::{Copied, Upgraded, tunnel};
use crate::worker::Worker;

/// The longest target; `target_too_long` states it.
pub(super) const TARGET: usize = 8 * 1024;

/// A connection that has been silent for this long gives back all that it kept for the next request.
const PARK: Duration = Duration::from_millis(100);

/// How long an answer that was given before the request was read whole is protected from a reset: in all, and
/// between two reads.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// A drain closes connections that wait for a request, but one that has just been accepted may have its first on the
/// way: it was promised an answer by being accepted.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A request may also have arrived without the runtime having looked yet.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Serves one connection to its end. What serving takes is on the heap, and given back while the connection is silent
/// and once it does something else: this future holds what it takes to wait.
pub(super) async fn serve(worker: Rc<Worker>, stream: ClientStream, peer: Rc<Peer>, counted: Counted) {
    let drain = worker.drain.join();
    let wire = Rc::new(RefCell::new(Wire::new(stream)));
    let (rules, seen) = (Rules::of(None), Weak::new());
    let timer = Timer::new();
    let mut connection =
        Connection { worker, peer, wire, drain, woken_by: None, timer, served: 0, seen, rules, is_served: false };
    let mut next = Next::Request;
    loop {
        next = match next {
            Next::Request => Box::pin(connection.serve_while_busy()).await,
            Next::Rest(patience) => connection.rest(patience).await,
            Next::Close | Next::Linger | Next::Drop | Next::Break | Next::Tunnel(..) => break,
        }
    }
    // On the heap, like all that happens once: a connection that rests should not hold room for it.
    Box::pin(connection.end(next, counted)).await;
}

/// What becomes of the connection.
enum Next {
    Request,
    /// Nothing has come for a while; the next request may take so long to come.
    Rest(Duration),
    /// Everything was said: an orderly end.
    Close,
    /// The same, but the client may still be sending: what it sends is read and thrown away for a while.
    Linger,
    /// Nothing more can be said.
    Drop,
    /// The client must see that the answer is not whole.
    Break,
    Tunnel(Box<Upgraded>, Box<Record>),
}

struct Connection {
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    wire: Rc<RefCell<Wire>>,
    /// The place among those that a drain wakes.
    drain: u64,
    /// The waker that a drain was told of.
    woken_by: Option<Waker>,
    timer: Timer,
    /// Requests so far.
    served: u64,
    /// The snapshot that the rules are of; not held while nobody asks anything.
    seen: Weak<Gateway>,
    rules: Rules,
    /// Whether that snapshot still has this connection's listener.
    is_served: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.drain.leave(self.drain);
    }
}

/// What the listener's settings of this moment say of the next request.
#[derive(Clone, Copy)]
struct Rules {
    limits: Limits,
    header_timeout: Duration,
    idle_timeout: Duration,
    body_timeout: Duration,
}

impl Rules {
    fn of(settings: Option<&ListenerSettings>) -> Rules {
        match settings {
            Some(settings) => Rules {
                limits: limits(settings),
                header_timeout: settings.header_timeout,
                idle_timeout: settings.idle_timeout,
                body_timeout: settings.body_timeout,
            },
            // The listener is gone: its connections end after the request that they are at.
            None => Rules {
                limits: Limits { bytes: 32 * 1024, target: TARGET, fields: 100 },
                header_timeout: Duration::from_secs(5),
                idle_timeout: Duration::ZERO,
                body_timeout: Duration::from_secs(30),
            },
        }
    }
}

/// Why there is no head.
enum NoHead {
    /// Nothing came; the connection ends without a word.
    Silence,
    /// Nothing has come yet, and something may for so long.
    NotYet(Duration),
    Refused(Cause),
}

impl Connection {
    /// Serves one request after the other until something else is to be done.
    async fn serve_while_busy(&mut self) -> Next {
        let mut next = Next::Request;
        while let Next::Request = next {
            next = self.serve_one().await;
        }
        next
    }

    /// Waits for the next request, holding nothing.
    async fn rest(&mut self, patience: Duration) -> Next {
        self.timer.set(patience);
        std::future::poll_fn(|cx| match self.wire.borrow_mut().poll_fill(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Next::Request),
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Next::Close),
            // It has this task's waker from when a request was waited for, and how to leave is decided there, too.
            Poll::Pending if self.worker.drain.is_draining() => Poll::Ready(Next::Request),
            Poll::Pending => self.timer.poll_expired(cx).map(|()| Next::Close),
        })
        .await
    }

    async fn serve_one(&mut self) -> Next {
        self.look_up();
        let head = match self.read_head().await {
            Ok(head) => head,
            Err(NoHead::Silence) => return Next::Close,
            Err(NoHead::NotYet(patience)) => return Next::Rest(patience),
            Err(NoHead::Refused(cause)) => return Box::pin(self.refuse(cause)).await,
        };
        self.served = self.served.saturating_add(1);
        let Ok(framing) = framing::of_request(head.version, &head.headers, head.seen) else {
            return Box::pin(self.refuse(Cause::AmbiguousFraming)).await;
        };
        {
            let mut wire = self.wire.borrow_mut();
            wire.body = Decoder::new(framing);
            wire.awaits_continue = head.version == Version::HTTP_11 && head.seen.has(Notable::Expect);
            wire.body_timeout = self.rules.body_timeout;
        }
        let (method, version) = (head.method.clone(), head.version);
        let keep = persists(head.version, &head.headers, head.seen);
        match self.answer(head).await {
            Err(Gone) => Next::Drop,
            Ok(Answer::Upgrade { head, upgraded, record }) => Box::pin(self.switch(head, upgraded, record)).await,
            Ok(Answer::Response(response)) => {
                let asked = Asked { method: &method, version, keep };
                self.respond(response, asked).await
            }
        }
    }

    /// Looks whether there is a newer snapshot, and what its listener says.
    fn look_up(&mut self) {
        let newest = self.worker.gateway();
        if !std::ptr::eq(Arc::as_ptr(&newest), self.seen.as_ptr()) {
            let listener = newest.listeners.get(&self.peer.listener);
            self.rules = Rules::of(listener.map(|listener| &listener.settings));
            self.is_served = listener.is_some();
            self.seen = Arc::downgrade(&newest);
        }
    }

    async fn read_head(&mut self) -> Result<RequestHead, NoHead> {
        let rules = self.rules;
        // The first request must come as fast as a head; the next ones may be waited for, at first with the memory of
        // the last.
        let patience = if self.served == 0 { rules.header_timeout } else { rules.idle_timeout };
        let idle_left = patience.checked_sub(PARK).filter(|_| self.served > 0);
        self.timer.set(if idle_left.is_some() { PARK } else { patience });
        let mut scan = HeadScan::default();
        let mut timed_as_head = self.served == 0;
        let promised = (self.served == 0).then(|| Instant::now() + FIRST_REQUEST);
        let mut leaving = false;
        let mut blank_lines = 1;
        let head = std::future::poll_fn(|cx| {
            loop {
                let mut wire = self.wire.borrow_mut();
                let wire = &mut *wire;
                // RFC 9112 section 2.2: an empty line before a request line is overlooked; one, since more is no slip.
                if blank_lines > 0 && wire.read.starts_with(b"\r\n") {
                    blank_lines -= 1;
                    wire.read.advance(2);
                }
                if scan.is_fresh()
                    && let Some(head) = at_once::request(&mut wire.read, &rules.limits)
                {
                    return Poll::Ready(Ok(head));
                }
                match scan.advance(&wire.read, &rules.limits, Kind::Request) {
                    Ok(Some(length)) => {
                        let head = take_request(&mut wire.read, length, &rules.limits);
                        return Poll::Ready(head.map_err(|error| NoHead::Refused(cause_of(error))));
                    }
                    Ok(None) if blank_lines > 0 && wire.read.as_ref() == b"\r" => scan = HeadScan::default(),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(NoHead::Refused(cause_of(error)))),
                }
                if !wire.read.is_empty() && (!timed_as_head || leaving) {
                    (timed_as_head, leaving) = (true, false);
                    self.timer.set(rules.header_timeout);
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::Silence)),
                    Poll::Pending => {
                        let silent = wire.read.is_empty();
                        if silent && !leaving && self.worker.drain.is_draining() {
                            leaving = true;
                            let last_look = Instant::now() + LAST_LOOK;
                            self.timer.set_at(promised.map_or(last_look, |promised| promised.max(last_look)));
                        }
                        if self.woken_by.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                            self.woken_by = Some(cx.waker().clone());
                            self.worker.drain.wake_on_drain(self.drain, cx.waker());
                        }
                        ready!(self.timer.poll_expired(cx));
                        if !silent {
                            return Poll::Ready(Err(NoHead::Refused(Cause::HeaderTimeout)));
                        }
                        wire.release();
                        let left = idle_left.filter(|_| !leaving);
                        return Poll::Ready(Err(left.map_or(NoHead::Silence, NoHead::NotYet)));
                    }
                }
            }
        })
        .await?;
        self.timer.clear();
        Ok(head)
    }

    /// Has the request answered, writing informational responses meanwhile and giving up when the client leaves.
    async fn answer(&mut self, head: RequestHead) -> Result<Answer, Gone> {
        let interim = WireInterim { wire: Rc::clone(&self.wire), understood: head.version == Version::HTTP_11 };
        let inbound = Inbound {
            method: head.method,
            version: head.version,
            target: head.target,
            authority: None,
            seen: head.seen,
            headers: head.headers,
            body: request_body(&self.wire),
            upgradable: true,
        };
        let mut handling = pin!(handle(&self.worker, &self.peer, inbound, &interim));
        std::future::poll_fn(|cx: &mut Context<'_>| {
            if let Poll::Ready(answer) = handling.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            let mut wire = self.wire.borrow_mut();
            if let Poll::Ready(Err(Gone)) = wire.poll_flush(cx) {
                return Poll::Ready(Err(Gone));
            }
            wire.poll_gone(cx).map(Err)
        })
        .await
    }

    async fn respond(&mut self, response: Response, asked: Asked<'_>) -> Next {
        // What is not here yet of a body that nobody will read cannot be stepped over, and a server that answers
        // before it was sent the whole of one may never take the rest: the client is told not to come again this way.
        let read_whole = {
            let mut wire = self.wire.borrow_mut();
            // Once there is an answer, nobody is told to go on.
            wire.awaits_continue = false;
            if response.body().is_stream() { wire.body.is_end() } else { wire.skip_what_came() }
        };
        self.look_up();
        let may_keep = !self.worker.drain.is_draining() && read_whole && self.is_served;
        let after = respond(&self.wire, response, asked, may_keep).await;
        let read_whole = self.wire.borrow().body.is_end();
        match after {
            After::Break => Next::Break,
            After::Keep if read_whole => Next::Request,
            After::Close if read_whole => Next::Close,
            After::Keep | After::Close | After::CutShort => Next::Linger,
        }
    }

    /// Refuses what is not a request. Where it ends is unknown, so the connection ends with it.
    async fn refuse(&mut self, cause: Cause) -> Next {
        let response = refuse_head(&self.worker, &self.peer, cause);
        let asked = Asked { method: &Method::GET, version: Version::HTTP_11, keep: false };
        self.wire.borrow_mut().body_timeout = LINGER_SILENCE;
        match respond(&self.wire, response, asked, false).await {
            After::Break => Next::Break,
            After::Keep | After::Close | After::CutShort => Next::Linger,
        }
    }

    async fn switch(&mut self, head: Response<()>, upgraded: Box<Upgraded>, record: Box<Record>) -> Next {
        {
            let mut wire = self.wire.borrow_mut();
            let out = wire.out.gather();
            encode::status_line(out, head.status());
            head.headers().write_lines(out, |_| true);
            out.extend_from_slice(b"\r\n");
        }
        match std::future::poll_fn(|cx| self.wire.borrow_mut().poll_flush(cx)).await {
            Ok(()) => Next::Tunnel(upgraded, record),
            Err(Gone) => Next::Drop,
        }
    }

    async fn end(self, next: Next, mut counted: Counted) {
        let wire = Rc::clone(&self.wire);
        drop(self);
        // Whoever else held the wire, a request's body, ended with its request.
        let Some(wire) = Rc::into_inner(wire).map(RefCell::into_inner) else { return };
        let Wire { mut stream, read, .. } = wire;
        match next {
            Next::Request | Next::Rest(_) | Next::Drop => {}
            // Bytes that nobody read would turn the close into a reset.
            Next::Close if !read.is_empty() => linger(&mut stream).await,
            Next::Close => {
                // A client that does not take the end of the stream loses nothing.
                let _ = tokio::time::timeout(LINGER_SILENCE, stream.shutdown()).await;
            }
            Next::Linger => linger(&mut stream).await,
            Next::Break => {
                // A failure here leaves an orderly end, which the framing still tells apart.
                let _ = SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
            }
            Next::Tunnel(mut upgraded, record) => {
                counted.becomes(Protocol::Upgraded);
                let copied = Copied { from_client: &record.journey.received, to_client: &record.sent };
                tunnel(&mut stream, read, &mut upgraded, copied).await;
            }
        }
    }
}

/// Ends the sending, then reads and throws away what the client still sends: closing at once would reset the
/// connection and take the answer with it.
async fn linger(stream: &mut ClientStream) {
    use tokio::io::AsyncReadExt;
    let read_on = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut space = vec![0; 16 * 1024];
        while let Ok(Ok(1..)) = tokio::time::timeout(LINGER_SILENCE, stream.read(&mut space)).await {}
    };
    // Past the time there is nothing left to do but close.
    let _ = tokio::time::timeout(LINGER, read_on).await;
}

/// The bounds of a request's head on this listener.
pub fn limits(settings: &ListenerSettings) -> Limits {
    Limits {
        bytes: settings.max_header_bytes,
        target: TARGET.min(settings.max_header_bytes),
        fields: settings.max_headers,
    }
}

/// What a head that is refused is refused for.
pub fn cause_of(error: HeadError) -> Cause {
    match error {
        HeadError::Malformed => Cause::MalformedHead,
        HeadError::TooLarge => Cause::HeadersTooLarge,
        HeadError::TargetTooLong => Cause::TargetTooLong,
        HeadError::Version => Cause::VersionNotSupported,
    }
}
