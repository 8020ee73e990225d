//! HTTP/2 towards clients, RFC 9113: hyper's connection, and around it the bounds that hyper leaves to us.
//!
//! A connection's settings are those of its beginning, since they were told to the client then; what a request is
//! judged by comes from the snapshot of its own moment.

mod body;
mod gather;
mod head;
mod resets;
mod streams;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2::{Builder, Connection};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use self::body::{FromClient, ToClient};
use self::gather::Gather;
use self::streams::{Birth, Idle, Spawn, Streams};
use super::listener::Listener;
use super::stream::ClientStream;
use crate::config::settings::ListenerSettings;
use crate::headers::Headers;
use crate::http1::framing::has_no_content;
use crate::http1::timer::Timer;
use crate::request::handle::{Answer, handle, refuse_head};
use crate::request::peer::Peer;
use crate::request::rejection::Cause;
use crate::upstream::http1::Interim;
use crate::worker::Worker;

/// What a client may send of one body before the gateway has passed it on; no other body is held up by it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The least window of a connection, which has room for those of all its streams. The library allows half of it for what
/// frames of a few bytes cost beside these, and ends the connection with all its streams beyond: a dozen calls that send
/// messages of a few bytes to services that do not read them yet must not come that far. More would let one client make the
/// library hold more, since such frames cost it some 500 bytes each.
const LEAST_WINDOW: u32 = 16 * 1024 * 1024;
const MOST_WINDOW: u32 = i32::MAX.cast_unsigned();

/// What is held of one response for a client that does not take it.
const SEND_BUFFER: usize = 64 * 1024;

/// RFC 9113 section 6.5.2 counts this for each field beside its name and value.
const FIELD_OVERHEAD: usize = 32;

/// How far a head may exceed `max_header_bytes` and still be answered from the table of rejections. hyper answers
/// larger ones itself, with a bare 431.
const HEAD_SLACK: usize = 64 * 1024;

/// At most as many streams that were reset are held until they are counted, whatever `max_resets` is.
const PENDING_RESETS: u32 = 1000;

/// Serves one connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: ClientStream, peer: Rc<Peer>) {
    let settings = &listener.settings;
    let streams = Rc::new(Streams::new(settings.http2.max_resets, settings.body_timeout));
    let io = Gather::new(stream);
    let service = {
        let (worker, peer, listener, streams) =
            (Rc::clone(&worker), Rc::clone(&peer), Arc::clone(&listener), Rc::clone(&streams));
        service_fn(move |request| {
            let birth = streams.begin();
            answer(Rc::clone(&worker), Rc::clone(&peer), Arc::clone(&listener), birth, request)
        })
    };
    let connection = builder(settings, Spawn(Rc::clone(&streams))).serve_connection(TokioIo::new(io.clone()), service);
    let mut course = Course {
        worker: &worker,
        settings,
        streams: &streams,
        io: &io,
        stage: Stage::Open,
        timer: Timer::new(),
        place: worker.drain.join(),
    };
    course.timer.set(settings.header_timeout);
    let mut connection = pin!(connection);
    let end = poll_fn(|cx| course.poll(connection.as_mut(), cx)).await;
    match end {
        End::Flood => listener.metrics.flooded(worker.id),
        End::Closed | End::Failed | End::ClientGone | End::TinyFrames | End::NoRequest | End::NotTaken => {}
    }
    tracing::debug!(listener = &*peer.listener, client = %peer.remote, reason = end.as_str(), "HTTP/2 connection ended");
}

fn builder(settings: &ListenerSettings, executor: Spawn) -> Builder<Spawn> {
    let head = settings
        .max_header_bytes
        .saturating_add(settings.max_headers.saturating_mul(FIELD_OVERHEAD))
        .saturating_add(HEAD_SLACK);
    let streams = settings.http2.max_streams.get();
    let mut builder = Builder::new(executor);
    builder
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(streams))
        .max_send_buf_size(SEND_BUFFER)
        // Streams that were reset before they came as far as to be counted here. The default is far below what
        // `max_resets` may allow.
        .max_pending_accept_reset_streams(settings.http2.max_resets.count.get().min(PENDING_RESETS) as usize);
    builder
}

fn connection_window(streams: u32) -> u32 {
    STREAM_WINDOW.saturating_mul(streams).clamp(LEAST_WINDOW, MOST_WINDOW)
}

/// From a request as hyper hands it over to its response. Dropped before its end, it counts as a reset.
async fn answer(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    listener: Arc<Listener>,
    birth: Birth,
    request: Request<Incoming>,
) -> Result<http::Response<ToClient>, std::convert::Infallible> {
    let (parts, incoming) = request.into_parts();
    let method = parts.method.clone();
    let body = FromClient::body(incoming, listener.settings.body_timeout, birth.stream());
    let response = match head::inbound(parts, body, &listener.settings) {
        // On the heap: the future of every stream would have to hold it otherwise, one that sends its body too.
        Ok(inbound) => match Box::pin(handle(&worker, &peer, inbound, &NoInterim)).await {
            Answer::Response(response) => response,
            // Never for a request that is not upgradable.
            Answer::Upgrade { .. } => refuse_head(&worker, &peer, Cause::Internal),
        },
        Err(cause) => refuse_head(&worker, &peer, cause),
    };
    let (mut head, body) = response.into_parts();
    // What an HTTP/1.1 connection would be told of its end; RFC 9113 section 8.2.2 knows no such field.
    head.headers.remove(CONNECTION);
    let no_content = has_no_content(&method, head.status);
    let stream = birth.answered();
    let mut response = http::Response::new(ToClient::new(if no_content { body.discard() } else { body }, stream));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.into();
    Ok(response)
}

