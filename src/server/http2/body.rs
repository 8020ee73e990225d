//! Bodies between hyper's streams and ours.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::streams::Stream;
use crate::body::{RequestBody, ResponseBody};
use crate::http1::timer::Timer;
use crate::request::rejection::Cause;

/// How long, and how far, a body that nobody wants is still read behind the answer to its request.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Bytes that hyper is given of an answer at once. It asks for more when the client has taken them, so this is the least
/// that counts as progress.
pub(super) const FRAME: usize = 16 * 1024;

/// A request's body on its way in.
pub(super) struct FromClient {
    /// Taken when this is dropped.
    incoming: Option<Incoming>,
    body_timeout: Duration,
    timer: Timer,
    stream: Rc<Stream>,
}

impl FromClient {
    /// Fails with `BodyTimeout` when nothing has come for `body_timeout` while it was waited for. Whoever can wait longer
    /// may go on reading.
    pub(super) fn body(incoming: Incoming, body_timeout: Duration, stream: Rc<Stream>) -> RequestBody {
        if incoming.is_end_stream() {
            return RequestBody::Empty;
        }
        let incoming = Some(incoming);
        RequestBody::Stream(Box::pin(FromClient { incoming, body_timeout, timer: Timer::new(), stream }))
    }
}

/// A stream whose body is not wanted any more is reset once its answer was sent. A client that has just begun to send
/// the body may take that for a failure and never look at the answer (curl does), so a body that is on its way is read
/// and thrown away for a while first.
impl Drop for FromClient {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) else { return };
        // A worker that ends has no tasks any more.
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(tokio::time::timeout(LINGER, linger(incoming)));
        }
    }
}

async fn linger(mut incoming: Incoming) {
    let mut left = LINGER_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(LINGER_SILENCE, incoming.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) if !incoming.is_end_stream() => left = rest,
            Some(_) | None => return,
        }
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            this.timer.clear();
            // Lengths that do not match, a reset, a lost connection: the stream is over whichever it was.
            if let Some(Err(_)) = &frame {
                this.stream.taken_back();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Cause::ClientClosed)));
        }
        if !this.timer.is_set() {
            this.timer.set(this.body_timeout);
        }
        ready!(this.timer.poll_expired(cx));
        this.timer.clear();
        Poll::Ready(Some(Err(Cause::BodyTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

/// A response's body on its way out, which knows whether it waits for the upstream or for the client.
pub(super) struct ToClient {
    body: Sent,
    /// Of a piece that is longer than a frame.
    rest: Bytes,
    stream: Rc<Stream>,
}

enum Sent {
    Here(ResponseBody),
    /// From a server: the stream reads it ahead while the client takes nothing.
    Shared(Rc<RefCell<ResponseBody>>),
}

impl ToClient {
    pub(super) fn new(body: ResponseBody, stream: Rc<Stream>) -> ToClient {
        if body.is_end_stream() {
            return ToClient { body: Sent::Here(body), rest: Bytes::new(), stream };
        }
        // The client may not have left room even for the first byte.
        stream.handed_over();
        if !body.is_stream() {
            return ToClient { body: Sent::Here(body), rest: Bytes::new(), stream };
        }
        let body = Rc::new(RefCell::new(body));
        stream.read_ahead_from(&body);
        ToClient { body: Sent::Shared(body), rest: Bytes::new(), stream }
    }
}

/// A response's body that broke off: hyper resets the stream, so that the client knows.
#[derive(Debug)]
pub(super) struct BrokenOff(Cause);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.row().cause)
    }
}

impl std::error::Error for BrokenOff {}

impl Body for ToClient {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        this.stream.asked_for_more();
        if this.rest.is_empty() {
            let frame = ready!(match &mut this.body {
                Sent::Here(body) => Pin::new(body).poll_frame(cx),
                Sent::Shared(body) => Pin::new(&mut *body.borrow_mut()).poll_frame(cx),
            });
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                other => {
                    this.stream.handed_over();
                    return Poll::Ready(other.map(|frame| match frame {
                        Ok(Ok(data)) => Ok(Frame::data(data)),
                        Ok(Err(frame)) => Ok(frame),
                        Err(cause) => Err(BrokenOff(cause)),
                    }));
                }
            }
        }
        this.stream.handed_over();
        let data = this.rest.split_to(this.rest.len().min(FRAME));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.body {
                Sent::Here(body) => body.is_end_stream(),
                Sent::Shared(body) => body.borrow().is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Sent::Here(body) => body.size_hint(),
            Sent::Shared(body) => body.borrow().size_hint(),
        }
    }
}
