//! A request's head, from the fields of its block (RFC 9113 sections 8.2 and 8.3), judged while they are unpacked.
//!
//! What is kept of a head is bounded by the same limits that hold for HTTP/1.1, and counted as if it had come that way.
//! The rest of one that is too large is still unpacked, since later ones refer to it, but no byte of it is kept.

use bytes::Bytes;
use http::Method;

use super::hpack::decode::{Checked, Take};
use crate::headers::{Headers, Span, Written};
use crate::http1::head::{Limits, Notable, Seen};

/// What a field takes in HTTP/1.1 beside its name and value: a colon, a blank, a line break.
const FIELD_EXTRA: usize = 4;

/// What a request line takes beside method and target.
const LINE_EXTRA: usize = 12;

/// Room for a usual head, and for the places of some fields: in what an allocator has at hand.
const HEAD: usize = 512;
const FIELDS: usize = 10;

/// A request's head.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    /// `:path`; of CONNECT, which has none, `:authority`.
    pub target: Bytes,
    pub authority: Option<Bytes>,
    pub headers: Headers,
    pub seen: Seen,
    /// The length that is stated of the body.
    pub length: Option<u64>,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Section 8.1.1: the stream ends.
    Malformed,
    TooLarge,
    TargetTooLong,
}

/// A head that is being read.
pub struct Reading {
    limits: Limits,
    written: Written,
    /// As it would be in HTTP/1.1.
    bytes: usize,
    fields: usize,
    method: Option<Method>,
    scheme: bool,
    path: Option<Span>,
    authority: Option<Span>,
    seen: Seen,
    length: Option<u64>,
    refused: Option<Refused>,
}

impl Reading {
    pub fn new(limits: Limits) -> Reading {
        Reading {
            limits,
            written: Written::with_room_for(HEAD, FIELDS),
            bytes: LINE_EXTRA,
            fields: 0,
            method: None,
            scheme: false,
            path: None,
            authority: None,
            seen: Seen::default(),
            length: None,
            refused: None,
        }
    }

    /// All fields have come.
    ///
    /// # Errors
    /// Whatever it is refused for.
    pub fn finish(self) -> Result<Head, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let method = self.method.ok_or(Refused::Malformed)?;
        let target = match (method == Method::CONNECT, self.scheme, self.path, self.authority) {
            (false, true, Some(path), _) => path,
            // Section 8.5.
            (true, false, None, Some(authority)) => authority,
            (..) => return Err(Refused::Malformed),
        };
        let headers = self.written.finish();
        let target = headers.of_head(target);
        let authority = self.authority.map(|authority| headers.of_head(authority));
        Ok(Head { method, target, authority, headers, seen: self.seen, length: self.length })
    }

    fn refuse(&mut self, refused: Refused) {
        self.refused = Some(refused);
        self.written = Written::with_room_for(0, 0);
    }

    /// Counts so many bytes; whether they may be kept.
    fn has_room(&mut self, bytes: usize) -> Result<(), Refused> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes { Err(Refused::TooLarge) } else { Ok(()) }
    }

    /// Section 8.3: before all fields, each once.
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        if self.fields > 0 {
            return Err(Refused::Malformed);
        }
        let once = |is_first: bool| if is_first { Ok(()) } else { Err(Refused::Malformed) };
        match name {
            b":method" => {
                once(self.method.is_none())?;
                self.has_room(value.len())?;
                self.method = Some(Method::from_bytes(value).map_err(|_| Refused::Malformed)?);
            }
            b":scheme" => {
                once(!self.scheme)?;
                self.scheme = is_scheme(value);
                once(self.scheme)?;
            }
            b":path" => {
                once(self.path.is_none() && is_path(value))?;
                if value.len() > self.limits.target {
                    return Err(Refused::TargetTooLong);
                }
                self.has_room(value.len())?;
                self.path = Some(self.written.part(value));
            }
            b":authority" => {
                once(self.authority.is_none())?;
                self.has_room(value.len())?;
                self.authority = Some(self.written.part(value));
            }
            // `:status`, `:protocol`, which is not offered, and whatever else.
            _ => return Err(Refused::Malformed),
        }
        Ok(())
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        let notable = Notable::of(name);
        if notable.is_none() && name == b"cookie" {
            self.has_room(value.len().saturating_add(FIELD_EXTRA))?;
            self.written.crumb(value);
            self.fields = self.fields.saturating_add(1);
            return if self.written.len() > self.limits.fields { Err(Refused::TooLarge) } else { Ok(()) };
        }
        match notable {
            // Section 8.2.2: what belongs to a connection of HTTP/1.1.
            Some(Notable::Connection | Notable::TransferEncoding) => return Err(Refused::Malformed),
            Some(Notable::HopByHop) if !may_hop(name, value) => return Err(Refused::Malformed),
            Some(Notable::ContentLength) => {
                let length = length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Refused::Malformed)?);
            }
            Some(Notable::HopByHop | Notable::Date | Notable::Expect | Notable::Via) | None => {}
        }
        self.has_room(name.len().saturating_add(value.len()).saturating_add(FIELD_EXTRA))?;
        self.fields = self.fields.saturating_add(1);
        if self.written.len() >= self.limits.fields {
            return Err(Refused::TooLarge);
        }
        self.seen.note(notable);
        self.written.field(name, value).ok_or(Refused::TooLarge)
    }
}

