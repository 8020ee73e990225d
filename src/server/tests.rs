//! Workers as the control plane commands them, seen from their clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use super::bind::{Bound, Probe, SocketKey, bind};
use super::testing;
use super::threads::{Ended, Workers};
use crate::config::settings::ListenAddress;
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;

const FIXED: &str = "[route.fixed]\npath = \"/fixed\"\nrespond = { status = 200, body = \"fixed\" }\n";

struct Data {
    metrics: Arc<Metrics>,
    newest: Arc<ArcSwap<Gateway>>,
    workers: Workers,
    ended: UnboundedReceiver<Ended>,
    runtime: Runtime,
    key: SocketKey,
    address: SocketAddr,
    /// Not handed to the workers yet.
    sockets: Vec<TcpListener>,
}

/// Two workers and one listener with these settings.
fn data(listener: &str, rest: &str) -> Data {
    let metrics = Metrics::new(2);
    let text = format!("[listener.http]\naddress = \"127.0.0.1:0\"\n{listener}\n{rest}{FIXED}");
    let newest = Arc::new(ArcSwap::from_pointee(testing::gateway(&text, None, &metrics)));
    let (workers, ended) = Workers::start(2, &newest, &metrics).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let key = SocketKey::new(&ListenAddress::Socket(any), "http", 0);
    let Bound { address, sockets } = bind(any, 2, Probe::Alone).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Data { metrics, newest, workers, ended, runtime, key, address, sockets }
}

