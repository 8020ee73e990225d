//! What the streams of a connection share with it and with each other: the output, the windows, who is open.
//!
//! Each stream is a task of its own and writes its answer into the one output; the connection's task sends what has
//! gathered there, once for all that have written meanwhile. All run on one thread, so a `RefCell` is borrowed for as long
//! as it takes to write a frame, and never while anything else is called that may write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;
use tokio::time::Instant;

use super::resets::Resets;
use super::stream::Stream;
use crate::clock;
use crate::http2::flow::{Granted, INITIAL, Overflow, Sending};
use crate::http2::frame::{self, Code};
use crate::http2::hpack::encode::{Block, Encoder};
use crate::request::peer::Peer;
use crate::server::listener::Listener;
use crate::worker::Worker;

/// Bytes that streams write before they wait for the client to take some: with the frame that is written last, 64 KiB.
const BOUND: usize = 48 * 1024;

/// Acknowledgements and the like are written beyond it. At this size no more is read that could ask for some.
const FULL: usize = 2 * BOUND;

/// Bytes of an answer that a stream writes before others have their turn.
pub(super) const TURN: usize = frame::LONGEST;

/// Streams that the gateway reset and still remembers: what the client had sent by then is no breach.
const REMEMBERED: usize = 32;

/// Room for the heads of some answers.
const FIRST: usize = 4 * 1024;

pub(super) struct Shared {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Rc<Peer>,
    pub(super) listener: Arc<Listener>,
    out: RefCell<Output>,
    /// Those that are not closed, in the order of their numbers.
    streams: RefCell<Vec<Rc<Stream>>>,
    idle: Cell<Idle>,
    resets: RefCell<Resets>,
    /// Those that the gateway reset last.
    reset: RefCell<VecDeque<u32>>,
    /// What the client may send on all streams.
    granted: Cell<Granted>,
    /// Whether the client takes nothing just now, so that what is in the output stays there.
    is_blocked: Cell<bool>,
    /// Bytes that the client has taken.
    written: Cell<u64>,
    /// Frames that the client may send for those that it was sent.
    earned: Cell<u32>,
    /// The connection's task, and whether it has been woken since it looked last.
    task: RefCell<Option<Waker>>,
    is_woken: Cell<bool>,
}

struct Output {
    buffer: BytesMut,
    encoder: Encoder,
    window: Sending,
    /// Streams that wait until there is room in the buffer, or in the window.
    for_room: VecDeque<Rc<Stream>>,
    for_window: VecDeque<Rc<Stream>>,
}

/// Since when a connection has had no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    NoStreamYet,
    Since(Instant),
    /// There are streams.
    Never,
}

/// What keeps a stream from writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// In the output.
    Room,
    /// In the connection's window.
    Window,
    /// In the stream's own.
    OwnWindow,
}

impl Shared {
    pub(super) fn new(worker: Rc<Worker>, peer: Rc<Peer>, listener: Arc<Listener>, window: u32) -> Shared {
        let resets = Resets::new(listener.settings.http2.max_resets);
        Shared {
            worker,
            peer,
            listener,
            out: RefCell::new(Output {
                buffer: BytesMut::new(),
                encoder: Encoder::default(),
                window: Sending::new(INITIAL),
                for_room: VecDeque::new(),
                for_window: VecDeque::new(),
            }),
            streams: RefCell::default(),
            idle: Cell::new(Idle::NoStreamYet),
            resets: RefCell::new(resets),
            reset: RefCell::default(),
            granted: Cell::new(Granted::new(window)),
            is_blocked: Cell::new(false),
            written: Cell::new(0),
            earned: Cell::new(0),
            task: RefCell::new(None),
            is_woken: Cell::new(false),
        }
    }

    /// The connection's task looks: it is woken again when there is something to send.
    pub(super) fn attend(&self, waker: &Waker) {
        self.is_woken.set(false);
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        if !self.is_woken.replace(true)
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }

    /// Has `write` add frames to the output, whose sending begins once the tasks that are ready have run.
    pub(super) fn write(&self, write: impl FnOnce(&mut BytesMut)) {
        self.write_now(write);
        self.wake();
    }

    /// The same for the connection's task, which sends next.
    pub(super) fn write_now(&self, write: impl FnOnce(&mut BytesMut)) {
        let buffer = &mut self.out.borrow_mut().buffer;
        if buffer.capacity() == 0 {
            buffer.reserve(FIRST);
        }
        write(buffer);
    }

