//! What of bodies is held, in memory and in temporary files; the budgets of the process are these very numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
}

impl Direction {
    pub(super) const ALL: [Direction; 2] = [Direction::Request, Direction::Response];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Direction::Request => "request",
            Direction::Response => "response",
        }
    }
}

/// One for the process. Plain atomics: only bodies that have to be held come here.
#[derive(Debug, Default)]
pub struct SpoolMetrics {
    memory: AtomicU64,
    disk: AtomicU64,
    files: AtomicU64,
    spooled: [AtomicU64; 2],
    written: [AtomicU64; 2],
    refused: [AtomicU64; 2],
}

impl SpoolMetrics {
    /// Bytes of bodies are held in memory.
    pub fn memory_taken(&self, bytes: u64) {
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn memory_given_back(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Takes room on the disk, unless all together would then hold more than `limit`.
    pub fn take_disk(&self, bytes: u64, limit: u64) -> bool {
        let before = self.disk.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= limit;
        if !fits {
            self.disk.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    pub fn give_back_disk(&self, bytes: u64) {
        self.disk.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    /// A body got a file; whether it is its `first`.
    pub fn file_opened(&self, direction: Direction, first: bool) {
        self.files.fetch_add(1, Ordering::Relaxed);
        if first && let Some(cell) = self.spooled.get(direction as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn file_closed(&self) {
        self.files.fetch_sub(1, Ordering::Relaxed);
    }

    /// Files that are open.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes went into a file.
    pub fn wrote(&self, direction: Direction, bytes: u64) {
        if let Some(cell) = self.written.get(direction as usize) {
            cell.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// A body could not go into a file: `temp_limit`, a full disk, a failure.
    pub fn refused(&self, direction: Direction) {
        if let Some(cell) = self.refused.get(direction as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn spooled_total(&self, direction: Direction) -> u64 {
        self.spooled.get(direction as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub(super) fn written_total(&self, direction: Direction) -> u64 {
        self.written.get(direction as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    pub fn refused_total(&self, direction: Direction) -> u64 {
        self.refused.get(direction as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}
