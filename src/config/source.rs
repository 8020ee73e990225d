//! Where in which file something was written, and which of it is secret.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// A file's text and the name it is reported under.
pub struct SourceFile {
    pub name: String,
    /// Secrets that stand in the file itself are masked here, byte for byte, so that places stay right.
    pub text: String,
    /// What `${file:}` and `${credential:}` put where.
    secrets: Mutex<Vec<Secret>>,
}

struct Secret {
    range: Range<usize>,
    value: SecretString,
}

impl SourceFile {
    /// `text` must already be masked, see [`super::mask`].
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        SourceFile { name: name.into(), text: text.into(), secrets: Mutex::default() }
    }

    /// Notes that the value written at `range` came out as `value`, which must never be shown.
    pub(super) fn keep_secret(&self, range: Range<usize>, value: &str) {
        let secret = Secret { range, value: SecretString::from(value) };
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret);
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
        let line = before.bytes().filter(|byte| *byte == b'\n').count().saturating_add(1);
        let column = before.get(line_start..).unwrap_or("").chars().count().saturating_add(1);
        (line, column)
    }
}

/// Leaves the text out: it may be long.
impl std::fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stretch of a source file, in bytes. An empty one at the start means the file as a whole.
#[derive(Clone, Debug)]
pub struct Span {
    pub file: Arc<SourceFile>,
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn whole_file(file: &Arc<SourceFile>) -> Span {
        Span { file: Arc::clone(file), start: 0, end: 0 }
    }

    pub fn is_whole_file(&self) -> bool {
        self.end == 0
    }

    /// Whether what is written here was drawn from a secret source, or stands in a secret position: what it came out
    /// as must not be logged, shown in `/status` or used as a label.
    pub fn is_secret(&self) -> bool {
        let secrets = self.file.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().any(|secret| self.overlaps(&secret.range))
    }

    /// `message` without the secrets that this place came out as: whoever complains about a place may have quoted
    /// its value in good faith.
    pub(super) fn without_secrets(&self, message: String) -> String {
        let secrets = self.file.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().filter(|secret| self.overlaps(&secret.range)).fold(message, |message, secret| {
            let value = secret.value.expose_secret();
            if value.is_empty() {
                return message;
            }
            message.replace(value, "(secret)").replace(&value.to_ascii_lowercase(), "(secret)")
        })
    }

    fn overlaps(&self, range: &Range<usize>) -> bool {
        self.start < range.end && range.start < self.end
    }
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.start == other.start && self.end == other.end
    }
}

impl Eq for Span {}
