//! How explanations put things.

use std::fmt::Write;
use std::time::SystemTime;

use crate::headers::Value;

/// A field's value, or what can be told of it.
pub(super) fn text<'v>(value: impl Into<Value<'v>>) -> String {
    String::from_utf8_lossy(value.into().as_bytes()).into_owned()
}

/// `a, b, c`
pub(super) fn listed<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{}", item.as_ref());
    }
    text
}

/// `1 field`, `2 fields`
pub(super) fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// As the file has sizes; a sum of two of very different size by its larger part.
pub(super) fn size(bytes: impl TryInto<u64>) -> String {
    let bytes = bytes.try_into().unwrap_or(u64::MAX);
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        let (whole, rest) = (bytes / unit, bytes % unit);
        if whole > 0 && (rest == 0 || (rest < unit / 100 && unit > 1 << 10)) {
            let about = if rest == 0 { "" } else { "a little over " };
            return format!("{about}{whole} {name}");
        }
    }
    format!("{bytes} bytes")
}

pub(super) fn ago(since: SystemTime) -> String {
    format!("{}s", since.elapsed().map_or(0, |since| since.as_secs()))
}

/// A URL or the target of a request line without its query, which may hold anything.
pub(super) fn without_query(target: &str) -> String {
    target.split_once('?').map_or_else(|| target.to_owned(), |(before, _)| format!("{before}?..."))
}

/// Without the user name and the password of each URL.
pub(crate) fn without_userinfo(text: &str) -> String {
    let mut parts = text.split("://");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        let (authority, rest) = part.split_at(part.find(['/', '?', '#']).unwrap_or(part.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{told}://{host}{rest}")
    })
}

/// What a terminal would take for a command is written out.
pub(super) fn printable(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => told.extend(char.escape_default()),
            false => told.push(char),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_left_out() {
        assert_eq!(without_userinfo("http://user:pass@w@a.example.com/b@c"), "http://a.example.com/b@c");
        assert_eq!(without_userinfo("http://a/http://u:p@b"), "http://a/http://b");
        assert_eq!(without_userinfo("/a@b"), "/a@b");
    }

    #[test]
    fn terminals_are_told_nothing() {
        assert_eq!(printable("caf\u{e9} \u{1b}[31m"), "caf\u{e9} \\u{1b}[31m");
    }
}