impl Take for Reading {
    fn take(&mut self, name: &[u8], value: &[u8], checked: Checked) -> Checked {
        if self.refused.is_some() {
            return checked;
        }
        let taken = if name.first() == Some(&b':') {
            self.pseudo(name, value)
        } else if is_valid(name, value, checked) {
            self.field(name, value)
        } else {
            Err(Refused::Malformed)
        };
        match taken {
            Ok(()) => Checked::Field,
            Err(refused) => {
                self.refuse(refused);
                checked
            }
        }
    }
}

/// Whether name and value are what section 8.2.1 allows, and all of what HTTP/1.1 does: they may go on to it as they are.
pub(super) fn is_valid(name: &[u8], value: &[u8], checked: Checked) -> bool {
    match checked {
        Checked::Field => true,
        Checked::Name => is_value(value),
        Checked::Nothing => is_name(name) && is_value(value),
    }
}

/// A token (RFC 9110 section 5.6.2) without upper case.
fn is_name(name: &[u8]) -> bool {
    const OF_NAMES: [bool; 256] = {
        let mut of_names = [false; 256];
        let mut byte = 0;
        #[expect(clippy::indexing_slicing, reason = "computed when the program is compiled")]
        while byte < 256 {
            of_names[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
            byte += 1;
        }
        of_names
    };
    !name.is_empty() && name.iter().all(|&byte| OF_NAMES.get(usize::from(byte)) == Some(&true))
}

/// No control character but the tab, and no blank at either end.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // Without a branch for each byte.
    let is_wrong = |byte: u8| ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f);
    !value.iter().fold(false, |wrong, &byte| wrong | is_wrong(byte))
        && !is_blank(value.first())
        && !is_blank(value.last())
}

/// RFC 3986 section 3.1.
fn is_scheme(value: &[u8]) -> bool {
    let of_schemes = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(of_schemes)
}

/// Section 8.3.1: it begins with a slash, or is the asterisk. What else it must be is judged where requests of all
/// protocols are.
fn is_path(value: &[u8]) -> bool {
    (value.first() == Some(&b'/') || value == b"*") && value.iter().all(|&byte| byte > b' ' && byte != 0x7f)
}

/// Whether a field that belongs to one connection may come all the same (section 8.2.2).
fn may_hop(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"te" => value.eq_ignore_ascii_case(b"trailers"),
        b"keep-alive" | b"proxy-connection" | b"upgrade" => false,
        _ => true,
    }
}

