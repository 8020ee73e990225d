//! Slots and the queue before them, in front of gunicorn's sync workers: who is served, in which order, who is not.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::backends::Backend;
use crate::harness::http::{Client, get, head};
use crate::harness::{Fake, Gateway, Setup, eventually};

/// gunicorn with so many workers, each of which serves one request at a time.
fn gunicorn(workers: usize) -> Backend {
    Backend::gunicorn("orders", "app:app", &["--workers", &workers.to_string()])
}

/// Routes of three priorities, by host.
const PRIORITIES: &str = "[route.high]\nhost = \"high.test\"\npath = \"/{*rest}\"\nupstream = \"app\"\n\
    priority = \"high\"\n[route.low]\nhost = \"low.test\"\npath = \"/{*rest}\"\nupstream = \"app\"\npriority = \"low\"\n";

/// Sends a request that keeps a worker busy for as long as its client stays, and waits until one more slot is taken.
fn occupy(gateway: &Gateway) -> Client<TcpStream> {
    let before = gateway.metric("passerelle_upstream_slots_busy", &[]);
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/stream?count=1000&interval=0.1", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], before + 1.0);
    client
}

/// Sends an order of `item` to a route, by its host, and waits until it is in the queue.
fn order(gateway: &Gateway, host: &str, item: &str) -> Client<TcpStream> {
    let before = gateway.metric("passerelle_upstream_queue_length", &[]);
    let mut client = Client::connect(gateway.port("http"));
    let body = format!("{{\"item\":\"{item}\"}}");
    client.send(format!(
        "POST /orders HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    gateway.metric_reaches("passerelle_upstream_queue_length", &[], before + 1.0);
    client
}

fn queue_is(gateway: &Gateway, length: f64) {
    eventually("the queue's length", || {
        (gateway.metric("passerelle_upstream_queue_length", &[]) == length).then_some(())
    });
}

/// The items that the service was ordered, in the order in which it took them.
fn ordered(backend: &Backend) -> Vec<String> {
    let orders = get(backend.port(), "/orders").json();
    let items = orders.as_array().unwrap().iter().rev();
    items.map(|order| order["item"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn requests_wait_in_order_and_by_priority_and_whoever_leaves_never_reaches_a_worker() {
    let backend = gunicorn(1);
    let gateway =
        Setup::before([backend.url()]).upstream("slots = 1\nqueue = { max_wait = \"60s\" }").rest(PRIORITIES).start();
    let busy = occupy(&gateway);
    let mut clients: Vec<Client<TcpStream>> = Vec::new();
    for (host, item) in [("low.test", "e"), ("any", "c"), ("high.test", "a"), ("any", "d"), ("high.test", "b")] {
        clients.push(order(&gateway, host, item));
    }
    let mut leaves = Client::connect(gateway.port("http"));
    leaves.send(head("DELETE", "/orders/1", &[]));
    queue_is(&gateway, 6.0);
    let status = gateway.status();
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["queue"]["waiting"], 6);
    assert_eq!((&upstream["servers"][0]["slots"], &upstream["servers"][0]["busy"]), (&1.into(), &1.into()));
    drop(leaves);
    queue_is(&gateway, 5.0);
    drop(busy);
    let answers: Vec<_> = clients.iter_mut().map(|client| client.answer_to("POST")).collect();
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    assert_eq!(ordered(&backend), ["a", "b", "c", "d", "e"]);

    let record = gateway.access_record(&answers[0]);
    assert!(record["queue_duration"].as_f64().unwrap() > 0.1, "{record}");
    let left =
        gateway.log_line("the record of the one who left", |line| line["status"] == 499 && line["method"] == "DELETE");
    assert!(left["queue_duration"].as_f64().unwrap() > 0.0 && left["attempts"] == 0, "{left}");
    assert_eq!(gateway.metric("passerelle_upstream_queue_wait_seconds_count", &[]), 5.0);
    assert_eq!(gateway.metric("passerelle_upstream_queue_dropped_total", &["reason=\"client_left\""]), 1.0);
}

#[test]
fn whoever_leaves_with_a_body_that_nobody_has_read_yet_never_reaches_a_worker_either() {
    let backend = gunicorn(1);
    let gateway = Setup::before([backend.url()]).upstream("slots = 1").route("buffer = { request = false }").start();
    let busy = occupy(&gateway);
    let large = "x".repeat(400_000);
    for (length, sent) in [(12, ""), (12, "{\"item\":"), (12, "{\"item\":\"x\"}"), (400_000, &large), (500_000, &large)]
    {
        let mut leaves = Client::connect(gateway.port("http"));
        leaves.send(format!("{}{sent}", head("POST", "/orders", &[("Content-Length", &length.to_string())])));
        queue_is(&gateway, 1.0);
        drop(leaves);
        queue_is(&gateway, 0.0);
    }
    // What was read ahead meanwhile is the body all the same.
    let mut stays = Client::connect(gateway.port("http"));
    let fields = [("Content-Type", "application/json"), ("Content-Length", "12")];
    stays.send(format!("{}{{\"item\":", head("POST", "/orders", &fields)));
    queue_is(&gateway, 1.0);
    stays.send("\"y\"");
    drop(busy);
    queue_is(&gateway, 0.0);
    stays.send("}");
    assert_eq!(stays.answer_to("POST").status, 201);
    assert_eq!(ordered(&backend), ["y"]);
}

#[test]
fn a_wait_ends() {
    let backend = gunicorn(1);
    let gateway = Setup::before([backend.url()]).upstream("slots = 1\nqueue = { max_wait = \"200ms\" }").start();
    let busy = occupy(&gateway);
    let timed_out = gateway.get("/orders");
    assert_eq!((timed_out.status, timed_out.cause().as_str()), (503, "queue_timeout"));
    assert!(timed_out.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{timed_out:?}");
    assert_eq!(gateway.metric("passerelle_upstream_queue_dropped_total", &["reason=\"timeout\""]), 1.0);
    drop(busy);
    let queue = gateway.status()["upstreams"][0]["queue"].clone();
    assert_eq!((&queue["dropped"]["timeout"], &queue["dropped"]["full"]), (&1.into(), &0.into()), "{queue}");
    assert!(queue["waited"]["count"].is_u64() && queue["waited"]["buckets"][0]["up_to_seconds"] == 0.001, "{queue}");
}

#[test]
fn a_queue_is_bounded_and_the_better_take_the_places_of_others() {
    let backend = gunicorn(1);
    let gateway = Setup::before([backend.url()])
        .upstream("slots = 1\nqueue = { size = 1, max_wait = \"60s\" }")
        .rest(PRIORITIES)
        .start();
    let busy = occupy(&gateway);
    let mut displaced = order(&gateway, "low.test", "displaced");
    let mut late = Client::connect(gateway.port("http"));
    let full = late.send("GET /orders HTTP/1.1\r\nHost: low.test\r\n\r\n").answer();
    assert_eq!((full.status, full.cause().as_str()), (503, "queue_full"));
    assert!(full.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{full:?}");
    let mut better = Client::connect(gateway.port("http"));
    better.send("GET /healthz HTTP/1.1\r\nHost: high.test\r\n\r\n");
    assert_eq!(displaced.answer_to("POST").cause(), "queue_full");
    drop(busy);
    assert_eq!(better.answer().status, 200);
    assert_eq!(gateway.metric("passerelle_upstream_queue_dropped_total", &["reason=\"full\""]), 2.0);
    assert!(ordered(&backend).is_empty());
}

#[test]
fn probes_and_upgraded_connections_hold_no_slot_and_streams_do() {
    let backend = Backend::uvicorn("chat", "chat:app");
    let checks = "health = { path = \"/healthz\", interval = \"100ms\" }";
    let gateway = Setup::before([backend.url()])
        .upstream(&format!("slots = 1\nqueue = {{ max_wait = \"100ms\" }}\n{checks}"))
        .start();
    let busy = || gateway.metric("passerelle_upstream_slots_busy", &[]);
    let mut socket = Client::connect(gateway.port("http"));
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let switched = socket.answer();
    assert_eq!(switched.status, 101, "{switched:?}");
    gateway.metric_reaches("passerelle_upstream_requests_in_flight", &[], 1.0);
    assert_eq!(busy(), 0.0);
    assert_eq!(gateway.get("/healthz").status, 200);
    let mut stream = Client::connect(gateway.port("http"));
    stream.send(head("GET", "/stream?count=1000", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    assert_eq!(gateway.get("/healthz").cause(), "queue_timeout");
    // Probes go on all the same: with its slots taken the server is as well as before.
    assert_eq!(gateway.metric("passerelle_upstream_server_up", &[]), 1.0);
    drop(stream);
    eventually("the slot is free again", || (busy() == 0.0).then_some(()));
    assert_eq!(gateway.get("/healthz").status, 200);
}

#[test]
fn who_waits_during_a_reload_is_served_by_what_it_brings() {
    let backend = gunicorn(2);
    let setup = |slots: usize| {
        Setup::before([backend.url()]).upstream(&format!("slots = {slots}\nqueue = {{ max_wait = \"60s\" }}"))
    };
    let mut gateway = setup(1).start();
    let busy = occupy(&gateway);
    let mut waits = order(&gateway, "any", "waits");
    gateway.write_config(&setup(2).text());
    let (status, said) = gateway.reload();
    assert!(status.success(), "{said}");
    assert_eq!(waits.answer_to("POST").status, 201);
    assert_eq!(gateway.status()["upstreams"][0]["servers"][0]["busy"], 1, "the first is still being served");
    drop(busy);
}

/// A server that knows at each moment how many connections to it are open: on every new one it looks which of the others
/// have been closed. What was closed before a connection was begun is seen.
fn counting_server(most: &Arc<AtomicUsize>, accepted: &Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (most, accepted) = (Arc::clone(most), Arc::clone(accepted));
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            open.retain(|open| {
                open.set_nonblocking(true).unwrap();
                let closed = matches!(open.peek(&mut [0]), Ok(0));
                open.set_nonblocking(false).unwrap();
                !closed
            });
            open.push(stream.try_clone().unwrap());
            most.fetch_max(open.len(), Ordering::SeqCst);
            accepted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || answer_all(stream));
        }
    });
    port
}

fn answer_all(mut stream: TcpStream) {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            // The other handle may have made it not wait just now.
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => return,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
        }
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            std::thread::sleep(Duration::from_millis(1));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

#[test]
fn no_more_connections_are_kept_than_there_are_slots_whatever_worker_keeps_them() {
    let (most, accepted) = (Arc::default(), Arc::default());
    let port = counting_server(&most, &accepted);
    let gateway = Setup::before([format!("http://127.0.0.1:{port}")])
        .upstream("slots = 3\nqueue = { max_wait = \"60s\" }")
        .rest("[server]\nworkers = 4")
        .start();
    // Each client is with one of the workers.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.port("http"));
                for _ in 0..50 {
                    assert_eq!(client.ask("GET", "/", &[]).status, 200);
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(accepted < 800, "none of the connections was used again");
    assert!(accepted > 3, "no worker took the place of another's connection");
}

/// A sync worker goes on with what nobody waits for any more: until it is done, no other request is sent to it.
#[test]
fn a_slot_stays_taken_while_its_worker_works_for_a_client_that_left() {
    let backend = gunicorn(1);
    let gateway = Setup::before([backend.url()]).upstream("slots = 1\nqueue = { max_wait = \"60s\" }").start();
    let mut leaves = Client::connect(gateway.port("http"));
    leaves.send(head("GET", "/slow?seconds=1", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    drop(leaves);
    gateway.log_line("the record of the one who left", |line| line["status"] == 499);
    assert_eq!(gateway.metric("passerelle_upstream_slots_busy", &[]), 1.0);
    let answer = gateway.get("/healthz");
    assert_eq!(answer.status, 200);
    assert!(gateway.access_record(&answer)["queue_duration"].as_f64().unwrap() > 0.3);
    assert!(gateway.access_record(&answer)["upstream_duration"].as_f64().unwrap() < 0.3);
}

/// A server that watches its connections is told, and free at once.
#[test]
fn a_server_that_sees_its_client_leave_is_free_at_once() {
    let backend = Backend::uvicorn("chat", "chat:app");
    let gateway = Setup::before([backend.url()]).upstream("slots = 1").start();
    let mut leaves = Client::connect(gateway.port("http"));
    leaves.send(head("GET", "/stream?count=1000&interval=30", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    drop(leaves);
    eventually("its slot is free", || (gateway.metric("passerelle_upstream_slots_busy", &[]) == 0.0).then_some(()));
}

/// Also when the client leaves in the middle of what it sends: the worker has begun.
#[test]
fn a_slot_stays_taken_for_half_an_upload_too() {
    let server = Fake::start(|mut connection| {
        connection.read_head();
        connection.hold();
        // Works on although it sees the end of what is sent to it.
        std::thread::sleep(Duration::from_secs(1));
    });
    let gateway = Setup::before([server.url()]).upstream("slots = 1").route("buffer = { request = false }").start();
    let mut leaves = Client::connect(gateway.port("http"));
    leaves.send(format!("{}half", head("POST", "/", &[("Content-Length", "8")])));
    eventually("the server has the head", || (server.connections() == 1).then_some(()));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    drop(leaves);
    gateway.log_line("the record of the one who left", |line| line["status"] == 499);
    assert_eq!(gateway.metric("passerelle_upstream_slots_busy", &[]), 1.0);
    eventually("its slot is free", || (gateway.metric("passerelle_upstream_slots_busy", &[]) == 0.0).then_some(()));
}
