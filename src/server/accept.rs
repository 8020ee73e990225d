//! Accepting connections from one listening socket of one worker.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::bind::SocketKey;
use super::connection;
use super::listener::Listener;
use super::open::OpenConnections;
use crate::gateway::Gateway;
use crate::worker::Worker;

/// How long accepting rests when the process or the system has run out of something.
const REST: Duration = Duration::from_millis(100);

/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A socket is closed when no connection has come for this long: one whose handshake is not complete yet would be reset
/// just as one in the queue.
const QUIET: Duration = Duration::from_millis(20);

/// A socket to which connections never cease to come is closed after this nevertheless.
const QUIET_WITHIN: Duration = Duration::from_millis(500);

/// Connections are accepted on behalf of the listener that holds the socket's key in the newest snapshot.
pub(super) struct Acceptor {
    worker: Rc<Worker>,
    open: Rc<OpenConnections>,
    key: SocketKey,
    /// The snapshot that `listener` was found in; not held while nobody comes.
    seen: Weak<Gateway>,
    listener: Arc<Listener>,
    told: Option<Instant>,
}

impl Acceptor {
    /// `listener` holds the key now, or did a moment ago.
    pub(super) fn new(
        worker: &Rc<Worker>,
        open: &Rc<OpenConnections>,
        key: SocketKey,
        listener: Arc<Listener>,
    ) -> Acceptor {
        let newest = worker.gateway();
        let listener = newest.listener_of(&key).map_or(listener, Arc::clone);
        let seen = Arc::downgrade(&newest);
        Acceptor { worker: Rc::clone(worker), open: Rc::clone(open), key, seen, listener, told: None }
    }

    /// Accepts until `stop` is told or dropped, then takes what is queued and closes the socket: closing it with
    /// connections in its queue would reset them.
    pub(super) async fn run(mut self, socket: TcpListener, mut stop: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                accepted = socket.accept() => match accepted {
                    Ok((stream, from)) => self.serve(stream, from),
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        self.tell(&error);
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
        let end = Instant::now() + QUIET_WITHIN;
        while let Ok(accepted) = timeout_at(end.min(Instant::now() + QUIET), socket.accept()).await {
            match accepted {
                Ok((stream, from)) => self.serve(stream, from),
                Err(error) if concerns_one_connection(&error) => {}
                Err(_) => break,
            }
        }
        if let Err(error) = self.take_queued(socket) {
            tracing::warn!(listener = &*self.listener.name, address = %self.key, %error,
                "connections may have been reset while a listening socket was closed");
        }
    }

    /// Asks the kernel itself: the runtime may not have seen the last arrivals yet.
    fn take_queued(&mut self, socket: TcpListener) -> io::Result<()> {
        let socket = socket.into_std()?;
        loop {
            match socket.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(true)?;
                    self.serve(TcpStream::from_std(stream)?, from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&mut self, stream: TcpStream, from: SocketAddr) {
        self.look_up();
        let Some(place) = self.listener.admit() else {
            connection::turn_away(&self.worker, &self.listener, stream);
            return;
        };
        let held = (self.open.enter(), place);
        let (worker, listener) = (Rc::clone(&self.worker), Arc::clone(&self.listener));
        // A panic ends this task alone: the runtime catches it, and what the task held is dropped.
        tokio::task::spawn_local(connection::serve(held, worker, listener, stream, from));
    }

    /// The newest snapshot's listener; the last one where no listener has the key any more and only the queue is left.
    fn look_up(&mut self) {
        let newest = self.worker.gateway();
        if !std::ptr::eq(Arc::as_ptr(&newest), self.seen.as_ptr()) {
            if let Some(listener) = newest.listener_of(&self.key) {
                self.listener = Arc::clone(listener);
            }
            self.seen = Arc::downgrade(&newest);
        }
    }

    fn tell(&mut self, error: &io::Error) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::error!(listener = &*self.listener.name, address = %self.key, %error,
                remedy = "Raise the limit on open files (LimitNOFILE, ulimit -n), or lower max_connections.",
                "connections cannot be accepted");
        }
    }
}

/// Errors of accept(2) that were meant for the connection it would have returned.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
    )
}
