//! Writing an answer: its head, its body while it comes, in turns with the other streams.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use super::shared::{Lacks, Shared, TURN};
use super::stream::{Stage, Stream};
use crate::body::ResponseBody;
use crate::headers::Headers;
use crate::http1::connection::is_hop_by_hop;
use crate::http1::framing::has_no_content;
use crate::http1::head::{Notable, Seen};
use crate::http1::timer::Timer;
use crate::http2::frame::Code;
use crate::http2::hpack::encode::Block;
use crate::request::rejection::Cause;
use crate::response::{Head, Response};
use crate::server::date;
use crate::server::stream::until_stalled;

/// An answer on its way. Ready once all of it is in the output, or the stream was reset because that cannot be.
pub(super) struct Responding<'a> {
    shared: &'a Shared,
    stream: &'a Rc<Stream>,
    /// Until it is written.
    head: Option<Head>,
    /// Whether nothing follows the head, whatever it says.
    no_content: bool,
    body: ResponseBody,
    /// What has come and is not written.
    rest: Bytes,
    /// Whether nothing comes behind that.
    ended: bool,
    stall: Stall,
}

/// How long the client has taken nothing.
struct Stall {
    timer: Timer,
    /// Bytes that it had taken of all streams when the timer was last set.
    written: u64,
}

/// Begins to answer a request of `method`.
pub(super) fn respond<'a>(
    shared: &'a Shared,
    stream: &'a Rc<Stream>,
    response: Response,
    method: &Method,
) -> Responding<'a> {
    let (head, body) = response.into_parts();
    let no_content = has_no_content(method, head.status);
    let body = if no_content { body.discard() } else { body };
    let stall = Stall { timer: Timer::new(), written: 0 };
    Responding { shared, stream, head: Some(head), no_content, body, rest: Bytes::new(), ended: false, stall }
}

impl Future for Responding<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut written = 0;
        loop {
            if !this.shared.has_room() {
                return this.wait(Lacks::Room, cx);
            }
            if let Some(head) = this.head.take() {
                this.write_head(&head);
                if this.body.is_end_stream() {
                    return Poll::Ready(());
                }
            }
            if this.rest.is_empty() && !this.ended {
                match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() && !this.body.is_end_stream() => continue,
                        Ok(data) => this.rest = data,
                        Err(frame) => {
                            this.write_trailers(frame.trailers_ref());
                            return Poll::Ready(());
                        }
                    },
                    Some(Err(cause)) => {
                        tracing::debug!(cause = cause.row().cause, "the response's body broke off");
                        this.shared.reset(this.stream, Code::Internal);
                        return Poll::Ready(());
                    }
                    None => this.ended = true,
                }
            }
            this.ended |= this.body.is_end_stream();
            match this.shared.write_data(this.stream, &this.rest, this.ended) {
                Ok(length) => {
                    this.stall.timer.clear();
                    this.rest.advance(length);
                    if this.rest.is_empty() && this.ended {
                        return Poll::Ready(());
                    }
                    written = length.saturating_add(written);
                    if written >= TURN && this.shared.active() > 1 {
                        // Behind those that are ready, too.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(lacks) => return this.wait(lacks, cx),
            }
        }
    }
}

impl Responding<'_> {
    /// Waits until the client takes more, or has taken nothing for too long. A stream that waits for its turn among the
    /// others of its connection is not stuck: these have to be, too. Its server does not wait meanwhile.
    fn wait(&mut self, lacks: Lacks, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.wait(self.stream, lacks);
        if lacks == Lacks::Room && !self.shared.is_blocked() {
            // The client has not been sent yet what is in the way.
            return Poll::Pending;
        }
        self.body.poll_ahead(cx);
        let Stall { timer, written } = &mut self.stall;
        let patience = until_stalled(self.shared.listener.settings.body_timeout);
        if !timer.is_set() {
            *written = self.shared.written();
            timer.set(patience);
        }
        while timer.poll_expired(cx).is_ready() {
            let before = std::mem::replace(written, self.shared.written());
            if written.saturating_sub(before) < TURN as u64 {
                self.body.give_up(Cause::ClientStalled);
                self.shared.reset(self.stream, Code::Cancel);
                return Poll::Ready(());
            }
            timer.set(patience);
        }
        Poll::Pending
    }

    fn write_head(&mut self, head: &Head) {
        let length = if self.no_content { None } else { self.body.size_hint().exact() };
        let is_all = self.body.is_end_stream();
        self.stream.begins_answer();
        self.shared.write_fields(self.stream, is_all, |block| {
            block.status(head.status);
            let seen = fields(block, &head.headers);
            if !seen.has(Notable::Date) {
                date::with(|date| block.field(b"date", date));
            }
            if let Some(length) = length.filter(|_| !seen.has(Notable::ContentLength)) {
                block.field(b"content-length", itoa::Buffer::new().format(length).as_bytes());
            }
        });
    }

    fn write_trailers(&mut self, trailers: Option<&HeaderMap>) {
        self.shared.write_fields(self.stream, true, |block| {
            for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| !is_hop_by_hop((*name).into())) {
                block.field(name.as_str().as_bytes(), value.as_bytes());
            }
        });
    }
}

/// Packs all but those that HTTP/2 does not have (RFC 9113 section 8.2.2); which there are.
fn fields(block: &mut Block<'_>, headers: &Headers) -> Seen {
    let mut seen = Seen::default();
    for (name, value) in headers {
        let notable = Notable::of(name.as_bytes());
        seen.note(notable);
        match notable {
            // What an HTTP/1.1 connection would be told of its end is among these.
            Some(Notable::Connection | Notable::HopByHop | Notable::TransferEncoding) => {}
            Some(Notable::ContentLength | Notable::Date | Notable::Expect | Notable::Via) | None => {
                block.field(name.as_bytes(), value.as_bytes());
            }
        }
    }
    seen
}

/// Tells a client that waits for it to send its body: once a stream, and whether there is room or not, since it would wait
/// for ever.
pub(super) fn go_on(shared: &Shared, stream: &Stream) {
    match stream.stage() {
        Stage::Asked => shared.write_fields(stream, false, |block| block.status(StatusCode::CONTINUE)),
        Stage::Answering | Stage::Over => {}
    }
}

/// Writes an informational response. It may always be left out (RFC 9110 section 15.2), and is where there is an answer
/// already, or no room.
pub(super) fn interim(shared: &Shared, stream: &Stream, status: StatusCode, headers: &Headers) {
    match stream.stage() {
        Stage::Asked if shared.has_room() => shared.write_fields(stream, false, |block| {
            block.status(status);
            for (name, value) in headers {
                if !is_hop_by_hop(name) && name != http::header::CONTENT_LENGTH {
                    block.field(name.as_bytes(), value.as_bytes());
                }
            }
        }),
        Stage::Asked | Stage::Answering | Stage::Over => {}
    }
}