/// hyper offers no way to send informational responses over HTTP/2. They may always be left out, RFC 9110 section
/// 15.2; a client that waits for 100 goes on without it after a while.
struct NoInterim;

impl Interim for NoInterim {
    fn interim(&self, _status: StatusCode, _headers: &Headers) {}
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Failed,
    ClientGone,
    /// More resets than `max_resets`, or other frames that only burden.
    Flood,
    /// More frames of a few bytes lay unread than are kept.
    TinyFrames,
    /// Within `header_timeout`.
    NoRequest,
    /// The client takes nothing more of what it is sent.
    NotTaken,
}

impl End {
    fn of(ended: &hyper::Result<()>) -> End {
        let Err(error) = ended else { return End::Closed };
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let Some(cause) = cause else { return End::Failed };
        if cause.is_remote() || cause.reason() != Some(h2::Reason::ENHANCE_YOUR_CALM) {
            return End::Failed;
        }
        // Only the text tells what it was. Messages of a few bytes pile up while a service does not read them, which
        // is no fault of the client's.
        if cause.to_string().contains("too_many_data_frames") { End::TinyFrames } else { End::Flood }
    }

    fn as_str(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Failed => "failed",
            End::ClientGone => "the client is gone",
            End::Flood => "more streams were reset than max_resets allows",
            End::TinyFrames => "frames of a few bytes came faster than the services read them",
            End::NoRequest => "no request came within header_timeout",
            End::NotTaken => "the client takes nothing more",
        }
    }
}

/// Whether a connection still takes new streams.
enum Stage {
    Open,
    /// GOAWAY was sent: streams under way come to their end. `written` is what the client had taken when the timer
    /// was last set.
    Leaving {
        written: u64,
    },
}

/// A connection's way from its preface to its end.
struct Course<'a> {
    worker: &'a Worker,
    settings: &'a ListenerSettings,
    streams: &'a Streams,
    io: &'a Gather,
    stage: Stage,
    timer: Timer,
    /// Among those that are woken when the worker drains.
    place: u64,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        self.worker.drain.leave(self.place);
    }
}

/// hyper's connection, as far as it is driven here.
trait Driven: Future<Output = hyper::Result<()>> {
    fn go_away(self: Pin<&mut Self>);
}

impl<S, B> Driven for Connection<TokioIo<Gather>, S, Spawn>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn go_away(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Course<'_> {
    /// Ready with why the connection ended.
    fn poll<C: Driven>(&mut self, mut connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                // What the last streams and GOAWAY wrote is still gathered.
                let _ = self.io.poll_send(cx);
                return Poll::Ready(End::of(&ended));
            }
            if let Poll::Ready(Err(_)) = self.io.poll_send(cx) {
                return Poll::Ready(End::ClientGone);
            }
            self.streams.written(self.io.written());
            if self.streams.too_many_resets() {
                connection.as_mut().go_away();
                let _ = connection.as_mut().poll(cx);
                let _ = self.io.poll_send(cx);
                return Poll::Ready(End::Flood);
            }
            match self.stage {
                Stage::Open => {
                    self.worker.drain.wake_on_drain(self.place, cx.waker());
                    self.streams.wake_when_idle(cx.waker());
                    let expired = self.idle_for_too_long(cx);
                    if !expired && !self.worker.drain.is_draining() {
                        return Poll::Pending;
                    }
                    connection.as_mut().go_away();
                    if expired && self.streams.idle_since() == Idle::NoStreamYet {
                        let _ = connection.as_mut().poll(cx);
                        let _ = self.io.poll_send(cx);
                        return Poll::Ready(End::NoRequest);
                    }
                    self.stage = Stage::Leaving { written: self.io.written() };
                    self.timer.set(self.settings.body_timeout);
                }
                Stage::Leaving { written } => {
                    if self.timer.poll_expired(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // A slow client may take its time as long as it takes something, and a slow upstream its own.
                    if self.streams.active() == 0 && self.io.written() == written {
                        return Poll::Ready(End::NotTaken);
                    }
                    self.stage = Stage::Leaving { written: self.io.written() };
                    self.timer.set(self.settings.body_timeout);
                }
            }
        }
    }

    /// Whether no stream has been open for `idle_timeout`, or none has come at all within `header_timeout`.
    fn idle_for_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        match self.streams.idle_since() {
            Idle::Never => self.timer.clear(),
            Idle::NoStreamYet => {}
            Idle::Since(moment) => match moment.checked_add(self.settings.idle_timeout) {
                Some(end) => self.timer.set_at(end),
                None => self.timer.clear(),
            },
        }
        self.timer.poll_expired(cx).is_ready()
    }
}
