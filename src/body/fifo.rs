//! Bytes that wait for a slow reader: in memory at first, then in a temporary file, in memory again once the reader
//! has caught up.
//!
//! In the order in which they are read: `front`, the file, what is being written to it, `back`. The file gives back
//! what was read of it, so that a body of any length takes hardly more of the disk than its reader lies behind.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::file::{OnDisk, PIECE, SMALL_PIECE, TempFile, UNIT};
use super::pieces::Pieces;
use super::spool::{Bounds, InMemory, Spool, SpoolError};
use crate::observe::metrics::Direction;
use crate::observe::trouble::{self, Trouble};
use crate::request::rejection::Cause;

/// Bytes that are read for a slow client at once: two such pieces are held for each, one on its way to the client, and
/// one behind it.
const READ: usize = 32 * 1024;

/// One writer, one reader, one task.
pub(super) struct Fifo {
    bounds: Bounds,
    in_memory: InMemory,
    /// Bytes that were popped last: they count until more is asked for, since they have been written then.
    popped: usize,
    front: Pieces,
    /// Made by the first write.
    file: Option<Arc<TempFile>>,
    /// How far the file was read, and written.
    read: u64,
    written: u64,
    back: Pieces,
    writing: Option<Writing>,
    reading: Option<OnDisk<Bytes>>,
    /// Nothing can be written any more.
    broken: bool,
    /// It has been told that there was no room.
    told: bool,
}

struct Writing {
    task: OnDisk<()>,
    /// What is written, should that fail.
    pieces: Vec<Bytes>,
    length: u64,
}