impl Data {
    fn listen(&mut self) {
        let listener = Arc::clone(&self.newest.load().listeners["http"]);
        self.workers.listen(&self.key, &listener, std::mem::take(&mut self.sockets));
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Connections that have sent their request and been answered nothing.
    fn asking(&self, count: usize) -> Vec<TcpStream> {
        let connect = || {
            let mut stream = self.connect();
            stream.write_all(b"GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream
        };
        std::iter::repeat_with(connect).take(count).collect()
    }

    fn all_ended(&mut self) -> Vec<Ended> {
        let mut all = Vec::new();
        while let Some(ended) = self.runtime.block_on(self.ended.recv()) {
            all.push(ended);
        }
        all
    }
}

/// What comes until the connection ends; with a request on it, up to the end of the fixed answer.
fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"fixed") {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_was_queued_is_answered_when_an_address_is_given_up() {
    let mut data = data("", "");
    let asking = data.asking(50);
    data.listen();
    data.runtime.block_on(data.workers.give_up(std::slice::from_ref(&data.key)));
    assert!(TcpStream::connect(data.address).is_err());
    for mut stream in asking {
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn connections_of_an_address_that_is_gone_from_the_snapshot_are_answered() {
    let mut data = data("", "");
    data.listen();
    let mut kept = data.asking(1).remove(0);
    assert!(answer(&mut kept).starts_with("HTTP/1.1 200 "));
    let text = format!("[listener.other]\naddress = \"127.0.0.1:0\"\n{FIXED}");
    let next = testing::gateway(&text, Some(&data.newest.load()), &data.metrics);
    data.newest.store(Arc::new(next));
    let asking = data.asking(20);
    data.runtime.block_on(data.workers.give_up(std::slice::from_ref(&data.key)));
    for mut stream in asking {
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_drain_answers_what_was_queued_and_ends_what_is_idle() {
    let mut data = data("", "");
    let queued = data.asking(50);
    data.listen();
    let mut idle = data.asking(1).remove(0);
    assert!(!answer(&mut idle).contains("connection: close"));
    data.workers.drain();
    for mut stream in queued {
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200 "));
        assert_eq!(answer(&mut stream), "");
    }
    assert_eq!(answer(&mut idle), "");
    assert!(data.all_ended().iter().all(|ended| ended.orderly && ended.cut_off == 0));
    assert!(TcpStream::connect(data.address).is_err());
}

#[test]
fn a_drain_waits_for_the_first_request_of_a_new_connection() {
    let mut data = data("", "");
    data.listen();
    // One that was answered shows that the workers accept.
    answer(&mut data.asking(1).remove(0));
    let mut silent: Vec<_> = (0..4).map(|_| data.connect()).collect();
    data.workers.drain();
    for stream in &mut silent {
        stream.write_all(b"GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 200 "));
        assert_eq!(answer(stream), "");
    }
    assert_eq!(data.all_ended().len(), 2);
}

#[test]
fn stopping_cuts_off_and_says_so() {
    let mut data = data("", "");
    data.listen();
    let mut open = data.asking(3);
    for stream in &mut open {
        answer(stream);
    }
    data.workers.stop();
    let ended = data.all_ended();
    assert_eq!(ended.iter().map(|ended| ended.cut_off).sum::<usize>(), 3);
    assert!(ended.iter().all(|ended| ended.orderly));
}

#[test]
fn one_connection_too_many_is_turned_away() {
    let mut data = data("max_connections = 2", "");
    data.listen();
    let mut open = data.asking(2);
    for stream in &mut open {
        answer(stream);
    }
    let refused = answer(&mut data.asking(1).remove(0));
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_connections"), "{refused}");
    drop(open.remove(0));
    // The place is free once the worker has seen the end.
    while !answer(&mut data.asking(1).remove(0)).starts_with("HTTP/1.1 200 ") {}
}

/// A server that answers each connection's first head with that head.
fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).unwrap_or_default();
            let length = length.to_string();
            let head = String::from_utf8_lossy(&head);
            let head = head.trim_end_matches('\0');
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn the_proxy_protocol_is_demanded_of_trusted_peers_and_believed() {
    let upstream = format!(
        "[upstream.mirror]\nservers = [\"http://{}\"]\n[route.mirror]\npath = \"/mirror\"\nupstream = \"mirror\"\n",
        mirror()
    );
    let mut data = data("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1/32\", \"192.0.2.7/32\"]", &upstream);
    data.listen();
    let ask = |header: &str| {
        let mut stream = data.connect();
        let request = "GET /mirror HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{header}{request}").as_bytes()).unwrap();
        let mut answer = String::new();
        // A refusal may come as a reset.
        let _ = stream.read_to_string(&mut answer);
        answer.to_ascii_lowercase()
    };
    // A client behind the proxy speaks for nobody but itself.
    let client = ask("PROXY TCP4 192.0.2.1 198.51.100.2 5000 80\r\n");
    assert!(client.contains("x-forwarded-for: 192.0.2.1\r\n"), "{client}");
    // A proxy behind the proxy does when it is trusted, and so does the proxy itself.
    let trusted = ask("PROXY TCP4 192.0.2.7 198.51.100.2 5000 80\r\n");
    assert!(trusted.contains("x-forwarded-for: 203.0.113.9, 192.0.2.7\r\n"), "{trusted}");
    let own = ask("PROXY UNKNOWN\r\n");
    assert!(own.contains("x-forwarded-for: 203.0.113.9, 127.0.0.1\r\n"), "{own}");
    assert_eq!(ask(""), "");
}

#[test]
fn the_proxy_protocol_of_others_is_refused_and_not_demanded() {
    let mut data = data("proxy_protocol = true\ntrusted_proxies = [\"192.0.2.7/32\"]", "");
    data.listen();
    let ask = |header: &str| {
        let mut stream = data.connect();
        let request = "GET /fixed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{header}{request}").as_bytes()).unwrap();
        let mut answer = String::new();
        // A refusal may come as a reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let refused = ask("PROXY TCP4 192.0.2.1 198.51.100.2 5000 80\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let binary = ask("\r\n\r\n\0\r\nQUIT\n");
    assert!(binary.starts_with("HTTP/1.1 400 "), "{binary}");
    assert!(ask("").starts_with("HTTP/1.1 200 "));
}
