//! The queue of lines, and the thread that writes them.
//!
//! The thread sleeps while there is nothing to write. Woken by a line, it waits a few milliseconds for more before it
//! writes them all at once: under load that is a handful of system calls instead of one wake-up and one write for
//! each request.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Sink;
use crate::observe::metrics::{LogLoss, Metrics};

/// Lines that may wait.
const MOST_LINES: usize = 16 * 1024;
/// Bytes that may wait.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that are written at once.
const BATCH: usize = 256 * 1024;
/// How long more lines are waited for.
const GATHER: Duration = Duration::from_millis(5);
/// How long a stuck output may delay the end of the process.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often, and after what pause, an output that is not ready is tried again.
const RETRIES: u32 = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Starts the thread.
pub(super) fn start(sink: Sink, metrics: Arc<Metrics>) -> io::Result<(Queue, Writer)> {
    let (sender, lines) = sync_channel(MOST_LINES);
    let (done, ended) = channel::<()>();
    let shared = Arc::new(Shared {
        bytes: AtomicUsize::new(0),
        reopen: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        sink: Mutex::new(None),
        metrics,
    });
    let output = Output { sink, shared: Arc::clone(&shared), lines, batch: Vec::with_capacity(BATCH), torn: false };
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        output.run();
        drop(done);
    })?;
    Ok((Queue { sender, shared }, Writer { ended }))
}

/// Where lines are handed in.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

enum Message {
    /// With its line break.
    Line(Box<[u8]>),
    /// Something other than a line is waiting.
    Wake,
}

struct Shared {
    /// Of the lines in the queue.
    bytes: AtomicUsize,
    reopen: AtomicBool,
    stop: AtomicBool,
    /// The output of a new configuration.
    sink: Mutex<Option<Sink>>,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// Never waits; a line that finds no room is lost and counted.
    pub(super) fn push(&self, line: &[u8]) {
        let before = self.shared.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let full = before.saturating_add(line.len()) > MOST_BYTES
            || self.sender.try_send(Message::Line(Box::from(line))).is_err();
        if full {
            self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.shared.metrics.log_lost(LogLoss::QueueFull, 1);
        }
    }

    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// From now on, lines go to `sink`.
    pub(super) fn write_to(&self, sink: Sink) {
        *self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
        self.wake();
    }

