//! TLS and HTTP/2 towards clients.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::backends;
use crate::harness::http::{Client, head};
use crate::harness::http2::{Http2, exchange};
use crate::harness::tls::{Certificate, client_config, connect};
use crate::harness::{Fake, Gateway, Setup, eventually};

/// A listener with TLS on the port `@https@` beside the one without.
fn secure(setup: Setup, more: &str) -> Setup {
    setup.rest(&format!(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n{more}\n\
         [listener.https.tls]\ncertificates = [{{ chain = \"site.pem\", key = \"site.key\" }}]"
    ))
}

fn start(setup: &Setup, certificate: &Certificate) -> Gateway {
    Gateway::start_with(&setup.text(), |directory, _| certificate.write(directory, "site"))
}

fn http2_config(certificate: &Certificate) -> Arc<ClientConfig> {
    client_config(&[certificate], &["h2", "http/1.1"], &[&TLS13])
}

#[test]
fn requests_over_tls_are_forwarded_as_https() {
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([backends::invoices().url()]), ""), &certificate);
    for version in [&TLS12, &TLS13] {
        let config = client_config(&[&certificate], &[], &[version]);
        let mut client = connect(gateway.port("https"), "localhost", &config).unwrap();
        for _ in 0..3 {
            let answer = client.ask("GET", "/echo", &[("Host", "shop.example")]);
            assert_eq!(answer.json()["absolute"], json!("https://shop.example/echo"));
        }
    }
}

#[test]
fn old_versions_of_tls_are_refused() {
    let certificate = Certificate::new(&["localhost"]);
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n[listener.https.tls]\nmin_version = \"1.3\"\n\
         certificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    let gateway = start(&setup, &certificate);
    let port = gateway.port("https");
    assert!(connect(port, "localhost", &client_config(&[&certificate], &[], &[&TLS12])).is_err());
    assert!(connect(port, "localhost", &client_config(&[&certificate], &[], &[&TLS13])).is_ok());

    // TLS 1.1, which no client here speaks any more: its hello by hand.
    let gateway = start(&secure(Setup::before([fake.url()]), ""), &certificate);
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut old = Client::connect(gateway.port("https"));
    old.send(&hello);
    let alert = old.read_exactly(7).unwrap();
    assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert: {alert:?}");
    gateway.metric_reaches("passerelle_tls_handshake_failures_total", &["listener=\"https\""], 1.0);
}

#[test]
fn plain_http_on_the_tls_port_does_no_harm() {
    let certificate = Certificate::new(&["localhost"]);
    let fake = Fake::ok();
    let gateway = start(&secure(Setup::before([fake.url()]), ""), &certificate);
    let mut client = Client::connect(gateway.port("https"));
    client.send(head("GET", "/", &[]));
    let told = client.answer();
    assert_eq!(told.status, 400);
    assert!(told.text().contains("https://"), "{told:?}");
    client.expect_close();
    let config = client_config(&[&certificate], &[], &[&TLS13]);
    assert_eq!(connect(gateway.port("https"), "localhost", &config).unwrap().ask("GET", "/", &[]).status, 200);
    assert_eq!(fake.requests().len(), 1);
}

/// The certificate that a client is shown.
fn shown(port: u16, name: &str, trusted: &[&Certificate]) -> Option<Vec<u8>> {
    let client = connect(port, name, &client_config(trusted, &[], &[&TLS13])).ok()?;
    client.stream.conn.peer_certificates().map(|chain| chain[0].to_vec())
}

#[test]
fn the_certificate_is_picked_by_the_name_that_the_client_asks_for() {
    let (one, two, wild) = (
        Certificate::new(&["one.example"]),
        Certificate::new(&["two.example", "zwei.example"]),
        Certificate::new(&["*.wild.example"]),
    );
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n[listener.https.tls]\n\
         certificates = [{ chain = \"one.pem\", key = \"one.key\" }, { chain = \"two.pem\", key = \"two.key\" }, \
         { chain = \"wild.pem\", key = \"wild.key\" }]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory: &Path, _: &mut Command| {
        one.write(directory, "one");
        two.write(directory, "two");
        wild.write(directory, "wild");
    });
    let all = [&one, &two, &wild];
    for (name, certificate) in [
        ("one.example", &one),
        ("two.example", &two),
        ("zwei.example", &two),
        ("a.wild.example", &wild),
        ("TWO.example", &two),
    ] {
        assert_eq!(shown(gateway.port("https"), name, &all).as_deref(), Some(&*certificate.der), "{name}");
    }
}

#[test]
fn a_new_certificate_is_taken_without_dropping_a_connection() {
    let (old, new) = (Certificate::new(&["localhost"]), Certificate::new(&["localhost"]));
    let fake = Fake::ok();
    let gateway = start(&secure(Setup::before([fake.url()]), ""), &old);
    let port = gateway.port("https");
    let mut kept = connect(port, "localhost", &client_config(&[&old], &[], &[&TLS13])).unwrap();
    assert_eq!(kept.ask("GET", "/", &[]).status, 200);
    new.write(gateway.directory(), "site");
    eventually("the new certificate is shown", || {
        (shown(port, "localhost", &[&old, &new]).as_deref() == Some(&*new.der)).then_some(())
    });
    assert_eq!(kept.ask("GET", "/", &[]).status, 200);

    // A key that does not belong to the certificate changes nothing.
    std::fs::write(gateway.directory().join("site.key"), &old.key).unwrap();
    let (status, _) = gateway.reload();
    assert!(!status.success());
    assert_eq!(shown(port, "localhost", &[&old, &new]).as_deref(), Some(&*new.der));
}

#[test]
fn http2_answers_as_http1_does() {
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([backends::chat().url()]), ""), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let answer = http2.get("https://localhost/echo?a=b").unwrap();
    assert_eq!(answer.status(), 200);
    let saw = answer.json();
    assert_eq!((&saw["scheme"], &saw["query"], &saw["method"]), (&json!("https"), &json!("a=b"), &json!("GET")));
    let fields = saw["headers"].to_string();
    for part in ["[\"host\",\"localhost\"]", "[\"x-forwarded-proto\",\"https\"]", "\"x-forwarded-for\",\"127.0.0.1\""] {
        assert!(fields.to_lowercase().contains(part), "{part}: {fields}");
    }

    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = http2.ask(Request::post("https://localhost/echo").body(()).unwrap(), &body).unwrap();
    assert_eq!(answer.json()["body"]["length"], json!(body.len()));

    let missing = http2.get("https://localhost/no/such/page").unwrap();
    assert_eq!(missing.status(), 404);
    let no_body = http2.ask(Request::head("https://localhost/echo").body(()).unwrap(), b"").unwrap();
    assert_eq!((no_body.status(), no_body.body.len()), (200, 0));
}

