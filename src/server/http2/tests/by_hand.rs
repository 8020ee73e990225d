//! Frame by frame: what no client library sends, and what it does not show.

use std::future::Future;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::*;
use crate::http2::frame::{Code, HEAD, LONGEST, PREFACE};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;

/// `GET https://a.test/fixed`, packed without a table.
const GET: &[u8] = b"\x82\x87\x01\x06a.test\x04\x06/fixed";
/// `POST https://a.test/`
const POST: &[u8] = b"\x83\x87\x01\x06a.test\x84";

#[derive(Debug)]
struct Came {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Came {
    /// Of RST_STREAM and GOAWAY.
    fn code(&self) -> u32 {
        u32::from_be_bytes(*self.payload.last_chunk().unwrap())
    }
}

struct Hand {
    worker: Rc<Worker>,
    reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
    read: Vec<u8>,
    serving: JoinHandle<()>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[l0, l1, l2, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

impl Hand {
    /// A connection of which nothing has been said.
    async fn silent(settings: &str) -> Hand {
        Hand::before(super::silent().await, settings).await
    }

    async fn before(upstream: SocketAddr, settings: &str) -> Hand {
        let (worker, stream, serving) = accepted(settings, upstream, "slots = 1").await;
        let (reading, writing) = stream.into_split();
        Hand { worker, reading, writing, read: Vec::new(), serving }
    }

    async fn open(settings: &str) -> Hand {
        let mut hand = Hand::silent(settings).await;
        hand.raw(PREFACE).await;
        hand.send(SETTINGS, 0, 0, b"").await;
        hand
    }

    /// What the other side may not want any more.
    async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.writing.write_all(bytes).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload)).await;
    }

    /// `None` at the end.
    async fn next(&mut self) -> Option<Came> {
        loop {
            if let Some(head) = self.read.first_chunk::<HEAD>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.read.len() >= HEAD + length {
                    let frame: Vec<u8> = self.read.drain(..HEAD + length).collect();
                    let stream = u32::from_be_bytes(*frame[5..].first_chunk().unwrap());
                    return Some(Came { kind: frame[3], flags: frame[4], stream, payload: frame[HEAD..].to_vec() });
                }
            }
            let mut piece = [0; 4096];
            match timeout(SOON, self.reading.read(&mut piece)).await.expect("something is said") {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.read.extend_from_slice(&piece[..length]),
            }
        }
    }

    /// The next one of this kind for this stream.
    async fn wait_for(&mut self, kind: u8, stream: u32) -> Came {
        loop {
            let came = self.next().await.unwrap_or_else(|| panic!("no {kind} for {stream} before the end"));
            assert!(kind == GOAWAY || came.kind != GOAWAY, "{came:?}");
            if (came.kind, came.stream) == (kind, stream) {
                return came;
            }
        }
    }

    /// The connection ends, for this reason.
    async fn ends_with(mut self, code: Code) {
        assert_eq!(self.wait_for(GOAWAY, 0).await.code(), code as u32);
        while self.next().await.is_some() {}
        drop(self.writing);
        timeout(SOON, self.serving).await.unwrap().unwrap();
    }

    /// Another stream is served as if nothing had been.
    async fn serves(&mut self, stream: u32) {
        self.send(HEADERS, WHOLE, stream, GET).await;
        assert_eq!(self.wait_for(HEADERS, stream).await.payload.first(), Some(&0x88));
        assert_eq!(self.wait_for(DATA, stream).await.payload, b"fixed");
    }
}

fn by_hand<F: Future<Output = ()>>(settings: &'static str, test: impl FnOnce(Hand) -> F + 'static) {
    on_a_worker(async move { test(Hand::open(settings).await).await });
}

#[test]
fn a_connection_by_hand() {
    by_hand("", async |mut hand| {
        let settings = hand.wait_for(SETTINGS, 0).await.payload;
        assert_eq!(settings[..12], [0, 3, 0, 0, 0, 128, 0, 4, 0, 4, 0, 0]);
        assert_eq!(hand.wait_for(SETTINGS, 0).await.flags, ACK);
        hand.serves(1).await;
        hand.serves(3).await;
        hand.send(PING, 0, 0, b"12345678").await;
        assert_eq!(hand.wait_for(PING, 0).await.payload, b"12345678");
        hand.send(GOAWAY, 0, 0, &[0; 8]).await;
        hand.ends_with(Code::NoError).await;
    });
}

