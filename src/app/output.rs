//! What processes write, on its way into the log: line by line with app and process, tracebacks as one, secrets masked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncRead;

use super::App;
use super::environ;
use super::failure::LAST_LINES;
use super::process::BoundedLines;
use super::records::{Record, Records};

/// A traceback that has not ended after this is told as far as it came.
const SETTLE: Duration = Duration::from_millis(200);

const MASK: &str = "(secret)";

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

/// What must not be shown of an app's words: values of its variables.
#[derive(Clone)]
pub(super) struct Mask(Arc<[String]>);

impl Mask {
    pub(super) fn of(app: &App) -> Mask {
        Mask(environ::secrets(&app.settings).into_iter().map(str::to_owned).collect())
    }

    pub(super) fn apply(&self, line: &str) -> String {
        let mut masked = line.to_owned();
        for secret in self.0.iter().filter(|secret| line.contains(secret.as_str())) {
            masked = masked.replace(secret.as_str(), MASK);
        }
        masked
    }
}

/// Logs what comes out of `written`, to its end.
pub(super) async fn log(app: Arc<App>, release: u64, pid: i32, written: impl AsyncRead + Unpin, last: LastLines) {
    let mask = Mask::of(&app);
    let mut lines = BoundedLines::new(written);
    let mut records = Records::default();
    let tell = |records: Vec<Record>| {
        for record in records {
            let (Record::Line(text) | Record::Traceback(text)) = record;
            if !text.trim().is_empty() {
                tracing::info!(app = &*app.name, release, pid, "{text}");
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
        let line = mask.apply(&line);
        last.push(line.clone());
        tell(records.push(&line));
    }
}
