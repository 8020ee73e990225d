//! After a 101: bytes copied both ways, each direction closing by itself.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connect::ServerStream;
use super::{Lease, Upstream};
use crate::http1::buffer::poll_read;
use crate::http1::timer::Timer;
use crate::request::rejection::Cause;

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;

/// How long a client has to end its side once the server's end was passed on: nobody answers it any more, and what the
/// tunnel holds (a connection, places of limits) others wait for.
const FAREWELL: Duration = Duration::from_secs(10);

/// A place among an upstream's `max_upgraded`, given back when dropped.
pub struct Open {
    count: Arc<AtomicUsize>,
}

impl Open {
    /// How many are open.
    pub fn how_many(upstream: &Upstream) -> usize {
        upstream.upgraded.load(Ordering::Relaxed)
    }

    /// Whether one more would be let in now.
    pub fn has_room(upstream: &Upstream) -> bool {
        Open::how_many(upstream) < upstream.settings.max_upgraded.get()
    }

    /// # Errors
    /// `TooManyUpgraded`.
    pub fn count(upstream: &Upstream) -> Result<Open, Cause> {
        let open = Open { count: Arc::clone(&upstream.upgraded) };
        let before = open.count.fetch_add(1, Ordering::Relaxed);
        if before >= upstream.settings.max_upgraded.get() { Err(Cause::TooManyUpgraded) } else { Ok(open) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server's side of an upgraded connection.
pub struct Upgraded {
    pub stream: ServerStream,
    /// What the server sent right behind its 101.
    pub early: Bytes,
    /// How long both may be silent.
    pub silence: Duration,
    pub(super) _lease: Lease,
    pub(super) _open: Open,
}

/// Where the bytes copied in an upgraded connection's life are counted as they go, since it may be cut off.
#[derive(Clone, Copy)]
pub struct Copied<'a> {
    pub from_client: &'a Cell<u64>,
    pub to_client: &'a Cell<u64>,
}

/// Copies until both directions have ended, one has failed, both were silent for too long, or the server has ended and
/// the client does not. `early` is what the client sent behind its request.
pub async fn tunnel<C: AsyncRead + AsyncWrite + Unpin>(
    client: &mut C,
    early: BytesMut,
    upgraded: &mut Upgraded,
    copied: Copied<'_>,
) {
    let to_server = Direction::new(early, copied.from_client);
    let to_client = Direction::new(BytesMut::from(upgraded.early.as_ref()), copied.to_client);
    copy(client, &mut upgraded.stream, to_server, to_client, upgraded.silence).await;
}

async fn copy<C, S>(
    client: &mut C,
    server: &mut S,
    mut to_server: Direction<'_>,
    mut to_client: Direction<'_>,
    silence: Duration,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut timer = Timer::new();
    timer.set(silence);
    let mut leaving = false;
    std::future::poll_fn(|cx| {
        let before = (to_server.moved, to_client.moved);
        let there = to_server.poll(client, server, cx);
        let back = to_client.poll(server, client, cx);
        if matches!(there, Poll::Ready(Err(_)))
            || matches!(back, Poll::Ready(Err(_)))
            || (there.is_ready() && back.is_ready())
        {
            return Poll::Ready(());
        }
        if back.is_ready() && !leaving {
            leaving = true;
            timer.set(silence.min(FAREWELL));
        } else if before != (to_server.moved, to_client.moved) && !leaving {
            timer.set(silence);
        }
        timer.poll_expired(cx)
    })
    .await;
}

struct Direction<'a> {
    /// Read and not yet written.
    pending: BytesMut,
    ended: bool,
    shut: bool,
    copied: &'a Cell<u64>,
    /// Reads and writes that got anywhere.
    moved: u64,
}

impl Direction<'_> {
    fn new(pending: BytesMut, copied: &Cell<u64>) -> Direction<'_> {
        Direction { pending, ended: false, shut: false, copied, moved: 0 }
    }

    /// Ready once the end was passed on.
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.pending.advance(written);
                self.copied.set(self.copied.get().wrapping_add(written as u64));
                self.moved = self.moved.wrapping_add(1);
            }
            // An idle tunnel holds no buffer.
            self.pending = BytesMut::new();
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            // What is written must not lie in a TLS buffer while nothing more comes.
            let read = poll_read(from, cx, &mut self.pending, PIECE);
            if read.is_pending() {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
            }
            if ready!(read)? == 0 {
                self.ended = true;
            }
            self.moved = self.moved.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    const SILENCE: Duration = Duration::from_secs(60);

    /// Copies between two connections, and does `talk` at their far ends; returns how long the copying took.
    async fn copying<T, F>(talk: T) -> Duration
    where
        T: FnOnce(DuplexStream, DuplexStream) -> F,
        F: Future<Output = ()>,
    {
        let (mut client, client_far) = duplex(16);
        let (mut server, server_far) = duplex(16);
        let (sent, received) = (Cell::new(0), Cell::new(0));
        let there = Direction::new(BytesMut::new(), &sent);
        let back = Direction::new(BytesMut::new(), &received);
        let began = Instant::now();
        // Both are closed at its end, as a tunnel's are.
        let copy = async move {
            copy(&mut client, &mut server, there, back, SILENCE).await;
            began.elapsed()
        };
        tokio::join!(copy, talk(client_far, server_far)).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_bounded_time_to_end_after_the_server() {
        let took = copying(|mut client, mut server| async move {
            server.shutdown().await.expect("open");
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("open");
            // It goes on sending; that gains nothing.
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
        assert!((FAREWELL..FAREWELL + Duration::from_secs(1)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_ended_is_sent_to_for_as_long_as_there_is_something() {
        let took = copying(|mut client, mut server| async move {
            client.shutdown().await.expect("open");
            for _ in 0..5 {
                sleep(Duration::from_secs(50)).await;
                server.write_all(b"x").await.expect("open");
                assert_eq!(client.read_u8().await.expect("open"), b'x');
            }
            server.shutdown().await.expect("open");
        })
        .await;
        assert_eq!(took.as_secs(), 250);
    }

    #[tokio::test]
    async fn a_direction_ends_by_itself() {
        let (mut client, mut client_far) = duplex(16);
        let (mut server, mut server_far) = duplex(16);
        let copy = async {
            let (sent, received) = (Cell::new(0), Cell::new(0));
            let mut there = Direction::new(BytesMut::new(), &sent);
            let mut back = Direction::new(BytesMut::new(), &received);
            std::future::poll_fn(|cx| {
                let there = there.poll(&mut client, &mut server, cx);
                let back = back.poll(&mut server, &mut client, cx);
                if there.is_ready() && back.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!((sent.get(), received.get()), (8, 40));
        };
        let talk = async {
            client_far.write_all(b"question").await.expect("open");
            client_far.shutdown().await.expect("open");
            let mut got = String::new();
            server_far.read_to_string(&mut got).await.expect("open");
            assert_eq!(got, "question");
            server_far.write_all(b"an answer after the other side has ended").await.expect("open");
            server_far.shutdown().await.expect("open");
            got.clear();
            client_far.read_to_string(&mut got).await.expect("open");
            assert_eq!(got, "an answer after the other side has ended");
        };
        tokio::join!(copy, talk);
    }
}
