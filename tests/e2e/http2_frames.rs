//! HTTP/2 by hand, frame by frame: what no client library will send.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use rustls::version::TLS13;

use crate::harness::tls::{Certificate, TlsStream, client_config, connect};
use crate::harness::{Fake, Gateway, Setup};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection after its preface.
struct Frames {
    stream: TlsStream,
    read: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, PartialEq)]
enum Fate {
    /// The block of its response's header, still packed.
    Answered(Vec<u8>),
    Reset,
    ConnectionEnded,
}

/// A field, packed as a literal that is not indexed (RFC 7541, 6.2.2), without Huffman codes.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut packed = vec![0, u8::try_from(name.len()).unwrap()];
    packed.extend(name.as_bytes());
    assert!(value.len() < 127);
    packed.push(u8::try_from(value.len()).unwrap());
    packed.extend(value.as_bytes());
    packed
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];

impl Frames {
    fn open(gateway: &Gateway, certificate: &Certificate) -> Frames {
        let config = client_config(&[certificate], &["h2"], &[&TLS13]);
        let client = connect(gateway.port("https"), "localhost", &config).unwrap();
        client.stream.sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut frames = Frames { stream: client.stream, read: Vec::new() };
        frames.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.send(SETTINGS, 0, 0, b"");
        frames
    }

    /// Sends what the other side may not want any more.
    fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.raw(&frame);
    }

    /// The next frame: its kind, stream and payload; `None` at the end of the connection.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            if self.read.len() >= 9 {
                let length =
                    usize::from(self.read[1]) << 8 | usize::from(self.read[2]) | usize::from(self.read[0]) << 16;
                if self.read.len() >= 9 + length {
                    let frame: Vec<u8> = self.read.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes([frame[5] & 0x7f, frame[6], frame[7], frame[8]]);
                    return Some((frame[3], stream, frame[9..].to_vec()));
                }
            }
            let mut piece = [0; 16384];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => self.read.extend(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the gateway says nothing"),
                Err(_) => return None,
            }
        }
    }

    fn fate(&mut self, of: u32) -> Fate {
        while let Some((kind, stream, payload)) = self.next() {
            match kind {
                HEADERS if stream == of => return Fate::Answered(payload),
                RST_STREAM if stream == of => return Fate::Reset,
                GOAWAY => return Fate::ConnectionEnded,
                _ => {}
            }
        }
        Fate::ConnectionEnded
    }
}

/// Whether the block begins with `:status` 400: indexed 12 of the static table (RFC 7541, Appendix A).
fn is_400(block: &[u8]) -> bool {
    block.first() == Some(&(0x80 | 12))
}

fn start(fake: &Fake) -> (Gateway, Certificate) {
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([fake.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    (Gateway::start_with(&setup.text(), |directory, _| certificate.write(directory, "site")), certificate)
}

#[test]
fn a_request_by_hand_is_answered() {
    let fake = Fake::ok();
    let (gateway, certificate) = start(&fake);
    let mut frames = Frames::open(&gateway, &certificate);
    frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET));
    // 200 is entry 8.
    assert!(matches!(frames.fate(1), Fate::Answered(block) if block.first() == Some(&0x88)));
    assert_eq!(fake.requests().len(), 1);
}

