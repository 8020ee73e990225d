//! How long a body is (RFC 9112 section 6), with every ambiguity refused.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};

use super::head::{Notable, Seen};
use crate::headers::Headers;

/// A body's length as its head states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    /// A response's: to the end of the connection.
    UntilClose,
}

/// The head states a length that can be read in two ways, or none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// The framing of a request's body.
///
/// # Errors
/// Both length and coding, more than one length, a length that is not plain digits, a coding other than one
/// `chunked`, any coding in HTTP/1.0.
pub fn of_request(version: Version, headers: &Headers, seen: Seen) -> Result<Framing, Ambiguous> {
    match stated(version, headers, seen)? {
        (Some(_), true) => Err(Ambiguous),
        (None, true) => Ok(Framing::Chunked),
        (Some(0) | None, false) => Ok(Framing::None),
        (Some(length), false) => Ok(Framing::Length(length)),
    }
}

/// The framing of a response's body, as the answer to `method`.
///
/// # Errors
/// As for a request.
pub fn of_response(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &Headers,
    seen: Seen,
) -> Result<Framing, Ambiguous> {
    let framing = match stated(version, headers, seen)? {
        (Some(_), true) => return Err(Ambiguous),
        (None, true) => Framing::Chunked,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::UntilClose,
    };
    Ok(if has_no_content(method, status) || framing == Framing::Length(0) { Framing::None } else { framing })
}

/// Whether a response ends with its head whatever its fields say (RFC 9110 section 6.4.1).
pub fn has_no_content(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// The length, and whether the body is chunked.
fn stated(version: Version, headers: &Headers, seen: Seen) -> Result<(Option<u64>, bool), Ambiguous> {
    let length = if seen.has(Notable::ContentLength) { content_length(headers)? } else { None };
    let chunked = seen.has(Notable::TransferEncoding) && is_chunked(version, headers)?;
    Ok((length, chunked))
}

fn content_length(headers: &Headers) -> Result<Option<u64>, Ambiguous> {
    let mut values = headers.get_all(CONTENT_LENGTH);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Ambiguous);
    }
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Ambiguous);
    }
    let length = digits.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit.wrapping_sub(b'0'))))
    });
    // The largest is what a signed 64-bit length of a backend can still hold.
    length.filter(|&length| length <= i64::MAX as u64).map(Some).ok_or(Ambiguous)
}

fn is_chunked(version: Version, headers: &Headers) -> Result<bool, Ambiguous> {
    let mut values = headers.get_all(TRANSFER_ENCODING);
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() || version == Version::HTTP_10 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Ambiguous);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn request(fields: &[(&'static str, &'static str)]) -> Result<Framing, Ambiguous> {
        let headers = headers(fields);
        of_request(Version::HTTP_11, &headers, Seen::of(&headers))
    }

    #[test]
    fn plain_lengths_and_chunks() {
        assert_eq!(request(&[]), Ok(Framing::None));
        assert_eq!(request(&[("content-length", "0")]), Ok(Framing::None));
        assert_eq!(request(&[("content-length", "42")]), Ok(Framing::Length(42)));
        assert_eq!(request(&[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
    }

    #[test]
    fn ambiguity_is_refused() {
        for fields in [
            &[("content-length", "1"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "1"), ("content-length", "2")],
            &[("content-length", "1, 1")],
            &[("content-length", "+1")],
            &[("content-length", "-1")],
            &[("content-length", "0x1")],
            &[("content-length", "1 ")],
            &[("content-length", "")],
            &[("content-length", "18446744073709551616")],
            &[("content-length", "9223372036854775808")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "xchunked")],
            &[("transfer-encoding", "")],
        ] {
            assert_eq!(request(fields), Err(Ambiguous), "{fields:?}");
        }
        let old = headers(&[("transfer-encoding", "chunked")]);
        assert_eq!(of_request(Version::HTTP_10, &old, Seen::of(&old)), Err(Ambiguous));
    }

    #[test]
    fn responses_without_content() {
        let fields = headers(&[("content-length", "5")]);
        let of = |method: Method, status: u16| {
            of_response(
                &method,
                StatusCode::from_u16(status).expect("a status"),
                Version::HTTP_11,
                &fields,
                Seen::of(&fields),
            )
        };
        assert_eq!(of(Method::GET, 200), Ok(Framing::Length(5)));
        assert_eq!(of(Method::HEAD, 200), Ok(Framing::None));
        assert_eq!(of(Method::GET, 204), Ok(Framing::None));
        assert_eq!(of(Method::GET, 304), Ok(Framing::None));
        let none = Headers::new();
        assert_eq!(
            of_response(&Method::GET, StatusCode::OK, Version::HTTP_11, &none, Seen::default()),
            Ok(Framing::UntilClose)
        );
    }
}
