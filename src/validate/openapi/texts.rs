//! The texts of a request that parameters and fields of forms are read from, as the frameworks behind us read them. Where
//! those differ there is a text for each reading, and every one is judged.

use std::borrow::Cow;

use http::{HeaderName, header};
use percent_encoding::percent_decode;

use crate::headers::{Headers, Value};

/// Names and values, decoded.
pub(super) type List<'r> = Vec<(Cow<'r, str>, Cow<'r, str>)>;

/// What a query holds.
#[derive(Default)]
pub(super) struct Query<'r> {
    pub(super) list: List<'r>,
    /// The names of values that are not UTF-8: some read them as replacement characters, others leave them encoded.
    pub(super) malformed: Vec<Cow<'r, str>>,
}

impl<'r> Query<'r> {
    pub(super) fn read(text: &'r [u8]) -> Query<'r> {
        let mut query = Query::default();
        for (name, value) in urlencoded(text) {
            match value {
                Some(value) => query.list.push((name, value)),
                None => query.malformed.push(name),
            }
        }
        query
    }
}

/// The pairs of an `application/x-www-form-urlencoded` text; a value is `None` where it is not UTF-8.
pub(super) fn urlencoded(text: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = split_once(pair, b'=').unwrap_or((pair, &[]));
        let name = match decoded(name) {
            Cow::Borrowed(name) => String::from_utf8_lossy(name),
            Cow::Owned(name) => Cow::Owned(String::from_utf8_lossy(&name).into_owned()),
        };
        let value = match decoded(value) {
            Cow::Borrowed(value) => std::str::from_utf8(value).ok().map(Cow::Borrowed),
            Cow::Owned(value) => String::from_utf8(value).ok().map(Cow::Owned),
        };
        (name, value)
    })
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = memchr::memchr(at, text)?;
    Some((text.get(..found)?, text.get(found.saturating_add(1)..)?))
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// The lines of a field, each for itself, then what all of them are together: ASGI servers hand on the lines, of which a
/// single value is the first; WSGI has one text, joined. Bytes are read as Latin-1, as both do.
pub(super) fn lines<'r>(headers: &'r Headers, name: &HeaderName) -> Vec<Cow<'r, str>> {
    let mut lines: Vec<Cow<'r, str>> = headers.get_all(name).map(latin_1).collect();
    if lines.len() > 1 {
        lines.push(Cow::Owned(lines.join(",")));
    }
    lines
}

fn latin_1(value: Value<'_>) -> Cow<'_, str> {
    let characters = || value.as_bytes().iter().copied().map(char::from).collect();
    value.to_str().map_or_else(|_| Cow::Owned(characters()), Cow::Borrowed)
}

/// Whether all cookies are in one field. Of several, some servers read the first, and others join them by commas, so
/// that what follows a comma is part of a cookie's value.
pub(super) fn cookies_are_in_one_field(headers: &Headers) -> bool {
    headers.get_all(header::COOKIE).nth(1).is_none()
}

/// Every cookie; values as Python's `http.cookies` reads them: not percent-decoded, quotes taken off, escapes undone.
/// What is not ASCII then is Latin-1 to some frameworks and UTF-8 to others.
pub(super) fn cookies(headers: &Headers) -> List<'_> {
    let mut cookies = List::new();
    for line in headers.get_all(header::COOKIE) {
        for pair in latin_1(line).split(';') {
            let (name, value) = pair.split_once('=').unwrap_or(("", pair));
            let (name, value) = (name.trim().to_owned(), unquoted(value.trim()));
            if !(name.is_ascii() && value.is_ascii())
                && let (Some(name), Some(value)) = (as_utf_8(&name), as_utf_8(&value))
            {
                cookies.push((Cow::Owned(name), Cow::Owned(value)));
            }
            cookies.push((Cow::Owned(name), Cow::Owned(value)));
        }
    }
    cookies
}

/// What was read as Latin-1, read again.
fn as_utf_8(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|character| u8::try_from(character).ok()).collect();
    String::from_utf8(bytes?).ok()
}

/// `"a\054b"` is `a,b`, and `"\x"` is `x`.
fn unquoted(value: &str) -> String {
    let Some(mut rest) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(rest.len());
    while let Some((before, escaped)) = rest.split_once('\\') {
        text.push_str(before);
        let octal = escaped.get(..3).filter(|digits| digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)));
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                text.push(char::from(code));
                rest = escaped.get(3..).unwrap_or_default();
            }
            None => {
                let mut characters = escaped.chars();
                // A backslash at the end stands for itself.
                text.push(characters.next().unwrap_or('\\'));
                rest = characters.as_str();
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_what_python_reads() {
        let read = |line: &[u8]| {
            let headers = Headers::from_iter([(header::COOKIE, HeaderValue::from_bytes(line).unwrap())]);
            let list = cookies(&headers).into_iter();
            list.map(|(name, value)| (name.into_owned(), value.into_owned())).collect::<Vec<_>>()
        };
        for (written, value) in [
            ("plain", "plain"),
            ("\"quoted\"", "quoted"),
            ("\"\\074script\\076\"", "<script>"),
            ("\"a\\\"b\\\\c\\xd\"", "a\"b\\cxd"),
            ("\"\\400\\38\"", "40038"),
            ("\"a\\\"", "a\\"),
            ("\\074", "\\074"),
            ("\"", "\""),
            ("\"\"", ""),
            ("%3C", "%3C"),
        ] {
            let line = format!("a = {written} ; b");
            let expected = [("a".to_owned(), value.to_owned()), (String::new(), "b".to_owned())];
            assert_eq!(read(line.as_bytes()), expected, "{written}");
        }
        for line in [&b"a=\xc3\xbc"[..], b"a=\"\\303\\274\""] {
            assert_eq!(read(line).into_iter().map(|(_, value)| value).collect::<Vec<_>>(), ["ü", "\u{c3}\u{bc}"]);
        }
        assert_eq!(read(b"a=\xfc").len(), 1);
    }

    #[test]
    fn what_is_not_utf_8_is_not_made_up() {
        let query = Query::read(b"a=%C3%BC+x&&b=%FF&c=%GG&=1&d&%FF=e+");
        let list: Vec<_> = query.list.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(list, [("a", "ü x"), ("c", "%GG"), ("", "1"), ("d", ""), ("\u{fffd}", "e ")]);
        assert_eq!(query.malformed, ["b"]);
    }
}