/// A client that has just begun to send a body may take a reset for a failure and never look at its answer.
#[test]
fn a_refusal_does_not_reset_a_stream_whose_body_is_on_its_way() {
    let fake = Fake::ok();
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([fake.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]\n\
         [route.closed]\npath = \"/closed\"\nupstream = \"app\"\nallow = [\"192.0.2.1\"]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _| certificate.write(directory, "site"));
    let mut frames = Frames::open(&gateway, &certificate);
    let post = [(":method", "POST"), GET[1], GET[2], (":path", "/closed"), ("content-length", "4")];
    frames.send(HEADERS, END_HEADERS, 1, &block(&post));
    assert!(matches!(frames.fate(1), Fate::Answered(_)), "it does not wait for the body");
    frames.send(DATA, 0, 1, b"te");
    frames.send(DATA, END_STREAM, 1, b"xt");
    // The next answer comes behind whatever is said of the first stream.
    frames.send(HEADERS, END_STREAM | END_HEADERS, 3, &block(&GET));
    while let Some((kind, stream, _)) = frames.next() {
        assert!((kind, stream) != (RST_STREAM, 1), "the stream was reset");
        if (kind, stream) == (HEADERS, 3) {
            return;
        }
    }
    panic!("the connection ended");
}

#[test]
fn forbidden_fields_and_malformed_heads_end_the_stream_or_are_refused() {
    let fake = Fake::ok();
    let (gateway, certificate) = start(&fake);
    let more = |field: (&'static str, &'static str)| [&GET[..], &[field]].concat();
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("connection", more(("connection", "close"))),
        ("keep-alive", more(("keep-alive", "timeout=5"))),
        ("proxy-connection", more(("proxy-connection", "keep-alive"))),
        ("transfer-encoding", more(("transfer-encoding", "chunked"))),
        ("upgrade", more(("upgrade", "websocket"))),
        ("te other than trailers", more(("te", "gzip"))),
        ("a name in upper case", more(("X-Upper", "1"))),
        ("a name with a blank", more(("x y", "1"))),
        ("a name with a colon", more(("x:y", "1"))),
        ("an empty name", more(("", "1"))),
        ("a line break in a value", more(("x", "1\r\ny: 2"))),
        ("NUL in a value", more(("x", "1\u{0}2"))),
        ("an unknown pseudo-field", more((":unknown", "1"))),
        ("a pseudo-field of responses", more((":status", "200"))),
        ("a pseudo-field after a field", vec![GET[0], GET[1], GET[2], ("x", "1"), GET[3]]),
        ("a method twice", more(GET[0])),
        ("a path twice", more((":path", "/other"))),
        ("an authority twice", more((":authority", "other.example"))),
        ("no path", vec![GET[0], GET[1], GET[2]]),
        ("no method", vec![GET[1], GET[2], GET[3]]),
        ("no scheme", vec![GET[0], GET[2], GET[3]]),
        ("an empty path", vec![GET[0], GET[1], GET[2], (":path", "")]),
        ("a path that is none", vec![GET[0], GET[1], GET[2], (":path", "nothing")]),
        ("a path with a blank", vec![GET[0], GET[1], GET[2], (":path", "/a b")]),
        ("a path with a line break", vec![GET[0], GET[1], GET[2], (":path", "/ HTTP/1.1\r\nX: 1")]),
        ("a method with a blank", vec![(":method", "GET /x"), GET[1], GET[2], GET[3]]),
        ("a method with a line break", vec![(":method", "GET\r\nX:"), GET[1], GET[2], GET[3]]),
        ("an authority with a user", vec![GET[0], GET[1], (":authority", "me@localhost"), GET[3]]),
        ("another host than the authority", more(("host", "other.example"))),
        ("two hosts", vec![GET[0], GET[1], GET[3], ("host", "a"), ("host", "b")]),
        ("no host at all", vec![GET[0], GET[1], GET[3]]),
        ("an odd length", more(("content-length", "+0"))),
        ("a length of a GET without a body", more(("content-length", "5"))),
        ("two lengths", [&GET[..], &[("content-length", "0"), ("content-length", "1")]].concat()),
    ];
    let mut wrong = Vec::new();
    for (what, fields) in cases {
        let mut frames = Frames::open(&gateway, &certificate);
        frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
        match frames.fate(1) {
            Fate::Reset | Fate::ConnectionEnded => {}
            Fate::Answered(block) if is_400(&block) => {}
            Fate::Answered(block) => wrong.push(format!("{what}: answered {block:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[test]
fn a_body_that_is_not_as_long_as_it_was_said_to_be_is_never_whole() {
    let fake = Fake::ok();
    let (gateway, certificate) = start(&fake);
    let post = |length: &'static str| block(&[(":method", "POST"), GET[1], GET[2], GET[3], ("content-length", length)]);
    for (length, body) in [("3", &b"hello"[..]), ("10", b"hello"), ("0", b"hello")] {
        let mut frames = Frames::open(&gateway, &certificate);
        frames.send(HEADERS, END_HEADERS, 1, &post(length));
        frames.send(DATA, END_STREAM, 1, body);
        match frames.fate(1) {
            Fate::Reset | Fate::ConnectionEnded => {}
            Fate::Answered(block) => assert!(is_400(&block), "{length}: answered {block:?}"),
        }
    }
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let fake = Fake::ok();
    let (gateway, certificate) = start(&fake);
    type Breach = fn(&mut Frames);
    let breaches: [(&str, Breach); 9] = [
        ("DATA on a stream that was never opened", |frames| frames.send(DATA, END_STREAM, 1, b"hello")),
        ("HEADERS on stream 0", |frames| frames.send(HEADERS, END_STREAM | END_HEADERS, 0, &block(&GET))),
        ("HEADERS on an even stream", |frames| frames.send(HEADERS, END_STREAM | END_HEADERS, 2, &block(&GET))),
        ("a frame beyond the bound", |frames| frames.send(DATA, 0, 1, &[0; 20_000])),
        ("SETTINGS of an odd length", |frames| frames.send(SETTINGS, 0, 0, b"12345")),
        ("a window of nothing more", |frames| frames.send(8, 0, 0, &0_u32.to_be_bytes())),
        ("a window beyond all bounds", |frames| frames.send(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        ("CONTINUATION of nothing", |frames| frames.send(CONTINUATION, END_HEADERS, 1, b"")),
        ("fields that cannot be unpacked", |frames| frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &[0x80])),
    ];
    for (what, breach) in breaches {
        let mut frames = Frames::open(&gateway, &certificate);
        breach(&mut frames);
        assert_eq!(frames.fate(1), Fate::ConnectionEnded, "{what}");
    }
    assert!(fake.requests().is_empty());
}

#[test]
fn a_head_that_never_ends_is_bounded() {
    let fake = Fake::ok();
    let (gateway, certificate) = start(&fake);
    let mut frames = Frames::open(&gateway, &certificate);
    frames.send(HEADERS, END_STREAM, 1, &block(&GET));
    // Far beyond any head's bound, in pieces that are each within a frame's.
    let piece = block(&[("x-more", &"y".repeat(100))]).repeat(140);
    for _ in 0..200 {
        frames.send(CONTINUATION, 0, 1, &piece);
    }
    assert_eq!(frames.fate(1), Fate::ConnectionEnded);
    // Within the protocol, but beyond max_header_bytes.
    let mut frames = Frames::open(&gateway, &certificate);
    let large = [block(&GET), block(&[("x-more", &"y".repeat(100))]).repeat(400)].concat();
    let pieces: Vec<&[u8]> = large.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let end = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        frames.send(kind, if number == 0 { END_STREAM | end } else { end }, 1, piece);
    }
    let fate = frames.fate(1);
    assert!(!matches!(&fate, Fate::Answered(block) if block.first() == Some(&0x88)), "{fate:?}");
    assert!(fake.requests().is_empty());
}
