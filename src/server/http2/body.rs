//! A request's body: what has come of it, whoever reads it, and what becomes of it when nobody does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use super::STREAM_WINDOW;
use super::respond::go_on;
use super::shared::Shared;
use super::stream::Stream;
use crate::body::RequestBody;
use crate::http1::timer::Timer;
use crate::http2::flow::Granted;
use crate::http2::frame::{self, Code, Fault};
use crate::request::rejection::Cause;

/// How long, and how far, a body that nobody wants is still read behind the answer to its request.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// What has come of a body and was not read yet. Frames are put together, so that many small ones take no more than
/// their bytes; the stream's window bounds them.
pub(super) struct Incoming {
    data: BytesMut,
    trailers: Option<Box<HeaderMap>>,
    course: Course,
    /// What is still to come of a length that was stated.
    left: Option<u64>,
    granted: Granted,
    fate: Fate,
    /// Whoever waits for more.
    waiting: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Coming,
    /// It has come whole.
    Ended,
    /// It will never be whole.
    Lost,
}

/// What is done with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// It is thrown away; so much more of it is let come.
    Unwanted {
        left: usize,
    },
}

impl Incoming {
    /// Of a request whose head is all.
    pub(super) fn none() -> Incoming {
        Incoming { course: Course::Ended, ..Incoming::begin(None) }
    }

    /// `length`: as it was stated.
    pub(super) fn begin(length: Option<u64>) -> Incoming {
        Incoming {
            data: BytesMut::new(),
            trailers: None,
            course: Course::Coming,
            left: length,
            granted: Granted::new(STREAM_WINDOW),
            fate: Fate::Wanted,
            waiting: None,
        }
    }

    /// DATA came, `flow` bytes with its padding. How many of them are held no longer.
    ///
    /// # Errors
    /// It may not come (RFC 9113 sections 5.1, 6.9.1 and 8.1.1).
    pub(super) fn data(&mut self, data: &[u8], flow: u32, end_stream: bool) -> Result<u32, Fault> {
        if self.course != Course::Coming {
            return Err(Fault::Stream(Code::StreamClosed));
        }
        self.granted.came(flow).map_err(|_| Fault::Stream(Code::FlowControl))?;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(Fault::Stream(Code::Protocol))?;
        }
        if end_stream {
            self.end()?;
        }
        self.wake();
        match &mut self.fate {
            Fate::Wanted => {
                self.data.extend_from_slice(data);
                let padding = (flow as usize).saturating_sub(data.len());
                Ok(u32::try_from(padding).unwrap_or(flow))
            }
            Fate::Unwanted { left } => {
                *left = left.saturating_sub(flow as usize);
                Ok(flow)
            }
        }
    }

    /// Fields came behind it.
    ///
    /// # Errors
    /// They may not come.
    pub(super) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Fault> {
        self.end()?;
        if !trailers.is_empty() {
            self.trailers = Some(Box::new(trailers));
        }
        self.wake();
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(Code::Protocol));
        }
        self.course = Course::Ended;
        Ok(())
    }

    pub(super) fn is_coming(&self) -> bool {
        self.course == Course::Coming
    }

    /// So much of it is held no longer: what is to be granted anew.
    pub(super) fn gave_back(&mut self, bytes: u32) -> Option<u32> {
        let may_come = match self.fate {
            Fate::Wanted => self.course == Course::Coming,
            Fate::Unwanted { left } => self.course == Course::Coming && left > 0,
        };
        self.granted.read(bytes).filter(|_| may_come)
    }

    /// The stream is closed: how much of it was held.
    pub(super) fn forget(&mut self) -> u32 {
        if self.course == Course::Coming {
            self.course = Course::Lost;
        }
        self.wake();
        // More than a window is never held.
        u32::try_from(std::mem::take(&mut self.data).len()).unwrap_or_default()
    }

    /// Nobody will read it; how much of it was held.
    fn is_unwanted(&mut self) -> u32 {
        self.fate = Fate::Unwanted { left: LINGER_BYTES };
        self.trailers = None;
        u32::try_from(std::mem::take(&mut self.data).len()).unwrap_or_default()
    }

    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waiting = Some(cx.waker().clone());
        }
    }

    fn is_at_end(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none() && self.course == Course::Ended
    }
}

