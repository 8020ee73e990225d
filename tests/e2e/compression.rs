//! Answers compressed on their way: every coding decodes to the same bytes, nothing is delayed, and caches are told.

use std::io::Read;

use crate::harness::http::Client;
use crate::harness::{Fake, Gateway, Response, Setup, backends};

fn decoded(answer: &Response) -> Vec<u8> {
    decode(answer.header("content-encoding"), &answer.body)
}

fn decode(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        None => plain.extend_from_slice(body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).unwrap()),
        Some("zstd") => plain = zstd::decode_all(body).unwrap(),
        Some(other) => panic!("an unknown coding: {other}"),
    }
    plain
}

fn ask(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask("GET", target, headers)
}

const ALL: &str = "gzip, deflate, br, zstd";

/// Text that shrinks, but not to nothing.
fn text(length: usize) -> String {
    let mut text = String::new();
    let mut seed = 1u64;
    while text.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{{\"order\": {}, \"item\": \"tea\"}}\n", seed >> 40));
    }
    text.truncate(length);
    text
}

/// A server whose only answer is 200 with these fields and this body.
fn saying(fields: &str, body: &str) -> Fake {
    Fake::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn json(length: usize) -> Fake {
    saying("Content-Type: application/json\r\n", &text(length))
}

#[test]
fn every_coding_decodes_to_the_same_bytes() {
    for length in [1024, 5000, 40_000, 700_000] {
        let (fake, plain) = (json(length), text(length));
        let gateway = Setup::before([fake.url()]).start();
        for (accept, coding) in [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("zstd", Some("zstd")),
            (ALL, Some("zstd")),
            ("gzip;q=0.5, br;q=0.8", Some("br")),
            ("identity", None),
            ("*;q=0", None),
            ("deflate", None),
        ] {
            let answer = ask(&gateway, "/", &[("Accept-Encoding", accept)]);
            assert_eq!(answer.header("content-encoding"), coding, "{accept}");
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            assert!(decoded(&answer) == plain.as_bytes(), "{length} {accept}");
            assert!(coding.is_none() || answer.body.len() * 2 < length, "{length} {accept}: {}", answer.body.len());
        }
        let head = Client::connect(gateway.port("http")).ask("HEAD", "/", &[("Accept-Encoding", ALL)]);
        assert_eq!((head.header("content-encoding"), head.header("content-length")), (Some("zstd"), None));
        assert_eq!(head.header("vary"), Some("Accept-Encoding"));
    }
}

#[test]
fn what_gains_nothing_goes_as_it_is() {
    let long = text(5000);
    let json_with = |fields: &str| format!("Content-Type: application/json\r\n{fields}\r\n");
    for (fields, body) in [
        (json_with("X-A: b"), "small"),
        ("Content-Type: image/png\r\n".into(), long.as_str()),
        ("Content-Type: text/event-stream\r\n".into(), &long),
        ("Content-Type: application/grpc\r\n".into(), &long),
        ("X-No: type\r\n".into(), &long),
        (json_with("Content-Encoding: br"), &long),
        (json_with("Cache-Control: public, No-Transform"), &long),
        (json_with("Content-Digest: sha-256=:a:"), &long),
    ] {
        let fake = saying(&fields, body);
        let gateway = Setup::before([fake.url()]).start();
        let answer = ask(&gateway, "/", &[("Accept-Encoding", ALL)]);
        assert!(answer.text() == body && answer.header("vary").is_none(), "{fields} {answer:?}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{fields}");
    }
    let partial = "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-4999/9999\r\n";
    let fake = Fake::answering(format!("{partial}Content-Length: 5000\r\n\r\n{long}"));
    let answer = ask(&Setup::before([fake.url()]).start(), "/", &[("Accept-Encoding", ALL)]);
    assert_eq!((answer.status, answer.header("content-encoding")), (206, None));
}

#[test]
fn it_can_be_turned_off() {
    let fake = json(5000);
    let off = Setup::before([fake.url()]).route("compress = false").start();
    let answer = ask(&off, "/", &[("Accept-Encoding", ALL)]);
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));
    let defaults = Setup::before([fake.url()]).rest("[defaults]\ncompress = false").start();
    assert_eq!(ask(&defaults, "/", &[("Accept-Encoding", ALL)]).header("content-encoding"), None);
}

