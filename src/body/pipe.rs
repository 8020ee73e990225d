//! Bytes on their way from one socket to another that the gateway has no need to look at.
//!
//! A pipe takes them from the one and gives them to the other within the kernel (splice(2)): neither is copied. That is
//! worth the two calls and the two descriptors only for long bodies.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// What is known to come from which on a body is moved through a pipe.
pub const WORTH_A_PIPE: u64 = 128 * 1024;

/// Pipes of one worker: each takes two descriptors, and holds memory of the kernel while a client takes nothing.
const MOST: usize = 256;

thread_local! {
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A pipe whose two ends are ours.
pub struct Pipe {
    taken_from: OwnedFd,
    given_to: OwnedFd,
    held: usize,
}

impl Pipe {
    /// `None` where there are too many, or the system gives no more.
    pub fn open() -> Option<Pipe> {
        if OPEN.get() >= MOST {
            return None;
        }
        let (taken_from, given_to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        OPEN.set(OPEN.get().saturating_add(1));
        Some(Pipe { taken_from, given_to, held: 0 })
    }

    /// How many this thread has.
    #[cfg(test)]
    pub fn count() -> usize {
        OPEN.get()
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes at most so many bytes from a socket, while it is empty; how many. Nought is the end of the stream.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` when nothing has come.
    pub fn take(&mut self, socket: impl AsFd, most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let moved = splice(socket, None, &self.given_to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.held = self.held.saturating_add(moved);
        Ok(moved)
    }

    /// Gives what it holds to a socket, or as much as that takes.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` when it takes nothing.
    pub fn give(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.taken_from, None, socket, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        OPEN.set(OPEN.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_taken_is_given_in_order() {
        let ((mut from, near), (far, mut to)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        near.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::open().unwrap();
        assert_eq!(pipe.take(&near, 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        from.write_all(b"one two three").unwrap();
        assert_eq!(pipe.take(&near, 8).unwrap(), 8);
        assert!(!pipe.is_empty());
        while !pipe.is_empty() {
            pipe.give(&far).unwrap();
        }
        let mut given = [0; 8];
        to.read_exact(&mut given).unwrap();
        assert_eq!(&given, b"one two ");
        drop(from);
        assert_eq!(pipe.take(&near, 100).unwrap(), 5);
        while !pipe.is_empty() {
            pipe.give(&far).unwrap();
        }
        assert_eq!(pipe.take(&near, 100).unwrap(), 0);
    }

    #[test]
    fn there_are_no_more_than_the_bound() {
        // On a thread of its own, as a worker is.
        std::thread::spawn(|| {
            let pipes: Vec<_> = std::iter::from_fn(Pipe::open).take(MOST + 1).collect();
            assert!(pipes.len() <= MOST && !pipes.is_empty());
            drop(pipes);
            assert!(Pipe::open().is_some());
        })
        .join()
        .unwrap();
    }
}
