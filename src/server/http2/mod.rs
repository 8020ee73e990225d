//! HTTP/2 towards clients, RFC 9113.
//!
//! The connection's own task reads frames (`receive.rs`) and sends what has gathered in the output; each stream is a
//! task that has its request answered and writes the answer into that output itself (`respond.rs`). What they share is in
//! `shared.rs`. So a request costs no channel and no copy but that into the output, and all that streams write between two
//! turns of the connection goes out with one write, over TLS in one record.
//!
//! A connection's settings are those of its beginning, since they were told to the client then; what a request is
//! judged by comes from the snapshot of its own moment.

mod body;
mod burden;
mod receive;
mod resets;
mod respond;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use self::receive::{Intake, Receiver};
use self::shared::{Idle, Shared};
use super::listener::Listener;
use super::stream::ClientStream;
use crate::config::settings::ListenerSettings;
use crate::http1::timer::Timer;
use crate::http2::flow::{INITIAL, LARGEST};
use crate::http2::frame::{self, Code, Offer};
use crate::request::peer::Peer;
use crate::worker::Worker;

/// What a client may send of one body before the gateway has passed it on; no other body is held up by it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The least window of a connection, which has room for those of all its streams.
const LEAST_WINDOW: u32 = 16 * 1024 * 1024;

/// RFC 9113 section 6.5.2 counts this for each field beside its name and value.
const FIELD_OVERHEAD: usize = 32;

/// How far a head may exceed `max_header_bytes` and still be answered from the table of rejections. Larger ones end the
/// connection.
const HEAD_SLACK: usize = 64 * 1024;

/// Reads in a row before what has gathered is sent and others have their turn.
const READS: u32 = 16;

/// How long the client may take to hear of the end, and to end its side.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a client that is to open no more streams may take to say that it has heard so.
const HEARD: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: ClientStream, peer: Rc<Peer>) {
    let settings = &listener.settings;
    let streams = settings.http2.max_streams.get();
    let window = connection_window(streams);
    let shared = Rc::new(Shared::new(Rc::clone(&worker), Rc::clone(&peer), Arc::clone(&listener), window));
    let longest = longest_head(settings);
    shared.write(|out| {
        let max_header_list_size = u32::try_from(longest).unwrap_or(u32::MAX);
        let offer = Offer { max_concurrent_streams: streams, initial_window_size: STREAM_WINDOW, max_header_list_size };
        frame::settings(out, offer);
        frame::window_update(out, 0, window.saturating_sub(INITIAL));
    });
    let mut course = Course {
        settings,
        receiver: Receiver::new(&shared, longest),
        shared: &shared,
        stream,
        unflushed: false,
        stage: Stage::Open,
        timer: Timer::new(),
        place: worker.drain.join(),
        woken_by: None,
    };
    course.timer.set(settings.header_timeout);
    let end = poll_fn(|cx| course.poll(cx)).await;
    shared.end();
    match end {
        End::Failed(Code::EnhanceYourCalm) => listener.metrics.flooded(worker.id),
        End::Closed | End::Failed(_) | End::ClientGone | End::NoRequest | End::NotTaken => {}
    }
    // On the heap, like all that happens once.
    Box::pin(course.part(end)).await;
    tracing::debug!(listener = &*peer.listener, client = %peer.remote, reason = %end, "HTTP/2 connection ended");
}

fn connection_window(streams: u32) -> u32 {
    STREAM_WINDOW.saturating_mul(streams).clamp(LEAST_WINDOW, LARGEST)
}

fn longest_head(settings: &ListenerSettings) -> usize {
    settings
        .max_header_bytes
        .saturating_add(settings.max_headers.saturating_mul(FIELD_OVERHEAD))
        .saturating_add(HEAD_SLACK)
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    /// The client broke the protocol, or sent more of what only burdens than is borne.
    Failed(Code),
    ClientGone,
    /// Within `header_timeout`.
    NoRequest,
    /// The client takes nothing more of what it is sent.
    NotTaken,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Closed => f.write_str("closed"),
            End::Failed(Code::EnhanceYourCalm) => {
                f.write_str("more streams were reset than max_resets allows, or more frames came that only burden")
            }
            End::Failed(code) => write!(f, "the client broke the protocol: {code}"),
            End::ClientGone => f.write_str("the client is gone"),
            End::NoRequest => f.write_str("no request came within header_timeout"),
            End::NotTaken => f.write_str("the client takes nothing more"),
        }
    }
}

/// Whether a connection still takes new streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// A head has begun to come, and must be whole within `header_timeout`.
    AmidHead,
    /// GOAWAY was sent. A client that had opened streams by then is heard until it has said that it knows.
    Leaving,
    /// The last GOAWAY was sent: streams under way come to their end. `written` is what the client had taken when the
    /// timer was last set.
    Last {
        written: u64,
    },
}

/// A connection's way from its preface to its end.
struct Course<'a> {
    settings: &'a ListenerSettings,
    receiver: Receiver,
    shared: &'a Rc<Shared>,
    stream: ClientStream,
    /// Whether the stream itself may still hold back something that it took: a TLS record, for one.
    unflushed: bool,
    stage: Stage,
    timer: Timer,
    /// Among those that are woken when the worker drains, and the waker that was told there.
    place: u64,
    woken_by: Option<Waker>,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        self.shared.worker.drain.leave(self.place);
    }
}

