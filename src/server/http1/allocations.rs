//! What a request allocates, counted: nothing tells sooner that something was put onto every request's way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::tests::{before, introduced, on_a_worker};
use super::*;

/// Allocations of a plain request that is passed to a server on a kept connection and back: what is remembered of it and
/// its journey, the fields of both heads. (The bytes that these lie in are in the buffer of their connection; IDs are made in
/// blocks.)
const A_REQUEST: u64 = 4;

const REQUEST: &[u8] = b"GET /orders/42 HTTP/1.1\r\nHost: orders.example\r\nUser-Agent: x\r\nX-Custom: y\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nContent-Type: application/json\r\nX-Custom: z\r\nContent-Length: 2\r\n\r\n{}";

/// Answers every request on every connection, from a thread of its own.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut space = [0; 4096];
                // A request comes at once: the gateway writes a head with one call.
                while let Ok(1..) = stream.read(&mut space) {
                    stream.write_all(ANSWER).unwrap();
                }
            });
        }
    });
    address
}

/// What the worker's thread allocates while a client makes this many requests, one after the other.
fn allocated_for(requests: usize) -> u64 {
    let upstream = server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(gateway).unwrap();
        let mut space = [0; 4096];
        for _ in 0..requests {
            stream.write_all(REQUEST).unwrap();
            let mut length = 0;
            while !space.get(..length).unwrap().ends_with(b"\r\n\r\n{}") {
                length += stream.read(space.get_mut(length..).unwrap()).unwrap();
            }
            assert!(space.starts_with(b"HTTP/1.1 200 "));
        }
    });
    let counted = allocation_counter::measure(|| {
        on_a_worker(async {
            let (stream, remote) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let worker = before(upstream);
            let (peer, counted) = introduced(&worker, &stream, remote);
            serve(worker, ClientStream::Plain(stream), peer, counted).await;
        });
    });
    client.join().unwrap();
    counted.count_total
}

#[test]
fn a_plain_request_allocates_no_more_than_is_stated() {
    let (few, many) = (100, 600);
    let (before, after) = (allocated_for(few), allocated_for(many));
    // To the nearest: now and then something is made for many.
    let (more, times) = (after - before, (many - few) as u64);
    let each = (more + times / 2) / times;
    assert!(each <= A_REQUEST, "{each} allocations for each request");
    // Who brings it down states the new number.
    assert!(each == A_REQUEST, "only {each} allocations for each request");
}
