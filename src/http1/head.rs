//! Heads: finding where one ends, and parsing it, strictly (RFC 9112 sections 2 to 5).
//!
//! The end is searched by a scan of our own that demands CRLF wherever a line ends; the lines are taken apart by
//! `httparse`, which refuses control characters, blanks around names and obsolete folding. Heads of the plainest form
//! are read in one pass before they come here, see [`super::at_once`].

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::headers::{Headers, Places, Span};

/// Bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The whole head, its last CRLF included.
    pub bytes: usize,
    /// A request's target.
    pub target: usize,
    pub fields: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    Malformed,
    TooLarge,
    TargetTooLong,
    Version,
}

/// The longest method that is looked at, blanks included; only used to tell a long target from a long head.
const METHOD: usize = 32;

/// Fields that the gateway adds to most responses.
pub(super) const ADDED: usize = 6;

/// Header fields up to which a head is parsed without an allocation.
const FIELDS_ON_STACK: usize = 128;

/// What responses of HTTP/1 begin with: anything else is not waited for.
pub const BEGIN: &[u8] = b"HTTP/1.";

/// Searches the end of a head in a buffer that grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the line that is being looked at begins.
    line: usize,
}

impl HeadScan {
    /// Whether it has not begun.
    pub fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// The length of the head at the start of `buffer`, once it is complete.
    ///
    /// # Errors
    /// `Malformed` at a line that does not end with CRLF; `TooLarge`, `TargetTooLong` past the limits.
    pub fn advance(&mut self, buffer: &[u8], limits: &Limits, kind: Kind) -> Result<Option<usize>, HeadError> {
        if buffer.is_empty() {
            return Ok(None);
        }
        if kind == Kind::Response && self.line == 0 && !buffer.iter().zip(BEGIN).all(|(came, wanted)| came == wanted) {
            return Err(HeadError::Malformed);
        }
        while let Some(found) = buffer.get(self.seen..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.seen + found;
            if end == 0 || buffer.get(end - 1) != Some(&b'\r') {
                return Err(HeadError::Malformed);
            }
            if end + 1 > limits.bytes || self.is_long_first_line(end, limits, kind) {
                return Err(too_large(buffer, limits, kind));
            }
            self.seen = end + 1;
            if end - 1 == self.line {
                return Ok(Some(end + 1));
            }
            self.line = end + 1;
        }
        self.seen = buffer.len();
        if buffer.len() >= limits.bytes || self.is_long_first_line(buffer.len(), limits, kind) {
            return Err(too_large(buffer, limits, kind));
        }
        Ok(None)
    }

    /// Whether the line is a request line that has grown past its bound, be it finished or not: a request must not
    /// be judged by how its bytes arrive.
    fn is_long_first_line(&self, length: usize, limits: &Limits, kind: Kind) -> bool {
        kind == Kind::Request && self.line == 0 && length > limits.target + METHOD
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// Fields alone, behind a body in chunks.
    Trailers,
}

/// Whether it is the first line that outgrew the head.
fn too_large(buffer: &[u8], limits: &Limits, kind: Kind) -> HeadError {
    let first_line = memchr::memchr(b'\n', buffer).unwrap_or(buffer.len());
    let long = first_line > limits.target + METHOD || first_line >= limits.bytes.saturating_sub(1);
    if kind == Kind::Request && long { HeadError::TargetTooLong } else { HeadError::TooLarge }
}

/// Which of the fields that the gateway acts on a message has: one look at each name as it is parsed spares a
/// dozen look-ups for what is hardly ever there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u16);

/// A field, or a kind of fields, that the gateway acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notable {
    Connection = 1,
    /// Any other field that belongs to one connection alone.
    HopByHop = 2,
    ContentLength = 4,
    TransferEncoding = 8,
    Date = 16,
    Expect = 32,
    Via = 64,
}

impl Notable {
    /// Of a name in lower case.
    pub fn of(name: &[u8]) -> Option<Notable> {
        // Of slices of bytes the length is looked at first, of strings one after the other is compared.
        Some(match name {
            b"connection" => Notable::Connection,
            b"content-length" => Notable::ContentLength,
            b"transfer-encoding" => Notable::TransferEncoding,
            b"date" => Notable::Date,
            b"expect" => Notable::Expect,
            b"via" => Notable::Via,
            b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-authentication-info"
            | b"te"
            | b"upgrade"
            | b"http2-settings" => Notable::HopByHop,
            _ => return None,
        })
    }
}

