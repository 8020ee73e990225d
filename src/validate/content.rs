//! What a request says of its body: its type and its coding (RFC 9110 sections 8.3 and 8.4).

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};

use crate::headers::Headers;
use crate::http1::connection::tokens;
use crate::request::rejection::{Cause, Rejection};

/// A `Content-Type`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// As they stand, with the semicolon before each; of the right form.
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    /// `None`: it is not of the form of RFC 9110 section 8.3.1.
    pub fn parse(text: &'a str) -> Option<MediaType<'a>> {
        let text = text.trim_matches([' ', '\t']);
        let (essence, parameters) = match text.find(';') {
            Some(at) => text.split_at_checked(at)?,
            None => (text, ""),
        };
        let (kind, subtype) = essence.trim_end_matches([' ', '\t']).split_once('/')?;
        let parsed = MediaType { kind, subtype, parameters };
        let mut names = Vec::new();
        let whole = is_token(kind) && is_token(subtype) && parsed.read_parameters(|name, _| names.push(name));
        (whole && are_clear(names)).then_some(parsed)
    }

    /// Whether it is `essence`, whatever its parameters are.
    pub fn is(&self, essence: &str) -> bool {
        essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| self.is_kind(kind) && self.subtype.eq_ignore_ascii_case(subtype))
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }

    /// `application/json`, `text/json` and whatever ends in `+json`.
    pub fn is_json(&self) -> bool {
        ends_with(self.subtype, "+json")
            || ((self.is_kind("application") || self.is_kind("text")) && self.subtype.eq_ignore_ascii_case("json"))
    }

    /// What HTML's forms are sent as.
    pub fn is_form(&self) -> bool {
        self.is("application/x-www-form-urlencoded") || self.is("multipart/form-data")
    }

    /// Whether its text is UTF-8, or says nothing of what it is.
    pub fn is_utf8(&self) -> bool {
        let known = |charset: &str| ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
        self.parameter("charset").is_none_or(|charset| known(&charset))
    }

    /// The value of a parameter, unquoted.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut found = None;
        self.read_parameters(|key, value| {
            if found.is_none() && key.eq_ignore_ascii_case(name) {
                found = Some(value);
            }
        });
        found
    }

    /// Lower case, without parameters.
    pub fn essence(&self) -> String {
        format!("{}/{}", self.kind, self.subtype).to_ascii_lowercase()
    }

    /// Whether all are of the right form.
    fn read_parameters(&self, mut each: impl FnMut(&'a str, Cow<'a, str>)) -> bool {
        const BLANK: [char; 2] = [' ', '\t'];
        let mut rest = self.parameters;
        while let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start_matches(BLANK);
            // RFC 9110 section 5.6.6 lets a parameter be empty.
            if rest.is_empty() || rest.starts_with(';') {
                continue;
            }
            let Some((name, after)) = rest.split_once('=') else { return false };
            if !is_token(name) {
                return false;
            }
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => match unquote(quoted, name.eq_ignore_ascii_case("filename")) {
                    Some(read) => read,
                    None => return false,
                },
                None => {
                    let end = after.find([';', ' ', '\t']).unwrap_or(after.len());
                    let Some((value, after)) = after.split_at_checked(end) else { return false };
                    if !is_token(value) {
                        return false;
                    }
                    (Cow::Borrowed(value), after)
                }
            };
            each(name, value);
            rest = after.trim_start_matches(BLANK);
        }
        rest.is_empty()
    }
}

/// Whether every reader finds the same parameters: none comes twice, of which some take the first and others the last,
/// and none is written as RFC 2231 has it, where to some `name*0` is a `name`. File names often are; nothing is judged
/// by them.
fn are_clear(names: Vec<&str>) -> bool {
    if names.iter().any(|name| name.contains('*') && !name.eq_ignore_ascii_case("filename*")) {
        return false;
    }
    if names.len() < 2 {
        return true;
    }
    let mut names: Vec<String> = names.into_iter().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.windows(2).all(|two| two.first() != two.last())
}

/// What stands up to the closing quote, and what follows it (RFC 9110 section 5.6.4). No backslash stands before that
/// quote: Python's `email`, which many frameworks read this with, would look for the end further on. To it, a backslash
/// before anything but a quote and itself is one that stays, so there is none, unless the text is `loose`: names of
/// files may have some, and nothing is judged by them.
fn unquote(text: &str, loose: bool) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if at.checked_sub(1).and_then(|before| text.as_bytes().get(before)) == Some(&b'\\') => return None,
            '"' => return Some((Cow::Owned(value), text.get(at.checked_add(1)?..)?)),
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\\') => value.push(escaped),
                escaped if loose => value.push(escaped),
                _ => return None,
            },
            '\t' => value.push('\t'),
            character if character.is_ascii_control() => return None,
            character => value.push(character),
        }
    }
    None
}

