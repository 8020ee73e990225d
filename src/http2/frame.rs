//! Frames (RFC 9113 sections 4 and 6): their heads, what is in them, and how ours are written.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// What every client begins with (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

/// The longest payload that is taken, and that is sent: the least that every end must allow.
pub const LONGEST: usize = 16_384;

/// Flags (section 6): of DATA and HEADERS, of SETTINGS and PING, of HEADERS and CONTINUATION.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Why a stream or a connection ends (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0x0,
    Protocol = 0x1,
    Internal = 0x2,
    FlowControl = 0x3,
    StreamClosed = 0x5,
    FrameSize = 0x6,
    RefusedStream = 0x7,
    Cancel = 0x8,
    Compression = 0x9,
    EnhanceYourCalm = 0xb,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::NoError => "NO_ERROR",
            Code::Protocol => "PROTOCOL_ERROR",
            Code::Internal => "INTERNAL_ERROR",
            Code::FlowControl => "FLOW_CONTROL_ERROR",
            Code::StreamClosed => "STREAM_CLOSED",
            Code::FrameSize => "FRAME_SIZE_ERROR",
            Code::RefusedStream => "REFUSED_STREAM",
            Code::Cancel => "CANCEL",
            Code::Compression => "COMPRESSION_ERROR",
            Code::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
        })
    }
}

/// What a frame breaks (section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends with it.
    Connection(Code),
    /// Its stream does.
    Stream(Code),
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    kind: u8,
    flags: u8,
    /// 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// From the first bytes of what has come; `None` while they are too few.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The first bit is reserved, and ignored.
        Some(Head { length, kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'f> {
    Data {
        data: &'f [u8],
        end_stream: bool,
    },
    Headers {
        block: &'f [u8],
        end_stream: bool,
        end_headers: bool,
    },
    /// Says how important a stream is, which no one has to heed any more (section 5.3.2).
    Priority,
    RstStream,
    Settings(Settings),
    SettingsAck,
    Ping([u8; 8]),
    PingAck([u8; 8]),
    GoAway,
    WindowUpdate(u32),
    Continuation {
        block: &'f [u8],
        end_headers: bool,
    },
    /// Of a kind that nobody here knows: ignored (section 4.1).
    Unknown,
}

impl<'f> Frame<'f> {
    /// Reads a payload of `head.length` bytes.
    ///
    /// # Errors
    /// What of section 6 it breaks, by itself: whether it may come now is not looked at.
    pub fn parse(head: Head, payload: &'f [u8]) -> Result<Frame<'f>, Fault> {
        const PROTOCOL: Fault = Fault::Connection(Code::Protocol);
        const SIZE: Fault = Fault::Connection(Code::FrameSize);
        let of_stream = head.stream != 0;
        let must = |holds: bool, fault: Fault| if holds { Ok(()) } else { Err(fault) };
        match head.kind {
            0x0 => {
                must(of_stream, PROTOCOL)?;
                Ok(Frame::Data { data: without_padding(head, payload)?, end_stream: head.has(END_STREAM) })
            }
            0x1 => {
                must(of_stream, PROTOCOL)?;
                let mut block = without_padding(head, payload)?;
                if head.has(PRIORITY) {
                    block = block.get(5..).ok_or(SIZE)?;
                }
                let (end_stream, end_headers) = (head.has(END_STREAM), head.has(END_HEADERS));
                Ok(Frame::Headers { block, end_stream, end_headers })
            }
            0x2 => {
                must(of_stream, PROTOCOL)?;
                must(head.length == 5, Fault::Stream(Code::FrameSize))?;
                Ok(Frame::Priority)
            }
            0x3 => {
                must(of_stream, PROTOCOL)?;
                must(head.length == 4, SIZE)?;
                Ok(Frame::RstStream)
            }
            0x4 => {
                must(!of_stream, PROTOCOL)?;
                if head.has(ACK) {
                    must(head.length == 0, SIZE)?;
                    return Ok(Frame::SettingsAck);
                }
                must(head.length.is_multiple_of(6), SIZE)?;
                Settings::parse(payload).map(Frame::Settings)
            }
            // A client may not push (section 8.4).
            0x5 => Err(PROTOCOL),
            0x6 => {
                must(!of_stream, PROTOCOL)?;
                let payload = <[u8; 8]>::try_from(payload).map_err(|_| SIZE)?;
                Ok(if head.has(ACK) { Frame::PingAck(payload) } else { Frame::Ping(payload) })
            }
            0x7 => {
                must(!of_stream, PROTOCOL)?;
                must(head.length >= 8, SIZE)?;
                Ok(Frame::GoAway)
            }
            0x8 => {
                let bytes = <[u8; 4]>::try_from(payload).map_err(|_| SIZE)?;
                // The first bit is reserved, and ignored.
                match u32::from_be_bytes(bytes) & super::flow::LARGEST {
                    0 if of_stream => Err(Fault::Stream(Code::Protocol)),
                    0 => Err(PROTOCOL),
                    bytes => Ok(Frame::WindowUpdate(bytes)),
                }
            }
            0x9 => {
                must(of_stream, PROTOCOL)?;
                Ok(Frame::Continuation { block: payload, end_headers: head.has(END_HEADERS) })
            }
            _ => Ok(Frame::Unknown),
        }
    }
}

/// Section 6.1: padding is at least as short as what it stands in.
fn without_padding(head: Head, payload: &[u8]) -> Result<&[u8], Fault> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Fault::Connection(Code::FrameSize))?;
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(Fault::Connection(Code::Protocol))?;
    Ok(rest.get(..length).unwrap_or_default())
}