#[test]
fn large_answers_arrive_whole_over_http2() {
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([backends::orders_threads().url()]), ""), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    for target in ["/download?bytes=5000000", "/download?bytes=5000000&chunked=1"] {
        let answer = http2.get(&format!("https://localhost{target}")).unwrap();
        assert_eq!(answer.body.len(), 5_000_000);
        assert!(answer.body.iter().enumerate().all(|(at, &byte)| byte as usize == at % 251));
    }
}

#[test]
fn many_streams_share_a_connection() {
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([backends::chat().url()]), ""), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let queries = http2.run(async |sender| {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..50 {
            let uri = format!("https://localhost/echo?number={number}");
            let sender = sender.clone();
            all.spawn(async move { exchange(sender, Request::get(uri).body(()).unwrap(), b"").await.unwrap() });
        }
        all.join_all().await
    });
    let mut queries: Vec<String> = queries.iter().map(|answer| answer.json()["query"].to_string()).collect();
    queries.sort();
    queries.dedup();
    assert_eq!(queries.len(), 50);
}

#[test]
fn trailers_pass_over_http2_and_early_hints_do_no_harm() {
    let fake = Fake::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
    );
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([fake.url()]), ""), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let answer = http2.get("https://localhost/").unwrap();
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"abc"[..]));
    assert_eq!(answer.trailers.unwrap()["x-sum"], "6");
}

