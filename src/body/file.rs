//! The temporary file of a body: one that no directory shows, and that nobody waits for longer than a disk may take.
//!
//! It has no name from its beginning where the file system can do that, and loses it at once where it cannot: the
//! kernel frees it with the process, however that ends. Whatever may block runs on threads that are for blocking, in
//! turns, and each with a deadline: a disk that has died takes those threads with it, and nothing else.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::spool::{Spool, SpoolError};
use crate::observe::metrics::Direction;
use crate::request::rejection::Cause;

/// Bytes that are worth a write, or a read for a server.
pub(super) const PIECE: usize = 64 * 1024;

/// The same while memory is short.
pub(super) const SMALL_PIECE: usize = 16 * 1024;

/// Bytes at the beginning of a file that are given back together once they have been read: whole blocks of any file
/// system.
pub(super) const UNIT: u64 = 1024 * 1024;

/// Files beyond this count until the kernel has taken their blocks back, which takes a while.
const LARGE: u64 = 4 * 1024 * 1024;

/// How long the disk is waited for: one that takes longer has died, or the network in front of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Work on a file that has begun, whether it is waited for or not.
#[derive(Debug)]
pub(super) struct OnDisk<T>(JoinHandle<Result<T, SpoolError>>);

impl<T> Future for OnDisk<T> {
    type Output = Result<T, SpoolError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = Pin::new(&mut self.get_mut().0).poll(cx);
        done.map(|done| done.unwrap_or_else(|_| Err(Cause::Internal.into())))
    }
}

/// A body's temporary file: made by the first write, gone when it is dropped.
#[derive(Debug)]
pub(super) struct TempFile {
    spool: Arc<Spool>,
    direction: Direction,
    file: OnceLock<File>,
    /// Where the bytes begin and end that count against `temp_limit`.
    begin: AtomicU64,
    end: AtomicU64,
    /// The body was counted among those that got a file, among those that were refused one.
    counted: AtomicBool,
    refused: AtomicBool,
}

