//! Types of content that coding makes smaller.

use crate::headers::Value;

/// What is text, though `text/` does not stand in front of it, or shrinks like it.
const LIKE_TEXT: &[&str] = &[
    "application/dash+xml",
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/json-seq",
    "application/json5",
    "application/jsonl",
    "application/ndjson",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
];

/// Longer than any that is known.
const LONGEST: usize = 64;

/// Whether content of this type is worth coding. Events are not: each is small, and must leave at once.
pub(super) fn is_text(content_type: Value<'_>) -> bool {
    let essence = content_type.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let begins_with = |start: &[u8]| essence.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    let ends_with = |end: &[u8]| {
        let start = essence.len().checked_sub(end.len());
        start.and_then(|start| essence.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    let is = |known: &str| essence.eq_ignore_ascii_case(known.as_bytes());
    if essence.len() > LONGEST {
        return false;
    }
    if begins_with(b"text/") {
        return !is("text/event-stream");
    }
    // Frames of messages, whatever these are written in.
    !begins_with(b"application/grpc")
        && (ends_with(b"+json") || ends_with(b"+xml") || LIKE_TEXT.iter().any(|known| is(known)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn text_is_told_from_what_is_coded_already() {
        assert!(LIKE_TEXT.is_sorted_by(|one, other| one < other));
        let is = |text: &'static str| is_text((&HeaderValue::from_static(text)).into());
        for text in [
            "text/html; charset=utf-8",
            "TEXT/CSS",
            "application/json",
            "application/problem+json",
            "image/svg+xml",
            "application/x-ndjson;charset=utf-8",
            "text/plain ; x=y",
        ] {
            assert!(is(text), "{text}");
        }
        for other in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "image/png",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "application/grpc-web+json",
            "",
            "application/octet-stream",
            "application/zip",
            "multipart/byteranges; boundary=text/html",
            "video/mp4",
            "textual/x",
        ] {
            assert!(!is(other), "{other}");
        }
        let long = HeaderValue::try_from(format!("text/{}", "a".repeat(100))).unwrap();
        assert!(!is_text((&long).into()));
    }
}