#[test]
fn who_speaks_another_protocol_is_told_so() {
    on_a_worker(async {
        for text in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"\0"] {
            let mut hand = Hand::silent("").await;
            hand.raw(text).await;
            hand.ends_with(Code::Protocol).await;
        }
        // SETTINGS must come first.
        let mut hand = Hand::silent("").await;
        hand.raw(PREFACE).await;
        hand.send(PING, 0, 0, b"12345678").await;
        hand.ends_with(Code::Protocol).await;
    });
}

#[test]
fn breaches_of_the_protocol_end_the_connection() {
    on_a_worker(async {
        let window = |bytes: u32| bytes.to_be_bytes();
        let breaches: Vec<(&str, Vec<u8>, Code)> = vec![
            ("DATA on the connection", frame(DATA, 0, 0, b"x"), Code::Protocol),
            ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), Code::Protocol),
            ("HEADERS on the connection", frame(HEADERS, WHOLE, 0, GET), Code::Protocol),
            ("HEADERS on an even stream", frame(HEADERS, WHOLE, 2, GET), Code::Protocol),
            ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Code::Protocol),
            ("WINDOW_UPDATE of an idle stream", frame(WINDOW_UPDATE, 0, 1, &window(1)), Code::Protocol),
            ("WINDOW_UPDATE of nothing on an idle stream", frame(WINDOW_UPDATE, 0, 1, &window(0)), Code::Protocol),
            ("WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &window(0)), Code::Protocol),
            ("too large a window", frame(WINDOW_UPDATE, 0, 0, &window(0x7fff_ffff)), Code::FlowControl),
            ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, GET), Code::Protocol),
            ("a long frame", frame(DATA, 0, 1, &[0; LONGEST + 1]), Code::FrameSize),
            ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, GET), Code::Protocol),
            ("a short PING", frame(PING, 0, 0, b"x"), Code::FrameSize),
            ("an index that is none", frame(HEADERS, WHOLE, 1, &[0x80]), Code::Compression),
            ("a table that is too large", frame(HEADERS, WHOLE, 1, b"\x3f\xe2\x1f\x82"), Code::Compression),
            ("a frame amid a head", [frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat(), Code::Protocol),
            (
                "another stream amid a head",
                [frame(HEADERS, 0, 1, GET), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
                Code::Protocol,
            ),
            (
                "a stream that is not newer",
                [frame(HEADERS, WHOLE, 5, GET), frame(HEADERS, WHOLE, 3, GET)].concat(),
                Code::StreamClosed,
            ),
            ("a window of all streams", frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), Code::FlowControl),
        ];
        for (what, bytes, code) in breaches {
            eprintln!("{what}");
            let mut hand = Hand::open("").await;
            hand.raw(&bytes).await;
            hand.ends_with(code).await;
        }
    });
}

#[test]
fn breaches_of_a_stream_end_that_alone() {
    on_a_worker(async {
        let with = |more: &[u8]| [POST, more].concat();
        let length =
            |digits: &str| with(&[&[0x0f, 0x0d, u8::try_from(digits.len()).unwrap()], digits.as_bytes()].concat());
        let breaches: Vec<(&str, Vec<u8>, Code)> = vec![
            ("a name in upper case", frame(HEADERS, WHOLE, 1, &with(b"\0\x01X\x011")), Code::Protocol),
            ("no path", frame(HEADERS, WHOLE, 1, &GET[..10]), Code::Protocol),
            (
                "a window of nothing",
                { [frame(HEADERS, END_HEADERS, 1, POST), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat() },
                Code::Protocol,
            ),
            (
                "a window too large",
                {
                    [frame(HEADERS, END_HEADERS, 1, POST), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])]
                        .concat()
                },
                Code::FlowControl,
            ),
            ("PRIORITY of a wrong length", frame(PRIORITY, 0, 1, b"1234"), Code::FrameSize),
            (
                "DATA behind the end",
                { [frame(HEADERS, WHOLE, 1, POST), frame(DATA, 0, 1, b"x")].concat() },
                Code::StreamClosed,
            ),
            (
                "HEADERS behind the end",
                { [frame(HEADERS, WHOLE, 1, POST), frame(HEADERS, WHOLE, 1, b"\0\x01x\x011")].concat() },
                Code::StreamClosed,
            ),
            (
                "trailers that are not the last",
                { [frame(HEADERS, END_HEADERS, 1, POST), frame(HEADERS, END_HEADERS, 1, b"\0\x01x\x011")].concat() },
                Code::Protocol,
            ),
            (
                "a pseudo-field behind the body",
                { [frame(HEADERS, END_HEADERS, 1, POST), frame(HEADERS, WHOLE, 1, b"\x84")].concat() },
                Code::Protocol,
            ),
            ("a length without a body", frame(HEADERS, WHOLE, 1, &length("5")), Code::Protocol),
            (
                "a body that is too short",
                { [frame(HEADERS, END_HEADERS, 1, &length("5")), frame(DATA, END_STREAM, 1, b"1234")].concat() },
                Code::Protocol,
            ),
            (
                "a body that is too long",
                { [frame(HEADERS, END_HEADERS, 1, &length("5")), frame(DATA, 0, 1, b"123456")].concat() },
                Code::Protocol,
            ),
        ];
        for (what, bytes, code) in breaches {
            eprintln!("{what}");
            let mut hand = Hand::open("").await;
            hand.raw(&bytes).await;
            assert_eq!(hand.wait_for(RST_STREAM, 1).await.code(), code as u32, "{what}");
            hand.serves(3).await;
        }
    });
}

