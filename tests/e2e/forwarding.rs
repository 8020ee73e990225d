//! Answers through the gateway equal the direct ones, for every kind of request that a Python service serves.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::backends::{self, Backend};
use crate::harness::http::{Client, Response, head};
use crate::harness::{Fake, Gateway, PATIENCE, Setup};

/// A request, by its method, target, headers and body.
struct Asked<'a>(&'a str, &'a str, &'a [(&'a str, &'a str)], Vec<u8>);

/// Headers that say how a message travels, or differ from one answer to the next.
const OF_THE_WAY: &[&str] =
    &["connection", "keep-alive", "transfer-encoding", "content-length", "date", "x-request-id"];

/// What must not change on the way.
fn essence(response: &Response) -> (u16, Vec<(String, String)>, &[u8]) {
    let kept = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut kept: Vec<_> = kept.filter(|(name, _)| !OF_THE_WAY.contains(&name.as_str())).collect();
    kept.sort();
    (response.status, kept, &response.body)
}

fn plain(backend: &Backend) -> Gateway {
    Setup::before([backend.url()]).route("security_headers = false\ncompress = false").start()
}

/// Asks both, the gateway over one connection that is kept, and again with the body in chunks: the service gets it with
/// its length, which is more than Django can do without.
fn compare(backend: &Backend, requests: &[Asked<'_>]) {
    let gateway = plain(backend);
    let mut client = Client::connect(gateway.port("http"));
    for request in requests {
        let Asked(method, target, headers, body) = request;
        let what = format!("{method} {target} {headers:?} with {} bytes", body.len());
        let direct = if body.is_empty() {
            Client::connect(backend.port()).ask(method, target, headers)
        } else {
            Client::connect(backend.port()).ask_with(method, target, headers, body)
        };
        let through = match body.is_empty() {
            true => client.ask(method, target, headers),
            false => client.ask_with(method, target, headers, body),
        };
        assert_eq!(essence(&through), essence(&direct), "{what}");
        // A HEAD, a 204 or a 304 may say a length or leave it out, but not a wrong one.
        if let (Some(through), Some(direct)) = (through.header("content-length"), direct.header("content-length")) {
            assert_eq!(through, direct, "{what}");
        }
        // An answer that came before the end of its request may end the connection; no other does.
        let closes = |answer: &Response| answer.header("connection").is_some();
        assert!(!body.is_empty() || !closes(&through), "{what}: the gateway keeps its connections: {through:?}");
        if closes(&through) {
            client = Client::connect(gateway.port("http"));
        }
        if !body.is_empty() {
            let through = send_in_chunks(&mut client, request);
            assert_eq!(essence(&through), essence(&direct), "{what}, chunked");
            if closes(&through) {
                client = Client::connect(gateway.port("http"));
            }
        }
    }
}

fn send_in_chunks(client: &mut Client<TcpStream>, Asked(method, target, headers, body): &Asked<'_>) -> Response {
    let mut chunked = vec![("Transfer-Encoding", "chunked")];
    chunked.extend_from_slice(headers);
    let mut request = head(method, target, &chunked).into_bytes();
    for piece in body.chunks(10_000) {
        request.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    request.extend(b"0\r\n\r\n");
    // In one go: a Python server that answers without reading the body closes, and what is sent after that is an error.
    client.send(request);
    client.answer_to(method)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn requests_of_orders() -> Vec<Asked<'static>> {
    vec![
        Asked("GET", "/healthz", &[], vec![]),
        Asked("HEAD", "/healthz", &[], vec![]),
        Asked("GET", "/download?bytes=0", &[], vec![]),
        Asked("GET", "/download?bytes=1", &[], vec![]),
        Asked("GET", "/download?bytes=5000000", &[], vec![]),
        Asked("HEAD", "/download?bytes=5000000", &[], vec![]),
        Asked("GET", "/download?bytes=0&chunked=1", &[], vec![]),
        Asked("GET", "/download?bytes=1000000&chunked=1", &[], vec![]),
        Asked("HEAD", "/download?bytes=1000000&chunked=1", &[], vec![]),
        Asked("GET", "/status/204", &[], vec![]),
        Asked("GET", "/status/304", &[], vec![]),
        Asked("GET", "/status/404", &[], vec![]),
        Asked("GET", "/status/418", &[], vec![]),
        Asked("GET", "/status/500", &[], vec![]),
        Asked("GET", "/status/503", &[], vec![]),
        Asked("GET", "/old-orders", &[], vec![]),
        Asked("GET", "/cookies", &[("Cookie", "session=1; theme=2")], vec![]),
        Asked("GET", "/orders/999999", &[], vec![]),
        Asked("OPTIONS", "/orders", &[], vec![]),
        Asked("PATCH", "/orders", &[], vec![]),
        Asked("GET", "/no/such/page?with=a&query", &[], vec![]),
        Asked("POST", "/upload", &[], vec![]),
        Asked("POST", "/upload", &[("Content-Type", "application/octet-stream")], noise(1)),
        Asked("PUT", "/upload", &[("Content-Type", "application/octet-stream")], noise(70_000)),
        Asked("POST", "/upload", &[("Content-Type", "application/octet-stream")], noise(5_000_000)),
        Asked("POST", "/orders", &[("Content-Type", "application/json")], b"{\"item\": 1}".to_vec()),
        Asked("GET", "/stream?count=3&interval=0", &[], vec![]),
    ]
}

#[test]
fn flask_under_the_sync_worker_answers_alike() {
    compare(backends::orders_sync(), &requests_of_orders());
}

#[test]
fn flask_under_threads_answers_alike() {
    compare(backends::orders_threads(), &requests_of_orders());
}

#[test]
fn django_answers_alike() {
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n";
    let form = [form.as_bytes(), &noise(300_000), b"\r\n--b--\r\n"].concat();
    let requests = [
        Asked("GET", "/healthz", &[], vec![]),
        Asked("GET", "/invoices/", &[], vec![]),
        Asked("HEAD", "/invoices/", &[], vec![]),
        Asked("GET", "/invoices", &[], vec![]),
        Asked("GET", "/invoices/3/", &[], vec![]),
        Asked("GET", "/invoices/99/", &[], vec![]),
        Asked("GET", "/export", &[], vec![]),
        Asked("GET", "/no/such/page", &[], vec![]),
        Asked("POST", "/invoices/", &[("Content-Type", "application/json")], b"{}".to_vec()),
        Asked("POST", "/attach", &[("Content-Type", "multipart/form-data; boundary=b")], form),
    ];
    compare(backends::invoices(), &requests);
}

#[test]
fn fastapi_answers_alike() {
    let requests = [
        Asked("GET", "/healthz", &[], vec![]),
        Asked("GET", "/openapi.json", &[], vec![]),
        Asked("GET", "/docs", &[], vec![]),
        Asked("GET", "/messages?limit=0", &[], vec![]),
        Asked("GET", "/messages?limit=many", &[], vec![]),
        Asked("POST", "/messages", &[("Content-Type", "application/json")], b"{\"author\": \"\"}".to_vec()),
        Asked("GET", "/stream?count=3&interval=0", &[], vec![]),
        Asked("DELETE", "/messages", &[], vec![]),
    ];
    compare(backends::chat(), &requests);
}

#[test]
fn an_entity_tag_is_answered_with_304() {
    let backend = backends::invoices();
    let gateway = plain(backend);
    let mut client = Client::connect(gateway.port("http"));
    let first = client.ask("GET", "/invoices/", &[]);
    let tag = first.header("etag").unwrap().to_owned();
    let second = client.ask("GET", "/invoices/", &[("If-None-Match", &tag)]);
    assert_eq!((second.status, second.body.len(), second.header("etag")), (304, 0, Some(tag.as_str())));
    assert_eq!(client.ask("GET", "/healthz", &[]).status, 200);
}

#[test]
fn django_s_guard_against_forgery_works_through_the_gateway() {
    let gateway = plain(backends::invoices());
    let mut client = Client::connect(gateway.port("http"));
    let host = format!("localhost:{}", gateway.port("http"));
    let token = client.ask("GET", "/token", &[("Host", &host)]);
    let cookie = token.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let csrf = token.json()["csrf"].as_str().unwrap().to_owned();
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Host", host.as_str())];

    let origin = format!("http://{host}");
    let mut good = form.to_vec();
    good.extend([("Cookie", cookie.as_str()), ("X-CSRFToken", csrf.as_str()), ("Origin", origin.as_str())]);
    assert_eq!(client.ask_with("POST", "/pay", &good, b"number=3").json(), json!({ "paid": "3" }));

    let mut forged = form.to_vec();
    forged.extend([("Cookie", cookie.as_str()), ("X-CSRFToken", csrf.as_str()), ("Origin", "http://evil.example")]);
    assert_eq!(client.ask_with("POST", "/pay", &forged, b"number=3").status, 403);
}

#[test]
fn many_requests_down_one_connection_are_answered_in_turn() {
    let gateway = plain(backends::orders_threads());
    let mut client = Client::connect(gateway.port("http"));
    let all: String = (0..20).map(|number| head("GET", &format!("/echo?number={number}"), &[])).collect();
    client.send(all);
    for number in 0..20 {
        assert_eq!(client.answer().json()["query"], json!(format!("number={number}")));
    }
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    for backend in [backends::orders_threads(), backends::orders_sync(), backends::chat()] {
        let gateway = plain(backend);
        let mut client = Client::connect(gateway.port("http"));
        let begun = Instant::now();
        client.send(head("GET", "/stream?count=3&interval=1", &[]));
        let head = client.read_head().unwrap();
        assert!(head.header("content-type").unwrap().starts_with("text/event-stream"), "{head:?}");
        let first = String::from_utf8(client.read_chunk().unwrap().unwrap()).unwrap();
        assert!(first.starts_with("id: 0\n"), "{first}");
        assert!(begun.elapsed() < Duration::from_millis(900), "the first event was held back");
        let second = String::from_utf8(client.read_chunk().unwrap().unwrap()).unwrap();
        assert!(second.starts_with("id: 1\n"), "{second}");
        assert!(begun.elapsed() < Duration::from_millis(1900), "the second event was held back");
    }
}

#[test]
fn a_body_streams_to_the_server_while_the_client_still_sends_it() {
    let fake = Fake::start(|mut connection| {
        let head = connection.read_head().unwrap();
        assert!(head.contains("ransfer-"), "{head}");
        // The first piece is confirmed before the second is sent.
        assert_eq!(connection.read_exactly(10).unwrap(), b"5\r\nfirst\r\n");
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nseen the first\n");
        connection.hold();
    });
    let gateway = Setup::before([fake.url()]).route("buffer = { request = false }").start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked")])).send("5\r\nfirst\r\n");
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.text().as_str()), (200, "seen the first\n"));
}