impl Course<'_> {
    /// Ready with why the connection ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.shared.attend(cx.waker());
        loop {
            let mut was_full = self.shared.is_full();
            if let Some(end) = self.read(cx) {
                return Poll::Ready(end);
            }
            was_full |= self.shared.is_full();
            let sent = self.poll_send(cx);
            self.shared.sent(sent.is_ready());
            match sent {
                Poll::Ready(Err(_)) => return Poll::Ready(End::ClientGone),
                Poll::Ready(Ok(())) if was_full => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            self.shared.call_waiting();
            if let Some(end) = self.next_stage(cx) {
                return Poll::Ready(end);
            }
            if !self.shared.has_unsent() || self.unflushed {
                break;
            }
        }
        if self.shared.active() == 0 {
            self.shared.release();
        }
        Poll::Pending
    }

    /// Takes what has come, unless the client takes nothing of what it is sent.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<End> {
        for _ in 0..READS {
            if self.shared.is_full() {
                return None;
            }
            match self.receiver.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Some(End::ClientGone),
                Poll::Pending => return None,
            }
            if let Err(code) = self.receiver.take() {
                return Some(End::Failed(code));
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    /// Sends what has gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Course { shared, stream, unflushed, .. } = self;
        shared.send(|buffer| {
            while !buffer.is_empty() {
                *unflushed = true;
                let length = ready!(Pin::new(&mut *stream).poll_write(cx, buffer))?;
                if length == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                buffer.advance(length);
                shared.wrote(length);
            }
            if *unflushed {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                *unflushed = false;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Goes from one stage to the next, as the clock and the drain have it; why the connection ends.
    fn next_stage(&mut self, cx: &mut Context<'_>) -> Option<End> {
        loop {
            match self.stage {
                Stage::Open => {
                    if self.woken_by.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                        self.woken_by = Some(cx.waker().clone());
                        self.shared.worker.drain.wake_on_drain(self.place, cx.waker());
                    }
                    if self.receiver.is_amid_head() {
                        self.timer.set(self.settings.header_timeout);
                        self.stage = Stage::AmidHead;
                        continue;
                    }
                    let expired = self.idle_for_too_long(cx);
                    if expired && self.shared.idle() == Idle::NoStreamYet {
                        return Some(End::NoRequest);
                    }
                    if !expired && !self.shared.worker.drain.is_draining() && self.receiver.intake() == Intake::Open {
                        return None;
                    }
                    self.leave();
                }
                Stage::AmidHead => {
                    if !self.receiver.is_amid_head() {
                        self.stage = Stage::Open;
                        // It may have been no request.
                        self.timer.set(self.settings.header_timeout);
                        continue;
                    }
                    let expired = self.timer.poll_expired(cx).is_ready();
                    return expired.then_some(End::NoRequest);
                }
                Stage::Leaving => {
                    match self.receiver.intake() {
                        Intake::Closing if self.timer.poll_expired(cx).is_pending() => return None,
                        Intake::Open | Intake::Closing | Intake::Heard | Intake::Closed | Intake::Left => {}
                    }
                    self.receiver.becomes(Intake::Closed);
                    let last = self.receiver.last();
                    self.shared.write(|out| frame::go_away(out, last, Code::NoError));
                    self.stage = Stage::Last { written: self.shared.written() };
                    self.timer.set(self.settings.body_timeout);
                }
                Stage::Last { written } => {
                    if self.shared.active() == 0 && !self.shared.has_unsent() && !self.unflushed {
                        return Some(End::Closed);
                    }
                    if self.timer.poll_expired(cx).is_pending() {
                        return None;
                    }
                    // A slow client may take its time as long as it takes something, and a slow upstream its own.
                    if self.shared.active() == 0 && self.shared.written() == written {
                        return Some(End::NotTaken);
                    }
                    self.stage = Stage::Last { written: self.shared.written() };
                    self.timer.set(self.settings.body_timeout);
                }
            }
        }
    }

    /// Tells the client to open no more streams (section 6.8): first without a last one, since some may be on their way.
    fn leave(&mut self) {
        self.stage = Stage::Leaving;
        if self.receiver.intake() == Intake::Open {
            self.receiver.becomes(Intake::Closing);
            self.shared.write(|out| {
                frame::go_away(out, LARGEST, Code::NoError);
                frame::ping(out, *b"goodbye!");
            });
            self.timer.set(HEARD);
        }
    }

    /// Whether no stream has been open for `idle_timeout`, or none has come at all within `header_timeout`.
    fn idle_for_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        match self.shared.idle() {
            Idle::Never => self.timer.clear(),
            Idle::NoStreamYet => {}
            Idle::Since(moment) => match moment.checked_add(self.settings.idle_timeout) {
                Some(end) => self.timer.set_at(end),
                None => self.timer.clear(),
            },
        }
        self.timer.poll_expired(cx).is_ready()
    }

    /// Says what there is to say at the end. What the client still sends is read meanwhile: closing at once would
    /// reset the connection and take the last words with it.
    async fn part(mut self, end: End) {
        let code = match end {
            End::ClientGone | End::NotTaken => return,
            End::Closed => None,
            End::NoRequest => Some(Code::NoError),
            End::Failed(code) => Some(code),
        };
        if let Some(code) = code {
            let last = self.receiver.last();
            self.shared.write_now(|out| frame::go_away(out, last, code));
        }
        let said = async {
            poll_fn(|cx| self.poll_send(cx)).await?;
            self.stream.shutdown().await?;
            if let End::Failed(_) = end {
                let mut space = vec![0; 16 * 1024];
                while self.stream.read(&mut space).await? > 0 {}
            }
            io::Result::Ok(())
        };
        // Past the time there is nothing left to do but close.
        let _ = timeout(FAREWELL, said).await;
    }
}
