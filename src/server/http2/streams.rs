//! The streams of one connection: how many are open, whether the client takes what it asked for, and how many it took
//! back.
//!
//! hyper calls the service for a stream and hands the stream's future to the executor right after, on the same thread;
//! that is how a future and what the service knows of it find each other here.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Instant;

use super::super::stream::until_stalled;
use super::body::FRAME;
use super::resets::Resets;
use crate::body::ResponseBody;
use crate::http1::timer::Timer;
use crate::request::rejection::Cause;

/// What the streams of a connection share.
pub(super) struct Streams {
    active: Cell<usize>,
    idle_since: Cell<Idle>,
    resets: RefCell<Resets>,
    too_many_resets: Cell<bool>,
    body_timeout: Duration,
    /// Bytes that the client has taken of all streams.
    written: Cell<u64>,
    /// The connection's own task.
    connection: RefCell<Option<Waker>>,
    /// The stream whose future is about to be handed to the executor.
    newborn: RefCell<Option<Rc<Stream>>>,
}

/// Since when a connection has had no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    NoStreamYet,
    Since(Instant),
    /// There are streams.
    Never,
}

impl Streams {
    pub(super) fn new(max_resets: crate::config::settings::Rate, body_timeout: Duration) -> Streams {
        Streams {
            active: Cell::new(0),
            idle_since: Cell::new(Idle::NoStreamYet),
            resets: RefCell::new(Resets::new(max_resets)),
            too_many_resets: Cell::new(false),
            body_timeout,
            written: Cell::new(0),
            connection: RefCell::new(None),
            newborn: RefCell::new(None),
        }
    }

    /// A request came; its future will be handed to [`Spawn`] next.
    pub(super) fn begin(self: &Rc<Self>) -> Birth {
        let stream = Rc::new(Stream {
            waits_for_client: Cell::new(None),
            taken_back: Cell::new(false),
            ahead: RefCell::default(),
        });
        *self.newborn.borrow_mut() = Some(Rc::clone(&stream));
        Birth { streams: Rc::clone(self), stream, answered: false }
    }

    pub(super) fn active(&self) -> usize {
        self.active.get()
    }

    pub(super) fn idle_since(&self) -> Idle {
        self.idle_since.get()
    }

    /// So much has been written to the connection by now.
    pub(super) fn written(&self, bytes: u64) {
        self.written.set(bytes);
    }

    pub(super) fn too_many_resets(&self) -> bool {
        self.too_many_resets.get()
    }

    /// Wakes the connection's task when its last stream ends, or too many have been reset.
    pub(super) fn wake_when_idle(&self, waker: &Waker) {
        let mut connection = self.connection.borrow_mut();
        if !connection.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *connection = Some(waker.clone());
        }
    }

    fn wake_connection(&self) {
        if let Some(waker) = &*self.connection.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One stream, as its body and its task see it.
pub(super) struct Stream {
    /// Since when a frame has been handed over that the client's window has no room for.
    waits_for_client: Cell<Option<Instant>>,
    /// Reading the request's body has failed.
    taken_back: Cell<bool>,
    /// The response's body, while hyper has it.
    ahead: RefCell<Weak<RefCell<ResponseBody>>>,
}

impl Stream {
    /// A frame was handed to hyper, which asks for the next when the client has room.
    pub(super) fn handed_over(&self) {
        self.waits_for_client.set(Some(Instant::now()));
    }

    /// The client reset the stream before its request was whole. The request may still come to an end of its own, by
    /// that very failure.
    pub(super) fn taken_back(&self) {
        self.taken_back.set(true);
    }

    /// The response's body comes from a server, which should not have to wait for the client.
    pub(super) fn read_ahead_from(&self, body: &Rc<RefCell<ResponseBody>>) {
        *self.ahead.borrow_mut() = Rc::downgrade(body);
    }

    fn poll_ahead(&self, cx: &mut Context<'_>) {
        if let Some(body) = self.ahead.borrow().upgrade() {
            body.borrow_mut().poll_ahead(cx);
        }
    }

    fn give_up(&self) {
        if let Some(body) = self.ahead.borrow().upgrade() {
            body.borrow_mut().give_up(Cause::ClientStalled);
        }
    }

    pub(super) fn asked_for_more(&self) {
        self.waits_for_client.set(None);
    }
}

/// A request that has no answer yet. Dropped so, it was taken back by the client.
pub(super) struct Birth {
    streams: Rc<Streams>,
    stream: Rc<Stream>,
    answered: bool,
}

impl Birth {
    pub(super) fn stream(&self) -> Rc<Stream> {
        Rc::clone(&self.stream)
    }

    pub(super) fn answered(mut self) -> Rc<Stream> {
        self.answered = !self.stream.taken_back.get();
        Rc::clone(&self.stream)
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        if !self.answered && self.streams.resets.borrow_mut().count() {
            self.streams.too_many_resets.set(true);
            self.streams.wake_connection();
        }
    }
}

/// Runs the streams of a connection on its thread.
#[derive(Clone)]
pub(super) struct Spawn(pub(super) Rc<Streams>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        let newborn = self.0.newborn.borrow_mut().take();
        let open = Open::new(&self.0);
        tokio::task::spawn_local(async move {
            match newborn {
                Some(stream) => run(future, &stream, &open.0).await,
                // Not a stream's own future: hyper has others only for upgrades, which are not offered.
                None => future.await,
            }
        });
    }
}

/// Runs a stream to its end, or until the client has taken nothing of it for too long: dropping it resets it. One that
/// waits for its turn among the others of its connection is not stuck: these have to be, too.
async fn run(stream: impl Future<Output = ()>, state: &Stream, streams: &Streams) {
    let mut stream = pin!(stream);
    let mut timer = Timer::new();
    let mut waits = None;
    let mut written = 0;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = state.waits_for_client.get() else { return Poll::Pending };
        state.poll_ahead(cx);
        if waits.replace(since) != Some(since) {
            written = streams.written.get();
            match since.checked_add(until_stalled(streams.body_timeout)) {
                Some(deadline) => timer.set_at(deadline),
                None => timer.clear(),
            }
        }
        while timer.poll_expired(cx).is_ready() {
            let before = std::mem::replace(&mut written, streams.written.get());
            if written.saturating_sub(before) < FRAME as u64 {
                state.give_up();
                return Poll::Ready(());
            }
            timer.set(until_stalled(streams.body_timeout));
        }
        Poll::Pending
    })
    .await;
}

/// One open stream.
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: &Rc<Streams>) -> Open {
        streams.active.set(streams.active.get().saturating_add(1));
        streams.idle_since.set(Idle::Never);
        Open(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let active = self.0.active.get().saturating_sub(1);
        self.0.active.set(active);
        if active == 0 {
            self.0.idle_since.set(Idle::Since(Instant::now()));
            self.0.wake_connection();
        }
    }
}
