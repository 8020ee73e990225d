//! The scenario that a proxy in front of sync workers is there for: clients that upload slowly and read slowly, and
//! others who should not notice. Measured against itself: the same gateway and workers without the slow clients.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::http::{Client, head};
use crate::harness::{Setup, backends::Backend};

const UPLOADS: usize = 64;
const UPLOAD: usize = 64 * 1024;
const DOWNLOADS: usize = 32;
const DOWNLOAD: usize = 1_000_000;

/// How long a slow client takes. Set to 20 it is the scenario in full.
fn seconds() -> u64 {
    std::env::var("PASSERELLE_SLOW_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4)
}

/// A client whose kernel takes nothing for it that it does not read.
fn connect(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    socket.connect(&SockAddr::from(address)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

struct Slow {
    stream: TcpStream,
    /// What is still to be sent, a piece a turn.
    sending: Vec<u8>,
    sent: usize,
    read: Vec<u8>,
    /// Bytes read a turn.
    pace: usize,
}

impl Slow {
    /// Whether it still has something to do.
    fn turn(&mut self, piece: usize) {
        let end = self.sending.len().min(self.sent + piece);
        match self.stream.write(&self.sending[self.sent..end]) {
            Ok(written) => self.sent += written,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        let mut space = vec![0; self.pace];
        match self.stream.read(&mut space) {
            Ok(read) => self.read.extend_from_slice(&space[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// Every slow client, for as long as it takes; each must have been answered right.
fn slow_clients(port: u16) {
    const TURNS: usize = 20;
    let turns = usize::try_from(seconds()).unwrap() * TURNS;
    let upload = || {
        let length = UPLOAD.to_string();
        let head = head("POST", "/upload", &[("Content-Length", &length), ("Connection", "close")]);
        Slow {
            stream: connect(port),
            sending: [head.as_bytes(), &[b'x'; UPLOAD]].concat(),
            sent: 0,
            read: Vec::new(),
            pace: 4096,
        }
    };
    let download = || {
        let target = format!("/download?bytes={DOWNLOAD}");
        let head = head("GET", &target, &[("Connection", "close")]);
        Slow {
            stream: connect(port),
            sending: head.into_bytes(),
            sent: 0,
            read: Vec::new(),
            pace: DOWNLOAD / turns + 1,
        }
    };
    let mut all: Vec<Slow> = (0..UPLOADS).map(|_| upload()).chain((0..DOWNLOADS).map(|_| download())).collect();
    let began = Instant::now();
    for turn in 0..turns {
        all.iter_mut().for_each(|client| client.turn(UPLOAD / turns + 1));
        let next = began + Duration::from_millis(1000 / TURNS as u64) * u32::try_from(turn + 1).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for mut client in all {
        client.stream.set_nonblocking(false).unwrap();
        client.stream.write_all(&client.sending[client.sent..]).unwrap();
        client.stream.read_to_end(&mut client.read).unwrap();
        assert!(client.read.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&client.read));
        let is_upload = client.sending.len() > UPLOAD;
        assert!(if is_upload {
            memchr::memmem::find(&client.read, b"\"length\":65536").is_some()
        } else {
            client.read.len() > DOWNLOAD
        });
    }
}

/// How long answers to others take while `meanwhile` runs: the median, and what 99 of 100 are below.
fn others(port: u16, meanwhile: impl FnOnce() + Send) -> (Duration, Duration, usize) {
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        let meanwhile = scope.spawn(meanwhile);
        let mut client = Client::connect(port);
        while !meanwhile.is_finished() {
            let began = Instant::now();
            assert_eq!(client.ask("GET", "/healthz", &[]).status, 200);
            took.push(began.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    (at(50), at(99), took.len())
}

#[test]
fn others_do_not_notice_slow_clients_though_workers_are_sync() {
    let workers = [(); 2].map(|()| Backend::gunicorn("orders", "app:app", &["--workers", "2"]));
    // Nothing is set.
    let gateway = Setup::before(workers.each_ref().map(Backend::url)).start();
    let port = gateway.port("http");
    let alone = others(port, || std::thread::sleep(Duration::from_secs(seconds())));
    let beside = others(port, || slow_clients(port));
    eprintln!("alone: {alone:?}; beside slow clients: {beside:?}");
    // Without buffers nobody is answered at all before the uploads have ended: some second each.
    assert!(beside.1 < Duration::from_secs(1), "alone {alone:?}, beside slow clients {beside:?}");
    // The rest is the machine's own noise, of which a busy one has much.
    assert!(beside.0 < alone.0 * 2 + Duration::from_millis(10), "alone {alone:?}, beside slow clients {beside:?}");
    assert!(beside.1 < alone.1 * 3 + Duration::from_millis(100), "alone {alone:?}, beside slow clients {beside:?}");
}
