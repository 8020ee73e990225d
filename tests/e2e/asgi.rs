//! ASGI servers behind the gateway: WebSockets and server-sent events through each of them, many sockets at rest, and
//! the cases of the Autobahn suite.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use rustls::version::TLS13;

use crate::harness::backends::{self, Backend, python_program};
use crate::harness::http::{Client, head};
use crate::harness::http2::Http2;
use crate::harness::tls::{Certificate, client_config};
use crate::harness::{Gateway, Setup, eventually};
use crate::websocket::WebSocket;

/// Each kind of ASGI server with the same service.
fn servers() -> Vec<(&'static str, Backend)> {
    vec![
        ("uvicorn", Backend::uvicorn("chat", "chat:app")),
        ("granian", Backend::granian("chat", "chat:app")),
        ("hypercorn", Backend::hypercorn("chat", "chat:app")),
        ("gunicorn", Backend::gunicorn("chat", "chat:app", &["--worker-class", "asgi"])),
        (
            "gunicorn with uvicorn's worker",
            Backend::gunicorn("chat", "chat:app", &["--worker-class", "uvicorn_worker.UvicornWorker"]),
        ),
    ]
}

fn with_tls(backend: &Backend) -> (Gateway, Certificate) {
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([backend.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _| certificate.write(directory, "site"));
    (gateway, certificate)
}

#[test]
fn every_asgi_server_has_websockets_and_events() {
    for (name, backend) in servers() {
        let (gateway, certificate) = with_tls(&backend);
        let mut socket = WebSocket::open(gateway.port("http"), "/ws");
        for text in ["hello", "", &"long ".repeat(20_000)] {
            socket.echo(text);
        }
        socket.send("close");
        let (kind, payload) = socket.receive();
        assert_eq!((kind, &payload[..2]), (8, &1000_u16.to_be_bytes()[..]), "{name}");

        let mut client = Client::connect(gateway.port("http"));
        let begun = Instant::now();
        client.send(head("GET", "/stream?count=2&interval=1", &[]));
        assert_eq!(client.read_head().unwrap().status, 200, "{name}");
        let first = String::from_utf8(client.read_chunk().unwrap().unwrap()).unwrap();
        assert!(first.starts_with("id: 0\n"), "{name}: {first}");
        assert!(begun.elapsed() < Duration::from_millis(900), "{name}: the first event was held back");

        events_over_http2(name, &gateway, &certificate);
    }
}

/// HTTP/2 towards the client, HTTP/1.1 towards the server.
fn events_over_http2(name: &str, gateway: &Gateway, certificate: &Certificate) {
    let config = client_config(&[certificate], &["h2"], &[&TLS13]);
    let mut client = Http2::connect(gateway.port("https"), "localhost", &config);
    client.run(async |mut sender| {
        let begun = Instant::now();
        let request = Request::get("https://localhost/stream?count=2&interval=1").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let first = body.data().await.unwrap().unwrap();
        assert!(first.starts_with(b"id: 0\n"), "{name}: {first:?}");
        assert!(begun.elapsed() < Duration::from_millis(900), "{name}: the first event was held back");
    });
}

/// What docs/deployment.md says that a WebSocket at rest takes, and what these may take beside, which have only just been
/// used, by a build for tests, whose futures are larger.
const STATED: f64 = 6.0 * 1024.0;
const UNOPTIMISED: f64 = 4.0 * 1024.0;

#[test]
fn websockets_at_rest_take_the_memory_that_is_stated() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deployment.md")).unwrap();
    assert!(page.contains("| WebSocket and others that were upgraded, plain | 8 |"), "the page states another amount");
    let gateway = Setup::before([backends::chat().url()]).start();
    let open = |count: usize| -> Vec<WebSocket> {
        (0..count)
            .map(|_| {
                let mut socket = WebSocket::open(gateway.port("http"), "/ws");
                socket.echo("hello");
                socket
            })
            .collect()
    };
    let resident = || gateway.metric("process_resident_memory_bytes", &[]);
    // What the first ones need once is not theirs.
    let first = open(100);
    let before = resident();
    let mut sockets = open(1000);
    let each = (resident() - before) / 1000.0;
    assert!(each < STATED + UNOPTIMISED, "{each} bytes each");
    for socket in sockets.iter_mut().step_by(100) {
        socket.echo("still here");
    }
    let open_now = || gateway.metric("passerelle_connections_open", &["protocol=\"upgraded\""]);
    assert_eq!(open_now(), 1100.0);
    drop((first, sockets));
    eventually("all of them are over", || (open_now() == 0.0).then_some(()));
}

/// Each case of the Autobahn suite with what came of it: the exchange, and how it was closed.
type Verdicts = BTreeMap<String, (String, String)>;

fn autobahn(port: u16, cases: &[String]) -> Verdicts {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/autobahn.py");
    let output = Command::new(python_program("python"))
        .arg(script)
        .arg(format!("ws://127.0.0.1:{port}/ws"))
        .args(cases)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_cases_of_autobahn_end_as_they_do_without_the_gateway() {
    let backend = Backend::uvicorn_with("chat", "chat:app", &["--ws-max-size", "20000000"]);
    let gateway = Setup::before([backend.url()]).start();
    // Large messages and compression are the tunnel's bytes like any others, and take minutes.
    let cases = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.2.1", "10.*", "12.1.1", "13.1.1"];
    let mut cases: Vec<String> = cases.map(str::to_owned).into();
    // How some cases end depends on which packet comes first: those that differ are run again.
    for _ in 0..3 {
        let straight = autobahn(backend.port(), &cases);
        assert!(!straight.is_empty());
        let through = autobahn(gateway.port("http"), &cases);
        cases = straight.keys().filter(|case| straight[*case] != through[*case]).cloned().collect();
        if cases.is_empty() {
            return;
        }
    }
    panic!("these end differently each time: {cases:?}");
}

#[test]
fn a_gateway_s_certificate_is_enough_for_secure_websockets() {
    let (gateway, certificate) = with_tls(backends::chat());
    let config = Arc::clone(&client_config(&[&certificate], &["http/1.1"], &[&TLS13]));
    let mut client = crate::harness::tls::connect(gateway.port("https"), "localhost", &config).unwrap();
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(client.ask("GET", "/ws", &upgrade).status, 101);
    // "hi", masked with zeros, and back without a mask.
    client.send(b"\x81\x82\0\0\0\0hi");
    assert_eq!(client.read_exactly(4).unwrap(), b"\x81\x02hi");
}
