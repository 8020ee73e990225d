//! Writing a response: its head, its framing, its body as it comes.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, Version};
use http_body::Body;

use super::super::date;
use super::wire::{Gone, Wire};
use crate::body::ResponseBody;
use crate::http1::encode;
use crate::http1::framing::has_no_content;
use crate::request::rejection::Cause;
use crate::response::Response;

/// What the client said that bears on how it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    /// Whether it wants to go on with this connection.
    pub(super) keep: bool,
}

/// Room for a usual head and a short body behind it.
const HEAD: usize = 2048;

/// How a response's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length,
    Chunked,
    /// By the end of the connection, for HTTP/1.0.
    Close,
}

/// Whether the connection may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
    /// The response could not be completed, and its framing tells so: what there was of it must still arrive.
    CutShort,
    /// It could not be completed: the client must see a break, not an end.
    Break,
}

/// How far the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Coming,
    /// All of it is on the wire.
    Whole,
    /// All that there will be of it is.
    CutShort,
}

/// A response on its way: its head is on the wire, its body is sent while it comes. Ready with what the connection can
/// be used for afterwards.
pub(super) struct Responding<'a> {
    wire: &'a RefCell<Wire>,
    body: ResponseBody,
    framing: Framing,
    keep: bool,
    course: Course,
}

/// Begins to send a response. `may_keep` is asked when the head is written: the gateway may have begun to drain by then.
pub(super) fn respond<'a>(
    wire: &'a RefCell<Wire>,
    response: Response,
    asked: Asked<'_>,
    may_keep: bool,
) -> Responding<'a> {
    let (head, body) = response.into_parts();
    let no_content = has_no_content(asked.method, head.status);
    let body = if no_content { body.discard() } else { body };
    let mut on_wire = wire.borrow_mut();
    let out = on_wire.out.gather();
    out.reserve(HEAD);
    encode::status_line(out, head.status);
    let has = |name| head.headers.contains_key(name);
    let (has_connection, has_coding) = (has(CONNECTION), has(TRANSFER_ENCODING));
    if has_connection || has_coding {
        head.headers.write_lines(out, |name| name != CONNECTION && name != TRANSFER_ENCODING);
    } else {
        head.headers.write_lines(out, |_| true);
    }
    if !has(DATE) {
        date::with(|date| encode::field(out, b"date", date));
    }
    let framing = match (no_content, has(CONTENT_LENGTH), body.size_hint().exact(), asked.version) {
        (true, ..) => Framing::None,
        (false, true, ..) => Framing::Length,
        (false, false, Some(length), _) => {
            encode::content_length(out, length);
            Framing::Length
        }
        (false, false, None, Version::HTTP_11) => {
            encode::field(out, b"transfer-encoding", b"chunked");
            Framing::Chunked
        }
        (false, false, None, _) => Framing::Close,
    };
    // Only the gateway's own answers still have a `Connection` here, to say that they are the last.
    let closes = has_connection || framing == Framing::Close;
    let keep = asked.keep && may_keep && !closes;
    match (keep, asked.version) {
        (false, _) => encode::field(out, b"connection", b"close"),
        (true, Version::HTTP_10) => encode::field(out, b"connection", b"keep-alive"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    Responding { wire, body, framing, keep, course: Course::Coming }
}

struct Broken;

impl Future for Responding<'_> {
    type Output = After;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<After> {
        let this = self.get_mut();
        this.poll_send(cx).map(|sent| match (sent, this.course, this.framing) {
            (Ok(()), Course::Coming | Course::Whole, _) if this.keep => After::Keep,
            (Ok(()), Course::Coming | Course::Whole, _) => After::Close,
            (Ok(()), Course::CutShort, Framing::None | Framing::Length | Framing::Chunked) => After::CutShort,
            (Ok(()), Course::CutShort, Framing::Close) | (Err(Broken), ..) => After::Break,
        })
    }
}

impl Responding<'_> {
    /// Sends the body while it comes, and watches for the client to leave while it does not.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Responding { wire, body, framing, course, .. } = self;
        loop {
            let has_ended = *course != Course::Coming;
            let waits = has_ended || poll_gather(wire, Pin::new(body), *framing, cx, course);
            let has_ended = *course != Course::Coming;
            let mut on_wire = wire.borrow_mut();
            match on_wire.poll_flush(cx) {
                Poll::Ready(Err(Gone)) => {
                    if on_wire.stalled {
                        body.give_up(Cause::ClientStalled);
                    }
                    return Poll::Ready(Err(Broken));
                }
                Poll::Ready(Ok(())) if has_ended => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if waits => {
                    // One that breaks its own body off still gets the answer that has begun.
                    let gone = on_wire.body.is_end() && on_wire.poll_gone(cx).is_ready();
                    return if gone { Poll::Ready(Err(Broken)) } else { Poll::Pending };
                }
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    let unsent = !on_wire.is_sent();
                    drop(on_wire);
                    if !has_ended {
                        body.poll_ahead(cx);
                    }
                    // Reading the request's body writes, too: what came of that, nobody wakes this task for.
                    let wire = wire.borrow();
                    if wire.stalled {
                        body.give_up(Cause::ClientStalled);
                        return Poll::Ready(Err(Broken));
                    }
                    if !unsent || !wire.is_sent() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Takes frames into the queue while there is room; whether more must be waited for.
fn poll_gather(
    wire: &RefCell<Wire>,
    mut body: Pin<&mut ResponseBody>,
    framing: Framing,
    cx: &mut Context<'_>,
    course: &mut Course,
) -> bool {
    while wire.borrow().has_room() {
        if framing == Framing::Length {
            let pipe = wire.borrow_mut().take_pipe(body.movable());
            if let Some(mut pipe) = pipe {
                let moved = body.poll_move(cx, &mut pipe);
                wire.borrow_mut().push_pipe(pipe);
                match moved {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(cause)) => return broke_off(cause, course),
                }
            }
        }
        // The wire is not borrowed here: a server's body may go on reading the request's from it.
        let frame = match body.as_mut().poll_frame(cx) {
            Poll::Pending => return true,
            Poll::Ready(Some(Err(cause))) => return broke_off(cause, course),
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Ready(None) => None,
        };
        let mut wire = wire.borrow_mut();
        match (frame, framing) {
            (None, Framing::Chunked) => encode::last_chunk(wire.out.gather(), None),
            (None, Framing::None | Framing::Length | Framing::Close) => {}
            (Some(frame), framing) => {
                match (frame.into_data(), framing) {
                    (Ok(data), Framing::Chunked) => wire.out.push_chunk(data),
                    (Ok(data), Framing::Length | Framing::Close) => wire.out.push_data(data),
                    (Err(frame), Framing::Chunked) => {
                        encode::last_chunk(wire.out.gather(), frame.trailers_ref());
                        *course = Course::Whole;
                        return false;
                    }
                    (Ok(_) | Err(_), Framing::None) | (Err(_), Framing::Length | Framing::Close) => {}
                }
                continue;
            }
        }
        *course = Course::Whole;
        return false;
    }
    false
}

fn broke_off(cause: Cause, course: &mut Course) -> bool {
    tracing::debug!(cause = cause.row().cause, "the response's body broke off");
    *course = Course::CutShort;
    false
}