/// What a client says of itself, as far as it matters here. Of what it says twice the last holds (section 6.5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The least that was said on the way to the last: it must be heeded too (RFC 7541 section 4.2).
    pub least_header_table_size: Option<u32>,
    pub header_table_size: Option<u32>,
    pub initial_window_size: Option<u32>,
}

impl Settings {
    fn parse(payload: &[u8]) -> Result<Settings, Fault> {
        let mut settings = Settings::default();
        for setting in payload.as_chunks::<6>().0 {
            let &[i0, i1, v0, v1, v2, v3] = setting;
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                0x1 => {
                    let least = settings.least_header_table_size.map_or(value, |least| least.min(value));
                    settings.least_header_table_size = Some(least);
                    settings.header_table_size = Some(value);
                }
                // ENABLE_PUSH: nothing is pushed, whatever it says.
                0x2 if value > 1 => return Err(Fault::Connection(Code::Protocol)),
                // INITIAL_WINDOW_SIZE
                0x4 if value > super::flow::LARGEST => return Err(Fault::Connection(Code::FlowControl)),
                0x4 => settings.initial_window_size = Some(value),
                // MAX_FRAME_SIZE: frames are never longer than the least that it can be.
                0x5 if !(16_384..=16_777_215).contains(&value) => return Err(Fault::Connection(Code::Protocol)),
                // Nobody is pushed to, so MAX_CONCURRENT_STREAMS bounds nothing; MAX_HEADER_LIST_SIZE is advice.
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    out.reserve(HEAD);
    out.put_slice(&raw_head(length, kind, flags, stream));
}

fn raw_head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, l0, l1, l2] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [l0, l1, l2, kind, flags, s0, s1, s2, s3]
}

/// What a server says of itself at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub max_concurrent_streams: u32,
    pub initial_window_size: u32,
    pub max_header_list_size: u32,
}

pub fn settings(out: &mut BytesMut, offer: Offer) {
    let pairs =
        [(0x3_u16, offer.max_concurrent_streams), (0x4, offer.initial_window_size), (0x6, offer.max_header_list_size)];
    head(out, pairs.len() * 6, 0x4, 0, 0);
    for (name, value) in pairs {
        out.put_u16(name);
        out.put_u32(value);
    }
}

pub fn settings_ack(out: &mut BytesMut) {
    head(out, 0, 0x4, ACK, 0);
}

pub fn ping(out: &mut BytesMut, payload: [u8; 8]) {
    head(out, 8, 0x6, 0, 0);
    out.put_slice(&payload);
}

pub fn ping_ack(out: &mut BytesMut, payload: [u8; 8]) {
    head(out, 8, 0x6, ACK, 0);
    out.put_slice(&payload);
}

