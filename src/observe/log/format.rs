//! One event as one line of JSON or text.
//!
//! A value can hold whatever a client sent. So in both formats quotes, backslashes, control characters (line breaks
//! and the escape that begins a terminal's commands among them) and the characters that turn the direction of text
//! are written as escapes: a line is always one event, and looks like what it is.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::config::settings::LogFormat;
use crate::observe::access;
use crate::observe::timestamp::timestamp;

/// Bytes of one value, before escapes. Access records set tighter bounds of their own.
const LONGEST_VALUE: usize = 64 * 1024;

/// Appends the event and a line break.
pub(super) fn event(out: &mut Vec<u8>, event: &Event<'_>, format: LogFormat) {
    let metadata = event.metadata();
    match format {
        LogFormat::Json => {
            out.extend_from_slice(b"{\"timestamp\":\"");
            timestamp(out, SystemTime::now());
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(level(*metadata.level()).as_bytes());
            out.extend_from_slice(b"\",\"target\":\"");
            out.extend_from_slice(metadata.target().as_bytes());
            out.push(b'"');
            event.record(&mut JsonFields { out });
            out.extend_from_slice(b"}\n");
        }
        LogFormat::Text => {
            timestamp(out, SystemTime::now());
            // Of one width, so that what follows stands in columns.
            let _ = write!(out, " {:<5} {}:", level(*metadata.level()), metadata.target());
            event.record(&mut TextFields { out });
            out.push(b'\n');
        }
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The name of a field as it is written; raw identifiers lose their mark.
fn name(field: &Field) -> &'static str {
    field.name().trim_start_matches("r#")
}

/// Writes `,"name":value` for each field.
struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
}

impl JsonFields<'_> {
    fn key(&mut self, field: &Field) {
        self.out.extend_from_slice(b",\"");
        // Field names are ours and need no escapes.
        self.out.extend_from_slice(name(field).as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn display(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.key(field);
        self.out.push(b'"');
        Escaped::write(self.out, value);
        self.out.push(b'"');
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        self.out.push(b'"');
        Escaped::write_str(self.out, value);
        self.out.push(b'"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.key(field);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.key(field);
        if value.is_finite() {
            let _ = write!(self.out, "{value}");
        } else {
            self.out.extend_from_slice(b"null");
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.display(field, format_args!("{}", Chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.display(field, format_args!("{value:?}"));
    }
}

/// Writes ` message` and ` name=value`; a value that is not one plain word is quoted.
struct TextFields<'a> {
    out: &'a mut Vec<u8>,
}

impl TextFields<'_> {
    fn value(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.out.push(b' ');
        if field.name() == "message" {
            return Escaped::write(self.out, value);
        }
        self.out.extend_from_slice(name(field).as_bytes());
        self.out.extend_from_slice(b"=\"");
        let start = self.out.len();
        Escaped::write(self.out, value);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:@+*%,~[]".contains(byte);
        if self.out.len() > start && self.out.get(start..).is_some_and(|written| written.iter().all(plain)) {
            self.out.remove(start - 1);
        } else {
            self.out.push(b'"');
        }
    }
}

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, format_args!("{value}"));
    }

    /// `{:?}` would turn to exponents where a duration is short.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.value(field, format_args!("{}", Chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, format_args!("{value:?}"));
    }
}

/// An error and what it came from.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

/// Writes text with escapes, up to a bound.
struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

impl Escaped<'_> {
    fn write(out: &mut Vec<u8>, value: fmt::Arguments<'_>) {
        // It ends early when the bound is reached, or when a value cannot be displayed.
        let _ = Escaped { out, left: LONGEST_VALUE }.write_fmt(value);
    }

    fn write_str(out: &mut Vec<u8>, value: &str) {
        let _ = fmt::Write::write_str(&mut Escaped { out, left: LONGEST_VALUE }, value);
    }

    fn escape(&mut self, character: char) {
        match character {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            // All that `is_hidden` names lie in the first plane, so that four digits are enough.
            _ => {
                let _ = write!(self.out, "\\u{:04x}", u32::from(character));
            }
        }
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let whole = access::cut(text, self.left);
        self.left -= whole.len();
        let mut rest = whole;
        while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
            let (plain, odd) = rest.split_at(at);
            self.out.extend_from_slice(plain.as_bytes());
            let mut characters = odd.chars();
            if let Some(character) = characters.next() {
                if matches!(character, '"' | '\\') || is_hidden(character) {
                    self.escape(character);
                } else {
                    self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            rest = characters.as_str();
        }
        self.out.extend_from_slice(rest.as_bytes());
        if whole.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Whether a byte stands for itself, and for a whole character.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Control characters, line separators, and what turns or hides text.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        Escaped::write_str(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_stays() {
        assert_eq!(escaped("/orders/1?a=b&c 'd'"), "/orders/1?a=b&c 'd'");
        assert_eq!(escaped("größe 漢字 🦀"), "größe 漢字 🦀");
    }

    #[test]
    fn nothing_breaks_out() {
        assert_eq!(escaped("a\"b\\c\r\nd\te"), r#"a\"b\\c\r\nd\te"#);
        assert_eq!(escaped("\u{1b}[2J\0\u{7f}"), r"\u001b[2J\u0000\u007f");
        // The C1 control that is the escape and bracket in one, and a line separator.
        assert_eq!(escaped("\u{9b}x\u{85}\u{2028}"), r"\u009bx\u0085\u2028");
        assert_eq!(escaped("user\u{202e}gpj.exe\u{2066}"), r"user\u202egpj.exe\u2066");
    }

    #[test]
    fn escapes_are_json() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        let read: String = serde_json::from_str(&format!("\"{}\"", escaped(&all))).unwrap();
        assert_eq!(read, all);
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let written = escaped(&"é".repeat(LONGEST_VALUE));
        assert_eq!(written.len(), LONGEST_VALUE);
        let mut out = Vec::new();
        Escaped::write(&mut out, format_args!("{}{}", "x".repeat(LONGEST_VALUE - 1), "éé"));
        assert_eq!(out.len(), LONGEST_VALUE - 1);
    }
}
