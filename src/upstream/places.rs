//! The connections to a server whose slots are bounded: never more than it has slots, over all workers.
//!
//! A worker holds a slot before it connects. So when as many connections are open as there are slots, some connection
//! serves nobody: it lies unused in the pool of another worker, whom nobody can wait for. It is closed from here, by a
//! second handle on its socket, before the new one is made; its worker finds out when it would use it. Only connecting
//! and closing take the lock. Whoever uses a kept connection again, or keeps one, pays for one atomic operation.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Server;
use super::connect::ServerStream;

// What a connection does.
const BUSY: u8 = 0;
const UNUSED: u8 = 1;
const CLOSED: u8 = 2;
const GONE: u8 = 3;

/// A server's places for connections.
#[derive(Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    all: Mutex<Vec<Arc<Seat>>>,
}

#[derive(Default)]
struct Seat {
    state: AtomicU8,
    /// Empty until the connection is kept for the first time.
    socket: OnceLock<Socket>,
}

/// A second handle on a connection's socket.
enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection's place, until it is dropped.
pub struct Place {
    server: Arc<Server>,
    seat: Arc<Seat>,
}

impl Place {
    /// Takes a place for a connection that is about to be made, closing unused ones where there is no room. To be called
    /// with a slot of the server; `None`: its slots are not bounded, and nor are connections.
    pub(super) fn take(server: &Arc<Server>) -> Option<Place> {
        let slots = server.slots.limit()?;
        let seat = Arc::<Seat>::default();
        let mut all = server.places.lock();
        while all.len() >= slots {
            let Some(index) = all.iter().position(|seat| seat.turn(UNUSED, CLOSED)) else { break };
            // Failing to close leaves it to the worker that has it.
            let _ = all.swap_remove(index).close();
        }
        all.push(Arc::clone(&seat));
        server.places.taken.store(all.len(), Ordering::Relaxed);
        drop(all);
        Some(Place { server: Arc::clone(server), seat })
    }

    /// The connection is over `stream`: needed before it may rest. Whether there is a descriptor left for a second handle.
    pub(super) fn is_over(&self, stream: &ServerStream) -> bool {
        if self.seat.socket.get().is_none() {
            let Ok(socket) = Socket::of(stream) else { return false };
            let _ = self.seat.socket.set(socket);
        }
        true
    }

    /// The connection is unused from now on. Whether it may be kept: not when there are fewer slots by now.
    pub(super) fn rest(&self) -> bool {
        let slots = self.server.slots.limit().unwrap_or(usize::MAX);
        self.server.places.taken.load(Ordering::Relaxed) <= slots && self.seat.turn(BUSY, UNUSED)
    }

    /// The connection becomes something else, which is not counted here.
    pub(super) fn leave(self) {
        self.seat.turn(BUSY, GONE);
    }

    /// It is used again. Whether it can be: another worker may have closed it.
    pub(super) fn wake(&self) -> bool {
        self.seat.turn(UNUSED, BUSY)
    }

    /// The same for one that may not have rested, since it was made only now.
    pub(super) fn wake_or_stay(&self) -> bool {
        self.wake() || self.seat.state.load(Ordering::SeqCst) == BUSY
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before its place is free; otherwise the second handle would keep it open for a moment longer.
        if self.seat.state.load(Ordering::SeqCst) != GONE {
            let _ = self.seat.close();
        }
        let mut all = self.server.places.lock();
        all.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
        self.server.places.taken.store(all.len(), Ordering::Relaxed);
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn close(&self) -> io::Result<()> {
        match self.socket.get() {
            Some(Socket::Tcp(stream)) => stream.shutdown(Shutdown::Both),
            Some(Socket::Unix(stream)) => stream.shutdown(Shutdown::Both),
            None => Ok(()),
        }
    }
}

impl Socket {
    fn of(stream: &ServerStream) -> io::Result<Socket> {
        Ok(match stream {
            ServerStream::Tcp(stream) => Socket::Tcp(stream.as_fd().try_clone_to_owned()?.into()),
            ServerStream::Tls(stream) => Socket::Tcp(stream.get_ref().0.as_fd().try_clone_to_owned()?.into()),
            ServerStream::Unix(stream) => Socket::Unix(stream.as_fd().try_clone_to_owned()?.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::super::testing::{build, settings};
    use super::*;
    use crate::config::settings::{Balance, SlotSettings, UpstreamSettings};

    fn server(slots: usize) -> Arc<Server> {
        let slots = SlotSettings::Fixed(NonZeroUsize::new(slots).unwrap());
        let settings = settings(&[("http://127.0.0.1:1", 1)], Balance::LeastRequests);
        Arc::clone(&build(&UpstreamSettings { slots, ..settings }, None).servers()[0])
    }

    /// A connection with its place, and its far end.
    fn connected(server: &Arc<Server>) -> (Place, ServerStream, UnixStream) {
        let place = Place::take(server).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let stream = ServerStream::Unix(near);
        (place, stream, far)
    }

    fn rests((place, stream, _): &(Place, ServerStream, UnixStream)) -> bool {
        place.is_over(stream) && place.rest()
    }

    async fn is_closed(far: &mut UnixStream) -> bool {
        tokio::time::timeout(Duration::from_millis(20), far.read_u8()).await.is_ok()
    }

    #[tokio::test]
    async fn an_unused_connection_gives_way_to_a_new_one() {
        let server = server(2);
        let (mut one, mut two) = (connected(&server), connected(&server));
        assert!(rests(&one) && rests(&two) && two.0.wake());
        let three = connected(&server);
        assert!(is_closed(&mut one.2).await && !is_closed(&mut two.2).await);
        assert!(!one.0.wake(), "its worker finds out");
        assert_eq!(server.places.lock().len(), 2);
        drop(one);
        assert_eq!(server.places.lock().len(), 2, "it had no place any more");
        drop((two, three));
        assert_eq!(server.places.lock().len(), 0);
    }

    #[tokio::test]
    async fn what_is_in_use_is_left_alone_and_not_kept_beyond_the_slots() {
        let server = server(1);
        let mut one = connected(&server);
        let two = connected(&server);
        assert!(!is_closed(&mut one.2).await);
        assert!(!rests(&two));
        drop(two);
        assert!(rests(&one));
    }

    #[tokio::test]
    async fn one_that_becomes_a_tunnel_stays_open() {
        let server = server(1);
        let (place, stream, mut far) = connected(&server);
        assert!(place.is_over(&stream) && place.rest() && place.wake());
        place.leave();
        assert_eq!(server.places.lock().len(), 0);
        assert!(!is_closed(&mut far).await);
    }

    #[tokio::test]
    async fn without_a_bound_there_are_no_places() {
        let upstream = build(&settings(&[("http://127.0.0.1:1", 1)], Balance::LeastRequests), None);
        assert!(Place::take(&upstream.servers()[0]).is_none());
    }
}