/// `last`: the last stream that is or may be served.
pub fn go_away(out: &mut BytesMut, last: u32, code: Code) {
    head(out, 8, 0x7, 0, 0);
    out.put_u32(last);
    out.put_u32(code as u32);
}

pub fn rst_stream(out: &mut BytesMut, stream: u32, code: Code) {
    head(out, 4, 0x3, 0, stream);
    out.put_u32(code as u32);
}

/// `stream` is 0 for the connection's window.
pub fn window_update(out: &mut BytesMut, stream: u32, bytes: u32) {
    head(out, 4, 0x8, 0, stream);
    out.put_u32(bytes);
}

/// At most [`LONGEST`] bytes.
pub fn data(out: &mut BytesMut, stream: u32, data: &[u8], end_stream: bool) {
    out.reserve(HEAD.saturating_add(data.len()));
    head(out, data.len(), 0x0, if end_stream { END_STREAM } else { 0 }, stream);
    out.put_slice(data);
}

/// HEADERS with what `write` packs, and CONTINUATION behind it where that is long.
pub fn headers(out: &mut BytesMut, stream: u32, end_stream: bool, write: impl FnOnce(&mut BytesMut)) {
    let end_stream = if end_stream { END_STREAM } else { 0 };
    let begin = out.len();
    head(out, 0, 0x1, END_HEADERS | end_stream, stream);
    write(out);
    let length = out.len().saturating_sub(begin).saturating_sub(HEAD);
    if length <= LONGEST {
        if let Some(space) = out.get_mut(begin..begin.saturating_add(HEAD)) {
            space.copy_from_slice(&raw_head(length, 0x1, END_HEADERS | end_stream, stream));
        }
        return;
    }
    let block = out.split_off(begin.saturating_add(HEAD));
    out.truncate(begin);
    let mut pieces = block.chunks(LONGEST).peekable();
    let (mut kind, mut flags) = (0x1, end_stream);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        head(out, piece.len(), kind, flags | end, stream);
        out.extend_from_slice(piece);
        (kind, flags) = (0x9, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames in `bytes`.
    fn frames(mut bytes: &[u8]) -> Vec<(Head, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(head) = Head::parse(bytes) {
            let (payload, rest) = bytes[HEAD..].split_at(head.length);
            frames.push((head, payload.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        frames
    }

    fn parse(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, Fault> {
        let head = Head::parse(&raw_head(payload.len(), kind, flags, stream)).unwrap();
        Frame::parse(head, payload)
    }

    #[test]
    fn heads_are_written_and_read_alike() {
        assert_eq!(Head::parse(&[0; 8]), None);
        let head = Head::parse(&[0x01, 0x02, 0x03, 0x09, 0x04, 0x80, 0x00, 0x00, 0x05]).unwrap();
        assert_eq!(head, Head { length: 0x01_02_03, kind: 9, flags: 4, stream: 5 });
        assert_eq!(raw_head(0x01_02_03, 9, 4, 5), [1, 2, 3, 9, 4, 0, 0, 0, 5]);
    }

    #[test]
    fn lengths_and_streams_are_looked_at() {
        let (size, protocol) = (Err(Fault::Connection(Code::FrameSize)), Err(Fault::Connection(Code::Protocol)));
        for (kind, payload) in [(0, &b"x"[..]), (1, b"x"), (2, b"12345"), (3, b"1234"), (9, b"x")] {
            assert_eq!(parse(kind, 0, 0, payload), protocol, "{kind} on the connection");
            assert!(parse(kind, 0, 1, payload).is_ok(), "{kind}");
        }
        for (kind, payload) in [(4, &b""[..]), (6, b"12345678"), (7, b"12345678")] {
            assert_eq!(parse(kind, 0, 1, payload), protocol, "{kind} on a stream");
            assert!(parse(kind, 0, 0, payload).is_ok(), "{kind}");
        }
        for (kind, stream, payload) in [(3, 1, &b"123"[..]), (4, 0, b"12345"), (6, 0, b"1234567"), (7, 0, b"1234567")] {
            assert_eq!(parse(kind, 0, stream, payload), size, "{kind}");
        }
        assert_eq!(parse(8, 0, 1, b"12345"), size);
        assert_eq!(parse(4, ACK, 0, b"123456"), size);
        assert_eq!(parse(2, 0, 1, b"1234"), Err(Fault::Stream(Code::FrameSize)));
        assert_eq!(parse(5, 0, 1, b"1234"), protocol);
        assert_eq!(parse(0xfe, 0xff, 7, b"whatever"), Ok(Frame::Unknown));
    }

    #[test]
    fn padding_is_cut_off_and_never_longer_than_its_frame() {
        let data = |data| Ok(Frame::Data { data, end_stream: false });
        assert_eq!(parse(0, PADDED, 1, b"\x03data\0\0\0"), data(b"data"));
        assert_eq!(parse(0, PADDED, 1, b"\x03\0\0\0"), data(b""));
        assert_eq!(parse(0, PADDED, 1, b"\x04\0\0\0"), Err(Fault::Connection(Code::Protocol)));
        assert_eq!(parse(0, PADDED, 1, b""), Err(Fault::Connection(Code::FrameSize)));
        let headers = Frame::Headers { block: b"block", end_stream: true, end_headers: true };
        let flags = PADDED | PRIORITY | END_STREAM | END_HEADERS;
        assert_eq!(parse(1, flags, 1, b"\x0112345block\0"), Ok(headers));
        assert_eq!(parse(1, PRIORITY, 1, b"1234"), Err(Fault::Connection(Code::FrameSize)));
    }

    #[test]
    fn windows_grow_by_something() {
        assert_eq!(parse(8, 0, 1, &[0x80, 0, 0, 7]), Ok(Frame::WindowUpdate(7)));
        assert_eq!(parse(8, 0, 1, &[0x80, 0, 0, 0]), Err(Fault::Stream(Code::Protocol)));
        assert_eq!(parse(8, 0, 0, &[0, 0, 0, 0]), Err(Fault::Connection(Code::Protocol)));
    }

    #[test]
    fn settings_have_their_bounds() {
        let one = |name: u16, value: u32| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let parsed = |payload: &[u8]| match parse(4, 0, 0, payload) {
            Ok(Frame::Settings(settings)) => Ok(settings.initial_window_size),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        assert_eq!(parsed(&[one(4, 1), one(99, 5), one(4, 2)].concat()), Ok(Some(2)));
        assert_eq!(parsed(&[one(2, 1), one(5, 16_384), one(5, 16_777_215)].concat()), Ok(None));
        assert_eq!(parsed(&one(2, 2)), Err(Fault::Connection(Code::Protocol)));
        let sizes = [one(1, 100), one(1, 5), one(1, 4096)].concat();
        let expected =
            Settings { least_header_table_size: Some(5), header_table_size: Some(4096), ..Settings::default() };
        assert_eq!(parse(4, 0, 0, &sizes), Ok(Frame::Settings(expected)));
        assert_eq!(parsed(&one(4, 0x8000_0000)), Err(Fault::Connection(Code::FlowControl)));
        for size in [16_383, 16_777_216] {
            assert_eq!(parsed(&one(5, size)), Err(Fault::Connection(Code::Protocol)));
        }
    }

    #[test]
    fn long_blocks_are_continued() {
        for length in [0, 1, LONGEST, LONGEST + 1, 2 * LONGEST, 2 * LONGEST + 5] {
            let mut out = BytesMut::from(&raw_head(0, 0x4, ACK, 0)[..]);
            let block: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            headers(&mut out, 3, true, |out| out.extend_from_slice(&block));
            let frames = frames(&out);
            let (first, rest) = frames[1..].split_first().unwrap();
            assert_eq!((first.0.kind, first.0.has(END_STREAM), first.0.stream), (1, true, 3));
            assert!(rest.iter().all(|(head, _)| (head.kind, head.has(END_STREAM), head.stream) == (9, false, 3)));
            let ends: Vec<bool> = frames[1..].iter().map(|(head, _)| head.has(END_HEADERS)).collect();
            assert_eq!(ends.iter().position(|&end| end), Some(ends.len() - 1), "{length}");
            assert_eq!(frames[1..].iter().flat_map(|(_, payload)| payload.clone()).collect::<Vec<_>>(), block);
        }
    }
}