#[test]
fn a_client_that_does_not_read_holds_the_server_back() {
    // The server sends far more than all buffers on the way hold, and sees that nobody takes it.
    let (sent, told) = std::sync::mpsc::channel();
    let sent = std::sync::Mutex::new(sent);
    let fake = Fake::start(move |mut connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        for piece in 0..64 {
            if !connection.send(vec![b'x'; 1 << 20]) {
                return;
            }
            sent.lock().unwrap().send(piece).unwrap();
        }
    });
    let gateway = Setup::before([fake.url()]).route("buffer = { response = false }").start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    let head = client.read_head().unwrap();
    assert_eq!(head.header("content-length"), Some("67108864"));
    let mut pieces = 0;
    while told.recv_timeout(Duration::from_millis(500)).is_ok() {
        pieces += 1;
    }
    assert!(pieces < 32, "the gateway took {pieces} MiB for a client that reads nothing");
    let mut left: usize = 64 << 20;
    while left > 0 {
        let piece = client.read_exactly(left.min(1 << 20)).unwrap();
        assert!(piece.iter().all(|&byte| byte == b'x'));
        left -= piece.len();
    }
    while pieces < 64 {
        told.recv_timeout(PATIENCE).unwrap();
        pieces += 1;
    }
}

#[test]
fn trailers_pass_both_ways_where_the_body_passes_as_it_comes() {
    let fake = Fake::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
    );
    let gateway = Setup::before([fake.url()]).route("buffer = { request = false }").start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked"), ("TE", "trailers"), ("Trailer", "X-Check")]));
    client.send("3\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n");
    let answer = client.answer_to("POST");
    assert_eq!(answer.body, b"abc");
    let trailers: Vec<_> = answer.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "6")]);
    let request = fake.request();
    assert_eq!(request.body, b"abc");
    assert_eq!(request.trailers.to_lowercase(), "x-check: 7\n");
}