#[test]
fn more_than_was_granted_of_a_body_that_nobody_reads_ends_its_stream() {
    by_hand("[defaults]\nbuffer = { request = false }", async |mut hand| {
        // It takes the one slot, so that the next waits.
        hand.send(HEADERS, WHOLE, 1, POST).await;
        hand.send(HEADERS, END_HEADERS, 3, POST).await;
        for _ in 0..STREAM_WINDOW as usize / LONGEST {
            hand.send(DATA, 0, 3, &[0; LONGEST]).await;
        }
        hand.serves(5).await;
        hand.send(DATA, 0, 3, b"x").await;
        assert_eq!(hand.wait_for(RST_STREAM, 3).await.code(), Code::FlowControl as u32);
        hand.serves(7).await;
    });
}

#[test]
fn what_means_nothing_is_ignored() {
    by_hand("", async |mut hand| {
        hand.send(0xfa, 0xff, 7, b"unknown").await;
        hand.send(PRIORITY, 0, 5, b"\0\0\0\x05\x10").await;
        // A priority, padding, and a stream that depends on itself.
        let padded = [&b"\x03\0\0\0\x01\x10"[..], GET, &[0; 3]].concat();
        hand.send(HEADERS, WHOLE | 0x8 | 0x20, 1, &padded).await;
        assert_eq!(hand.wait_for(DATA, 1).await.payload, b"fixed");
        hand.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).await;
        hand.send(RST_STREAM, 0, 1, &[0; 4]).await;
        hand.send(SETTINGS, 0, 0, b"\0\x63\xff\xff\xff\xff").await;
        // In parts, of which some are empty.
        hand.send(HEADERS, END_STREAM, 3, &GET[..4]).await;
        hand.send(CONTINUATION, 0, 3, b"").await;
        hand.send(CONTINUATION, END_HEADERS, 3, &GET[4..]).await;
        assert_eq!(hand.wait_for(DATA, 3).await.payload, b"fixed");
        hand.serves(5).await;
    });
}