#[test]
fn what_http2_forbids_is_refused() {
    let fake = Fake::ok();
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([fake.url()]), ""), &certificate);
    let config = http2_config(&certificate);
    // The client library will not send most of what is forbidden; these it does.
    let requests = [
        ("a host beside another authority", Request::get("https://localhost/").header("host", "other.example")),
        ("a dot segment", Request::get("https://localhost/a/../b")),
        ("CONNECT", Request::builder().method(Method::CONNECT).uri("localhost:443")),
        ("TRACE", Request::builder().method(Method::TRACE).uri("https://localhost/")),
    ];
    for (what, request) in requests {
        let mut http2 = Http2::connect(gateway.port("https"), "localhost", &config);
        match http2.ask(request.body(()).unwrap(), b"") {
            Ok(answer) => assert!([400, 405, 501].contains(&answer.status()), "{what}: {answer:?}"),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{what}: {error}"),
        }
    }
    // A body longer or shorter than it was said to be.
    for length in ["3", "10"] {
        let mut http2 = Http2::connect(gateway.port("https"), "localhost", &config);
        let request = Request::post("https://localhost/").header("content-length", length).body(()).unwrap();
        match http2.ask(request, b"hello") {
            Ok(answer) => assert_eq!(answer.status(), 400, "{length}"),
            Err(error) => assert!(error.is_reset(), "{length}: {error}"),
        }
    }
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let fake = Fake::start(|mut connection| connection.hold());
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([fake.url()]), "http2 = { max_resets = \"20/s\" }"), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let ended = http2.run(async |sender| {
        for _ in 0..10_000 {
            let request = Request::get("https://localhost/").body(()).unwrap();
            let Ok(mut ready) = sender.clone().ready().await else { return true };
            let Ok((answer, mut stream)) = ready.send_request(request, true) else { return true };
            tokio::task::yield_now().await;
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
            tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        }
        false
    });
    assert!(ended, "ten thousand resets were taken");
    // Nobody else is the worse for it.
    let config = client_config(&[&certificate], &[], &[&TLS13]);
    assert!(connect(gateway.port("https"), "localhost", &config).is_ok());
}

#[test]
fn streams_beyond_the_bound_wait_or_are_refused() {
    let fake = Fake::ok();
    let certificate = Certificate::new(&["localhost"]);
    let gateway = start(&secure(Setup::before([fake.url()]), "http2 = { max_streams = 4 }"), &certificate);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    assert_eq!(http2.get("https://localhost/").unwrap().status(), 200);
    assert_eq!(http2.run(async |sender: h2::client::SendRequest<Bytes>| sender.current_max_send_streams()), 4);
}

#[test]
fn clients_without_tls_are_sent_to_the_tls_port() {
    let certificate = Certificate::new(&["localhost"]);
    let fake = Fake::ok();
    let setup = secure(Setup::before([fake.url()]), "")
        .rest("[listener.old]\naddress = \"127.0.0.1:@old@\"\nredirect_to_https = @https@")
        .route("host = \"shop.example\"");
    let gateway = start(&setup, &certificate);
    let mut client = Client::connect(gateway.port("old"));
    let answer = client.ask("GET", "/a?b=c", &[("Host", "shop.example:8080")]);
    assert_eq!(answer.status, 308);
    let to = format!("https://shop.example:{}/a?b=c", gateway.port("https"));
    assert_eq!(answer.header("location"), Some(to.as_str()));
    // Nobody is sent to a host that the gateway knows nothing of.
    let stranger = Client::connect(gateway.port("old")).ask("GET", "/", &[("Host", "evil.example")]);
    assert_eq!((stranger.status, stranger.header("location")), (404, None));
    assert!(fake.requests().is_empty());
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    let certificate = Certificate::new(&["localhost"]);
    let fake = Fake::ok();
    let gateway = start(&secure(Setup::before([fake.url()]), "header_timeout = \"400ms\""), &certificate);
    let silent = TcpStream::connect(("127.0.0.1", gateway.port("https"))).unwrap();
    Client::over(silent).expect_close();
}
