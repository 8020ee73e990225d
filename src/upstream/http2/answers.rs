//! The answers that come over one connection, and what is taken off the library for readers that fall behind.
//!
//! The library keeps every frame as it came, at a cost of its own beside the bytes, and ends the connection with all its
//! streams when a few thousand tiny ones lie there. A server that streams tokens to clients that do not read would lose
//! it to them. So the connection's task puts together what nobody reads; the windows bound it, since room is given
//! back only for what a reader has taken.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

use crate::body::Pieces;

/// The answers of one connection.
#[derive(Default)]
pub(super) struct Answers(RefCell<Vec<Rc<Answer>>>);

struct Answer {
    stream: RefCell<RecvStream>,
    /// In order, and before whatever else `stream` has.
    gathered: RefCell<Pieces>,
    /// Whether a reader waits, whom the library wakes.
    awaited: Cell<bool>,
}

impl Answers {
    /// Puts together what has come for readers that are busy otherwise.
    pub(super) fn gather(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        for answer in self.0.borrow().iter().filter(|answer| !answer.awaited.get()) {
            // Its end, and its failure, stay for the reader.
            let _ = answer.gather(&mut cx);
        }
    }
}

impl Answer {
    /// Ready with how the data ended, if it has.
    fn gather(&self, cx: &mut Context<'_>) -> Poll<Option<h2::Error>> {
        let mut stream = self.stream.borrow_mut();
        loop {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => self.gathered.borrow_mut().push(data),
                Some(Err(error)) => return Poll::Ready(Some(error)),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// One answer, as its reader sees it.
pub(super) struct Receive {
    answers: Rc<Answers>,
    answer: Rc<Answer>,
}

impl Receive {
    pub(super) fn new(answers: &Rc<Answers>, stream: RecvStream) -> Receive {
        let answer =
            Rc::new(Answer { stream: RefCell::new(stream), gathered: RefCell::default(), awaited: Cell::new(false) });
        answers.0.borrow_mut().push(Rc::clone(&answer));
        Receive { answers: Rc::clone(answers), answer }
    }

    /// The next piece, whose room the server has again: it is asked for only when whoever reads has room.
    pub(super) fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut stream = self.answer.stream.borrow_mut();
        let polled = match self.answer.gathered.borrow_mut().pop() {
            Some(data) => Poll::Ready(Some(Ok(data))),
            None => stream.poll_data(cx),
        };
        if let Poll::Ready(Some(Ok(data))) = &polled {
            let _ = stream.flow_control().release_capacity(data.len());
        }
        self.answer.awaited.set(polled.is_pending());
        polled
    }

    pub(super) fn poll_trailers(&self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        let polled = self.answer.stream.borrow_mut().poll_trailers(cx);
        self.answer.awaited.set(polled.is_pending());
        polled
    }

    /// Takes in what is here already, before anybody reads.
    ///
    /// # Errors
    /// It has failed.
    pub(super) fn look(&self) -> Result<(), h2::Error> {
        match self.answer.gather(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(error)) => Err(error),
            Poll::Ready(None) | Poll::Pending => Ok(()),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.answer.gathered.borrow().is_empty() && self.answer.stream.borrow().is_end_stream()
    }
}

/// With it goes the stream, which is reset if it has not ended.
impl Drop for Receive {
    fn drop(&mut self) {
        self.answers.0.borrow_mut().retain(|answer| !Rc::ptr_eq(answer, &self.answer));
    }
}
