//! Heads read in one pass: those that are here as a whole and are written as nearly all are.
//!
//! Most heads come in one piece, in the plainest form that there is. For these, finding the end, taking the lines apart
//! and making the names lower case is one walk along the bytes. Whatever is not so plain (half a head, a blank too many,
//! a method of its own, anything that is wrong) is left as it is for [`super::head`], which alone decides what is
//! refused, and why: what is read here it would read in the same way.

use bytes::BytesMut;
use http::{Method, StatusCode, Version};

use super::head::{ADDED, Limits, Notable, RequestHead, ResponseHead, Seen};
use crate::headers::{Places, Span};

/// Fields that there is room for at first.
const USUAL: usize = 8;

/// Takes a request's head off `buffer`, or leaves all to others.
pub fn request(buffer: &mut BytesMut, limits: &Limits) -> Option<RequestHead> {
    let bytes = buffer.as_mut();
    let (method, from) = method(bytes)?;
    let to = first_beyond_text(bytes, from)?;
    let target = Span::new(from, to.checked_sub(from)?);
    if from == to || to.checked_sub(from)? > limits.target || !bytes.get(to..)?.starts_with(b" HTTP/1.1\r\n") {
        return None;
    }
    let mut fields = Fields { places: Places::with_room_for(USUAL), seen: Seen::default() };
    let length = fields.read(bytes, to.checked_add(b" HTTP/1.1\r\n".len())?, limits)?;
    let headers = fields.places.of(buffer.split_to(length));
    Some(RequestHead { method, target: headers.of_head(target), version: Version::HTTP_11, headers, seen: fields.seen })
}

/// The same with a response's.
pub fn response(buffer: &mut BytesMut, limits: &Limits) -> Option<ResponseHead> {
    let bytes = buffer.as_mut();
    let (status, version) = match *bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', a, b, c, b' ', ..] => {
            (StatusCode::from_bytes(&[a, b, c]).ok()?, if minor == b'0' { Version::HTTP_10 } else { Version::HTTP_11 })
        }
        _ => return None,
    };
    let reason = first_control(bytes, b"HTTP/1.1 200 ".len())?;
    let mut fields = Fields { places: Places::with_room_for(USUAL + ADDED), seen: Seen::default() };
    let length = fields.read(bytes, after_line_break(bytes, reason)?, limits)?;
    Some(ResponseHead { status, version, headers: fields.places.of(buffer.split_to(length)), seen: fields.seen })
}

/// One of the usual, and where the target begins.
fn method(bytes: &[u8]) -> Option<(Method, usize)> {
    let (method, name) = match bytes {
        [b'G', b'E', b'T', ..] => (Method::GET, "GET"),
        [b'P', b'O', b'S', b'T', ..] => (Method::POST, "POST"),
        [b'P', b'U', b'T', ..] => (Method::PUT, "PUT"),
        [b'P', b'A', b'T', b'C', b'H', ..] => (Method::PATCH, "PATCH"),
        [b'D', b'E', b'L', b'E', b'T', b'E', ..] => (Method::DELETE, "DELETE"),
        [b'H', b'E', b'A', b'D', ..] => (Method::HEAD, "HEAD"),
        [b'O', b'P', b'T', b'I', b'O', b'N', b'S', ..] => (Method::OPTIONS, "OPTIONS"),
        _ => return None,
    };
    (bytes.get(name.len()) == Some(&b' ')).then_some((method, name.len().saturating_add(1)))
}

struct Fields {
    places: Places,
    seen: Seen,
}

impl Fields {
    /// Reads the lines from `at` to the empty one; the length of the whole head.
    fn read(&mut self, bytes: &mut [u8], mut at: usize, limits: &Limits) -> Option<usize> {
        let mut left = limits.fields;
        loop {
            if bytes.get(at) == Some(&b'\r') {
                return after_line_break(bytes, at).filter(|&length| length <= limits.bytes);
            }
            left = left.checked_sub(1)?;
            at = self.line(bytes, at)?;
        }
    }

    /// Reads `name: value`, at most with the one blank; where the next line begins.
    fn line(&mut self, bytes: &mut [u8], at: usize) -> Option<usize> {
        let length = lower_case(bytes.get_mut(at..)?);
        let name = Span::new(at, length);
        let from = match bytes.get(name.end()..)? {
            [b':', b' ', ..] => name.end().checked_add(2)?,
            [b':', ..] => name.end().checked_add(1)?,
            _ => return None,
        };
        let to = first_control(bytes, from)?;
        let value = match bytes.get(from..to)? {
            [b' ', ..] | [.., b' '] => return None,
            [] => Span::default(),
            value => Span::new(from, value.len()),
        };
        let text = bytes.get(at..name.end())?;
        self.seen.note(Notable::of(text));
        self.places.add_lower(name, text, value)?;
        after_line_break(bytes, to)
    }
}

/// Where the line goes on that breaks at `at`, with CRLF.
fn after_line_break(bytes: &[u8], at: usize) -> Option<usize> {
    let next = at.checked_add(2)?;
    (bytes.get(at..next)? == b"\r\n").then_some(next)
}

