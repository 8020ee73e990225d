//! WebSockets and other upgrades, which need no configuration.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::backends;
use crate::harness::http::{Client, head};
use crate::harness::{Fake, Gateway, PATIENCE, Setup};

/// A WebSocket, in as much of RFC 6455 as the tests need.
pub struct WebSocket {
    client: Client<TcpStream>,
}

impl WebSocket {
    pub fn open(port: u16, path: &str) -> WebSocket {
        let mut client = Client::connect(port);
        let answer = client.ask(
            "GET",
            path,
            &[
                ("Connection", "keep-alive, Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Protocol", "chat"),
            ],
        );
        assert_eq!(answer.status, 101, "{answer:?} {}", answer.text());
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
        assert!(answer.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
        assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        WebSocket { client }
    }

    /// Sends a text frame; clients mask, with zeros here.
    pub fn send(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![kind];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            middle @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.client.send(frame);
    }

    /// The next frame but for pings, which are answered: its kind and payload.
    pub fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            match self.next() {
                (9, payload) => self.frame(0x8a, &payload),
                frame => return frame,
            }
        }
    }

    fn next(&mut self) -> (u8, Vec<u8>) {
        let head = self.client.read_exactly(2).unwrap();
        let length = match head[1] {
            126 => {
                let long = self.client.read_exactly(2).unwrap();
                usize::from(u16::from_be_bytes([long[0], long[1]]))
            }
            127 => {
                let long = self.client.read_exactly(8).unwrap();
                usize::try_from(u64::from_be_bytes(long.try_into().unwrap())).unwrap()
            }
            short => usize::from(short),
        };
        (head[0] & 0x0f, self.client.read_exactly(length).unwrap())
    }

    /// Sends a text and expects it back.
    pub fn echo(&mut self, text: &str) {
        self.send(text);
        let (kind, payload) = self.receive();
        assert_eq!((kind, String::from_utf8(payload).unwrap()), (1, text.to_owned()));
    }
}

impl WebSocket {
    /// Waits for the end: a frame that says so, or nothing but the end.
    pub fn expect_end(&mut self) {
        while let Ok(head) = self.client.read_exactly(2) {
            assert_eq!(head[0] & 0x0f, 8, "a frame that is no close");
            let _ = self.client.read_exactly(usize::from(head[1]));
        }
    }
}

fn chat() -> Gateway {
    Setup::before([backends::chat().url()]).start()
}

#[test]
fn messages_pass_both_ways() {
    let gateway = chat();
    let mut socket = WebSocket::open(gateway.port("http"), "/ws");
    for text in ["hello", "", &"long ".repeat(20_000)] {
        socket.echo(text);
    }
    socket.frame(0x89, b"ping");
    assert_eq!(socket.receive(), (10, b"ping".to_vec()));
    socket.send("close");
    let (kind, payload) = socket.receive();
    assert_eq!((kind, &payload[..2]), (8, &1000_u16.to_be_bytes()[..]));
    socket.frame(0x88, &1000_u16.to_be_bytes());
    socket.client.expect_close();
    gateway.metric_reaches("passerelle_connections_opened_total", &["protocol=\"upgraded\""], 1.0);
}

#[test]
fn a_handshake_that_the_service_refuses_is_an_ordinary_answer() {
    let gateway = chat();
    let mut client = Client::connect(gateway.port("http"));
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(client.ask("GET", "/refused", &upgrade).status, 403);
    assert_eq!(client.ask("GET", "/healthz", &[]).status, 200, "the connection goes on as HTTP");
}

#[test]
fn nothing_is_tunnelled_before_the_server_agrees() {
    // What a client sends after the handshake, not waiting for the 101, must not reach a server that does not switch.
    let fake = Fake::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    let gateway = Setup::before([fake.url()]).rest(
        "[route.admin]\npath = \"/admin/{*rest}\"\nrespond = { status = 403, body = \"no\", content_type = \"text/plain\" }",
    );
    let gateway = gateway.start();
    let mut client = Client::connect(gateway.port("http"));
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    client.send(head("GET", "/ws", &upgrade) + &head("GET", "/admin/secret", &[]));
    assert_eq!(client.answer().status, 200);
    // What followed is the next request, judged as any other.
    assert_eq!(client.answer().status, 403);
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn each_direction_of_an_upgraded_connection_closes_by_itself() {
    let fake = Fake::start(|mut connection| {
        let head = connection.read_head().unwrap();
        assert!(head.to_lowercase().contains("upgrade: lines"), "{head}");
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\nfirst\n");
        // Everything up to the client's end, then one more line.
        let mut all = Vec::new();
        while let Some(byte) = connection.read_exactly(1) {
            all.extend(byte);
        }
        connection.send([b"got ", &all[..], b"\n"].concat());
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    let answer = client.ask("GET", "/", &[("Connection", "Upgrade"), ("Upgrade", "lines")]);
    assert_eq!(answer.status, 101);
    assert_eq!(client.read_exactly(6).unwrap(), b"first\n");
    client.send("some");
    client.send("thing");
    client.end();
    assert_eq!(client.read_exactly(14).unwrap(), b"got something\n");
    client.expect_close();
}

#[test]
fn an_upgrade_with_a_body_or_an_odd_method_is_refused() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let mut client = Client::connect(gateway.port("http"));
    let answer = client.ask_with("POST", "/", &upgrade, b"body");
    assert!(answer.status == 400 || fake.request().header("upgrade").is_none(), "{answer:?}");
}

#[test]
fn as_many_upgraded_connections_are_open_as_may_be() {
    let gateway = Setup::before([backends::chat().url()]).upstream("max_upgraded = 2").start();
    let mut first = WebSocket::open(gateway.port("http"), "/ws");
    let mut second = WebSocket::open(gateway.port("http"), "/ws");
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let third = Client::connect(gateway.port("http")).ask("GET", "/ws", &upgrade);
    assert_eq!((third.status, third.cause().as_str()), (503, "too_many_upgraded"));
    first.echo("still here");
    second.echo("here too");
    drop(first);
    crate::harness::eventually("the place is free again", || {
        let mut client = Client::connect(gateway.port("http"));
        (client.ask("GET", "/ws", &upgrade).status == 101).then_some(())
    });
}

#[test]
fn attempts_that_wait_for_a_slot_are_not_counted_as_open() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway =
        Setup::before([fake.url()]).upstream("slots = 1\nmax_upgraded = 1\nqueue = { max_wait = \"60s\" }").start();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let mut held = Client::connect(gateway.port("http"));
    held.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    let _waiting = [1.0, 2.0].map(|waiting| {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("GET", "/ws", &upgrade));
        gateway.metric_reaches("passerelle_upstream_queue_length", &[], waiting);
        client
    });
}

#[test]
fn a_silent_upgraded_connection_ends_when_the_file_says() {
    let gateway = Setup::before([backends::chat().url()]).upstream("timeouts = { upgraded = \"500ms\" }").start();
    let mut socket = WebSocket::open(gateway.port("http"), "/ws");
    socket.echo("hello");
    let mut rest = Vec::new();
    socket.client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.client.stream.flush();
    socket.client.stream.read_to_end(&mut rest).unwrap();
}
