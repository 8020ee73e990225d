//! Slow clients, streams, and what is held of bodies meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::http::Client;
use crate::harness::{Fake, Setup, eventually};

/// Answers with the length of what came, once it has come.
fn counts() -> Fake {
    Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            let length = request.body.len().to_string();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len()));
        }
    })
}

#[test]
fn a_server_hears_of_an_upload_once_it_has_come_whole() {
    let server = counts();
    let gateway = Setup::before([server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send("POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..100 {
        client.send(format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000)));
    }
    gateway.metric_reaches("passerelle_spooled_bytes_total", &["direction=\"request\""], 800_000.0);
    assert_eq!(server.connections(), 0);
    client.send("0\r\n\r\n");
    assert_eq!(client.answer_to("POST").text(), "1000000");
    let request = server.request();
    assert_eq!((request.header("content-length"), request.header("transfer-encoding")), (Some("1000000"), None));
    assert!(request.body.iter().all(|byte| *byte == b'x'));
    eventually("nothing is held any more", || (gateway.metric("passerelle_buffered_bytes", &[]) == 0.0).then_some(()));
}

#[test]
fn a_server_is_done_with_a_response_that_its_client_does_not_read() {
    const LENGTH: usize = 20_000_000;
    let done = Arc::new(AtomicUsize::new(0));
    let server = Fake::start({
        let done = Arc::clone(&done);
        move |mut connection| {
            while connection.read_request().is_some() {
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
                let body: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
                connection.send(body);
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let gateway = Setup::before([server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("the server has written everything", || (done.load(Ordering::SeqCst) == 1).then_some(()));
    eventually("its place is free", || {
        (gateway.metric("passerelle_upstream_requests_in_flight", &[]) == 0.0).then_some(())
    });
    assert_eq!(gateway.metric("passerelle_requests_in_flight", &["route=\"all\""]), 1.0);
    assert_eq!(gateway.metric("passerelle_spooled_bodies", &[]), 1.0);
    let answer = client.answer_to("GET");
    assert!(answer.body.len() == LENGTH && answer.body.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
    eventually("nothing is held any more", || (gateway.metric("passerelle_buffered_bytes", &[]) == 0.0).then_some(()));
}
