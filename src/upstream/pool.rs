//! Connections kept to servers, one pool a worker.
//!
//! The most recently used is used first, so that the rest grow old and are closed before the backend closes them:
//! a connection that the backend closes just as a request is sent is the commonest 502 of all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::http1::Connection;
use super::http2::connections::Connections;
use super::places::Place;
use crate::clock;

/// Unused connections kept to one server by one worker.
const MOST_KEPT: usize = 1024;

/// How often the pool looks for connections whose time is up, while it has any.
const SWEEP: Duration = Duration::from_millis(100);

/// A worker's kept connections, by server id.
#[derive(Default)]
pub struct Pool {
    /// Those that many requests share.
    pub http2: Rc<Connections>,
    kept: RefCell<BTreeMap<u64, Vec<Kept>>>,
    sweeping: RefCell<Option<tokio::task::JoinHandle<()>>>,
}

struct Kept {
    connection: Box<Connection>,
    until: Instant,
}

impl Pool {
    /// The most recently used connection to a server that is neither too old nor closed nor talking out of turn.
    pub fn take(&self, server: u64) -> Option<Box<Connection>> {
        let mut kept = self.kept.borrow_mut();
        let connections = kept.get_mut(&server)?;
        let now = clock::recent();
        while let Some(mut last) = connections.pop() {
            let is_open = last.connection.place.as_ref().is_none_or(Place::wake);
            if is_open && last.until > now && last.connection.is_silent() {
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection for `keep_alive`.
    pub fn put(self: &Rc<Self>, server: u64, connection: Box<Connection>, keep_alive: Duration) {
        // Most servers that have slots close after each answer: a second handle is made only now.
        let may_be_kept = |place: &Place| place.is_over(&connection.stream) && place.rest();
        if keep_alive.is_zero() || !connection.place.as_ref().is_none_or(may_be_kept) {
            return;
        }
        let now = clock::recent();
        let until = now.checked_add(keep_alive).unwrap_or(now);
        let mut kept = self.kept.borrow_mut();
        let connections = kept.entry(server).or_default();
        if connections.len() < MOST_KEPT {
            connections.push(Kept { connection, until });
        }
        drop(kept);
        self.sweep_while_kept();
    }

    fn sweep_while_kept(self: &Rc<Self>) {
        let mut sweeping = self.sweeping.borrow_mut();
        if sweeping.as_ref().is_none_or(|task| task.is_finished()) {
            *sweeping = Some(tokio::task::spawn_local(sweep(Rc::downgrade(self))));
        }
    }
}

/// Closes what is too old until nothing is left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let mut kept = pool.kept.borrow_mut();
        kept.retain(|_, connections| {
            connections.retain(|kept| kept.until > now);
            !connections.is_empty()
        });
        if kept.is_empty() {
            return;
        }
    }
}
