//! Where in which file something was written, and which of it is secret.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// A file's text and the name it is reported under.
pub struct SourceFile {
    pub name: String,
    /// Secrets that stand in the file itself are masked here, byte for byte, so that places stay right.
    pub text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// What `${file:}` and `${credential:}` put where.
    secrets: Mutex<Vec<Secret>>,
    /// The contents of those files and credentials alone, in the order in which the file's values were read.
    drawn: Mutex<Vec<SecretString>>,
}

struct Secret {
    range: Range<usize>,
    value: SecretString,
}

impl SourceFile {
    /// `text` must already be masked, see `config/mask.rs`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let after = |(index, byte): (usize, u8)| (byte == b'\n').then(|| index.saturating_add(1));
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter_map(after)).collect();
        SourceFile { name: name.into(), text, lines, secrets: Mutex::default(), drawn: Mutex::default() }
    }

    /// Notes that the value written at `range` came out as `value`, which must never be shown.
    pub(super) fn keep_secret(&self, range: Range<usize>, value: &str) {
        let secret = Secret { range, value: SecretString::from(value) };
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret);
    }

    /// Notes what files and credentials held that a value was drawn from.
    pub(super) fn keep_drawn(&self, parts: Vec<SecretString>) {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).extend(parts);
    }

    /// What was noted, but for the first `before`.
    pub(super) fn drawn_since(&self, before: usize) -> Vec<String> {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.iter().skip(before).map(|part| part.expose_secret().to_owned()).collect()
    }

    /// How much was noted.
    pub(super) fn drawn(&self) -> usize {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// `text` without what any value of the file came out as that must never be shown. Short ones are cut out as whole
    /// words alone.
    pub(super) fn without_any_secret(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        without(text, secrets.iter().map(|secret| secret.value.expose_secret()))
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let (line, start) = self.line_at(offset);
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count().saturating_add(1))
    }

    /// The number of the line that holds a byte, from 1, and where it begins.
    pub(super) fn line_at(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line, start)
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
    /// its value in good faith. Values are quoted in backticks, and there a secret is cut out as a whole word; elsewhere
    /// only one that is too long to be a word of ours. The name of the key is no secret, even where its value is the same.
    pub(super) fn without_secrets(&self, message: String) -> String {
        let secrets = self.file.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let here = secrets.iter().filter(|secret| self.overlaps(&secret.range));
        let values: Vec<&str> =
            here.map(|secret| secret.value.expose_secret()).filter(|value| !value.is_empty()).collect();
        if values.is_empty() {
            return message;
        }
        let key = self.key();
        let parts = message.split('`').enumerate().map(|(index, part)| {
            let quoted = index % 2 == 1;
            if quoted && part == key {
                return part.to_owned();
            }
            values.iter().filter(|value| quoted || value.len() >= LONG).fold(part.to_owned(), |part, value| {
                cut_out(&cut_out(&part, value, quoted), &value.to_ascii_lowercase(), quoted)
            })
        });
        parts.collect::<Vec<_>>().join("`")
    }

    /// The key whose value this is, as the file has it.
    fn key(&self) -> &str {
        let before = self.file.text.get(..self.start).unwrap_or("");
        let before = before.rsplit_once('=').map_or("", |(before, _)| before.trim_end());
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        before.get(before.trim_end_matches(name).len()..).unwrap_or("")
    }

    fn overlaps(&self, range: &Range<usize>) -> bool {
        self.start < range.end && range.start < self.end
    }
}

/// A secret of so many bytes is cut out wherever it stands.
const LONG: usize = 16;

/// `text` without these secrets, short ones only where they are whole words.
pub fn without<'s>(text: &str, secrets: impl Iterator<Item = &'s str>) -> String {
    let secrets = secrets.filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| cut_out(&text, secret, secret.len() < LONG))
}

/// `text` without `secret`; where it counts `as_word` alone, letters and digits around it make another word of it.
fn cut_out(text: &str, secret: &str, as_word: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(secret) {
        out.push_str(before);
        let joined = out.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        out.push_str(if as_word && joined { secret } else { "(secret)" });
        rest = after;
    }
    out.push_str(rest);
    out
}

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.start == other.start && self.end == other.end
    }
}

impl Eq for Span {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::At;

    #[test]
    fn a_value_that_moved_is_the_same_unless_it_became_a_secret() {
        let file = Arc::new(SourceFile::new("p.toml", "a = \"x\"\nb = \"x\"\n"));
        file.keep_secret(12..17, "x");
        let at = |value: &str, start, end| At {
            value: value.to_owned(),
            span: Span { file: Arc::clone(&file), start, end },
        };
        assert!(at("x", 4, 7) == at("x", 0, 1));
        assert!(at("x", 4, 7) != at("y", 4, 7) && at("x", 4, 7) != at("x", 12, 15));
    }

    #[test]
    fn positions() {
        let file = SourceFile::new("test.toml", "a\n\u{e9}b\n\nc");
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(1), (1, 2));
        assert_eq!(file.position(2), (2, 1));
        assert_eq!(file.position(4), (2, 2));
        assert_eq!(file.position(6), (3, 1));
        assert_eq!(file.position(7), (4, 1));
        assert_eq!(file.position(8), (4, 2));
    }

    #[test]
    fn secrets_are_cut_out_of_messages_about_their_place() {
        let file = Arc::new(SourceFile::new("test.toml", "key = \"${file:x}\" other"));
        file.keep_secret(6..17, "Sesame");
        let secret = Span { file: Arc::clone(&file), start: 6, end: 17 };
        let other = Span { file, start: 18, end: 23 };
        assert!(secret.is_secret() && !other.is_secret());
        assert_eq!(
            secret.without_secrets("no `/Sesame` or `http://sesame:80`".into()),
            "no `/(secret)` or `http://(secret):80`"
        );
        assert_eq!(other.without_secrets("open `Sesame`".into()), "open `Sesame`");
    }

    #[test]
    fn our_own_words_are_no_secrets() {
        let told = |value: &str, message: &str| {
            let file = Arc::new(SourceFile::new("test.toml", "secret = \"***\""));
            file.keep_secret(9..14, value);
            Span { file, start: 9, end: 14 }.without_secrets(message.to_owned())
        };
        let short = "`secret` is too short for HS256";
        assert_eq!(told("short", short), short);
        assert_eq!(told("secret", short), short);
        assert_eq!(told("x", "64 hexadecimal digits behind `x`"), "64 hexadecimal digits behind `(secret)`");
        assert_eq!(told("0123456789abcdef", "not 0123456789abcdef0"), "not (secret)0");
    }
}