/// WSGI services cannot read chunks, and what has trailers has to go in chunks.
#[test]
fn a_body_that_is_held_goes_on_with_its_length_and_without_its_trailers() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked"), ("Trailer", "X-Check")]));
    client.send("3\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n");
    assert_eq!(client.answer_to("POST").status, 200);
    let request = fake.request();
    assert_eq!((request.body.as_slice(), request.trailers.as_str()), (&b"abc"[..], ""));
    assert_eq!((request.header("content-length"), request.header("transfer-encoding")), (Some("3"), None));
}

/// A server may merge trailers with the fields of the head.
#[test]
fn no_trailer_goes_around_the_rules_on_fields() {
    let fake = Fake::ok();
    let rules = "headers = { request = { set = { X-Tenant = \"shop\" }, remove = [\"X-Debug\"] } }\n\
                 buffer = { request = false }";
    let gateway = Setup::before([fake.url()]).route(rules).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked")]));
    client.send("3\r\nabc\r\n0\r\nX-Tenant: other\r\nX-Check: 7\r\nX-Debug: 1\r\n\r\n");
    assert_eq!(client.answer_to("POST").status, 200);
    let request = fake.request();
    assert_eq!(request.header("x-tenant"), Some("shop"));
    assert_eq!(request.trailers.to_lowercase(), "x-check: 7\n");
}

