//! Where bodies go that outgrow memory: temporary files that no directory shows, under one bound for all together.
//!
//! A file has no name from its beginning where the file system can do that, and loses it at once where it cannot: the
//! kernel frees it with the process, however that ends. Whatever may block runs on threads that are for blocking.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::observe::metrics::{Direction, SpoolMetrics};
use crate::request::rejection::Cause;

/// Bytes of all bodies that may be held in memory before each goes to its file as soon as it can.
const MEMORY: u64 = 256 * 1024 * 1024;

/// Bytes that are worth a write.
pub(super) const PIECE: usize = 128 * 1024;

/// The same while memory is short.
pub(super) const SMALL_PIECE: usize = 16 * 1024;

/// Files beyond this are closed on a thread for blocking: then the kernel gives their blocks back, which takes a while.
const LARGE: u64 = 4 * 1024 * 1024;

/// `[server] temp_directory` and `temp_limit`.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    metrics: Arc<SpoolMetrics>,
}

/// How much of one body may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub memory: usize,
    pub disk: u64,
}

impl Bounds {
    /// The longest body that can be held whole.
    pub fn most(&self) -> u64 {
        self.disk.saturating_add(self.memory as u64)
    }
}

/// Why a body cannot be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolError {
    pub cause: Cause,
    /// What the system said.
    pub detail: Option<String>,
}

impl From<Cause> for SpoolError {
    fn from(cause: Cause) -> SpoolError {
        SpoolError { cause, detail: None }
    }
}

/// The cause of what the system said of writing to a file.
fn cause_of(error: &io::Error) -> Cause {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Cause::DiskFull,
        Some(_) | None => Cause::TempFileFailed,
    }
}

impl Spool {
    pub fn new(directory: PathBuf, limit: u64, metrics: Arc<SpoolMetrics>) -> Spool {
        Spool { directory, limit, metrics }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is held, by all spools of the process.
    pub fn held(&self) -> &SpoolMetrics {
        &self.metrics
    }

    /// Whether a file can be made in the directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_directory(&self) -> io::Result<()> {
        open(&self.directory).map(drop)
    }

    /// Whether bodies should leave memory as soon as they can.
    pub(super) fn is_short(&self) -> bool {
        self.metrics.memory() >= MEMORY
    }
}

/// Bytes that a body holds in memory, as they count for the process.
#[derive(Debug)]
pub(super) struct InMemory {
    spool: Arc<Spool>,
    bytes: u64,
}

impl InMemory {
    pub(super) fn none(spool: &Arc<Spool>) -> InMemory {
        InMemory { spool: Arc::clone(spool), bytes: 0 }
    }

    pub(super) fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.spool.metrics.memory_taken(bytes as u64);
    }

    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes as u64);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.spool.metrics.memory_given_back(bytes);
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.spool.metrics.memory_given_back(self.bytes);
        }
    }
}

/// A body's temporary file: made by the first write, gone when it is dropped.
#[derive(Debug)]
pub(super) struct TempFile {
    spool: Arc<Spool>,
    direction: Direction,
    file: OnceLock<File>,
    /// Bytes of `temp_limit` that are taken for it.
    reserved: AtomicU64,
    /// It was counted among the refused.
    refused: AtomicBool,
}

impl TempFile {
    pub(super) fn new(spool: &Arc<Spool>, direction: Direction) -> Arc<TempFile> {
        Arc::new(TempFile {
            spool: Arc::clone(spool),
            direction,
            file: OnceLock::new(),
            reserved: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        })
    }

    /// Takes room for a file of `length` bytes. To be called by its writer alone.
    ///
    /// # Errors
    /// `TempLimitReached`.
    pub(super) fn reserve(&self, length: u64) -> Result<(), SpoolError> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let more = length.saturating_sub(reserved);
        if more == 0 {
            return Ok(());
        }
        if !self.spool.metrics.take_disk(more, self.spool.limit) {
            self.count_refused();
            return Err(Cause::TempLimitReached.into());
        }
        self.reserved.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// Writes each piece at its place. Blocks.
    ///
    /// # Errors
    /// `DiskFull`, `TempFileFailed`.
    pub(super) fn write(&self, pieces: &[(u64, Bytes)]) -> Result<(), SpoolError> {
        let written = self.opened().and_then(|file| {
            pieces.iter().try_fold(0_u64, |written, (at, piece)| {
                file.write_all_at(piece, *at).map(|()| written.saturating_add(piece.len() as u64))
            })
        });
        match written {
            Ok(bytes) => {
                self.spool.metrics.wrote(self.direction, bytes);
                Ok(())
            }
            Err(error) => {
                self.count_refused();
                Err(self.told(&error))
            }
        }
    }

    /// Reads `length` bytes, all of which were written. Blocks.
    ///
    /// # Errors
    /// `TempFileFailed`.
    pub(super) fn read(&self, at: u64, length: usize) -> Result<Bytes, SpoolError> {
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

    fn count_refused(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            self.spool.metrics.refused(self.direction);
        }
    }

    fn told(&self, error: &io::Error) -> SpoolError {
        let detail = format!("a file in {}: {error}", self.spool.directory.display());
        SpoolError { cause: cause_of(error), detail: Some(detail) }
    }

    fn opened(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = open(&self.spool.directory)?;
        Ok(self.file.get_or_init(|| {
            self.spool.metrics.file_opened(self.direction);
            file
        }))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let (metrics, reserved) = (Arc::clone(&self.spool.metrics), *self.reserved.get_mut());
        let file = self.file.take();
        let give_back = move || {
            if let Some(file) = file {
                drop(file);
                metrics.file_closed();
            }
            metrics.give_back_disk(reserved);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if reserved > LARGE => drop(runtime.spawn_blocking(give_back)),
            Ok(_) | Err(_) => give_back(),
        }
    }
}

/// A file for reading and writing that has no name, for its owner alone.
fn open(directory: &Path) -> io::Result<File> {
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

    use super::*;

    fn spool(directory: &Path, limit: u64) -> Arc<Spool> {
        Arc::new(Spool::new(directory.to_owned(), limit, Arc::default()))
    }

    #[test]
    fn files_have_no_name_and_belong_to_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        for file in [open(directory.path()).unwrap(), open_and_unlink(directory.path()).unwrap()] {
            let metadata = file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_told() {
        assert!(spool(Path::new("/does/not/exist"), 1).try_directory().is_err());
        assert!(spool(Path::new("/proc"), 1).try_directory().is_err());
    }

    #[test]
    fn what_is_written_comes_back_and_is_counted_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let spool = spool(directory.path(), 100);
        let file = TempFile::new(&spool, Direction::Request);
        file.reserve(60).unwrap();
        file.write(&[(0, Bytes::from_static(b"one ")), (4, Bytes::from_static(b"two"))]).unwrap();
        assert_eq!(file.read(2, 4).unwrap(), "e tw");
        let other = TempFile::new(&spool, Direction::Response);
        assert_eq!(other.reserve(41), Err(Cause::TempLimitReached.into()));
        other.reserve(40).unwrap();
        assert_eq!((spool.metrics.disk(), spool.metrics.files()), (100, 1));
        drop(file);
        other.reserve(100).unwrap();
        drop(other);
        assert_eq!((spool.metrics.disk(), spool.metrics.files()), (0, 0));
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