impl Fifo {
    pub(super) fn new(bounds: Bounds, spool: &Arc<Spool>) -> Fifo {
        Fifo {
            bounds,
            in_memory: InMemory::none(spool),
            popped: 0,
            front: Pieces::default(),
            file: None,
            read: 0,
            written: 0,
            back: Pieces::default(),
            writing: None,
            reading: None,
            broken: false,
            told: false,
        }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> u64 {
        let writing = self.writing.as_ref().map_or(0, |writing| writing.length);
        let memory = self.front.len().saturating_add(self.back.len()) as u64;
        memory.saturating_add(self.in_file()).saturating_add(writing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn in_file(&self) -> u64 {
        self.written.saturating_sub(self.read)
    }

    /// Whether everything that waits is in `front`.
    fn is_in_front(&self) -> bool {
        self.in_file() == 0 && self.back.is_empty() && self.writing.is_none()
    }

    /// Whether one more piece may be pushed.
    pub(super) fn has_room(&self) -> bool {
        if self.is_in_front() && self.front.len() < self.bounds.memory {
            return true;
        }
        if self.broken {
            return self.front.len().saturating_add(self.back.len()) < self.bounds.memory;
        }
        self.back.len() < self.piece()
    }

    /// Bytes of `back` that are worth a write.
    fn piece(&self) -> usize {
        let piece = if self.in_memory.spool().is_short() { SMALL_PIECE } else { PIECE };
        piece.min(usize::try_from(self.bounds.disk).unwrap_or(piece))
    }

    pub(super) fn push(&mut self, data: Bytes) {
        let fits = self.front.len() < self.bounds.memory && !self.in_memory.spool().is_short();
        self.in_memory.grow(data.len());
        if self.is_in_front() && (fits || self.front.is_empty()) {
            self.front.push(data);
        } else {
            self.back.push(data);
        }
    }

    /// Has written what is worth it, and read what will be wanted next.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>) {
        self.poll_written(cx);
        if self.writing.is_none() && !self.broken && self.back.len() >= self.piece().max(1) {
            self.write();
            self.poll_written(cx);
        }
        if self.front.is_empty() {
            self.read_on();
        }
    }

    /// The next piece; `None` when none waits. Pending while it comes from the file.
    ///
    /// # Errors
    /// `TempFileFailed`.
    pub(super) fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cause>>> {
        self.in_memory.shrink(std::mem::take(&mut self.popped));
        loop {
            if let Some(piece) = self.front.pop() {
                self.popped = piece.len();
                return Poll::Ready(Some(Ok(piece)));
            }
            self.read_on();
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = Pin::new(reading).poll(cx) else { return Poll::Pending };
                self.reading = None;
                match read {
                    Ok(piece) => {
                        self.read = self.read.saturating_add(piece.len() as u64);
                        self.in_memory.grow(piece.len());
                        self.front.push(piece);
                    }
                    Err(error) => {
                        tracing::warn!(detail = error.detail, "a response's body could not be read again");
                        return Poll::Ready(Some(Err(error.cause)));
                    }
                }
                continue;
            }
            self.poll_written(cx);
            if self.writing.is_some() {
                return Poll::Pending;
            }
            if self.in_file() > 0 {
                continue;
            }
            self.caught_up();
            if self.back.is_empty() {
                return Poll::Ready(None);
            }
            std::mem::swap(&mut self.front, &mut self.back);
        }
    }

    /// The file begins anew; one that grew, or whose beginning was given back, is let go.
    fn caught_up(&mut self) {
        (self.read, self.written) = (0, 0);
        if let Some(file) = self.file.as_mut().filter(|file| file.end() > UNIT || file.begin() > 0) {
            *file = Arc::new(file.another());
        }
    }

    fn read_on(&mut self) {
        let most = if self.in_memory.spool().is_short() { SMALL_PIECE } else { READ };
        let length = usize::try_from(self.in_file()).unwrap_or(most).min(most);
        if let Some(file) = self.file.as_ref().filter(|_| length > 0) {
            self.reading.get_or_insert_with(|| file.take(self.read, length));
        }
    }

    /// Begins to write `back`, if it fits.
    fn write(&mut self) {
        let length = self.back.len() as u64;
        let end = self.written.saturating_add(length);
        let begin = self.file.as_ref().map_or(0, |file| file.begin());
        if end.saturating_sub(begin) > self.bounds.disk {
            return;
        }
        let spool = self.in_memory.spool();
        let file = self.file.get_or_insert_with(|| Arc::new(TempFile::new(spool, Direction::Response)));
        // Where `temp_limit` leaves no room now it may later.
        if let Err(error) = file.reserve(end) {
            return self.tell(&error);
        }
        let pieces = self.back.take();
        let task = file.write(self.written, pieces.clone());
        self.writing = Some(Writing { task, pieces, length });
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) {
        let Some(writing) = &mut self.writing else { return };
        let Poll::Ready(written) = Pin::new(&mut writing.task).poll(cx) else { return };
        let Some(Writing { pieces, length, .. }) = self.writing.take() else { return };
        match written {
            Ok(()) => {
                self.written = self.written.saturating_add(length);
                self.in_memory.shrink(usize::try_from(length).unwrap_or(usize::MAX));
            }
            Err(error) => {
                // It stays in memory, and the server has to wait for the client.
                let behind = self.back.take();
                pieces.into_iter().chain(behind).for_each(|piece| self.back.push(piece));
                self.broken = true;
                self.tell(&error);
            }
        }
    }

    /// The response goes on, so that no access record tells of this.
    fn tell(&mut self, error: &SpoolError) {
        if !std::mem::replace(&mut self.told, true) {
            trouble::tell(error.cause, &Trouble { detail: error.detail.as_deref(), ..Trouble::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::super::tests::{bytes, spool};
    use super::*;

    /// Pushes pieces of these sizes and pops `lag` behind; checks that what comes out is what went in.
    async fn through(bounds: Bounds, spool: &Arc<Spool>, sizes: &[usize], lag: u64) {
        let mut fifo = Fifo::new(bounds, spool);
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for (n, &size) in sizes.iter().enumerate() {
            let piece = bytes(n, size);
            expected.extend_from_slice(&piece);
            while !fifo.has_room() && !fifo.is_empty() {
                poll_fn(|cx| {
                    fifo.poll_work(cx);
                    Poll::Ready(())
                })
                .await;
                if !fifo.has_room() && fifo.writing.is_none() {
                    got.extend_from_slice(&poll_fn(|cx| fifo.poll_pop(cx)).await.unwrap().unwrap());
                }
                tokio::task::yield_now().await;
            }
            fifo.push(piece);
            while fifo.len() > lag {
                got.extend_from_slice(&poll_fn(|cx| fifo.poll_pop(cx)).await.unwrap().unwrap());
            }
        }
        while let Some(piece) = poll_fn(|cx| fifo.poll_pop(cx)).await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert!(fifo.is_empty());
        assert!(got == expected, "{} bytes of {} came, or in another order", got.len(), expected.len());
    }

    #[tokio::test]
    async fn order_is_kept_however_far_the_reader_lies_behind() {
        let (_directory, spool, metrics) = spool(1 << 30);
        let sizes: Vec<usize> = (0..40).map(|n| (n * 7919) % 70_000).collect();
        for memory in [0, 10_000, 64 * 1024] {
            for disk in [0, 9_999, 300_001, 1 << 30] {
                for lag in [0, 50_000, 400_000, u64::MAX] {
                    through(Bounds { memory, disk }, &spool, &sizes, lag).await;
                    // Large files are closed elsewhere.
                    while metrics.files() > 0 {
                        tokio::task::yield_now().await;
                    }
                    assert_eq!((metrics.memory(), metrics.disk()), (0, 0));
                }
            }
        }
    }

    #[tokio::test]
    async fn the_disk_has_back_what_the_reader_has_taken() {
        const BEHIND: usize = 20 << 20;
        let (_directory, spool, metrics) = spool(1 << 30);
        let mut fifo = Fifo::new(Bounds { memory: 64 * 1024, disk: 1 << 30 }, &spool);
        let piece = bytes(0, 64 * 1024);
        let push = async |fifo: &mut Fifo| {
            while !fifo.has_room() {
                poll_fn(|cx| {
                    fifo.poll_work(cx);
                    Poll::Ready(())
                })
                .await;
                tokio::task::yield_now().await;
            }
            fifo.push(piece.clone());
        };
        let pop_to = async |fifo: &mut Fifo, lag: u64| {
            while fifo.len() > lag {
                poll_fn(|cx| fifo.poll_pop(cx)).await.unwrap().unwrap();
            }
        };
        for _ in 0..BEHIND / piece.len() {
            push(&mut fifo).await;
        }
        assert!(metrics.disk() > BEHIND as u64 - UNIT);
        pop_to(&mut fifo, UNIT).await;
        if fifo.file.as_ref().unwrap().begin() == 0 {
            eprintln!("left out: the file system of the temporary directory has no holes");
        } else {
            // The reader stays as far behind as it is.
            for _ in 0..BEHIND / piece.len() {
                push(&mut fifo).await;
                pop_to(&mut fifo, UNIT).await;
                assert!(metrics.disk() <= 3 * UNIT, "{}", metrics.disk());
            }
        }
        pop_to(&mut fifo, 0).await;
        assert!(poll_fn(|cx| fifo.poll_pop(cx)).await.is_none());
        while metrics.disk() > 0 {
            tokio::task::yield_now().await;
        }
        // It is one body still, and may fall behind again.
        for _ in 0..10 {
            push(&mut fifo).await;
        }
        assert!(metrics.disk() > 0);
        assert_eq!(metrics.spooled_total(Direction::Response), 1);
    }

    #[tokio::test]
    async fn without_a_place_for_files_the_reader_is_waited_for() {
        let (_directory, small, metrics) = spool(200_000);
        let nowhere = Arc::new(Spool::new("/does/not/exist".into(), 1 << 30, Arc::default()));
        let bounds = Bounds { memory: 64 * 1024, disk: 1 << 30 };
        through(bounds, &small, &[30_000; 100], u64::MAX).await;
        assert_eq!(metrics.disk(), 0);
        through(bounds, &nowhere, &[30_000; 100], u64::MAX).await;
    }
}