/// Case does not matter.
fn ends_with(text: &str, suffix: &str) -> bool {
    let end = text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

/// What is said of a body's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated<'a> {
    Nothing,
    Type(MediaType<'a>),
    /// Malformed, or more than one.
    Unclear,
}

/// The only `Content-Type`.
pub fn stated(headers: &Headers) -> Stated<'_> {
    let mut values = headers.get_all(CONTENT_TYPE);
    match (values.next(), values.next()) {
        (None, _) => Stated::Nothing,
        (Some(value), None) => {
            let parsed = std::str::from_utf8(value.as_bytes()).ok().and_then(MediaType::parse);
            parsed.map_or(Stated::Unclear, Stated::Type)
        }
        (Some(_), Some(_)) => Stated::Unclear,
    }
}

/// Whether a body is coded in any way: then nobody can look into it.
pub fn is_coded(headers: &Headers) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).flat_map(|line| tokens(line.as_bytes()));
    codings.into_iter().any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// 415; the client is told which coding is taken (RFC 9110 section 15.5.16).
pub fn refuse_coded() -> Rejection {
    Rejection::from(Cause::CodedBody).with_fields([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

/// The types that a route takes.
#[derive(Clone, Debug)]
pub struct Types {
    /// Kind and subtype, lower case; a subtype's `*` stands for any beginning.
    list: Vec<(String, String)>,
    /// The same, for clients.
    accept: Option<HeaderValue>,
}

impl Types {
    /// From settings such as `application/json`, `image/*` and `application/*+json`.
    pub fn new<'s>(types: impl IntoIterator<Item = &'s str>) -> Types {
        let list: Vec<(String, String)> = types
            .into_iter()
            .filter_map(|text| text.split_once('/').map(|(kind, subtype)| (kind.to_owned(), subtype.to_owned())))
            .collect();
        let written: Vec<String> = list.iter().map(|(kind, subtype)| format!("{kind}/{subtype}")).collect();
        Types { accept: HeaderValue::try_from(written.join(", ")).ok(), list }
    }

    pub fn take(&self, stated: &MediaType<'_>) -> bool {
        self.list.iter().any(|(kind, subtype)| {
            let fits = match subtype.strip_prefix('*') {
                Some(suffix) => ends_with(stated.subtype, suffix),
                None => stated.subtype.eq_ignore_ascii_case(subtype),
            };
            fits && stated.is_kind(kind)
        })
    }

    /// 415; the client is told what is taken (RFC 9110 section 15.5.16).
    pub fn refuse(&self, why: &str) -> Rejection {
        let accept = self.accept.clone().map(|accept| (ACCEPT, accept));
        Rejection::from(Cause::UnsupportedMediaType).with_fields(accept).with_detail(why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_rfc_9110_says() {
        for (text, json) in [
            ("application/json", true),
            ("APPLICATION/Json ; charset=UTF-8", true),
            ("application/merge-patch+json", true),
            ("text/json;", true),
            ("application/vnd.api+JSON;a=b;c=\"d;e\\\"\"", true),
            ("application/jsonx", false),
            ("text/plain", false),
            ("+json/x", false),
        ] {
            let parsed = MediaType::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(parsed.is_json(), json, "{text}");
        }
        for text in [
            "",
            "json",
            "application/",
            "/json",
            "a/b/c",
            "a b/c",
            "a/b;c",
            "a/b;c=",
            "a/b;c=\"d",
            "a/b;c=d e",
            "a/b, c/d",
            "a/b;=c",
            // What parsers read in two ways.
            "a/b;c=d;C=e",
            "a/b;c=d;x=y;c=d",
            "a/b;c*=utf-8''d",
            "a/b;c*0=d;c*1=e",
            "a/b;c=\"d\\\\\"",
            "a/b;c=\"d\\e\"",
        ] {
            assert_eq!(MediaType::parse(text), None, "{text}");
        }
        let parsed = MediaType::parse("multipart/form-data; Boundary=\"a\\\"b\"; x=y").expect("a type");
        assert_eq!(parsed.parameter("boundary").as_deref(), Some("a\"b"));
        assert!(MediaType::parse("a/b;filename=\"C:\\d\\e\"").is_some());
        assert_eq!((parsed.parameter("x").as_deref(), parsed.parameter("z")), (Some("y"), None));
        assert_eq!(MediaType::parse("Image/PNG;a=b").expect("a type").essence(), "image/png");
    }

    #[test]
    fn a_route_takes_what_it_lists() {
        let types = Types::new(["application/json", "image/*", "application/*+json"]);
        let takes = |text| types.take(&MediaType::parse(text).expect("a type"));
        assert!(takes("application/json;charset=utf-8") && takes("IMAGE/png") && takes("application/a+JSON"));
        assert!(!takes("application/xml") && !takes("imagex/png"));
        let refused = types.refuse("");
        assert_eq!(
            refused.fields(),
            [(ACCEPT, HeaderValue::from_static("application/json, image/*, application/*+json"))]
        );
    }

    #[test]
    fn two_types_are_none() {
        let mut headers = Headers::new();
        assert_eq!(stated(&headers), Stated::Nothing);
        headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(matches!(stated(&headers), Stated::Type(found) if found.is("application/json")));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(stated(&headers), Stated::Unclear);
    }

    #[test]
    fn only_identity_is_no_coding() {
        for (text, coded) in [("identity", false), ("", false), ("gzip", true), ("Identity, br", true), ("x", true)] {
            let headers = Headers::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(text))]);
            assert_eq!(is_coded(&headers), coded, "{text}");
        }
    }
}
