//! What a release is just doing: into the log, and to whoever follows it.

use std::sync::Arc;

use tokio::sync::broadcast;

/// Lines that a slow follower may be behind before it loses some.
const BEHIND: usize = 1024;

/// One for each app.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    app: Arc<str>,
    lines: broadcast::Sender<Arc<str>>,
}

impl Progress {
    pub(super) fn new(app: &Arc<str>) -> Progress {
        Progress { app: Arc::clone(app), lines: broadcast::Sender::new(BEHIND) }
    }

    /// A step that begins or is done.
    pub(super) fn step(&self, line: impl Into<String>) {
        let line = line.into();
        tracing::info!(app = &*self.app, "{line}");
        self.line(&line);
    }

    /// A line of an installer's or a hook's own, which is too much for the log unless something goes wrong.
    pub(super) fn line(&self, line: &str) {
        // Mostly nobody follows.
        let _ = self.lines.send(Arc::from(line));
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<str>> {
        self.lines.subscribe()
    }
}
