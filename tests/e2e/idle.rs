//! What a connection costs while nothing happens on it: ten thousand of each kind are held at once, and the gateway's memory
//! is looked at a second after the last of them has been used. The bounds are those that docs/deployment.md states.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::version::TLS13;

use crate::harness::http::{Client, head};
use crate::harness::process::Process;
use crate::harness::tls::{Certificate, client_config, connect};
use crate::harness::{Fake, Gateway, Setup};

const HELD: usize = 10_000;

/// Room for all, and time for all to come, on a machine that is busy with other tests.
const PATIENT: &str = "max_connections = 20_000\nidle_timeout = \"10m\"\nheader_timeout = \"60s\"";

/// What the three bounds are stated for: a connection is idle once it has been silent for so long.
const SILENCE: Duration = Duration::from_secs(1);

/// Takes connections until it is ended: answers 101 and says something to each, and keeps it.
const UPGRADING: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 0), backlog=1024)
print("port", server.getsockname()[1], flush=True)
kept = []
while True:
    connection, _ = server.accept()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(4096)
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
    kept.append(connection)
"#;

/// As many files as may be open, since each connection is one here and one there; processes inherit that.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    let needed = HELD as u64 + 1000;
    assert!(most >= needed, "this test opens {needed} files, and {most} are allowed: raise the limit (ulimit -Hn)");
}

/// KiB that the process takes, with its part of what it shares.
fn memory(gateway: &Gateway) -> f64 {
    let text = std::fs::read_to_string(gateway.proc("smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Opens so many connections with `open`, on as many threads as there are cores, and returns what each costs the gateways,
/// in KiB.
fn cost_of_each(gateways: &[&Gateway], open: impl Fn(usize) -> TcpStream + Sync) -> f64 {
    // What is made only once is no part of it.
    drop((0..64).map(&open).collect::<Vec<_>>());
    std::thread::sleep(SILENCE);
    let before: f64 = gateways.iter().map(|gateway| memory(gateway)).sum();
    let threads = 4;
    let held: Vec<TcpStream> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let open = &open;
                scope.spawn(move || (part..HELD).step_by(threads).map(open).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert_eq!(held.len(), HELD);
    std::thread::sleep(SILENCE);
    let open: f64 = gateways.iter().map(|gateway| gateway.metric("passerelle_connections_open", &[])).sum();
    assert!(open >= HELD as f64, "{open} of {HELD} are open");
    let after: f64 = gateways.iter().map(|gateway| memory(gateway)).sum();
    (after - before) / HELD as f64
}

fn ask<S: std::io::Read + std::io::Write>(client: &mut Client<S>) {
    let answer = client.ask("GET", "/", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn ten_thousand_idle_connections_of_each_kind() {
    raise_open_files();
    let certificate = Certificate::new(&["localhost"]);
    let files = |directory: &Path, _: &mut std::process::Command| certificate.write(directory, "site");
    let fake = Fake::answering([b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n".as_slice(), &[b'x'; 1024]].concat());
    let setup = Setup::before([fake.url()]).listener(PATIENT).rest(&format!(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n{PATIENT}\n\
         [listener.https.tls]\ncertificates = [{{ chain = \"site.pem\", key = \"site.key\" }}]\n\
         [log]\naccess = false",
    ));
    let gateway = Gateway::start_with(&setup.text(), files);

    let plain = cost_of_each(&[&gateway], |_| {
        let mut client = Client::connect(gateway.port("http"));
        ask(&mut client);
        client.stream
    });
    drop(gateway);

    let gateway = Gateway::start_with(&setup.text(), files);
    let config = client_config(&[&certificate], &["http/1.1"], &[&TLS13]);
    let tls = cost_of_each(&[&gateway], |_| {
        let mut client = connect(gateway.port("https"), "localhost", &config).unwrap();
        ask(&mut client);
        // What the client knows of the session is not needed any more.
        client.stream.sock
    });
    drop(gateway);

    // Each of these takes two files of the gateway, so there are two gateways.
    let server = Process::start("python3", |command| {
        command.args(["-c", UPGRADING]);
    });
    let port = server.output().find("the server's port", |line| line.strip_prefix("port ").map(str::to_owned));
    let setup = Setup::before([format!("http://127.0.0.1:{port}")])
        .listener(PATIENT)
        .upstream("max_upgraded = 20_000")
        .rest("[log]\naccess = false");
    let gateways = [setup.start(), setup.start()];
    let upgraded = cost_of_each(&[&gateways[0], &gateways[1]], |number| {
        let mut client = Client::connect(gateways[number % 2].port("http"));
        client.send(head("GET", "/", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]));
        assert_eq!(client.read_head().unwrap().status, 101);
        assert_eq!(client.read_exactly(5).unwrap(), b"hello");
        client.send("x");
        client.stream
    });

    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deployment.md")).unwrap();
    for row in [
        format!("| plain HTTP/1.1 | {PLAIN} |"),
        format!("| HTTP/1.1 over TLS | {TLS} |"),
        format!("| WebSocket and others that were upgraded, plain | {UPGRADED} |"),
    ] {
        assert!(page.contains(&row), "the page states another amount than {row}");
    }
    println!("KiB for each idle connection: plain {plain:.2}, TLS {tls:.2}, upgraded {upgraded:.2}");
    let [plain, tls, upgraded] = [plain, tls, upgraded].map(|each| each / NOT_OPTIMISED);
    assert!(plain <= PLAIN, "a plain connection takes {plain:.2} KiB, not {PLAIN}");
    assert!(tls <= TLS, "one with TLS takes {tls:.2} KiB, not {TLS}");
    assert!(upgraded <= UPGRADED, "an upgraded one takes {upgraded:.2} KiB, not {UPGRADED}");
}

/// What a program takes that is built without optimisation: what serves requests is larger there, and the allocator gives
/// back what was held for those of a moment ago when it finds the time.
const NOT_OPTIMISED: f64 = if cfg!(debug_assertions) { 1.5 } else { 1.0 };

/// In KiB, as docs/deployment.md states them for programs that are built to be used.
const PLAIN: f64 = 4.0;
const TLS: f64 = 12.0;
const UPGRADED: f64 = 8.0;
