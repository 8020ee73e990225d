//! Where bodies go that outgrow memory, and the bounds of what all of them may take together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::file::open;
use crate::disk;
use crate::observe::metrics::{Direction, SpoolMetrics};
use crate::request::rejection::Cause;

/// Bytes of all bodies that may be held in memory before each goes to its file as soon as it can.
const MEMORY: u64 = 256 * 1024 * 1024;

/// Work on files of one directory that goes on at the same time, each on a thread: a slow disk is no faster with more,
/// and a dead one takes no more of them.
const TURNS: usize = 16;

/// `[server] temp_directory` and `temp_limit`.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    metrics: Arc<SpoolMetrics>,
    turns: Arc<Semaphore>,
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

impl Spool {
    pub fn new(directory: PathBuf, limit: u64, metrics: Arc<SpoolMetrics>) -> Spool {
        Spool { directory, limit, metrics, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// The same, of a new snapshot: work that waits for the directory since before counts on.
    pub fn after(mut self, before: &Spool) -> Spool {
        if self.directory == before.directory {
            self.turns = Arc::clone(&before.turns);
        }
        self
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
    /// What the system says; `TimedOut` when it says nothing.
    pub fn try_directory(&self) -> io::Result<()> {
        let directory = self.directory.clone();
        let made = disk::ask(&self.directory, move || open(&directory).map(drop));
        made.unwrap_or_else(|disk::Silent| Err(io::Error::new(io::ErrorKind::TimedOut, disk::Silent)))
    }

    /// Who works on a file waits for one of them.
    pub(super) fn turns(&self) -> &Arc<Semaphore> {
        &self.turns
    }

    /// Takes room on the disk for `more` bytes of a body that has `length` there already.
    ///
    /// A response that finds none is read no faster than its client takes it; a request is refused. So the last quarter
    /// is for requests alone, and no response takes more of the rest than it leaves free: however many large ones there
    /// are, a small one finds room.
    pub(super) fn take_disk(&self, direction: Direction, length: u64, more: u64) -> bool {
        if direction == Direction::Response {
            let share = self.limit.saturating_sub(self.limit / 4);
            let free = share.saturating_sub(self.metrics.disk());
            if length.saturating_add(more) > free {
                return false;
            }
        }
        self.metrics.take_disk(more, self.limit)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(directory: &Path, limit: u64) -> Spool {
        Spool::new(directory.to_owned(), limit, Arc::default())
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_told() {
        assert!(spool(Path::new("/does/not/exist"), 1).try_directory().is_err());
        assert!(spool(Path::new("/proc"), 1).try_directory().is_err());
    }

    #[test]
    fn responses_leave_room_for_requests_and_for_each_other() {
        let spool = spool(Path::new("/tmp"), 4000);
        let take = |direction, length, more| spool.take_disk(direction, length, more);
        // Three quarters are theirs. One may have half of those, a second a half of what that leaves.
        assert!(take(Direction::Response, 0, 1500) && !take(Direction::Response, 1500, 1));
        assert!(take(Direction::Response, 0, 750) && !take(Direction::Response, 750, 1));
        assert!(take(Direction::Response, 0, 100));
        // Requests have all that is left.
        assert!(take(Direction::Request, 0, 1650) && !take(Direction::Request, 1650, 1));
        assert!(!take(Direction::Response, 0, 1));
        spool.metrics.give_back_disk(1650);
        assert!(take(Direction::Response, 0, 300));
    }

    #[test]
    fn work_that_hangs_counts_on_after_a_reload_unless_the_directory_is_another() {
        let before = spool(Path::new("/tmp"), 1);
        let same = |after: &Spool| Arc::ptr_eq(before.turns(), after.turns());
        assert!(same(&spool(Path::new("/tmp"), 2).after(&before)));
        assert!(!same(&spool(Path::new("/var/tmp"), 1).after(&before)));
    }
}