    /// Writes HEADERS with the fields that `pack` packs.
    pub(super) fn write_fields(&self, stream: &Stream, end_stream: bool, pack: impl FnOnce(&mut Block<'_>)) {
        let Output { buffer, encoder, .. } = &mut *self.out.borrow_mut();
        if buffer.capacity() == 0 {
            buffer.reserve(FIRST);
        }
        frame::headers(buffer, stream.id, end_stream, |out| pack(&mut encoder.block(out)));
        self.wake();
    }

    /// The client's table of fields takes so much.
    pub(super) fn resize_table(&self, most: u32) {
        self.out.borrow_mut().encoder.resize(most);
    }

    /// Gives `send` the output until it has taken all of it or can take no more.
    pub(super) fn send<T>(&self, send: impl FnOnce(&mut BytesMut) -> T) -> T {
        send(&mut self.out.borrow_mut().buffer)
    }

    /// Whether an answer may be written.
    pub(super) fn has_room(&self) -> bool {
        self.out.borrow().buffer.len() < BOUND
    }

    /// Whether nothing more is to be read until some of the output was taken.
    pub(super) fn is_full(&self) -> bool {
        self.out.borrow().buffer.len() >= FULL
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.out.borrow().buffer.is_empty()
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn release(&self) {
        let mut out = self.out.borrow_mut();
        if out.buffer.is_empty() {
            out.buffer = BytesMut::new();
            out.for_room = VecDeque::new();
            out.for_window = VecDeque::new();
            self.streams.borrow_mut().shrink_to_fit();
        }
    }

    /// Writes as much of `data` as there is room for, at most a frame: how much that was. `end_stream` is for the last
    /// byte.
    pub(super) fn write_data(&self, stream: &Stream, data: &[u8], end_stream: bool) -> Result<usize, Lacks> {
        let mut out = self.out.borrow_mut();
        if out.buffer.len() >= BOUND {
            return Err(Lacks::Room);
        }
        let (own, all) = (stream.room(), out.window.room());
        let length = data.len().min(TURN).min(own).min(all);
        if length == 0 && !data.is_empty() {
            return Err(if own == 0 { Lacks::OwnWindow } else { Lacks::Window });
        }
        let is_last = end_stream && length == data.len();
        if out.buffer.capacity() == 0 {
            out.buffer.reserve(FIRST);
        }
        frame::data(&mut out.buffer, stream.id, data.get(..length).unwrap_or_default(), is_last);
        out.window.sent(length);
        stream.sent(length);
        drop(out);
        self.earned.set(self.earned.get().saturating_add(EARNED_BY_FRAME));
        self.wake();
        Ok(length)
    }

    /// The stream is called when it may write again.
    pub(super) fn wait(&self, stream: &Rc<Stream>, lacks: Lacks) {
        let mut out = self.out.borrow_mut();
        match lacks {
            Lacks::Room if stream.lines_up() => out.for_room.push_back(Rc::clone(stream)),
            Lacks::Window if stream.lines_up() => out.for_window.push_back(Rc::clone(stream)),
            // Its task is woken when the client grants it something.
            Lacks::Room | Lacks::Window | Lacks::OwnWindow => {}
        }
    }

    /// Sending has been tried. When the client begins to take nothing, those who wait for room are told so.
    pub(super) fn sent(&self, all: bool) {
        if self.is_blocked.replace(!all) || all {
            return;
        }
        self.out.borrow().for_room.iter().for_each(|stream| stream.wake());
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    /// Calls as many of those that wait for room as there is room for.
    pub(super) fn call_waiting(&self) {
        let out = &mut *self.out.borrow_mut();
        let mut room = BOUND.saturating_sub(out.buffer.len());
        while room > 0 {
            let Some(stream) = out.for_room.pop_front() else { return };
            if stream.call() {
                room = room.saturating_sub(TURN);
            }
        }
    }

    /// Lets a stream act. When it was called, others are called behind it, whatever it made of its turn: it may lack what
    /// they do not need.
    pub(super) fn in_turn<T>(&self, stream: &Stream, act: impl FnOnce() -> T) -> T {
        let was_called = stream.takes_turn();
        let acted = act();
        if was_called && !self.out.borrow().for_room.is_empty() {
            self.wake();
        }
        acted
    }

    /// The client takes so much more of all streams.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(super) fn grow_window(&self, bytes: u32) -> Result<(), Overflow> {
        let out = &mut *self.out.borrow_mut();
        out.window.grow(bytes)?;
        out.for_room.append(&mut out.for_window);
        Ok(())
    }

    /// So much came of a body. Whether it was granted.
    pub(super) fn came(&self, bytes: u32) -> bool {
        let mut granted = self.granted.get();
        let came = granted.came(bytes);
        self.granted.set(granted);
        came.is_ok()
    }

    /// So much of what came is held no longer.
    pub(super) fn gave_back(&self, bytes: u32) {
        let mut granted = self.granted.get();
        let more = granted.read(bytes);
        self.granted.set(granted);
        if let Some(more) = more {
            self.write(|out| frame::window_update(out, 0, more));
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get().saturating_add(bytes as u64));
    }

    /// Something useful came.
    pub(super) fn earn(&self, frames: u32) {
        self.earned.set(self.earned.get().saturating_add(frames));
    }

    pub(super) fn take_earned(&self) -> u32 {
        self.earned.take()
    }

    pub(super) fn active(&self) -> usize {
        self.streams.borrow().len()
    }

    pub(super) fn idle(&self) -> Idle {
        self.idle.get()
    }

    /// A new stream, whose number is larger than those of all before.
    pub(super) fn open(&self, stream: &Rc<Stream>) {
        self.streams.borrow_mut().push(Rc::clone(stream));
        self.idle.set(Idle::Never);
    }

    pub(super) fn find(&self, id: u32) -> Option<Rc<Stream>> {
        let streams = self.streams.borrow();
        let at = streams.binary_search_by_key(&id, |stream| stream.id).ok()?;
        streams.get(at).map(Rc::clone)
    }

    /// For every stream in turn; what `each` fails with.
    pub(super) fn try_each<E>(&self, each: impl FnMut(&Rc<Stream>) -> Result<(), E>) -> Result<(), E> {
        self.streams.borrow().iter().try_for_each(each)
    }

    /// The stream is closed: both sides have said everything.
    pub(super) fn close(&self, stream: &Stream) {
        let mut streams = self.streams.borrow_mut();
        let Ok(at) = streams.binary_search_by_key(&stream.id, |stream| stream.id) else { return };
        let closed = streams.remove(at);
        let is_idle = streams.is_empty();
        drop(streams);
        if closed.waits() {
            let out = &mut *self.out.borrow_mut();
            out.for_room.retain(|waiting| waiting.id != closed.id);
            out.for_window.retain(|waiting| waiting.id != closed.id);
        }
        closed.end();
        let unread = closed.body.borrow_mut().forget();
        self.gave_back(unread);
        if is_idle {
            self.idle.set(Idle::Since(clock::recent()));
            self.wake();
        }
    }

    /// Ends it before its time.
    pub(super) fn reset(&self, stream: &Stream, code: Code) {
        self.refuse(stream.id, code);
        self.close(stream);
    }

    /// The same for one that was not opened, or is closed already.
    pub(super) fn refuse(&self, id: u32, code: Code) {
        let mut reset = self.reset.borrow_mut();
        if reset.len() >= REMEMBERED {
            reset.pop_front();
        }
        reset.push_back(id);
        drop(reset);
        self.write(|out| frame::rst_stream(out, id, code));
    }

    /// Whether the gateway reset it, and what the client sends of it may have been on its way by then (section 5.1).
    pub(super) fn has_reset(&self, id: u32) -> bool {
        self.reset.borrow().contains(&id)
    }

    /// One more stream that the client has taken back, or that it made the gateway reset; whether that is too many.
    pub(super) fn count_reset(&self) -> bool {
        self.resets.borrow_mut().count()
    }

    /// The connection is over, and so is all that is done for it.
    pub(super) fn end(&self) {
        let all = std::mem::take(&mut *self.streams.borrow_mut());
        for stream in all {
            stream.end();
        }
        let out = &mut *self.out.borrow_mut();
        out.for_room.clear();
        out.for_window.clear();
    }
}

/// The client may send so many frames that only burden for each frame of an answer: it says so when it takes more.
const EARNED_BY_FRAME: u32 = 4;
