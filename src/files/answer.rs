//! From a file and a request to an answer: conditions first, then ranges (RFC 9110 sections 13.2.2 and 14).

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderValue, Method, StatusCode};

use super::Readers;
use super::body::{FileBody, PIECE, Piece, read_now};
use super::find::Found;
use super::range::{Wanted, wanted};
use super::validators::{Validators, Verdict};
use crate::body::{Content, ResponseBody};
use crate::coding::accept::vary;
use crate::headers::{Headers, Value};
use crate::request::rejection::{Cause, Rejection};
use crate::response::Response;

/// What an answer is made of beside the file.
pub struct Frame<'a> {
    pub method: &'a Method,
    /// The request's.
    pub request: &'a Headers,
    /// Fields that the answer has anyway. A `Content-Type` among them goes before the file's own.
    pub headers: Headers,
    /// 200 is what conditions and ranges apply to; with any other the whole file is sent.
    pub status: StatusCode,
    /// Whether answers are compressed on their way, which weakens their tags.
    pub compressed: bool,
}

/// Answers with a file.
///
/// # Errors
/// `PreconditionFailed`, `RangeNotSatisfiable`.
pub fn answer(found: Found, frame: Frame<'_>, readers: &Readers) -> Result<Response, Rejection> {
    let Frame { method, request, mut headers, status, compressed } = frame;
    let validators = Validators::of(&found);
    let conditional = status == StatusCode::OK && matches!(*method, Method::GET | Method::HEAD);
    let verdict = if conditional { validators.judge(request, compressed) } else { Verdict::Send };
    if verdict == Verdict::Failed {
        return Err(Cause::PreconditionFailed.into());
    }
    headers.insert(ETAG, validators.etag.clone());
    if let Some(modified) =
        validators.modified.and_then(|time| HeaderValue::try_from(httpdate::fmt_http_date(time)).ok())
    {
        headers.insert(LAST_MODIFIED, modified);
    }
    // Of those there may be a sibling for the next who asks, or they are compressed on their way to it.
    if !found.kind.coded {
        vary(&mut headers);
    }
    if verdict == Verdict::NotModified {
        headers.remove(CONTENT_TYPE);
        return Ok(respond(StatusCode::NOT_MODIFIED, headers, Content::Empty));
    }
    headers.insert_if_absent(CONTENT_TYPE, HeaderValue::from_static(found.kind.media_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(coding) = found.coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    // RFC 9110 section 14.2: ranges are for GET alone.
    let ranged = conditional && *method == Method::GET && validators.range_holds(request);
    match if ranged { wanted(request, found.length) } else { Wanted::Whole } {
        Wanted::Unsatisfiable => {
            let range = HeaderValue::try_from(format!("bytes */{}", found.length)).map_err(|_| Cause::Internal)?;
            Err(Rejection::from(Cause::RangeNotSatisfiable).with_fields([(CONTENT_RANGE, range)]))
        }
        Wanted::Whole => {
            let pieces = VecDeque::from([Piece::Span(0..found.length)]);
            Ok(send(found, status, headers, pieces, method, readers))
        }
        Wanted::Parts(parts) => {
            let pieces = match parts.as_slice() {
                [part] => {
                    let range =
                        HeaderValue::try_from(content_range(part, found.length)).map_err(|_| Cause::Internal)?;
                    headers.insert(CONTENT_RANGE, range);
                    VecDeque::from([Piece::Span(part.clone())])
                }
                parts => multipart(parts, found.length, &mut headers),
            };
            Ok(send(found, StatusCode::PARTIAL_CONTENT, headers, pieces, method, readers))
        }
    }
}

fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1))
}

/// `multipart/byteranges` (RFC 9110 section 14.6).
fn multipart(parts: &[Range<u64>], length: u64, headers: &mut Headers) -> VecDeque<Piece> {
    let boundary = format!("{:032x}", fastrand::u128(..));
    let whole = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
    let of_each = headers.get(CONTENT_TYPE).map(Value::owned);
    if let Ok(whole) = whole {
        headers.insert(CONTENT_TYPE, whole);
    }
    let mut pieces = VecDeque::new();
    for (index, part) in parts.iter().enumerate() {
        let mut text = Vec::new();
        let begin = if index == 0 { "--" } else { "\r\n--" };
        text.extend_from_slice(format!("{begin}{boundary}\r\n").as_bytes());
        if let Some(of_each) = &of_each {
            text.extend_from_slice(b"content-type: ");
            text.extend_from_slice(of_each.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("content-range: {}\r\n\r\n", content_range(part, length)).as_bytes());
        pieces.push_back(Piece::Text(text.into()));
        pieces.push_back(Piece::Span(part.clone()));
    }
    pieces.push_back(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

fn send(
    found: Found,
    status: StatusCode,
    mut headers: Headers,
    pieces: VecDeque<Piece>,
    method: &Method,
    readers: &Readers,
) -> Response {
    let length = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.length()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let content = if *method == Method::HEAD || length == 0 {
        Content::Empty
    } else {
        match at_once(&found, &pieces) {
            Some(bytes) => Content::Full(bytes),
            None => Content::Stream(Box::pin(FileBody::new(found.file, pieces, readers.clone()))),
        }
    };
    respond(status, headers, content)
}

/// What is small and in memory needs no stream.
fn at_once(found: &Found, pieces: &VecDeque<Piece>) -> Option<Bytes> {
    let [Piece::Span(span)] = pieces.as_slices().0 else { return None };
    let length = span.end.saturating_sub(span.start);
    if length > PIECE || pieces.len() > 1 {
        return None;
    }
    let space = BytesMut::zeroed(usize::try_from(length).ok()?);
    let bytes = read_now(&found.file, span.start, space).ok()??;
    (bytes.len() as u64 == length).then_some(bytes)
}

fn respond(status: StatusCode, headers: Headers, content: Content) -> Response {
    let mut response = Response::new(ResponseBody::new(content));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
