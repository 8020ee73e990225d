//! Which answers are coded, and what their fields say then (RFC 9110 sections 8.4, 8.8.3.3 and 12.5.3).

use std::rc::Rc;

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Coding;
use super::accept::{Accepted, vary};
use super::body::{CodedBody, Input, code_at_once};
use super::encoder::Encoder;
use super::encoders::Encoders;
use super::types::is_text;
use crate::body::{Content, ResponseBody};
use crate::headers::{Headers, Name, Value};
use crate::http1::connection::tokens;
use crate::http1::tags::tags;
use crate::response::Response;

/// Bytes below which coding gains nothing that matters.
const LEAST: u64 = 1024;

/// Bytes past which what offers ranges is sent as it is: large downloads are to be resumed.
const RANGES_MATTER: u64 = 1024 * 1024;

/// Bytes of a body that is all there which are coded at once.
const AT_ONCE: usize = 32 * 1024;

/// Alike among what a client likes alike: the fastest first.
const ORDER: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// Digests of the very bytes that a client gets, or of the representation that the coding is a part of (RFC 9530).
pub static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Codes an answer if it gains by that and its client takes it.
pub fn compress(encoders: &Rc<Encoders>, method: &Method, request: &Headers, response: &mut Response) {
    if response.status() == StatusCode::NOT_MODIFIED {
        return confirm_weak(request, response.headers_mut());
    }
    if !gains(method, response) {
        return;
    }
    vary(response.headers_mut());
    let Some(coding) = Accepted::of(request).choices(ORDER).next() else { return };
    if *method != Method::HEAD {
        match code(encoders, coding, length(response), response.body_mut()) {
            Form::Coded => {}
            Form::AsItWas => return,
        }
    }
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    // Ranges would be of the coded bytes, which are other bytes each time.
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    weaken(headers);
}

/// What became of a body.
enum Form {
    Coded,
    AsItWas,
}

/// Codes the body, unless there is no room for another encoder.
fn code(encoders: &Rc<Encoders>, coding: Coding, length: Option<u64>, body: &mut ResponseBody) -> Form {
    // What is read ahead of the client is coded already: the server is as free as without, and less is held.
    let (content, ahead) = body.take_apart();
    let (content, form) = coded(encoders, coding, length, content);
    *body = ResponseBody::of(content, ahead);
    form
}

/// The content coded; as it was when there is no room for another encoder.
fn coded(encoders: &Rc<Encoders>, coding: Coding, length: Option<u64>, content: Content) -> (Content, Form) {
    let from = match content {
        Content::Empty => return (Content::Empty, Form::AsItWas),
        Content::Full(bytes) if bytes.len() <= AT_ONCE => {
            return match code_at_once(&bytes, coding, encoders.at_once(coding)) {
                Ok(coded) => (Content::Full(coded), Form::Coded),
                Err(_) => (Content::Full(bytes), Form::AsItWas),
            };
        }
        Content::Full(bytes) => Input::Full(bytes),
        Content::Stream(source) => Input::Source(source),
    };
    let place = encoders.open(coding).and_then(|open| Some((Encoder::new(coding, length).ok()?, open)));
    match place {
        Some((encoder, open)) => {
            let body = CodedBody::new(from, encoder, open, length.is_some());
            (Content::Stream(Box::pin(body)), Form::Coded)
        }
        None => {
            let content = match from {
                Input::Full(bytes) => Content::Full(bytes),
                Input::Source(source) => Content::Stream(source),
            };
            (content, Form::AsItWas)
        }
    }
}

/// Of what the body would be, or is.
fn length(response: &Response) -> Option<u64> {
    http_body::Body::size_hint(response.body()).exact().or_else(|| told_length(response.headers()))
}

fn told_length(headers: &Headers) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether an answer is worth coding, whoever asks.
fn gains(method: &Method, response: &Response) -> bool {
    let (status, headers) = (response.status(), response.headers());
    // Of HEAD the length is told or nobody knows it.
    let length = if *method == Method::HEAD { told_length(headers) } else { length(response) };
    if length.is_some_and(|length| length < LEAST) || !headers.get(CONTENT_TYPE).is_some_and(is_text) {
        return false;
    }
    let without = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    );
    let ranges = length.is_some_and(|length| length > RANGES_MATTER)
        && headers.get(ACCEPT_RANGES).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"bytes"));
    !status.is_informational() && !without && !ranges && !headers.iter().any(|(name, value)| forbids(name, value))
}

/// Whether this field says that the bytes are to stay what they are. All are looked at, and hardly any is one of these:
/// most are told by the length of their name.
fn forbids(name: Name<'_>, value: Value<'_>) -> bool {
    match name.as_bytes() {
        b"content-encoding" => value.as_bytes() != b"identity",
        b"content-range" => true,
        b"cache-control" => tokens(value.as_bytes()).any(|directive| directive.eq_ignore_ascii_case(b"no-transform")),
        b"content-digest" | b"repr-digest" | b"digest" | b"content-md5" => true,
        _ => false,
    }
}

/// A strong tag promises the same bytes, which coding does not.
fn weaken(headers: &mut Headers) {
    let Some(etag) = headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
        headers.insert(ETAG, weak);
    }
}

/// A client that was given the weak form of a tag holds the coded answer: what confirms it is told under the same tag
/// (RFC 9110 section 15.4.5).
fn confirm_weak(request: &Headers, headers: &mut Headers) {
    let Some(etag) = headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")) else { return };
    let weak = [b"W/", etag.as_bytes()].concat();
    let holds = request.get_all(IF_NONE_MATCH).any(|line| tags(line.as_bytes()).any(|tag| tag == weak));
    if holds {
        vary(headers);
        weaken(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_as_it_is_is_told_by_its_fields() {
        let forbids = |name: &'static str, value: &'static str| {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            forbids((&name).into(), (&value).into())
        };
        for name in &DIGESTS {
            assert!(super::forbids(name.into(), (&HeaderValue::from_static("x")).into()), "{name}");
        }
        assert!(forbids("content-encoding", "br") && forbids("content-range", "bytes 0-1/2"));
        assert!(forbids("cache-control", "max-age=1, No-Transform"));
        assert!(!forbids("content-encoding", "identity") && !forbids("cache-control", "no-store"));
        assert!(!forbids("content-type", "text/html"));
    }
}
