//! Where log lines go: format, level, reopening, and a writer that never holds up a request.
//!
//! Everything that is logged is a `tracing` event. [`init`] installs one layer that formats an event into a buffer of
//! its thread and hands the line to a bounded queue; a thread of its own writes what the queue holds. When the output
//! is slower than it is logged, lines are lost and counted, and no request waits.

mod format;
mod layer;
mod writer;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;

use self::layer::LogLayer;
use self::writer::{Queue, Writer};
use super::metrics::Metrics;
use crate::config::settings::{LogFormat, LogLevel, LogOutput, LogSettings};

/// What apps write themselves is logged under this target.
pub const APPS: &str = "passerelle::app::output";

/// Installs the log for the whole process.
///
/// # Errors
/// The output cannot be opened, or there is a log already.
pub fn init(settings: &LogSettings, metrics: Arc<Metrics>) -> Result<Guard, LogError> {
    let live = Arc::new(Live::default());
    let sink = Sink::open(&settings.output)?;
    live.set(settings, &sink);
    let (queue, writer) = writer::start(sink, metrics).map_err(LogError::Thread)?;
    let layer = LogLayer::new(Arc::clone(&live), queue.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadyInstalled)?;
    Ok(Guard { log: Log { live, queue }, writer })
}

/// Why logging cannot begin or change.
#[derive(Debug)]
pub enum LogError {
    Open { path: PathBuf, error: io::Error },
    Standard(io::Error),
    Thread(io::Error),
    AlreadyInstalled,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Open { path, error } if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "the log file {} cannot be created: its directory does not exist", path.display())
            }
            LogError::Open { path, error } => write!(f, "the log file {} cannot be opened: {error}", path.display()),
            LogError::Standard(error) => write!(f, "the standard output cannot be logged to: {error}"),
            LogError::Thread(error) => write!(f, "the thread that writes the log cannot be started: {error}"),
            LogError::AlreadyInstalled => write!(f, "a log is installed already"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LogError::Open { error, .. } | LogError::Standard(error) | LogError::Thread(error) => Some(error),
            LogError::AlreadyInstalled => None,
        }
    }
}

/// Writes out what is queued when it is dropped, waiting two seconds at most for a stuck output.
#[must_use]
pub struct Guard {
    log: Log,
    writer: Writer,
}

impl Guard {
    /// For those who change the log while the process runs.
    pub fn log(&self) -> Log {
        self.log.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.writer.stop(&self.log.queue);
    }
}

/// The installed log.
#[derive(Clone)]
pub struct Log {
    live: Arc<Live>,
    queue: Queue,
}

impl Log {
    /// Opens a log file anew under its name, after it was renamed: for SIGUSR1. Lines go to the old file until the new
    /// one is open, and stay there when it cannot be opened.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Whether what apps write themselves is left out. What went wrong is told by others.
    pub fn hush(&self, hushed: bool) {
        self.live.hushed.store(hushed, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Puts the `[log]` of a new configuration in force.
    ///
    /// # Errors
    /// The output cannot be opened; nothing has changed then.
    pub fn apply(&self, settings: &LogSettings) -> Result<(), LogError> {
        let sink = Sink::open(&settings.output)?;
        self.live.set(settings, &sink);
        self.queue.write_to(sink);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

/// What the layer asks on each event. Changes with the configuration, hence atomics.
#[derive(Debug, Default)]
struct Live {
    level: AtomicU8,
    access: AtomicBool,
    text: AtomicBool,
    hushed: AtomicBool,
}

impl Live {
    fn set(&self, settings: &LogSettings, sink: &Sink) {
        let level = match settings.level {
            LogLevel::Error => 0,
            LogLevel::Warn => 1,
            LogLevel::Info => 2,
            LogLevel::Debug => 3,
        };
        let format = settings.format.unwrap_or(if sink.terminal { LogFormat::Text } else { LogFormat::Json });
        self.level.store(level, Ordering::Relaxed);
        self.access.store(settings.access, Ordering::Relaxed);
        self.text.store(format == LogFormat::Text, Ordering::Relaxed);
    }

    fn hushed(&self) -> bool {
        self.hushed.load(Ordering::Relaxed)
    }

    fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::ERROR,
            1 => Level::WARN,
            2 => Level::INFO,
            _ => Level::DEBUG,
        }
    }

    fn access(&self) -> bool {
        self.access.load(Ordering::Relaxed)
    }

    fn format(&self) -> LogFormat {
        if self.text.load(Ordering::Relaxed) { LogFormat::Text } else { LogFormat::Json }
    }
}

/// An open output.
#[derive(Debug)]
struct Sink {
    file: File,
    /// `None` for what cannot be opened again.
    path: Option<PathBuf>,
    terminal: bool,
}

impl Sink {
    fn open(output: &LogOutput) -> Result<Sink, LogError> {
        match output {
            LogOutput::Stdout => Sink::standard(io::stdout()),
            LogOutput::Stderr => Sink::standard(io::stderr()),
            LogOutput::File(path) => Sink::file(path).map_err(|error| LogError::Open { path: path.clone(), error }),
        }
    }

    /// A descriptor of its own, so that no lock of the standard library's is in the way.
    fn standard(stream: impl AsFd + IsTerminal) -> Result<Sink, LogError> {
        let file = File::from(stream.as_fd().try_clone_to_owned().map_err(LogError::Standard)?);
        Ok(Sink { file, path: None, terminal: stream.is_terminal() })
    }

    fn file(path: &Path) -> io::Result<Sink> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Sink { file, path: Some(path.to_owned()), terminal: false })
    }
}

#[cfg(test)]
mod tests;
