//! Writing heads and chunks. What is written was parsed before, or made by the gateway: no byte here is raw input.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::fields::Fields;
use crate::headers::Name;

/// `HTTP/1.1 200 OK`
pub fn status_line(out: &mut BytesMut, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `name: value`
pub fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A head that fields are added to.
pub struct Lines<'a>(pub &'a mut BytesMut);

impl Fields for Lines<'_> {
    fn lines(&mut self) -> Option<&mut BytesMut> {
        Some(self.0)
    }

    fn put<'n>(&mut self, name: impl Into<Name<'n>>, parts: &[&[u8]]) {
        let name = name.into().as_bytes();
        self.0.reserve(parts.iter().fold(name.len() + 4, |sum, part| sum + part.len()));
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.extend_from_slice(b"\r\n");
    }
}

/// `content-length: N`
pub fn content_length(out: &mut BytesMut, length: u64) {
    field(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
}

/// What comes before a chunk's data.
pub fn chunk_size(out: &mut BytesMut, size: usize) {
    let mut digits = [0u8; 16];
    let mut rest = size;
    let mut start = digits.len();
    for (index, place) in digits.iter_mut().enumerate().rev() {
        let digit = (rest & 0xf) as u8;
        *place = if digit < 10 { b'0' + digit } else { b'a' + (digit - 10) };
        start = index;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name)) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields that may stand in a trailer section.
pub fn trailing(fields: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| may_trail(name)) {
        kept.append(name, value.clone());
    }
    kept
}

/// Whether a field may stand in a trailer section: nothing that frames, routes, authenticates or controls
/// (RFC 9110 section 6.5.1), nothing that only the gateway says, and no underscore, which Python servers take for a
/// dash. Whoever receives them may merge them with the fields of the head.
pub fn may_trail(name: &HeaderName) -> bool {
    use http::header::*;
    const REFUSED: [HeaderName; 34] = [
        TRANSFER_ENCODING,
        CONTENT_LENGTH,
        HOST,
        CONNECTION,
        UPGRADE,
        TE,
        TRAILER,
        AUTHORIZATION,
        PROXY_AUTHORIZATION,
        COOKIE,
        SET_COOKIE,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        CACHE_CONTROL,
        EXPECT,
        ACCEPT,
        AGE,
        DATE,
        EXPIRES,
        FORWARDED,
        LOCATION,
        MAX_FORWARDS,
        ORIGIN,
        PRAGMA,
        PROXY_AUTHENTICATE,
        RANGE,
        REFERER,
        RETRY_AFTER,
        STRICT_TRANSPORT_SECURITY,
        USER_AGENT,
        VARY,
        VIA,
        WWW_AUTHENTICATE,
    ];
    const FAMILIES: [&str; 6] = ["x-forwarded", "x-auth", "x-real-", "if-", "access-control-", "proxy-"];
    let text = name.as_str();
    !REFUSED.contains(name)
        && !matches!(text, "keep-alive" | "proxy" | "x-request-id" | "x-original-forwarded-for" | "traceparent")
        && !FAMILIES.iter().any(|family| text.starts_with(family))
        && !text.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for size in [0, 1, 9, 10, 15, 16, 255, 4096, 65535, usize::MAX] {
            let mut out = BytesMut::new();
            chunk_size(&mut out, size);
            assert_eq!(&out[..], format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn trailers_never_carry_control() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().expect("a value"));
        trailers.insert("content-length", "5".parse().expect("a value"));
        for name in
            ["x-forwarded-for", "x_forwarded_for", "content_length", "x-real-ip", "via", "x-request-id", "proxy"]
        {
            trailers.insert(HeaderName::from_static(name), "1.2.3.4".parse().expect("a value"));
        }
        let mut out = BytesMut::new();
        last_chunk(&mut out, Some(&trailers));
        assert_eq!(&out[..], b"0\r\nx-sum: 1\r\n\r\n");
    }
}
