//! One stream: from a request's head to the last byte of its answer, as a task of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use http::{Method, StatusCode, Version};

use super::body::{FromClient, Incoming, let_go, linger};
use super::respond::{interim, respond};
use super::shared::Shared;
use crate::headers::Headers;
use crate::http1::head::Notable;
use crate::http2::flow::{Overflow, Sending};
use crate::http2::frame::Code;
use crate::http2::request::Head;
use crate::request::handle::{Answer, handle, refuse_head};
use crate::request::inbound::Inbound;
use crate::request::rejection::Cause;
use crate::response::Response;
use crate::upstream::http1::Interim;

/// What the connection and the stream's task know of it.
pub(super) struct Stream {
    pub(super) id: u32,
    /// What the client takes of the answer.
    window: Cell<Sending>,
    stage: Cell<Stage>,
    /// Its place among those that wait to write.
    turn: Cell<Turn>,
    task: RefCell<Option<Waker>>,
    pub(super) body: RefCell<Incoming>,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no answer yet.
    Asked,
    /// Its head is written.
    Answering,
    /// The stream is closed: nothing more can be said.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    None,
    Waits,
    /// It may write now.
    Called,
}

/// What a stream begins with.
pub(super) enum Asked {
    Request(Head),
    /// What came is no request that could be served.
    Refused(Cause),
}

impl Stream {
    pub(super) fn new(id: u32, window: u32, body: Incoming) -> Stream {
        Stream {
            id,
            window: Cell::new(Sending::new(window)),
            stage: Cell::new(Stage::Asked),
            turn: Cell::new(Turn::None),
            task: RefCell::new(None),
            body: RefCell::new(body),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(super) fn begins_answer(&self) {
        self.stage.set(Stage::Answering);
    }

    /// Closed; its task is dropped when it runs next.
    pub(super) fn end(&self) {
        self.stage.set(Stage::Over);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn is_run_by(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Bytes of the answer that the client takes.
    pub(super) fn room(&self) -> usize {
        self.window.get().room()
    }

    pub(super) fn sent(&self, bytes: usize) {
        let mut window = self.window.get();
        window.sent(bytes);
        self.window.set(window);
    }

    /// # Errors
    /// [`Overflow`].
    pub(super) fn change_window(&self, by: impl FnOnce(&mut Sending) -> Result<(), Overflow>) -> Result<(), Overflow> {
        let mut window = self.window.get();
        by(&mut window)?;
        let opens = self.window.replace(window).room() == 0 && window.room() > 0;
        if opens {
            self.wake();
        }
        Ok(())
    }

    /// Whether it has to be put into a line: it is in one at most.
    pub(super) fn lines_up(&self) -> bool {
        self.turn.replace(Turn::Waits) != Turn::Waits
    }

    /// Whether it is in a line.
    pub(super) fn waits(&self) -> bool {
        self.turn.get() == Turn::Waits
    }

    /// It is the next in the line; whether it still wants to be.
    pub(super) fn call(&self) -> bool {
        self.turn.set(Turn::Called);
        self.wake();
        self.stage.get() != Stage::Over
    }

    /// Whether it was called, and has its turn now.
    pub(super) fn takes_turn(&self) -> bool {
        let was_called = self.turn.get() == Turn::Called;
        if was_called {
            self.turn.set(Turn::None);
        }
        was_called
    }
}

/// Serves a stream to its end; until it is closed, whoever closes it.
pub(super) async fn serve(shared: Rc<Shared>, stream: Rc<Stream>, asked: Asked) {
    let _ending = Ending { shared: &shared, stream: &stream };
    let mut serving = pin!(answer(&shared, &stream, asked));
    poll_fn(|cx| {
        if stream.stage.get() == Stage::Over {
            return Poll::Ready(());
        }
        stream.is_run_by(cx.waker());
        shared.in_turn(&stream, || serving.as_mut().poll(cx))
    })
    .await;
}

/// However its task ends, the stream is closed afterwards.
struct Ending<'a> {
    shared: &'a Shared,
    stream: &'a Stream,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.stream.stage.get() != Stage::Over {
            self.shared.reset(self.stream, Code::Internal);
        }
    }
}

async fn answer(shared: &Rc<Shared>, stream: &Rc<Stream>, asked: Asked) {
    let (method, response) = match asked {
        Asked::Request(head) => {
            let method = head.method.clone();
            // On the heap: the task would have to hold it otherwise while the answer is sent, too.
            (method, Box::pin(ask(shared, stream, head)).await)
        }
        Asked::Refused(cause) => {
            let_go(shared, stream);
            (Method::GET, refuse_head(&shared.worker, &shared.peer, cause))
        }
    };
    respond(shared, stream, response, &method).await;
    linger(shared, stream).await;
}

async fn ask(shared: &Rc<Shared>, stream: &Rc<Stream>, head: Head) -> Response {
    let inbound = Inbound {
        method: head.method,
        version: Version::HTTP_2,
        target: head.target,
        authority: head.authority,
        body: FromClient::body(shared, stream, head.length, head.seen.has(Notable::Expect)),
        seen: head.seen,
        headers: head.headers,
        upgradable: false,
    };
    match handle(&shared.worker, &shared.peer, inbound, &ToClient { shared, stream }).await {
        Answer::Response(response) => response,
        // Never for a request that is not upgradable.
        Answer::Upgrade { .. } => refuse_head(&shared.worker, &shared.peer, Cause::Internal),
    }
}

/// Takes informational responses on to the client.
struct ToClient<'a> {
    shared: &'a Shared,
    stream: &'a Stream,
}

impl Interim for ToClient<'_> {
    fn interim(&self, status: StatusCode, headers: &Headers) {
        // 100 is between the client and the gateway, which reads the body.
        if status != StatusCode::CONTINUE {
            interim(self.shared, self.stream, status, headers);
        }
    }
}