#[test]
fn what_the_service_says_of_caches_stays_true() {
    let fields = "Content-Type: application/json\r\nETag: \"v5\"\r\nVary: Cookie\r\nAccept-Ranges: bytes\r\n";
    let body = text(5000);
    let fake = Fake::start(move |mut connection| {
        while let Some(request) = connection.read_request() {
            // As frameworks compare them: weakly.
            let same = request.header("if-none-match").is_some_and(|tag| tag.trim_start_matches("W/") == "\"v5\"");
            let failed = request.header("if-match").is_some_and(|tags| !tags.split(", ").any(|tag| tag == "\"v5\""));
            connection.send(match (same, failed) {
                (true, _) => "HTTP/1.1 304 Not Modified\r\nETag: \"v5\"\r\nVary: Cookie\r\n\r\n".to_owned(),
                (_, true) => "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 5000\r\n\r\n{body}"),
            });
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    let coded = ask(&gateway, "/", &[("Accept-Encoding", ALL)]);
    assert_eq!((coded.header("etag"), coded.header("accept-ranges")), (Some("W/\"v5\""), None));
    assert_eq!(coded.headers_named("vary"), ["Cookie", "Accept-Encoding"]);
    let plain = ask(&gateway, "/", &[]);
    assert_eq!((plain.header("etag"), plain.header("accept-ranges")), (Some("\"v5\""), Some("bytes")));
    assert_eq!(plain.headers_named("vary"), ["Cookie", "Accept-Encoding"]);

    let same = ask(&gateway, "/", &[("Accept-Encoding", ALL), ("If-None-Match", "W/\"v5\"")]);
    assert_eq!((same.status, same.header("etag")), (304, Some("W/\"v5\"")));
    assert_eq!(same.headers_named("vary"), ["Cookie", "Accept-Encoding"]);
    let same = ask(&gateway, "/", &[("Accept-Encoding", ALL), ("If-None-Match", "\"v5\"")]);
    assert_eq!((same.status, same.header("etag")), (304, Some("\"v5\"")));
    // What the gateway has weakened it makes strong again: a change under a condition works as without it.
    let put = |tag: &str| Client::connect(gateway.port("http")).ask_with("PUT", "/", &[("If-Match", tag)], b"x").status;
    assert_eq!((put("W/\"v5\""), put("\"v5\""), put("W/\"v4\"")), (200, 200, 412));
    assert_eq!(fake.requests().last().unwrap().header("if-match"), Some("W/\"v4\", \"v4\""));
}

#[test]
fn a_chunk_leaves_when_it_comes() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let fake = Fake::start(move |mut connection| {
        while connection.read_request().is_some() {
            connection
                .send("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
            for line in ["{\"n\": 1}\n", "{\"n\": 2}\n", "{\"n\": 3}\n"] {
                connection.send(format!("{:x}\r\n{line}\r\n", line.len()));
                wait.lock().unwrap().recv().unwrap();
            }
            connection.send("0\r\nX-Sum: 6\r\n\r\n");
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    for coding in ["gzip", "br", "zstd"] {
        let mut client = Client::connect(gateway.port("http"));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
        let head = client.read_head().unwrap();
        assert_eq!(
            (head.header("content-encoding"), head.header("transfer-encoding")),
            (Some(coding), Some("chunked"))
        );
        let (mut body, mut plain) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            // The server goes on only once the client has what was sent so far.
            while !plain.ends_with(format!("{{\"n\": {n}}}\n").as_bytes()) {
                body.extend_from_slice(&client.read_chunk().unwrap().expect("more to come"));
                plain = decode_part(coding, &body);
            }
            go.send(()).unwrap();
        }
        while let Some(chunk) = client.read_chunk().unwrap() {
            body.extend_from_slice(&chunk);
        }
        assert_eq!(decode(Some(coding), &body), b"{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n");
    }
}

#[test]
fn a_pause_before_a_known_end_holds_nothing_back_either() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let line = format!("{}\n", "x".repeat(999));
    let whole = line.repeat(3);
    let fake = Fake::start(move |mut connection| {
        while connection.read_request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3000\r\n\r\n");
            for _ in 0..3 {
                connection.send(&line);
                wait.lock().unwrap().recv().unwrap();
            }
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    for coding in ["gzip", "br", "zstd"] {
        let mut client = Client::connect(gateway.port("http"));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
        assert_eq!(client.read_head().unwrap().header("content-encoding"), Some(coding));
        let (mut body, mut plain) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            while plain.len() < n * 1000 {
                body.extend_from_slice(&client.read_chunk().unwrap().expect("more to come"));
                plain = decode_part(coding, &body);
            }
            go.send(()).unwrap();
        }
        while let Some(chunk) = client.read_chunk().unwrap() {
            body.extend_from_slice(&chunk);
        }
        assert!(decode(Some(coding), &body) == whole.as_bytes());
    }
}

/// As much as can be decoded of a body that is not whole yet.
fn decode_part(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        _ => Box::new(zstd::Decoder::new(body).unwrap()),
    };
    let (mut plain, mut byte) = (Vec::new(), [0]);
    while matches!(reader.read(&mut byte), Ok(1)) {
        plain.push(byte[0]);
    }
    plain
}

#[test]
fn a_body_that_breaks_off_breaks_off() {
    let fake = Fake::start(|mut connection| {
        if connection.read_request().is_some() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n";
            connection.send(format!("{head}{}", text(50_000)));
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert!(client.try_answer_to("GET").is_err(), "nobody takes a part for the whole");
}

#[test]
fn real_services_are_coded_and_confirmed() {
    let gateway = Setup::before([backends::invoices().url()]).start();
    let plain = ask(&gateway, "/invoices/", &[]);
    let coded = ask(&gateway, "/invoices/", &[("Accept-Encoding", "br")]);
    assert_eq!(coded.header("content-encoding"), Some("br"));
    assert!(decoded(&coded) == plain.body);
    let tag = coded.header("etag").unwrap();
    assert!(tag.starts_with("W/\""), "{tag}");
    assert_eq!(ask(&gateway, "/invoices/", &[("Accept-Encoding", "br"), ("If-None-Match", tag)]).status, 304);
    // Of no known length.
    let export = ask(&gateway, "/export", &[("Accept-Encoding", "zstd")]);
    assert_eq!(export.header("content-encoding"), Some("zstd"));
    assert!(decoded(&export) == ask(&gateway, "/export", &[]).body);
    gateway.metric_reaches("passerelle_compressed_responses_total", &["coding=\"zstd\""], 1.0);
    let saved = gateway.metric("passerelle_compressed_input_bytes_total", &[])
        - gateway.metric("passerelle_compressed_output_bytes_total", &[]);
    assert!(saved > 10_000.0, "{saved} bytes were saved");
}

#[test]
fn files_without_a_sibling_are_coded_too() {
    let body = text(50_000);
    let gateway = Gateway::start_with(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[route.all]\npath = \"/{*rest}\"\nfiles = \"static\"\n",
        |directory, _| {
            std::fs::create_dir(directory.join("static")).unwrap();
            std::fs::write(directory.join("static/a.js"), &body).unwrap();
            std::fs::write(directory.join("static/large.csv"), text(2_000_000)).unwrap();
        },
    );
    let coded = ask(&gateway, "/a.js", &[("Accept-Encoding", ALL)]);
    assert_eq!((coded.header("content-encoding"), coded.header("accept-ranges")), (Some("zstd"), None));
    assert!(decoded(&coded) == body.as_bytes());
    let tag = coded.header("etag").unwrap();
    assert!(tag.starts_with("W/"), "{tag}");
    let same = ask(&gateway, "/a.js", &[("Accept-Encoding", ALL), ("If-None-Match", tag)]);
    assert_eq!((same.status, same.header("etag"), same.header("vary")), (304, Some(tag), Some("Accept-Encoding")));
    let held = ask(&gateway, "/a.js", &[("Accept-Encoding", ALL), ("If-Match", tag)]);
    assert!(held.status == 200 && decoded(&held) == body.as_bytes(), "{}", held.status);
    let part = ask(&gateway, "/a.js", &[("Accept-Encoding", ALL), ("Range", "bytes=0-1999")]);
    assert!(part.status == 206 && part.body == body.as_bytes()[..2000] && part.header("content-encoding").is_none());
    let whole = ask(&gateway, "/a.js", &[("Accept-Encoding", ALL), ("Range", "bytes=0-9"), ("If-Range", tag)]);
    assert_eq!((whole.status, whole.header("content-encoding")), (200, Some("zstd")));
    // Large downloads are to be resumed.
    let large = ask(&gateway, "/large.csv", &[("Accept-Encoding", ALL)]);
    assert_eq!((large.header("content-encoding"), large.header("accept-ranges")), (None, Some("bytes")));
}

#[test]
fn while_a_large_body_is_coded_others_are_answered() {
    let body = text(3_000_000);
    let large = saying("Content-Type: text/plain\r\n", &body);
    let gateway = Setup::before([large.url()])
        .rest("[server]\nworkers = 1\n[route.small]\npath = \"/small\"\nrespond = { body = \"small\" }")
        .start();
    let port = gateway.port("http");
    let loading: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || Client::connect(port).ask("GET", "/", &[("Accept-Encoding", "br")])))
        .collect();
    let mut answered = 0;
    while loading.iter().any(|thread| !thread.is_finished()) {
        assert_eq!(gateway.get("/small").text(), "small");
        answered += 1;
    }
    assert!(answered > 3, "{answered} others were answered meanwhile");
    for thread in loading {
        assert!(decoded(&thread.join().unwrap()) == body.as_bytes());
    }
}

#[test]
fn a_slow_client_of_a_coded_answer_holds_no_server() {
    let mut body = String::new();
    let mut seed = 1u64;
    while body.len() < 15_000_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.push_str(&format!("{seed:016x}"));
    }
    let (done, wait) = std::sync::mpsc::channel();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let fake = Fake::start(move |mut connection| {
        if connection.read_request().is_some() {
            connection.send(&answer);
            done.send(()).unwrap();
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.read_head().unwrap().header("content-encoding"), Some("gzip"));
    // All of it is taken off the server though the client takes nothing.
    wait.recv_timeout(crate::harness::PATIENCE).expect("the server is free");
}
