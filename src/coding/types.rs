//! Types of content that coding makes smaller.

use crate::headers::Value;

/// What is text, though `text/` does not stand in front of it, or shrinks like it. In order.
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

/// Whether content of this type is worth coding. Events are not: each is small, and must leave at once.
pub(super) fn is_text(content_type: Value<'_>) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    // Longer than any that is known.
    let mut lowered = [0; 64];
    let Some(lowered) = lowered.get_mut(..essence.len()) else { return false };
    lowered.copy_from_slice(essence.as_bytes());
    lowered.make_ascii_lowercase();
    let Ok(essence) = std::str::from_utf8(lowered) else { return false };
    match essence {
        "text/event-stream" => false,
        // Frames of messages, whatever these are written in.
        essence if essence.starts_with("application/grpc") => false,
        essence if essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml") => true,
        essence => LIKE_TEXT.binary_search(&essence).is_ok(),
    }
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