/// Makes the name (RFC 9110 section 5.6.2) at the start of `bytes` lower case where it lies; its length.
fn lower_case(bytes: &mut [u8]) -> usize {
    let mut length = 0_usize;
    for byte in &mut *bytes {
        match LOWER.get(usize::from(*byte)) {
            None | Some(0) => break,
            Some(lower) => *byte = *lower,
        }
        length = length.wrapping_add(1);
    }
    length
}

/// Characters of names, in lower case; nought for all others.
static LOWER: [u8; 256] = lower();

#[expect(clippy::indexing_slicing, reason = "computed when the program is compiled")]
const fn lower() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

/// Each byte of a word.
const EACH: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = EACH << 7;

/// Where the next control character stands, tabs too.
fn first_control(bytes: &[u8], from: usize) -> Option<usize> {
    first_marked(bytes, from, |word| below(word, b' ') | equal(word, 0x7f))
}

/// Where the next character stands that is no visible one of ASCII.
fn first_beyond_text(bytes: &[u8], from: usize) -> Option<usize> {
    first_marked(bytes, from, |word| below(word, b'!') | equal(word, 0x7f) | word)
}

/// Where the next byte stands that `mark` sets the highest bit of. It is given eight at once, of which the first comes
/// in the lowest bits.
fn first_marked(bytes: &[u8], from: usize, mark: impl Fn(u64) -> u64) -> Option<usize> {
    let (words, rest) = bytes.get(from..)?.as_chunks::<8>();
    let mut at = from;
    for word in words {
        let marked = mark(u64::from_le_bytes(*word)) & HIGH_BITS;
        if marked != 0 {
            return Some(at.wrapping_add(first_of(marked)));
        }
        at = at.wrapping_add(8);
    }
    let mut last = [b' '; 8];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    let marked = mark(u64::from_le_bytes(last)) & HIGH_BITS;
    Some(first_of(marked)).filter(|&index| index < rest.len()).map(|index| at.wrapping_add(index))
}

fn first_of(marked: u64) -> usize {
    (marked.trailing_zeros() / 8) as usize
}

/// Sets the highest bit of the first byte that is below `bound`, which must be below 128; what it sets behind that byte
/// says nothing.
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(EACH.wrapping_mul(u64::from(bound))) & !word
}

/// The same with the first byte that is this.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ EACH.wrapping_mul(u64::from(byte)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 512, target: 64, fields: 8 };

    #[test]
    fn what_is_plain_is_read_and_taken() {
        let mut buffer = BytesMut::from("GET /a?b HTTP/1.1\r\nHost: a\r\nX-EMPTY:\r\nconnection:close\r\n\r\nGET");
        let head = request(&mut buffer, &LIMITS).unwrap();
        assert_eq!((head.method, &head.target[..]), (Method::GET, &b"/a?b"[..]));
        let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("host", &b"a"[..]), ("x-empty", b""), ("connection", b"close")]);
        assert!(head.seen.has(Notable::Connection) && !head.seen.has(Notable::Via));
        assert_eq!(buffer, "GET");

        let mut buffer = BytesMut::from("HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\nx");
        let head = response(&mut buffer, &LIMITS).unwrap();
        assert_eq!((head.status, head.version), (StatusCode::NOT_FOUND, Version::HTTP_10));
        assert_eq!(head.headers.get("content-length").unwrap(), "1");
        assert_eq!(buffer, "x");
    }

    #[test]
    fn all_else_is_left() {
        for text in [
            "",
            "GET",
            "GET / HTTP/1.1\r\nA: b\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\r",
            "GETS / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
            "GET / HTTP/1.1\r\nA:  b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b \r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\tc\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\n\r\n",
        ] {
            let mut buffer = BytesMut::from(text);
            assert!(request(&mut buffer, &LIMITS).is_none(), "{text:?}");
            assert!(buffer.eq_ignore_ascii_case(text.as_bytes()), "{text:?}");
        }
        let (long, many) = ("a".repeat(65), "A: b\r\n".repeat(9));
        for text in [format!("GET /{long} HTTP/1.1\r\n\r\n"), format!("GET / HTTP/1.1\r\n{many}\r\n")] {
            assert!(request(&mut BytesMut::from(&*text), &LIMITS).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..40 {
                let mut bytes = [b'a'; 40];
                bytes[at] = byte;
                let control = byte < b' ' || byte == 0x7f;
                assert_eq!(first_control(&bytes, 0), control.then_some(at), "{byte} at {at}");
                let beyond = !(b'!'..=b'~').contains(&byte);
                assert_eq!(first_beyond_text(&bytes, 0), beyond.then_some(at), "{byte} at {at}");
                assert_eq!(first_control(&bytes, 7), (control && at >= 7).then_some(at), "{byte} at {at}");
            }
        }
        assert_eq!(first_control(b"\n\n", 3), None);
    }
}