    fn wake(&self) {
        match self.sender.try_send(Message::Wake) {
            Ok(()) => {}
            // It is awake, or gone.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The running thread.
pub(super) struct Writer {
    ended: Receiver<()>,
}

impl Writer {
    /// Has everything written that is in the queue.
    pub(super) fn stop(&self, queue: &Queue) {
        queue.shared.stop.store(true, Ordering::Release);
        queue.wake();
        match self.ended.recv_timeout(LAST_WAIT) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What the thread works on.
struct Output {
    sink: Sink,
    shared: Arc<Shared>,
    lines: Receiver<Message>,
    batch: Vec<u8>,
    /// A write failed within a line.
    torn: bool,
}

impl Output {
    fn run(mut self) {
        while let Ok(first) = self.lines.recv() {
            if !self.shared.stop.load(Ordering::Acquire) && matches!(first, Message::Line(_)) {
                thread::sleep(GATHER);
            }
            // Asked before the queue is emptied: what was logged before the stop is written.
            let stop = self.shared.stop.load(Ordering::Acquire);
            self.take(first);
            while let Ok(message) = self.lines.try_recv() {
                self.take(message);
            }
            self.write_batch();
            self.change_sink();
            if stop {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Wake => {}
            Message::Line(line) => {
                self.batch.extend_from_slice(&line);
                self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                if self.batch.len() >= BATCH {
                    self.write_batch();
                }
            }
        }
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.torn {
            // What is left of a line must not swallow the next.
            self.batch.insert(0, b'\n');
        }
        let written = write_as_far_as_possible(&mut self.sink.file, &self.batch);
        let rest = self.batch.get(written..).unwrap_or_default();
        if rest.is_empty() {
            self.torn = false;
        } else {
            let lost = rest.iter().filter(|byte| **byte == b'\n').count();
            // A line break put before the lines is none of theirs.
            let lost = if self.torn && written == 0 { lost.saturating_sub(1) } else { lost };
            self.shared.metrics.log_lost(LogLoss::WriteFailed, u64::try_from(lost).unwrap_or(u64::MAX));
            let end = self.batch.get(..written).unwrap_or_default().last();
            self.torn = match end {
                Some(byte) => *byte != b'\n',
                None => self.torn,
            };
        }
        self.batch.clear();
    }

    fn change_sink(&mut self) {
        if let Some(sink) = self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.sink = sink;
            self.torn = false;
        }
        if !self.shared.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(path) = &self.sink.path else { return };
        match Sink::file(path) {
            Ok(sink) => {
                self.sink = sink;
                self.torn = false;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the log file could not be opened again");
            }
        }
    }
}

/// Returns how many bytes were written before an error that lasts. A full disk may have room later, a pipe that nobody
/// reads may find a reader: the next batch is tried again.
fn write_as_far_as_possible(file: &mut File, bytes: &[u8]) -> usize {
    let mut written = 0;
    let mut patience = RETRIES;
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match file.write(rest) {
            Ok(0) => break,
            Ok(more) => {
                written += more;
                patience = RETRIES;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the output has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                patience -= 1;
                thread::sleep(RETRY_PAUSE);
            }
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(path: &std::path::Path) -> Sink {
        Sink::file(path).unwrap()
    }

    #[test]
    fn everything_is_written_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let metrics = Metrics::new(1);
        let (queue, writer) = start(file(&path), Arc::clone(&metrics)).unwrap();
        for number in 0..5000 {
            queue.push(format!("{number}\n").as_bytes());
        }
        writer.stop(&queue);
        let expected: String = (0..5000).map(|number| format!("{number}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(metrics.log_lost_total(LogLoss::QueueFull), 0);
        assert_eq!(queue.shared.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_renamed_file_is_opened_anew_without_loss() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let (queue, writer) = start(file(&path), Metrics::new(1)).unwrap();
        queue.push(b"one\n");
        fs::rename(&path, &old).unwrap_or_else(|error| panic!("{error}"));
        queue.reopen();
        while !path.exists() {
            thread::yield_now();
        }
        queue.push(b"two\n");
        writer.stop(&queue);
        assert_eq!(fs::read_to_string(&old).unwrap() + &fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("d/log"), directory.path().join("e"));
        fs::create_dir(directory.path().join("d")).unwrap();
        let (queue, writer) = start(file(&path), Metrics::new(1)).unwrap();
        fs::rename(directory.path().join("d"), &moved).unwrap();
        queue.reopen();
        queue.push(b"still here\n");
        writer.stop(&queue);
        assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "still here\n");
    }

    #[test]
    fn another_output_takes_over() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("a"), directory.path().join("b"));
        let (queue, writer) = start(file(&first), Metrics::new(1)).unwrap();
        queue.write_to(file(&second));
        while queue.shared.sink.lock().unwrap().is_some() {
            thread::yield_now();
        }
        queue.push(b"over\n");
        writer.stop(&queue);
        assert_eq!(fs::read_to_string(&first).unwrap(), "");
        assert_eq!(fs::read_to_string(&second).unwrap(), "over\n");
    }

    #[test]
    fn a_stuck_pipe_loses_lines_and_delays_nobody() {
        let (reader, pipe) = io::pipe().unwrap();
        let sink = Sink { file: File::from(std::os::fd::OwnedFd::from(pipe)), path: None, terminal: false };
        let metrics = Metrics::new(1);
        let (queue, _writer) = start(sink, Arc::clone(&metrics)).unwrap();
        let line = [b'x'; 4096];
        for _ in 0..3 * MOST_BYTES / line.len() {
            queue.push(&line);
        }
        assert!(metrics.log_lost_total(LogLoss::QueueFull) > 0);
        assert!(queue.shared.bytes.load(Ordering::Relaxed) <= MOST_BYTES);
        drop(reader);
    }

    #[test]
    fn a_full_disk_is_counted() {
        let metrics = Metrics::new(1);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (queue, writer) = start(Sink { file: full, path: None, terminal: false }, Arc::clone(&metrics)).unwrap();
        queue.push(b"one\n");
        queue.push(b"two\n");
        writer.stop(&queue);
        assert_eq!(metrics.log_lost_total(LogLoss::WriteFailed), 2);
    }
}