impl TempFile {
    pub(super) fn new(spool: &Arc<Spool>, direction: Direction) -> TempFile {
        TempFile {
            spool: Arc::clone(spool),
            direction,
            file: OnceLock::new(),
            begin: AtomicU64::new(0),
            end: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    /// Another one for the same body.
    pub(super) fn another(&self) -> TempFile {
        let another = TempFile::new(&self.spool, self.direction);
        another.counted.store(self.counted.load(Ordering::Relaxed), Ordering::Relaxed);
        another.refused.store(self.refused.load(Ordering::Relaxed), Ordering::Relaxed);
        another
    }

    /// Where what it takes of the disk begins: everything before has been given back.
    pub(super) fn begin(&self) -> u64 {
        self.begin.load(Ordering::Relaxed)
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Takes room for a file that ends at `end`. To be called by its writer alone.
    ///
    /// # Errors
    /// `TempLimitReached`.
    pub(super) fn reserve(&self, end: u64) -> Result<(), SpoolError> {
        let before = self.end();
        let more = end.saturating_sub(before);
        if more == 0 {
            return Ok(());
        }
        if !self.spool.take_disk(self.direction, before.saturating_sub(self.begin()), more) {
            self.count_refused();
            return Err(Cause::TempLimitReached.into());
        }
        self.end.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the pieces, one behind the other from `at` on, where there is room.
    ///
    /// Errors are `DiskFull` and `TempFileFailed`.
    pub(super) fn write(self: &Arc<Self>, at: u64, pieces: Vec<Bytes>) -> OnDisk<()> {
        let file = Arc::clone(self);
        OnDisk(tokio::spawn(async move {
            let written = file.on_disk(move |file| file.write_now(at, &pieces)).await;
            if written.is_err() {
                file.count_refused();
            }
            written
        }))
    }

    /// Reads `length` bytes, all of which were written.
    ///
    /// The error is `TempFileFailed`.
    pub(super) fn read(self: &Arc<Self>, at: u64, length: usize) -> OnDisk<Bytes> {
        let file = Arc::clone(self);
        OnDisk(tokio::spawn(async move { file.on_disk(move |file| file.read_now(at, length)).await }))
    }

    /// The same for bytes that nobody will read again, nor any before them: the disk has them back.
    pub(super) fn take(self: &Arc<Self>, at: u64, length: usize) -> OnDisk<Bytes> {
        let file = Arc::clone(self);
        let take = move |file: &TempFile| {
            let bytes = file.read_now(at, length)?;
            file.give_back(at.saturating_add(length as u64));
            Ok(bytes)
        };
        OnDisk(tokio::spawn(async move { file.on_disk(take).await }))
    }

    /// Runs `work` on a thread that may block, when it is its turn.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&TempFile) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let file = Arc::clone(self);
        let done = async move {
            // The semaphore is never closed.
            let turn = Arc::clone(file.spool.turns()).acquire_owned().await.map_err(|_| Cause::Internal)?;
            let work = move || {
                // Held until the work is over, though nobody may wait for it any more.
                let _turn = turn;
                work(&file)
            };
            spawn_blocking(work).await.map_err(|_| Cause::Internal)?
        };
        let silent =
            |_| Err(self.told(&io::Error::new(io::ErrorKind::TimedOut, "the disk did not answer within 30 s")));
        tokio::time::timeout(PATIENCE, done).await.unwrap_or_else(silent)
    }

    fn write_now(&self, at: u64, pieces: &[Bytes]) -> Result<(), SpoolError> {
        let written = self.opened().and_then(|file| {
            pieces
                .iter()
                .try_fold(at, |at, piece| file.write_all_at(piece, at).map(|()| at.saturating_add(piece.len() as u64)))
        });
        let end = written.map_err(|error| self.told(&error))?;
        self.spool.held().wrote(self.direction, end.saturating_sub(at));
        Ok(())
    }

    fn read_now(&self, at: u64, length: usize) -> Result<Bytes, SpoolError> {
        let mut bytes = vec![0; length];
        let read = match self.file.get() {
            Some(file) => file.read_exact_at(&mut bytes, at),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match read {
            Ok(()) => Ok(bytes.into()),
            Err(error) => Err(SpoolError { cause: Cause::TempFileFailed, ..self.told(&error) }),
        }
    }

    /// Makes a hole of what lies before `to`. Where the file system has none, the file keeps all that was written.
    fn give_back(&self, to: u64) {
        let (begin, to) = (self.begin(), to.saturating_sub(to % UNIT));
        let Some(file) = self.file.get().filter(|_| to > begin) else { return };
        let length = to.saturating_sub(begin);
        if fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, begin, length).is_ok() {
            self.begin.store(to, Ordering::Relaxed);
            self.spool.held().give_back_disk(length);
        }
    }

    fn count_refused(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            self.spool.held().refused(self.direction);
        }
    }

    fn told(&self, error: &io::Error) -> SpoolError {
        let detail = format!("a file in {}: {error}", self.spool.directory().display());
        SpoolError { cause: cause_of(error), detail: Some(detail) }
    }

    fn opened(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = open(self.spool.directory())?;
        Ok(self.file.get_or_init(|| {
            let first = !self.counted.swap(true, Ordering::Relaxed);
            self.spool.held().file_opened(self.direction, first);
            file
        }))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let taken = self.end().saturating_sub(self.begin());
        let Some(file) = self.file.take() else { return self.spool.held().give_back_disk(taken) };
        let spool = Arc::clone(&self.spool);
        let count = move || {
            spool.held().give_back_disk(taken);
            spool.held().file_closed();
        };
        let Ok(runtime) = Handle::try_current() else {
            drop(file);
            return count();
        };
        let turns = Arc::clone(self.spool.turns());
        let is_large = taken > LARGE;
        if !is_large {
            count();
        }
        // Closing waits for the disk too, and nobody waits for it.
        runtime.spawn(async move {
            let turn = turns.acquire_owned().await;
            spawn_blocking(move || {
                let _turn = turn;
                drop(file);
                if is_large {
                    count();
                }
            });
        });
    }
}

/// The cause of what the system said of writing to a file.
fn cause_of(error: &io::Error) -> Cause {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Cause::DiskFull,
        Some(_) | None => Cause::TempFileFailed,
    }
}

/// A file for reading and writing that has no name, for its owner alone.
pub(super) fn open(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    // With EXCL nobody can give it a name later.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, mode) {
        Ok(file) => Ok(file.into()),
        // Older kernels take the flags for those of a directory to be written.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => open_and_unlink(directory),
        Err(error) => Err(error.into()),
    }
}