/// Each is sent until the connection ends, at most so often.
#[test]
fn floods_end_the_connection() {
    on_a_worker(async {
        let post = |stream| frame(HEADERS, END_HEADERS, stream, POST);
        type Flood = Box<dyn Fn(u32) -> Vec<u8>>;
        let floods: Vec<(&str, Flood)> =
            vec![
                ("PING", Box::new(|_| frame(PING, 0, 0, b"12345678"))),
                ("SETTINGS", Box::new(|_| frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\x01"))),
                ("PRIORITY", Box::new(|_| frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"))),
                ("unknown", Box::new(|_| frame(0xfa, 0, 0, b""))),
                ("WINDOW_UPDATE", Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
                ("empty DATA", Box::new(move |turn| if turn == 0 { post(1) } else { frame(DATA, 0, 1, b"") })),
                ("padding", Box::new(move |turn| if turn == 0 { post(1) } else { frame(DATA, 0x8, 1, b"\0") })),
                (
                    "CONTINUATION",
                    Box::new(|turn| if turn == 0 { frame(HEADERS, 0, 1, GET) } else { frame(CONTINUATION, 0, 1, b"") }),
                ),
                (
                    "long CONTINUATION",
                    Box::new(|turn| {
                        if turn == 0 { frame(HEADERS, 0, 1, GET) } else { frame(CONTINUATION, 0, 1, &[0; 10_000]) }
                    }),
                ),
                (
                    "requests taken back",
                    Box::new(move |turn| {
                        let stream = 2 * turn + 1;
                        [post(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                    }),
                ),
                (
                    "streams that have to be reset",
                    Box::new(move |turn| {
                        let stream = 2 * turn + 1;
                        [post(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
                    }),
                ),
                ("malformed requests", Box::new(|turn| frame(HEADERS, WHOLE, 2 * turn + 1, b"\x82"))),
                (
                    "DATA of closed streams",
                    Box::new(|turn| {
                        if turn == 0 {
                            [frame(HEADERS, WHOLE, 1, GET), frame(RST_STREAM, 0, 1, &[0; 4])].concat()
                        } else {
                            frame(DATA, 0, 1, b"x")
                        }
                    }),
                ),
                ("requests beyond max_streams", Box::new(move |turn| post(2 * turn + 1))),
            ];
        for (what, flood) in floods {
            eprintln!("{what}");
            let hand = Hand::open("").await;
            let Hand { mut writing, mut reading, serving, worker: _worker, .. } = hand;
            let send = async {
                let mut turn = 0;
                loop {
                    let piece: Vec<u8> = (turn..turn + 100).flat_map(&flood).collect();
                    if writing.write_all(&piece).await.is_err() {
                        return std::future::pending().await;
                    }
                    turn += 100;
                }
            };
            let mut said = Vec::new();
            tokio::select! {
                () = send => {}
                read = timeout(SOON, reading.read_to_end(&mut said)) => drop(read.unwrap_or_else(|_| panic!("{what}"))),
            }
            // What was said last.
            let last = said.len() - HEAD - 8;
            assert_eq!((said[last + 3], said.last()), (GOAWAY, Some(&(Code::EnhanceYourCalm as u8))), "{what}");
            drop(writing);
            timeout(SOON, serving).await.unwrap().unwrap();
        }
    });
}

#[test]
fn windows_are_kept_to() {
    by_hand("", async |mut hand| {
        // Streams begin with a window of nothing.
        hand.send(SETTINGS, 0, 0, b"\0\x04\0\0\0\0").await;
        hand.send(HEADERS, WHOLE, 1, GET).await;
        assert_eq!(hand.wait_for(HEADERS, 1).await.flags, END_HEADERS);
        hand.send(PING, 0, 0, b"12345678").await;
        // No DATA is before it.
        while hand.next().await.is_some_and(|came| {
            assert_ne!(came.kind, DATA);
            came.kind != PING
        }) {}
        hand.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2]).await;
        assert_eq!(hand.wait_for(DATA, 1).await.payload, b"fi");
        // Less than nothing, then one more byte.
        hand.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).await;
        assert_eq!(hand.wait_for(DATA, 1).await.payload, b"x");
        hand.send(SETTINGS, 0, 0, b"\0\x04\0\0\0\x02").await;
        let came = hand.wait_for(DATA, 1).await;
        assert_eq!((&came.payload[..], came.flags), (&b"ed"[..], END_STREAM));
    });
}

/// Its windows are as large as can be: all that holds the answer up is that nothing is read.
#[test]
fn who_reads_nothing_is_given_up() {
    on_a_worker(async {
        let settings = "body_timeout = \"200ms\"\nidle_timeout = \"200ms\"";
        let mut hand = Hand::before(endless().await, settings).await;
        hand.raw(PREFACE).await;
        hand.send(SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff").await;
        hand.send(WINDOW_UPDATE, 0, 0, &(i32::MAX as u32 - 65_535).to_be_bytes()).await;
        hand.send(HEADERS, WHOLE, 1, POST).await;
        timeout(SOON, hand.serving).await.unwrap().unwrap();
        drop(hand.writing);
    });
}

#[test]
fn streams_beyond_the_bound_may_ask_again() {
    by_hand("http2 = { max_streams = 2 }", async |mut hand| {
        for stream in [1, 3, 5] {
            hand.send(HEADERS, END_HEADERS, stream, POST).await;
        }
        assert_eq!(hand.wait_for(RST_STREAM, 5).await.code(), Code::RefusedStream as u32);
        // What was on its way to it does no harm.
        hand.send(DATA, END_STREAM, 5, b"body").await;
        hand.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
        hand.serves(7).await;
    });
}

/// A head whose fields take far more than its bytes (RFC 7541 section 7.3).
#[test]
fn what_unpacks_to_much_is_refused_and_the_table_kept_in_step() {
    by_hand("", async |mut hand| {
        let bomb = [POST, b"\x40\x01x\x7f\xa1\x1e", &[b'y'; 4000][..], &[0xbe; 10_000]].concat();
        hand.send(HEADERS, WHOLE, 1, &bomb).await;
        // `:status` 431.
        assert_eq!(hand.wait_for(HEADERS, 1).await.payload[..5], *b"\x08\x03431");
        hand.serves(3).await;
        // The field is in the table: as one of a request's it is valid.
        hand.send(HEADERS, WHOLE, 5, &[GET, b"\xbe"].concat()).await;
        assert_eq!(hand.wait_for(DATA, 5).await.payload, b"fixed");
    });
}

#[test]
fn a_head_that_stops_coming_ends_the_connection() {
    by_hand("header_timeout = \"300ms\"", async |mut hand| {
        hand.serves(1).await;
        hand.send(HEADERS, END_STREAM, 3, &GET[..4]).await;
        hand.ends_with(Code::NoError).await;
    });
}

#[test]
fn a_drain_serves_what_was_on_its_way() {
    by_hand("", async |mut hand| {
        hand.serves(1).await;
        hand.worker.drain.begin();
        let first = hand.wait_for(GOAWAY, 0).await;
        assert_eq!(first.payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let ping = hand.wait_for(PING, 0).await;
        hand.serves(3).await;
        // It keeps the connection open.
        hand.send(HEADERS, END_HEADERS, 5, POST).await;
        hand.send(PING, ACK, 0, &ping.payload).await;
        let second = hand.wait_for(GOAWAY, 0).await;
        assert_eq!(second.payload, [0, 0, 0, 5, 0, 0, 0, 0]);
        hand.send(HEADERS, WHOLE, 7, GET).await;
        hand.send(RST_STREAM, 0, 5, &[0, 0, 0, 8]).await;
        // The last one that is served was the last.
        while let Some(came) = hand.next().await {
            assert_ne!(came.stream, 7);
        }
        timeout(SOON, hand.serving).await.unwrap().unwrap();
    });
}

#[test]
fn a_client_that_waits_to_go_on_is_told_to() {
    by_hand("", async |mut hand| {
        hand.send(HEADERS, END_HEADERS, 1, &[POST, b"\x0f\x14\x0c100-continue"].concat()).await;
        // `:status` 100.
        let came = hand.wait_for(HEADERS, 1).await;
        assert_eq!((&came.payload[..], came.flags), (&b"\x08\x03100"[..], END_HEADERS));
    });
}

#[test]
fn bodies_that_nobody_wants_are_let_come_for_a_while() {
    by_hand("", async |mut hand| {
        let post = [POST, b"\x04\x06/fixed"].concat();
        let post: Vec<u8> = post.iter().copied().filter(|byte| *byte != 0x84).collect();
        hand.send(HEADERS, END_HEADERS, 1, &post).await;
        assert_eq!(hand.wait_for(DATA, 1).await.payload, b"fixed");
        let mut granted = 0;
        for _ in 0..STREAM_WINDOW as usize / LONGEST {
            hand.send(DATA, 0, 1, &[0; LONGEST]).await;
        }
        loop {
            let came = hand.next().await.unwrap();
            match (came.kind, came.stream) {
                (WINDOW_UPDATE, 1) => granted += 1,
                (RST_STREAM, 1) => {
                    assert_eq!(came.code(), Code::NoError as u32);
                    break;
                }
                _ => {}
            }
        }
        assert!(granted <= 1, "{granted}");
        // What was on its way is no breach, and nothing is said of it.
        hand.send(DATA, 0, 1, b"late").await;
        hand.send(HEADERS, WHOLE, 1, b"\0\x01x\x011").await;
        hand.send(HEADERS, WHOLE, 3, GET).await;
        while let Some(came) = hand.next().await {
            assert_ne!((came.kind, came.stream), (RST_STREAM, 1));
            if (came.kind, came.stream) == (DATA, 3) {
                return;
            }
        }
        panic!("the connection ended");
    });
}
