//! Bodies as they come off a connection: by length, chunked (RFC 9112 section 7.1), or to its end.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::framing::Framing;
use super::head::{HeadScan, Kind, Limits, take_trailers};

/// The framing of a body is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What decoding yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing until more is read.
    NeedMore,
    End,
}

/// Takes a body off a buffer.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    /// Before a chunk's size line.
    Size,
    Data(u64),
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers(HeadScan),
    End,
    /// Nothing that follows can be trusted to be what it seems.
    Broken,
}

/// Hexadecimal digits of a chunk size: more could overflow, and no honest sender pads.
const SIZE_DIGITS: usize = 15;

const TRAILER_LIMITS: Limits = Limits { bytes: 8 * 1024, target: 0, fields: 32 };

impl Decoder {
    pub fn new(framing: Framing) -> Decoder {
        let state = match framing {
            Framing::None => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state }
    }

    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Bytes still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(length) => Some(length),
            State::End => Some(0),
            State::UntilClose | State::Size | State::Data(_) | State::DataEnd | State::Trailers(_) | State::Broken => {
                None
            }
        }
    }

    /// Bytes that are known to come next, without anything between them.
    pub fn coming(&self) -> u64 {
        match self.state {
            State::Length(length) | State::Data(length) => length,
            State::UntilClose | State::Size | State::DataEnd | State::Trailers(_) | State::End | State::Broken => 0,
        }
    }

    /// So much of what remains of a body of known length has gone another way.
    pub fn passed(&mut self, length: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(length);
            if *left == 0 {
                self.state = State::End;
            }
        }
    }

    /// The connection ended. Whether the body may end so.
    pub fn closed(&mut self) -> bool {
        let complete = matches!(self.state, State::UntilClose | State::End);
        self.state = State::End;
        complete
    }

    /// Takes what it can off `buffer`.
    ///
    /// # Errors
    /// At any deviation from the grammar, and ever after; chunk extensions are refused, since nothing uses them but
    /// smugglers.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Broken> {
        let decoded = self.advance(buffer);
        if decoded.is_err() {
            self.state = State::Broken;
        }
        decoded
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Broken> {
        loop {
            match &mut self.state {
                State::Broken => return Err(Broken),
                State::End => return Ok(Decoded::End),
                State::UntilClose => {
                    return Ok(if buffer.is_empty() {
                        Decoded::NeedMore
                    } else {
                        Decoded::Data(buffer.split().freeze())
                    });
                }
                State::Length(remaining) => {
                    let data = take_data(buffer, remaining);
                    if *remaining == 0 {
                        self.state = State::End;
                    }
                    return Ok(data);
                }
                State::Data(remaining) => {
                    let data = take_data(buffer, remaining);
                    if *remaining == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(data);
                }
                State::DataEnd => {
                    match buffer.get(..2) {
                        Some(b"\r\n") => buffer.advance(2),
                        Some(_) => return Err(Broken),
                        None if matches!(buffer.first(), None | Some(b'\r')) => return Ok(Decoded::NeedMore),
                        None => return Err(Broken),
                    }
                    self.state = State::Size;
                }
                State::Size => match take_size(buffer)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(0) => self.state = State::Trailers(HeadScan::default()),
                    Some(size) => self.state = State::Data(size),
                },
                State::Trailers(scan) => {
                    let found = scan.advance(buffer, &TRAILER_LIMITS, Kind::Trailers).map_err(|_| Broken)?;
                    let Some(length) = found else { return Ok(Decoded::NeedMore) };
                    self.state = State::End;
                    if length == 2 {
                        buffer.advance(2);
                        return Ok(Decoded::End);
                    }
                    return take_trailers(buffer, length, &TRAILER_LIMITS).map(Decoded::Trailers).map_err(|_| Broken);
                }
            }
        }
    }
}

fn take_data(buffer: &mut BytesMut, remaining: &mut u64) -> Decoded {
    if buffer.is_empty() {
        return Decoded::NeedMore;
    }
    let take = usize::try_from(*remaining).unwrap_or(usize::MAX).min(buffer.len());
    *remaining = remaining.saturating_sub(take as u64);
    Decoded::Data(buffer.split_to(take).freeze())
}

fn take_size(buffer: &mut BytesMut) -> Result<Option<u64>, Broken> {
    let mut size = 0u64;
    for (index, &byte) in buffer.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
            b'\r' if index > 0 => {
                return match buffer.get(index.saturating_add(1)) {
                    None => Ok(None),
                    Some(b'\n') => {
                        buffer.advance(index.saturating_add(2));
                        Ok(Some(size))
                    }
                    Some(_) => Err(Broken),
                };
            }
            _ => return Err(Broken),
        };
        if index >= SIZE_DIGITS {
            return Err(Broken);
        }
        size = (size << 4) | u64::from(digit);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out when the bytes arrive `step` at a time.
    fn decode(framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Broken> {
        let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
        let (mut data, mut trailers, mut rest) = (Vec::new(), None, text);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::Trailers(map) => trailers = Some(map),
                Decoded::End => return Ok((data, trailers, buffer.len() + rest.len())),
                Decoded::NeedMore => {
                    if rest.is_empty() {
                        return Err(Broken);
                    }
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buffer.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn chunks_however_they_arrive() {
        let text = b"5\r\nhello\r\n00A\r\n, world!!!\r\n0\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, trailers, left) = decode(Framing::Chunked, text, step).expect("well formed");
            assert_eq!((data.as_slice(), trailers, left), (&b"hello, world!!!"[..], None, 3));
        }
    }

    #[test]
    fn trailers_are_read() {
        let text = b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n";
        for step in 1..text.len() {
            let (_, trailers, left) = decode(Framing::Chunked, text, step).expect("well formed");
            assert_eq!(trailers.expect("trailers")["x-sum"], "1");
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for text in [
            "5;ext=1\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloo\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "g\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nA : b\r\n\r\n",
            "5\r\nhello\r\n0\r\nA: b\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "5\r\nhello",
        ] {
            for step in [1, 2, 1000] {
                assert_eq!(decode(Framing::Chunked, text.as_bytes(), step), Err(Broken), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for text in ["0\r\nA : b\r\n\r\n", "0\r\n: b\r\n\r\n", "1\r\naa\r\n", "x\r\n"] {
            let mut decoder = Decoder::new(Framing::Chunked);
            let mut buffer = BytesMut::from(text);
            let mut decoded = decoder.decode(&mut buffer);
            while let Ok(Decoded::Data(_)) = decoded {
                decoded = decoder.decode(&mut buffer);
            }
            assert_eq!(decoded, Err(Broken), "{text:?}");
            buffer.extend_from_slice(b"0\r\n\r\n\r\n");
            assert_eq!(decoder.decode(&mut buffer), Err(Broken), "{text:?}");
            assert!(!decoder.is_end());
        }
    }

    #[test]
    fn lengths_take_no_more() {
        let (data, _, left) = decode(Framing::Length(3), b"abcdef", 2).expect("well formed");
        assert_eq!((data.as_slice(), left), (&b"abc"[..], 3));
    }

    #[test]
    fn only_the_open_ended_may_end_with_the_connection() {
        assert!(Decoder::new(Framing::UntilClose).closed());
        assert!(!Decoder::new(Framing::Chunked).closed());
        assert!(!Decoder::new(Framing::Length(1)).closed());
    }
}