/// Plain digits; the largest is what a signed 64-bit length can still hold.
fn length(value: &[u8]) -> Option<u64> {
    let digit = |&byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte.wrapping_sub(b'0')));
    let more = |sum: u64, byte| sum.checked_mul(10)?.checked_add(digit(byte)?);
    let length = value.iter().try_fold(0, more)?;
    (!value.is_empty() && length <= i64::MAX as u64).then_some(length)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const LIMITS: Limits = Limits { bytes: 512, target: 64, fields: 8 };
    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];

    fn read(fields: &[(&str, &str)]) -> Result<Head, Refused> {
        let mut reading = Reading::new(LIMITS);
        for (name, value) in fields {
            reading.take(name.as_bytes(), value.as_bytes(), Checked::Nothing);
        }
        reading.finish()
    }

    fn with(more: &[(&str, &str)]) -> Result<Head, Refused> {
        read(&[&GET[..], more].concat())
    }

    #[test]
    fn a_head_is_written_as_lines() {
        let head = with(&[("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("via", "x")]).unwrap();
        let mut lines = BytesMut::new();
        head.headers.write_lines(&mut lines, |_| true);
        assert_eq!(&lines[..], b"accept: */*\r\ncookie: a=1; b=2\r\nvia: x\r\n");
        assert_eq!((head.method, &head.target[..]), (Method::GET, &b"/"[..]));
        assert_eq!(head.authority.as_deref(), Some(&b"a.test"[..]));
        assert!(head.seen.has(Notable::Via) && !head.seen.has(Notable::Expect));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let cases: &[&[(&str, &str)]] = &[
            &[("connection", "close")],
            &[("keep-alive", "1")],
            &[("proxy-connection", "x")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "x")],
            &[("te", "gzip")],
            &[("te", "trailers, gzip")],
            &[("X-Upper", "1")],
            &[("x y", "1")],
            &[("x:y", "1")],
            &[("x\u{e9}", "1")],
            &[("", "1")],
            &[("x", "1\r\ny: 2")],
            &[("x", "1\0")],
            &[("x", "\u{1}")],
            &[("x", "\u{7f}")],
            &[("x", " 1")],
            &[("x", "1\t")],
            &[(":unknown", "1")],
            &[(":status", "200")],
            &[(":protocol", "websocket")],
            &[("x", "1"), (":path", "/")],
            &[(":method", "GET")],
            &[(":path", "/")],
            &[(":scheme", "https")],
            &[(":authority", "a.test")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "")],
            &[("content-length", "+1")],
            &[("content-length", "9223372036854775808")],
        ];
        for case in cases {
            assert_eq!(with(case).err(), Some(Refused::Malformed), "{case:?}");
        }
        for (at, field) in [
            (0, (":method", "G T")),
            (0, (":method", "")),
            (1, (":scheme", "")),
            (1, (":scheme", "h ttp")),
            (3, (":path", "")),
            (3, (":path", "x")),
            (3, (":path", "/a b")),
            (3, (":path", "/\r\n")),
        ] {
            let mut fields = GET;
            fields[at] = field;
            assert_eq!(read(&fields).err(), Some(Refused::Malformed), "{field:?}");
        }
        for missing in [0, 1, 3] {
            let rest: Vec<_> =
                GET.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, field)| *field).collect();
            assert_eq!(read(&rest).err(), Some(Refused::Malformed), "without {:?}", GET[missing]);
        }
    }

    #[test]
    fn what_may_be_passes() {
        for case in [("te", "trailers"), ("te", "Trailers"), ("x", "a \t\u{e9}b"), ("x", ""), ("content-length", "0")] {
            assert!(with(&[case]).is_ok(), "{case:?}");
        }
        assert!(read(&[GET[0], GET[1], GET[3]]).unwrap().authority.is_none());
        assert_eq!(with(&[("content-length", "007")]).unwrap().length, Some(7));
        assert_eq!(read(&[(":method", "OPTIONS"), GET[1], (":path", "*")]).unwrap().target, "*");
    }

    #[test]
    fn connect_has_an_authority_and_nothing_else() {
        let connect = (":method", "CONNECT");
        assert_eq!(read(&[connect, GET[2]]).unwrap().target, "a.test");
        for fields in
            [&[connect][..], &[connect, GET[1], GET[2]], &[connect, GET[2], GET[3]], &[connect, GET[1], GET[3]]]
        {
            assert_eq!(read(fields).err(), Some(Refused::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn heads_are_bounded_as_those_of_http1_are() {
        let long = "a".repeat(400);
        assert!(with(&[("x", &long)]).is_ok());
        assert_eq!(with(&[("x", &long), ("y", &long)]).err(), Some(Refused::TooLarge));
        assert_eq!(with(&[("cookie", &long), ("cookie", &long)]).err(), Some(Refused::TooLarge));
        assert!(with(&[("x", "1"); 8]).is_ok());
        assert_eq!(with(&[("x", "1"); 9]).err(), Some(Refused::TooLarge));
        // Crumbs are one field.
        assert!(with(&[("cookie", "1"); 30]).is_ok());
        let path = format!("/{}", "a".repeat(64));
        assert_eq!(read(&[GET[0], GET[1], (":path", &path)]).err(), Some(Refused::TargetTooLong));
        // What comes behind is not looked at, nor kept.
        assert_eq!(with(&[("x", &long), ("y", &long), ("X", "\0")]).err(), Some(Refused::TooLarge));
    }
}
