//! What processes write, on its way into the log: line by line with app and process, tracebacks as one, secrets masked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncRead;

use super::App;
use super::failure::LAST_LINES;
use super::launch::Launch;
use super::process::BoundedLines;
use super::records::{Record, Records};
use crate::config::source::without;
use crate::observe::log::APPS;

/// A traceback that has not ended after this is told as far as it came.
const SETTLE: Duration = Duration::from_millis(200);

/// The last lines of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    pub(super) fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(super) fn to_vec(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// `line`, or several, as it may be shown: without what of the app's variables is secret.
pub(super) fn shown(app: &App, line: &str) -> String {
    without(line, app.settings.secret_values().into_iter())
}

/// Logs what comes out of `written`, a worker's own words, to its end.
pub(super) async fn log(launch: Arc<Launch>, pid: i32, written: impl AsyncRead + Unpin, last: LastLines) {
    let (app, release) = (&launch.app, launch.release);
    let mut lines = BoundedLines::new(written);
    let mut records = Records::default();
    let tell = |records: Vec<Record>| {
        for record in records {
            match record {
                Record::Line(text) if text.trim().is_empty() => {}
                Record::Line(text) => tracing::info!(target: APPS, app = &*app.name, release, pid, "{text}"),
                // However quiet it is to be.
                Record::Traceback(text) => tracing::info!(app = &*app.name, release, pid, "{text}"),
            }
        }
    };
    loop {
        let next = if records.is_empty() {
            lines.next().await
        } else {
            match tokio::time::timeout(SETTLE, lines.next()).await {
                Ok(next) => next,
                Err(_) => {
                    tell(records.flush());
                    continue;
                }
            }
        };
        let Some(line) = next else {
            tell(records.flush());
            return;
        };
        let line = shown(app, &line);
        last.push(line.clone());
        launch.said.push(line.clone());
        tell(records.push(&line));
    }
}
