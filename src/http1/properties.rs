//! Properties of the codec: what is read does not depend on how the bytes arrive, and what is written is read back.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::at_once;
use super::chunked::{Broken, Decoded, Decoder};
use super::encode;
use super::framing::Framing;
use super::head::{HeadError, HeadScan, Kind, Limits, take_request, take_response};
use super::queue::Queue;
use crate::headers::{Headers, Name};

const LIMITS: Limits = Limits { bytes: 256, target: 64, fields: 16 };

/// Bytes made of the pieces that matter, with some noise.
fn soup(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    soup(
        &[
            "GET / HTTP/1.1",
            "HTTP/1.1 200 OK",
            "\r\n",
            "\r\n",
            "\r\n\r\n",
            "\r",
            "\n",
            " ",
            "\t",
            "A: b",
            "Host: a",
            ":",
        ],
        16,
    )
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    soup(&["0", "1", "a", "A", "5", "\r\n", "\r\n", "0\r\n\r\n", "\r", "\n", ";x", " ", "A: b\r\n", "1\r\nx\r\n"], 16)
}

/// `text` cut at these places, as far as they lie within it.
fn cut(text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([text.len()]).collect();
    ends.sort_unstable();
    let mut from = 0;
    ends.into_iter().map(|to| text[std::mem::replace(&mut from, to)..to].to_vec()).collect()
}

fn scan(pieces: &[Vec<u8>], kind: Kind) -> Result<Option<usize>, HeadError> {
    let (mut scan, mut buffer) = (HeadScan::default(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if let Some(length) = scan.advance(&buffer, &LIMITS, kind)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// All data, the trailers, and what is left; `None` while more is needed.
type Whole = Option<(Vec<u8>, Option<HeaderMap>, Vec<u8>)>;

fn decode(framing: Framing, pieces: &[Vec<u8>]) -> Result<Whole, Broken> {
    let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), None);
    for (index, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::Trailers(map) => trailers = Some(map),
                Decoded::NeedMore => break,
                Decoded::End => {
                    let rest = pieces.iter().skip(index + 1).flatten().copied();
                    let left = buffer.iter().copied().chain(rest).collect();
                    return Ok(Some((data, trailers, left)));
                }
            }
        }
    }
    Ok(None)
}

fn fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name = "[a-z][a-z0-9-]{0,8}".prop_map(|name| HeaderName::try_from(name).unwrap());
    let value = "([!-~]([ -~]{0,8}[!-~])?)?".prop_map(|value| HeaderValue::try_from(value).unwrap());
    vec((name, value), 0..8)
}

fn headers(fields: &[(HeaderName, HeaderValue)]) -> Headers {
    fields.iter().cloned().collect()
}

const FIRST_LINES: &[&[u8]] =
    &[b"GET /a HTTP/1.1\r\n", b"POST /b?c HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 099 \r\n"];

/// Close to what is read at once, if it is not that.
fn plain_heads() -> impl Strategy<Value = Vec<u8>> {
    let first = select(FIRST_LINES);
    let colon = select(&[": ", ":", ": ", ":\t", " :"][..]);
    let line = ("[A-Za-z!#~_{-]{0,9}", colon, vec(prop_oneof![4 => b' '..=b'~', 1 => any::<u8>()], 0..12));
    (first, vec(line, 0..6), soup(&["\r\n", "\r\n", "\r\nrest", "\n"], 3)).prop_map(|(first, lines, end)| {
        let lines = lines
            .into_iter()
            .flat_map(|(name, colon, value)| [name.as_bytes(), colon.as_bytes(), value.trim_ascii(), b"\r\n"].concat());
        first.iter().copied().chain(lines).chain(end).collect()
    })
}

/// What `by` reads, and what it leaves.
fn read<T>(text: &[u8], by: impl FnOnce(&mut BytesMut, &Limits) -> Option<T>) -> Option<(T, BytesMut)> {
    let mut buffer = BytesMut::from(text);
    by(&mut buffer, &LIMITS).map(|head| (head, buffer))
}