impl Seen {
    /// For a head that another parser took apart.
    pub fn of(headers: &Headers) -> Seen {
        let mut seen = Seen::default();
        headers.keys().for_each(|name| seen.note(Notable::of(name.as_bytes())));
        seen
    }

    pub fn note(&mut self, notable: Option<Notable>) {
        if let Some(notable) = notable {
            self.0 |= notable as u16;
        }
    }

    pub fn has(self, notable: Notable) -> bool {
        self.0 & notable as u16 != 0
    }
}

/// A request's head. The target is as it came.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Bytes,
    pub version: Version,
    pub headers: Headers,
    pub seen: Seen,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: Headers,
    pub seen: Seen,
}

/// Parses a whole request head of `length` bytes, as [`HeadScan`] found it, and takes it off `buffer`.
///
/// # Errors
/// Any [`HeadError`]; the head is taken off all the same.
pub fn take_request(buffer: &mut BytesMut, length: usize, limits: &Limits) -> Result<RequestHead, HeadError> {
    let bytes = buffer.split_to(length.min(buffer.len()));
    let (method, target, version, places) = with_fields(&bytes, limits.fields, |bytes, fields| {
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(bytes, fields).map_err(|error| error_of(error, bytes))?;
        let (httparse::Status::Complete(consumed), Some(method), Some(target), Some(minor)) =
            (status, parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadError::Malformed);
        };
        if consumed != bytes.len() {
            return Err(HeadError::Malformed);
        }
        if target.len() > limits.target {
            return Err(HeadError::TargetTooLong);
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed)?;
        let target = Span::find(target.as_bytes(), bytes).ok_or(HeadError::Malformed)?;
        Ok((method, target, version(minor), places(bytes, parsed.headers, 0)?))
    })?;
    let (headers, seen) = settle(bytes, places);
    Ok(RequestHead { method, target: headers.of_head(target), version, headers, seen })
}

/// The same for a response.
///
/// # Errors
/// Any [`HeadError`] but `TargetTooLong`.
pub fn take_response(buffer: &mut BytesMut, length: usize, limits: &Limits) -> Result<ResponseHead, HeadError> {
    let bytes = buffer.split_to(length.min(buffer.len()));
    let (status, version, places) = with_fields(&bytes, limits.fields, |bytes, fields| {
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, bytes, fields)
            .map_err(|error| error_of(error, bytes))?;
        let (httparse::Status::Complete(consumed), Some(code), Some(minor)) = (status, parsed.code, parsed.version)
        else {
            return Err(HeadError::Malformed);
        };
        if consumed != bytes.len() {
            return Err(HeadError::Malformed);
        }
        let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed)?;
        Ok((status, version(minor), places(bytes, parsed.headers, ADDED)?))
    })?;
    let (headers, seen) = settle(bytes, places);
    Ok(ResponseHead { status, version, headers, seen })
}

/// Field lines alone: the trailers at the end of a chunked body, their last CRLF included.
///
/// # Errors
/// `Malformed`, `TooLarge`.
pub fn take_trailers(buffer: &mut BytesMut, length: usize, limits: &Limits) -> Result<HeaderMap, HeadError> {
    let bytes = buffer.split_to(length.min(buffer.len())).freeze();
    let mut fields = vec![httparse::EMPTY_HEADER; limits.fields];
    match httparse::parse_headers(&bytes, &mut fields).map_err(|error| error_of(error, &bytes))? {
        httparse::Status::Complete((consumed, fields)) if consumed == bytes.len() => trailers(&bytes, fields),
        httparse::Status::Complete(_) | httparse::Status::Partial => Err(HeadError::Malformed),
    }
}

/// Gives `parse` the bytes and room for `count` fields that borrow from them.
fn with_fields<'b, T>(
    bytes: &'b [u8],
    count: usize,
    parse: impl FnOnce(&'b [u8], &mut [MaybeUninit<httparse::Header<'b>>]) -> Result<T, HeadError>,
) -> Result<T, HeadError> {
    if count <= FIELDS_ON_STACK {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
        parse(bytes, fields.get_mut(..count).unwrap_or_default())
    } else {
        let mut fields: Vec<_> = std::iter::repeat_with(MaybeUninit::uninit).take(count).collect();
        parse(bytes, &mut fields)
    }
}