fn open_and_unlink(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("passerelle-{:016x}", fastrand::u64(..)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::mpsc;

    use super::super::tests::spool;
    use super::*;

    #[test]
    fn files_have_no_name_and_belong_to_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        for file in [open(directory.path()).unwrap(), open_and_unlink(directory.path()).unwrap()] {
            let metadata = file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_written_comes_back_and_is_counted_until_it_is_dropped() {
        let (_directory, spool, metrics) = spool(100);
        let file = Arc::new(TempFile::new(&spool, Direction::Request));
        file.reserve(60).unwrap();
        file.write(0, vec![Bytes::from_static(b"one "), Bytes::from_static(b"two")]).await.unwrap();
        assert_eq!(file.read(2, 4).await.unwrap(), "e tw");
        let other = TempFile::new(&spool, Direction::Request);
        assert_eq!(other.reserve(41), Err(Cause::TempLimitReached.into()));
        other.reserve(40).unwrap();
        assert_eq!((metrics.disk(), metrics.files()), (100, 1));
        drop(file);
        other.reserve(100).unwrap();
        drop(other);
        assert_eq!((metrics.disk(), metrics.files()), (0, 0));
    }

    #[tokio::test]
    async fn what_was_taken_is_given_back_to_the_disk() {
        let (_directory, spool, metrics) = spool(1 << 30);
        let file = Arc::new(TempFile::new(&spool, Direction::Response));
        let length = usize::try_from(2 * UNIT + 10).unwrap();
        file.reserve(length as u64).unwrap();
        file.write(0, vec![super::super::tests::bytes(0, length)]).await.unwrap();
        let blocks = || file.file.get().unwrap().metadata().unwrap().blocks();
        let before = blocks();
        let half = usize::try_from(UNIT).unwrap() + 5;
        file.take(0, half).await.unwrap();
        if file.begin() == 0 {
            eprintln!("left out: the file system of the temporary directory has no holes");
            return;
        }
        assert_eq!((file.begin(), metrics.disk()), (UNIT, UNIT + 10));
        assert!(blocks() < before);
        let rest = file.take(half as u64, length - half).await.unwrap();
        assert!(rest == super::super::tests::bytes(0, length)[half..]);
        assert_eq!(metrics.disk(), 10);
        drop(file);
        assert_eq!((metrics.disk(), metrics.files()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_died_is_given_up_and_takes_a_bounded_number_of_threads() {
        let (_directory, spool, metrics) = spool(1 << 30);
        let (come_back, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        let turns = spool.turns().available_permits();
        let begun = Arc::new(AtomicU64::new(0));
        let file = Arc::new(TempFile::new(&spool, Direction::Request));
        let hanging = || {
            let (file, hangs, begun) = (Arc::clone(&file), Arc::clone(&hangs), Arc::clone(&begun));
            let work = move |_: &TempFile| {
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = hangs.lock().unwrap().recv();
                Ok(())
            };
            tokio::spawn(async move { file.on_disk(work).await })
        };
        let waiting: Vec<_> = (0..turns * 2).map(|_| hanging()).collect();
        let write = file.write(0, vec![Bytes::from_static(b"late")]);
        tokio::task::yield_now().await;
        tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().unwrap_err().cause, Cause::TempFileFailed);
        }
        let error = write.await.unwrap_err();
        assert!(error.detail.unwrap().ends_with(": the disk did not answer within 30 s"));
        assert_eq!(metrics.refused_total(Direction::Request), 1);
        // The others were never begun.
        drop(come_back);
        while spool.turns().available_permits() < turns {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::Relaxed), turns as u64);
        file.write(0, vec![Bytes::from_static(b"back")]).await.unwrap();
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let cause = |errno: Errno| cause_of(&io::Error::from(errno));
        for full in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert_eq!(cause(full), Cause::DiskFull);
        }
        assert_eq!(cause(Errno::IO), Cause::TempFileFailed);
    }
}
