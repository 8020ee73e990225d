//! A client's HTTP/1.1 connection as the codec sees it: bytes read, bytes to be written, the state of the request's
//! body between them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use crate::body::{Pipe, RequestBody, WORTH_A_PIPE};
use crate::headers::Headers;
use crate::http1::buffer::poll_read;
use crate::http1::chunked::{Decoded, Decoder};
use crate::http1::connection::remove_hop_by_hop;
use crate::http1::encode;
use crate::http1::framing::Framing;
use crate::http1::queue::Queue;
use crate::http1::timer::Timer;
use crate::request::rejection::Cause;
use crate::server::stream::{ClientStream, until_stalled};
use crate::upstream::http1::Interim;

/// Bytes read from a client at once.
const READ: usize = 64 * 1024;

/// Bytes of further requests that are taken in while one is answered.
const PIPELINED: usize = 16 * 1024;

/// How often it is looked behind what is unread.
const LOOK: Duration = Duration::from_millis(200);

/// A connection's bytes and the body that is being read from them.
pub(super) struct Wire {
    pub(super) stream: ClientStream,
    pub(super) read: BytesMut,
    pub(super) out: Queue,
    /// What goes out behind that, of a long body.
    pipe: Option<Pipe>,
    pub(super) body: Decoder,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) awaits_continue: bool,
    /// Without progress, in either direction.
    pub(super) body_timeout: Duration,
    /// It was given up because the client took nothing.
    pub(super) stalled: bool,
    reading: Progress,
    writing: Progress,
    /// When to look whether the client has left, where nothing else tells.
    look: Timer,
}

/// The client is gone, or as good as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Wire {
    pub(super) fn new(stream: ClientStream) -> Wire {
        Wire {
            stream,
            read: BytesMut::new(),
            out: Queue::default(),
            pipe: None,
            body: Decoder::new(Framing::None),
            awaits_continue: false,
            body_timeout: Duration::ZERO,
            stalled: false,
            reading: Progress::new(),
            writing: Progress::new(),
            look: Timer::new(),
        }
    }

    /// Gives back the memory that is kept for the next request.
    pub(super) fn release(&mut self) {
        self.out.release();
        self.pipe = None;
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }

    /// Reads once; zero at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read(&mut self.stream, cx, &mut self.read, READ)
    }

    /// Whether something is queued.
    pub(super) fn is_sent(&self) -> bool {
        self.out.is_empty() && self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// Whether more may be queued before it is flushed.
    pub(super) fn has_room(&self) -> bool {
        self.out.has_room() && self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// A pipe to the client, which is empty, for a body of which so much is to come. It goes into the queue when there is
    /// something in it.
    pub(super) fn take_pipe(&mut self, coming: u64) -> Option<Pipe> {
        if coming < WORTH_A_PIPE || !self.stream.is_plain() {
            return None;
        }
        self.pipe.take().or_else(Pipe::open)
    }

    pub(super) fn push_pipe(&mut self, pipe: Pipe) {
        self.pipe = Some(pipe);
    }

    /// Writes everything that is queued.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut taken = Poll::Ready(Ok(()));
        while taken.is_ready() && !self.out.is_empty() {
            match self.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(_)) => self.writing.made(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending => taken = Poll::Pending,
            }
        }
        if taken.is_ready()
            && let Some(pipe) = &mut self.pipe
        {
            while taken.is_ready() && !pipe.is_empty() {
                match self.stream.poll_give(cx, pipe) {
                    Poll::Ready(Ok(_)) => self.writing.made(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => taken = Poll::Pending,
                }
            }
        }
        if taken.is_ready() {
            // What TLS has taken is not sent yet: it is timed like the rest.
            taken = Pin::new(&mut self.stream).poll_flush(cx);
        }
        match taken {
            Poll::Ready(Ok(())) => self.writing.made(),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
            Poll::Pending => {
                ready!(self.writing.poll_stalled(cx, until_stalled(self.body_timeout)));
                self.stalled = true;
                return Poll::Ready(Err(Gone));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has left. Reads no further than what it keeps of further requests, or of a body that
    /// nobody reads yet, such as that of a request that waits for a server; what is unread then hides the end, and is
    /// looked behind now and then.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        while self.read.len() < PIPELINED {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Gone),
                Ok(_) if self.body.is_end() => {}
                // Whoever reads the body is asked again, since it is not on the wire any more that it waits for.
                Ok(_) => {
                    self.reading.made();
                    cx.waker().wake_by_ref();
                }
            }
        }
        while !self.stream.is_shut() {
            if !self.look.is_set() {
                self.look.set(LOOK);
            }
            ready!(self.look.poll_expired(cx));
            self.look.clear();
        }
        Poll::Ready(Gone)
    }

    /// Steps over what has come of a body that nobody reads; whether that was all of it.
    pub(super) fn skip_what_came(&mut self) -> bool {
        while let Ok(Decoded::Data(_) | Decoded::Trailers(_)) = self.body.decode(&mut self.read) {}
        self.body.is_end()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        if std::mem::take(&mut self.awaits_continue) && self.read.is_empty() {
            self.out.gather().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.out.is_empty() && matches!(self.poll_flush(cx), Poll::Ready(Err(Gone))) {
            return Poll::Ready(Some(Err(Cause::ClientClosed)));
        }
        loop {
            match self.body.decode(&mut self.read) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Some(Err(Cause::MalformedBody))),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => self.reading.made(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(Cause::ClientClosed))),
                Poll::Pending => {
                    ready!(self.reading.poll_stalled(cx, self.body_timeout));
                    // Whoever can wait longer may go on reading.
                    self.reading.made();
                    return Poll::Ready(Some(Err(Cause::BodyTimeout)));
                }
            }
        }
    }
}

/// Times how long a direction has been stuck.
struct Progress {
    timer: Timer,
    timed: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { timer: Timer::new(), timed: false }
    }

    fn made(&mut self) {
        self.timed = false;
        self.timer.clear();
    }

    /// Ready when nothing was made since `after` ago. Time while nobody asks does not count.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        if !std::mem::replace(&mut self.timed, true) {
            self.timer.set(after);
        }
        self.timer.poll_expired(cx)
    }
}

/// The body of the request that a wire is reading.
pub(super) fn request_body(wire: &Rc<RefCell<Wire>>) -> RequestBody {
    let length = {
        let wire = wire.borrow();
        if wire.body.is_end() {
            return RequestBody::Empty;
        }
        wire.body.remaining()
    };
    RequestBody::Stream(Box::pin(WireBody { wire: Rc::clone(wire), length }))
}

struct WireBody {
    wire: Rc<RefCell<Wire>>,
    /// As it was stated.
    length: Option<u64>,
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.wire.borrow_mut().poll_body(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.wire.borrow().body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Informational responses go straight onto the wire; HTTP/1.0 knows none (RFC 9110 section 15.2).
pub(super) struct WireInterim {
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) understood: bool,
}

impl Interim for WireInterim {
    fn interim(&self, status: StatusCode, headers: &Headers) {
        // 100 is between the client and the gateway, which reads the body.
        if !self.understood || status == StatusCode::CONTINUE {
            return;
        }
        let mut headers = headers.clone();
        remove_hop_by_hop(&mut headers);
        let mut wire = self.wire.borrow_mut();
        let out = wire.out.gather();
        encode::status_line(out, status);
        headers.write_lines(out, |name| name != http::header::CONTENT_LENGTH);
        out.extend_from_slice(b"\r\n");
    }
}