/// Tells the client that so much of a stream's body is held no longer.
pub(super) fn give_back(shared: &Shared, stream: &Stream, bytes: u32) {
    if bytes == 0 {
        return;
    }
    let more = stream.body.borrow_mut().gave_back(bytes);
    if let Some(more) = more {
        shared.write(|out| frame::window_update(out, stream.id, more));
    }
    shared.gave_back(bytes);
}

/// Nobody reads a body any more, if anybody ever did.
pub(super) fn let_go(shared: &Shared, stream: &Stream) {
    let unread = stream.body.borrow_mut().is_unwanted();
    give_back(shared, stream, unread);
}

/// Whoever reads a body.
pub(super) struct FromClient {
    shared: Rc<Shared>,
    stream: Rc<Stream>,
    length: Option<u64>,
    /// The client waits for 100 before it sends the body.
    awaits_continue: bool,
    timer: Timer,
}

impl FromClient {
    /// Fails with `BodyTimeout` when nothing has come for `body_timeout` while it was waited for. Whoever can wait longer
    /// may go on reading.
    pub(super) fn body(
        shared: &Rc<Shared>,
        stream: &Rc<Stream>,
        length: Option<u64>,
        awaits_continue: bool,
    ) -> RequestBody {
        if stream.body.borrow().is_at_end() {
            return RequestBody::Empty;
        }
        let (shared, stream) = (Rc::clone(shared), Rc::clone(stream));
        RequestBody::Stream(Box::pin(FromClient { shared, stream, length, awaits_continue, timer: Timer::new() }))
    }
}

impl Drop for FromClient {
    fn drop(&mut self) {
        let_go(&self.shared, &self.stream);
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let this = self.get_mut();
        let (data, trailers, course) = {
            let body = &mut *this.stream.body.borrow_mut();
            let data = std::mem::take(&mut body.data).freeze();
            let trailers = if data.is_empty() { body.trailers.take() } else { None };
            if data.is_empty() && trailers.is_none() && body.course == Course::Coming {
                body.wait(cx);
            }
            (data, trailers, body.course)
        };
        if !data.is_empty() {
            this.timer.clear();
            this.awaits_continue = false;
            give_back(&this.shared, &this.stream, u32::try_from(data.len()).unwrap_or_default());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = trailers {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        match course {
            Course::Ended => Poll::Ready(None),
            Course::Lost => Poll::Ready(Some(Err(Cause::ClientClosed))),
            Course::Coming => {
                if std::mem::take(&mut this.awaits_continue) {
                    go_on(&this.shared, &this.stream);
                }
                if !this.timer.is_set() {
                    this.timer.set(this.shared.listener.settings.body_timeout);
                }
                ready!(this.timer.poll_expired(cx));
                this.timer.clear();
                Poll::Ready(Some(Err(Cause::BodyTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.body.borrow().is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Waits behind an answer for the rest of a body that nobody wants, then closes the stream. A client that has just
/// begun to send it may take a reset for a failure and never look at the answer (curl does).
pub(super) async fn linger(shared: &Shared, stream: &Stream) {
    if stream.body.borrow().is_coming() {
        // What is in time is not told from what is not: the stream is closed next.
        let _ = timeout(LINGER, rest(&stream.body)).await;
        if stream.body.borrow().is_coming() {
            return shared.reset(stream, Code::NoError);
        }
    }
    shared.close(stream);
}

/// Ready at the body's end, or when no more of it should be waited for.
async fn rest(body: &RefCell<Incoming>) {
    let mut before = None;
    loop {
        let more = poll_fn(|cx| {
            let body = &mut *body.borrow_mut();
            let left = match (body.course, body.fate) {
                (Course::Coming, Fate::Unwanted { left: left @ 1.. }) => left,
                // An answer whose own body reads on has ended before that; it is not read then either.
                (Course::Coming, Fate::Wanted) => LINGER_BYTES,
                (Course::Coming | Course::Ended | Course::Lost, _) => return Poll::Ready(false),
            };
            if before.replace(left).is_some_and(|before| before != left) {
                return Poll::Ready(true);
            }
            body.wait(cx);
            Poll::Pending
        });
        if !matches!(timeout(LINGER_SILENCE, more).await, Ok(true)) {
            return;
        }
    }
}
