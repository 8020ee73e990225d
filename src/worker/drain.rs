//! Telling the connections of one worker to come to an end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::task::Waker;

/// A flag and the wakers of those who wait while it is down. One thread only; costs a request nothing but the look
/// at the flag.
#[derive(Default)]
pub struct Drain {
    draining: Cell<bool>,
    over: Cell<bool>,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker>>,
}

impl Drain {
    /// Connections finish what they do, refuse to be kept, and end.
    pub fn begin(&self) {
        self.draining.set(true);
        for (_, waker) in self.waiting.borrow_mut().drain() {
            waker.wake();
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whatever is open now is cut off.
    pub fn cut_off(&self) {
        self.over.set(true);
    }

    /// Whether the time for coming to an end is over.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// A connection's place among those that are woken. Taken once; its task's waker is set at its first poll.
    pub fn join(&self) -> u64 {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        id
    }

    pub fn wake_on_drain(&self, id: u64, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.get(&id) {
            Some(known) if known.will_wake(waker) => {}
            Some(_) | None => {
                waiting.insert(id, waker.clone());
            }
        }
    }

    pub fn leave(&self, id: u64) {
        self.waiting.borrow_mut().remove(&id);
    }
}
