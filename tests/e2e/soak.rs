//! Nothing grows: memory and open files of a gateway under a mixed load, each time when the load has stopped.
//!
//! The long form is for whoever changes what is kept between requests: see CONTRIBUTING.md.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::version::TLS13;
use serde_json::json;

use crate::harness::http::{Client, head};
use crate::harness::http2::Http2;
use crate::harness::tls::{Certificate, client_config, connect};
use crate::harness::{Fake, Gateway, backends, eventually};
use crate::jwt::testing::{Signer, claims, jwks, now, with};
use crate::websocket::WebSocket;

/// What a gateway takes that serves nobody just now.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// KiB of its own: what of the program itself is in memory depends on who else runs it.
    memory: u64,
    files: usize,
    /// Steps of the load so far.
    steps: u64,
}

struct Soak {
    gateway: Gateway,
    certificate: Certificate,
    /// Few enough to be known before the second reading: each is remembered by whoever has seen it, up to a bound that
    /// an hour may not reach.
    tokens: Vec<String>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    steps: AtomicU64,
    over: AtomicBool,
    _server: Fake,
}

impl Soak {
    fn start() -> Soak {
        let certificate = Certificate::new(&["localhost"]);
        let signer = Signer::new("ES256", "a");
        // Whatever it remembered would be gigabytes in the end.
        let server = Fake::start(|mut connection| {
            while connection.read_and_forget().is_some() {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
            }
        });
        let config = format!(
            r#"
            [log]
            access = false
            [listener.http]
            address = "127.0.0.1:@http@"
            [listener.https]
            address = "127.0.0.1:@https@"
            [listener.https.tls]
            certificates = [{{ chain = "site.pem", key = "site.key" }}]
            [upstream.app]
            servers = [{:?}]
            [upstream.chat]
            servers = [{:?}]
            [auth.staff]
            kind = "jwt"
            issuer = "https://idp.example"
            audience = ["orders"]
            jwks_file = "jwks.json"
            [limit.keys]
            rate = "1000000/s"
            burst = 100_000_000
            key = "header:x-key"
            [route.open]
            path = "/open/{{*rest}}"
            upstream = "app"
            auth = "public"
            limits = ["keys"]
            [route.chat]
            path = "/ws"
            upstream = "chat"
            auth = "public"
            [route.closed]
            path = "/closed/{{*rest}}"
            upstream = "app"
            auth = ["staff"]
            "#,
            server.url(),
            backends::chat().url(),
        );
        let gateway = Gateway::start_with(&config, |directory: &Path, _| {
            certificate.write(directory, "site");
            std::fs::write(directory.join("jwks.json"), jwks([&signer])).unwrap();
        });
        let http1 = client_config(&[&certificate], &["http/1.1"], &[&TLS13]);
        let http2 = client_config(&[&certificate], &["h2"], &[&TLS13]);
        let later = now() + 24 * 60 * 60;
        let token =
            |caller: usize| signer.sign(&with(claims(), json!({"sub": format!("caller-{caller}"), "exp": later})));
        let tokens = (0..1000).map(token).collect();
        let (steps, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Soak { gateway, certificate, tokens, http1, http2, steps, over, _server: server }
    }

    /// Everything at once for so long; then what the gateway takes when everybody has left.
    fn load(&self, time: Duration) -> Reading {
        self.over.store(false, Ordering::Relaxed);
        let ends = Instant::now() + time;
        std::thread::scope(|scope| {
            let kinds: [fn(&Soak, u64); 7] = [
                Soak::kept,
                Soak::short,
                Soak::secure,
                Soak::multiplexed,
                Soak::upgraded,
                Soak::uploads,
                Soak::callers,
            ];
            for kind in kinds {
                scope.spawn(move || {
                    while Instant::now() < ends {
                        kind(self, self.steps.fetch_add(1, Ordering::Relaxed));
                    }
                });
            }
            scope.spawn(move || {
                while Instant::now() < ends {
                    std::thread::sleep(Duration::from_millis(700));
                    self.certificate.write(self.gateway.directory(), "site");
                    self.gateway.signal(Signal::HUP);
                }
            });
        });
        let open = || self.gateway.metric("passerelle_connections_open", &[]);
        eventually("every connection is closed", || (open() == 0.0).then_some(()));
        // A thread gives back what was freed a moment later, and only when it next asks for memory.
        let readings = (0..5).map(|_| {
            std::thread::sleep(Duration::from_millis(400));
            for number in 0..40 {
                self.secure(number);
            }
            eventually("every connection is closed", || (open() == 0.0).then_some(()));
            self.read()
        });
        readings.min_by_key(|reading| reading.memory).unwrap()
    }

    fn read(&self) -> Reading {
        let rollup = std::fs::read_to_string(self.gateway.proc("smaps_rollup")).unwrap();
        let own = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB")).unwrap();
        let files = std::fs::read_dir(self.gateway.proc("fd")).unwrap().count();
        Reading { memory: own.parse().unwrap(), files, steps: self.steps.load(Ordering::Relaxed) }
    }

    fn kept(&self, number: u64) {
        let mut client = Client::connect(self.gateway.port("http"));
        for _ in 0..20 {
            let key = format!("{number}");
            assert_eq!(client.ask("GET", "/open/kept", &[("X-Key", &key)]).status, 200);
        }
    }

    /// What is refused, what is not there, and clients that leave at once or in mid-request.
    fn short(&self, number: u64) {
        let port = self.gateway.port("http");
        match number % 4 {
            0 => assert_eq!(Client::connect(port).ask("GET", "/none", &[]).status, 404),
            1 => assert_eq!(Client::connect(port).ask("GET", "/closed/x", &[]).status, 401),
            2 => {
                let mut left = TcpStream::connect(("127.0.0.1", port)).unwrap();
                left.write_all(head("GET", "/open/left", &[]).as_bytes()).unwrap();
            }
            _ => {
                let mut left = TcpStream::connect(("127.0.0.1", port)).unwrap();
                left.write_all(b"POST /open/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n")
                    .unwrap();
                left.write_all(&[b'x'; 70_000]).unwrap();
            }
        }
    }

    fn secure(&self, _: u64) {
        let mut client = connect(self.gateway.port("https"), "localhost", &self.http1).unwrap();
        assert_eq!(client.ask("GET", "/open/secure", &[]).status, 200);
    }

    fn multiplexed(&self, _: u64) {
        let port = self.gateway.port("https");
        let mut client = Http2::connect(port, "localhost", &self.http2);
        for _ in 0..5 {
            assert_eq!(client.get(&format!("https://localhost:{port}/open/streams")).unwrap().status(), 200);
        }
    }

    fn upgraded(&self, _: u64) {
        WebSocket::open(self.gateway.port("http"), "/ws").echo("hello");
        std::thread::sleep(Duration::from_millis(20));
    }

    fn uploads(&self, number: u64) {
        let body = vec![b'x'; if number.is_multiple_of(10) { 3_000_000 } else { 30_000 }];
        let mut client = Client::connect(self.gateway.port("http"));
        assert_eq!(client.ask_with("POST", "/open/upload", &[], &body).status, 200);
    }

    /// Each with a token and a key of its own.
    fn callers(&self, number: u64) {
        let bearer = format!("Bearer {}", self.tokens[number as usize % self.tokens.len()]);
        let mut client = Client::connect(self.gateway.port("http"));
        for _ in 0..3 {
            assert_eq!(client.ask("GET", "/closed/x", &[("Authorization", &bearer)]).status, 200);
        }
    }
}

/// Loads a gateway `phases` times and compares the last reading with the second: the first phase fills what has a bound,
/// such as the caches of tokens and connections.
fn nothing_grows(phases: usize, each: Duration, most_kib: u64) {
    let soak = Soak::start();
    let readings: Vec<Reading> = (0..phases)
        .map(|_| {
            let reading = soak.load(each);
            println!("{reading:?}");
            reading
        })
        .collect();
    let (warm, last) = (readings[1], readings[phases - 1]);
    assert!(last.steps > warm.steps + 20, "there was hardly any load: {readings:?}");
    assert!(last.files <= warm.files + 8, "open files grow: {readings:?}");
    assert!(last.memory <= warm.memory + most_kib, "memory grows: {readings:?}");
    // One that counts what it does (benches/profile) writes that down when it ends by itself.
    let (status, output) = soak.gateway.stop();
    assert!(status.success(), "{output}");
}

#[test]
fn nothing_grows_in_seconds() {
    nothing_grows(3, Duration::from_secs(5), 8 * 1024);
}

/// `PASSERELLE_SOAK` is the number of minutes, an hour if it is not set.
#[test]
#[ignore = "takes an hour"]
fn nothing_grows_in_an_hour() {
    let minutes = std::env::var("PASSERELLE_SOAK").map_or(60, |minutes| minutes.parse().expect("minutes"));
    nothing_grows(12, Duration::from_secs(60 * minutes / 12), 8 * 1024);
}
