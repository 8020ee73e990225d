//! What a request met on its way to a server and back, for its record.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Server;
use crate::clock;

/// Filled in by the forwarder, read once the response has ended.
#[derive(Default)]
pub struct Journey {
    /// Bytes of the request's body that have come from the client.
    pub received: Cell<u64>,
    attempts: Cell<u32>,
    server: RefCell<Option<Arc<Server>>>,
    began: Cell<Option<Instant>>,
    took: Cell<Option<Duration>>,
    queued: Cell<Duration>,
    /// Of the request.
    detail: RefCell<Option<String>>,
    /// Of the last attempt.
    failure: RefCell<Option<String>>,
}

impl Journey {
    /// A server was chosen for one more attempt.
    pub fn attempt(&self, server: &Arc<Server>) {
        self.attempts.set(self.attempts.get().saturating_add(1));
        *self.server.borrow_mut() = Some(Arc::clone(server));
        // What was said of another attempt is not why this one may fail.
        *self.failure.borrow_mut() = None;
    }

    /// It waited for a slot, in vain or not.
    pub(super) fn waited(&self, time: Duration) {
        self.queued.set(self.queued.get().saturating_add(time));
    }

    /// How long it waited for slots, all attempts together.
    pub fn queued(&self) -> Duration {
        self.queued.get()
    }

    /// The first byte to the server.
    pub fn began(&self) {
        self.began.set(Some(clock::recent()));
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Duration {
        self.began.get().map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// The last byte from it.
    pub fn ended(&self) {
        if let Some(began) = self.began.get() {
            self.took.set(Some(clock::fresh().saturating_duration_since(began)));
        }
    }

    /// What the log is told of the request beside its cause; for the log alone.
    pub fn detail(&self, detail: Option<String>) {
        if detail.is_some() {
            *self.detail.borrow_mut() = detail;
        }
    }

    /// What the operating system or the TLS library said of the last attempt's failure; for the log alone.
    pub(super) fn failed(&self, detail: Option<String>) {
        if detail.is_some() {
            *self.failure.borrow_mut() = detail;
        }
    }

    pub fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    /// The server of the last attempt.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.server.borrow().clone()
    }

    /// From the request's first byte to the response's last, if it came.
    pub fn took(&self) -> Option<Duration> {
        self.took.get()
    }

    pub fn take_detail(&self) -> Option<String> {
        let (detail, failure) = (self.detail.borrow_mut().take(), self.failure.borrow_mut().take());
        match (detail, failure) {
            (Some(detail), Some(failure)) => Some(format!("{detail}; {failure}")),
            (detail, failure) => detail.or(failure),
        }
    }
}