/// Where the fields lie. `more` is how many are expected to be added later.
fn places(bytes: &[u8], fields: &[httparse::Header<'_>], more: usize) -> Result<Places, HeadError> {
    let mut places = Places::with_room_for(fields.len().saturating_add(more));
    for field in fields {
        places.take(bytes, field.name.as_bytes(), field.value).ok_or(HeadError::Malformed)?;
    }
    Ok(places)
}

/// Once nothing borrows from the bytes any more.
fn settle(bytes: BytesMut, places: Places) -> (Headers, Seen) {
    let mut seen = Seen::default();
    (places.settle(bytes, |name| seen.note(Notable::of(name))), seen)
}

/// Frames of bodies have a map for them.
fn trailers(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed)?;
        let value = if field.value.is_empty() { Bytes::new() } else { bytes.slice_ref(field.value) };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| HeadError::Malformed)?;
        map.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok(map)
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn error_of(error: httparse::Error, head: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version if names_another_version(head) => HeadError::Version,
        httparse::Error::Version
        | httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => HeadError::Malformed,
    }
}

/// A first line that ends with a well-formed `HTTP/D.D` that is not 1.x (RFC 9110 section 2.5).
fn names_another_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let Some(&[b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) = line.last_chunk::<8>() else { return false };
    major.is_ascii_digit() && minor.is_ascii_digit() && major > b'1'
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 512, target: 64, fields: 8 };

    fn scan(text: &[u8]) -> Result<Option<usize>, HeadError> {
        HeadScan::default().advance(text, &LIMITS, Kind::Request)
    }

    fn request(text: &str) -> Result<RequestHead, HeadError> {
        let mut buffer = BytesMut::from(text);
        let length = scan(text.as_bytes())?.expect("a whole head");
        take_request(&mut buffer, length, &LIMITS)
    }

    #[test]
    fn finds_the_end_however_the_bytes_arrive() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let mut whole = HeadScan::default();
        assert_eq!(whole.advance(text, &LIMITS, Kind::Request), Ok(Some(text.len() - 4)));
        let mut parts = HeadScan::default();
        let mut found = None;
        for end in 0..text.len() {
            found = parts.advance(&text[..end], &LIMITS, Kind::Request).expect("well formed");
            if found.is_some() {
                break;
            }
        }
        assert_eq!(found, Some(text.len() - 4));
    }

    #[test]
    fn lines_must_end_with_crlf() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\n",
        ] {
            assert_eq!(scan(text.as_bytes()), Err(HeadError::Malformed), "{text:?}");
        }
        for text in
            ["GET /\r HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", "GET / HTTP/1.1\r\nA\r: b\r\n\r\n"]
        {
            assert_eq!(request(text).map(|_| ()), Err(HeadError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\n A: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET / HTTP/1.1\r\nA\0: b\r\n\r\n",
            "G{T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.11\r\n\r\n",
            "GET / HTTP/11\r\n\r\n",
        ] {
            assert_eq!(request(text).map(|_| ()), Err(HeadError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn another_version_is_told_apart() {
        for text in ["GET / HTTP/2.0\r\n\r\n", "PRI * HTTP/3.1\r\n\r\n"] {
            assert_eq!(request(text).map(|_| ()), Err(HeadError::Version), "{text:?}");
        }
    }

    #[test]
    fn limits_are_told_apart() {
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64));
        assert_eq!(request(&target).map(|_| ()), Err(HeadError::TargetTooLong));
        let unfinished = format!("GET /{}", "a".repeat(200));
        assert_eq!(scan(unfinished.as_bytes()), Err(HeadError::TargetTooLong));
        let method = format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(90));
        assert_eq!(scan(method.as_bytes()), Err(HeadError::TargetTooLong));
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(600));
        assert_eq!(scan(endless.as_bytes()), Err(HeadError::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(9));
        assert_eq!(request(&many).map(|_| ()), Err(HeadError::TooLarge));
    }

    #[test]
    fn values_keep_their_bytes_and_lose_their_blanks() {
        let head = request("GET / HTTP/1.1\r\nA: \t b c \t\r\nB:\r\nA: \u{e9}\r\n\r\n").expect("well formed");
        let values: Vec<_> = head.headers.get_all("a").map(|value| value.as_bytes().to_vec()).collect();
        assert_eq!(values, [b"b c".to_vec(), "é".as_bytes().to_vec()]);
        assert_eq!(head.headers.get("b").expect("it is there"), "");
    }
}