fn take<T>(
    buffer: &mut BytesMut,
    limits: &Limits,
    kind: Kind,
    by: impl FnOnce(&mut BytesMut, usize, &Limits) -> Result<T, HeadError>,
) -> Option<T> {
    let length = HeadScan::default().advance(buffer, limits, kind).ok()??;
    by(buffer, length, limits).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn heads_end_at_the_same_place_however_they_arrive(
        text in heads(),
        cuts in vec(any::<usize>(), 0..8),
        kind in select(&[Kind::Request, Kind::Response, Kind::Trailers][..]),
    ) {
        let (whole, parts) = (scan(std::slice::from_ref(&text), kind), scan(&cut(&text, &cuts), kind));
        // Which of two faults is met first may differ.
        prop_assert_eq!(whole.ok(), parts.ok());
    }

    #[test]
    fn what_is_a_head_is_read_whole_or_refused(text in heads()) {
        if let Ok(Some(length)) = scan(std::slice::from_ref(&text), Kind::Request) {
            prop_assert!(length <= LIMITS.bytes && text[..length].ends_with(b"\r\n"));
            for take in [
                |buffer: &mut BytesMut, length| take_request(buffer, length, &LIMITS).map(|head| head.headers),
                |buffer: &mut BytesMut, length| take_response(buffer, length, &LIMITS).map(|head| head.headers),
            ] {
                let mut buffer = BytesMut::from(&text[..]);
                if let Ok(headers) = take(&mut buffer, length) {
                    prop_assert!(headers.len() <= LIMITS.fields);
                    prop_assert!(headers.values().all(|value| value.as_bytes().trim_ascii() == value.as_bytes()));
                }
                prop_assert_eq!(&buffer[..], &text[length..]);
            }
        }
    }

    #[test]
    fn what_is_read_at_once_is_what_is_read(text in prop_oneof![heads(), plain_heads()]) {
        if let Some((one, left)) = read(&text, at_once::request) {
            let (whole, rest) = read(&text, |buffer, limits| take(buffer, limits, Kind::Request, take_request)).unwrap();
            prop_assert_eq!((one.method, one.target, one.version), (whole.method, whole.target, whole.version));
            prop_assert_eq!((one.headers, one.seen, left), (whole.headers, whole.seen, rest));
        }
        if let Some((one, left)) = read(&text, at_once::response) {
            let (whole, rest) = read(&text, |buffer, limits| take(buffer, limits, Kind::Response, take_response)).unwrap();
            prop_assert_eq!((one.status, one.version), (whole.status, whole.version));
            prop_assert_eq!((one.headers, one.seen, left), (whole.headers, whole.seen, rest));
        }
    }

    #[test]
    fn fields_come_back(fields in fields()) {
        let mut out = BytesMut::from("GET /a HTTP/1.1\r\n");
        headers(&fields).write_lines(&mut out, |_| true);
        out.extend_from_slice(b"\r\nrest");
        let limits = Limits { bytes: 4096, ..LIMITS };
        let length = HeadScan::default().advance(&out, &limits, Kind::Request).unwrap().unwrap();
        let head = take_request(&mut out, length, &limits).unwrap();
        prop_assert_eq!(&head.headers, &headers(&fields));
        prop_assert_eq!(&out[..], b"rest");
    }

    #[test]
    fn lines_are_the_same_however_they_came(
        fields in vec((fields(), select(&[":", ": ", ":\t", ":  "][..]), select(&["", " "][..])), 0..4),
        left_out in any::<u8>(),
    ) {
        let mut text = String::from("GET / HTTP/1.1\r\n");
        for (fields, before, behind) in &fields {
            for (name, value) in &headers(fields) {
                text.push_str(&format!("{name}{before}"));
                text.extend(value.as_bytes().iter().map(|&byte| char::from(byte & 0x7f)));
                text.push_str(&format!("{behind}\r\n"));
            }
        }
        text.push_str("\r\n");
        let mut buffer = BytesMut::from(text.as_str());
        let limits = Limits { bytes: 1 << 16, fields: 200, ..LIMITS };
        let length = HeadScan::default().advance(&buffer, &limits, Kind::Request).unwrap().unwrap();
        if let Ok(head) = take_request(&mut buffer, length, &limits) {
            let stays = |name: Name<'_>| name.as_bytes().len() % 3 != usize::from(left_out % 4);
            let (mut lines, mut each) = (BytesMut::new(), BytesMut::new());
            head.headers.write_lines(&mut lines, stays);
            for (name, value) in head.headers.iter().filter(|(name, _)| stays(*name)) {
                encode::field(&mut each, name.as_bytes(), value.as_bytes());
            }
            prop_assert_eq!(lines, each);
        }
    }

    #[test]
    fn bodies_are_the_same_however_they_arrive(
        text in bodies(),
        cuts in vec(any::<usize>(), 0..8),
        framing in select(&[Framing::Chunked, Framing::Length(5), Framing::None][..]),
    ) {
        prop_assert_eq!(decode(framing, std::slice::from_ref(&text)), decode(framing, &cut(&text, &cuts)));
    }

    #[test]
    fn chunks_come_back(pieces in vec(vec(any::<u8>(), 0..40), 0..8), fields in fields(), cuts in vec(any::<usize>(), 0..8)) {
        let mut queue = Queue::default();
        for piece in &pieces {
            queue.push_chunk(Bytes::from(piece.clone()));
        }
        let trailers = encode::trailing(&headers(&fields).into());
        encode::last_chunk(queue.gather(), Some(&trailers));
        queue.gather().extend_from_slice(b"next");
        let text = queue.gather().to_vec();
        let whole = decode(Framing::Chunked, &cut(&text, &cuts)).unwrap().expect("it has an end");
        let trailers = (!trailers.is_empty()).then_some(trailers);
        prop_assert_eq!(whole, (pieces.concat(), trailers, b"next".to_vec()));
    }
}