#[test]
fn one_hundred_continue_comes_from_whoever_wants_the_body() {
    for backend in [backends::orders_threads(), backends::orders_sync(), backends::chat()] {
        let gateway = plain(backend);
        let target = if std::ptr::eq(backend, backends::chat()) { "/echo" } else { "/upload" };
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("POST", target, &[("Expect", "100-continue"), ("Content-Length", "5")]));
        let interim = client.read_head().unwrap();
        assert_eq!(interim.status, 100, "{interim:?}");
        client.send("hello");
        let answer = client.answer_to("POST");
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"));
    }
}

#[test]
fn early_hints_are_passed_on() {
    let fake = Fake::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
    );
    let gateway = Setup::before([fake.url()]).start();
    let answer = gateway.get("/");
    assert_eq!(answer.status, 200);
    let hints: Vec<u16> = answer.interim.iter().map(|interim| interim.status).collect();
    assert_eq!(hints, [103]);
    assert_eq!(answer.interim[0].header("link"), Some("</style.css>; rel=preload"));
}

#[test]
fn one_point_zero_clients_get_no_chunks_and_no_interim_answers() {
    let fake = Fake::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
    );
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = client.answer();
    assert!(answer.interim.is_empty());
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "ok\n");
    assert!(fake.request().head.starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn an_answer_before_the_end_of_the_request_survives() {
    // The server refuses a large upload at once and closes; the client is still sending.
    let fake = Fake::start(|mut connection| {
        connection.read_head();
        connection.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 10\r\nConnection: close\r\n\r\ntoo large\n");
    });
    let gateway = Setup::before([fake.url()]).route("max_body = \"100 MiB\"").start();
    for _ in 0..10 {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("POST", "/", &[("Content-Length", "20000000")]));
        let mut writer = client.writer();
        let sending = std::thread::spawn(move || {
            // However far it gets.
            let _ = writer.write_all(&vec![b'x'; 20_000_000]);
        });
        let answer = client.answer_to("POST");
        assert_eq!((answer.status, answer.text().as_str()), (413, "too large\n"));
        drop(client);
        sending.join().unwrap();
    }
}

#[test]
fn options_of_everything_and_absolute_targets_are_forwarded() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    assert_eq!(client.ask("GET", "http://shop.example/a?b=c", &[("Host", "other.example")]).status, 200);
    let request = fake.request();
    assert_eq!((request.target(), request.header("host")), ("/a?b=c", Some("shop.example")));
}
