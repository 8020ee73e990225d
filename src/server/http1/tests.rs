//! Connections of clients and servers that do as they like, byte by byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::super::testing::{self, backend};
use super::*;
use crate::upstream::connect::{ServerStream, connect};
use crate::upstream::testing::{Certificates, build, settings};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on one thread, as a worker does.
pub(super) fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(PATIENCE, test).await.expect("it ends") });
}

/// One that answers each head with these bytes.
async fn answering(answer: &'static str) -> SocketAddr {
    backend(move |mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

/// `None` at the end of the stream.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A connection to a gateway before a server at `upstream`.
async fn connected(upstream: SocketAddr) -> TcpStream {
    connected_to(&before(upstream)).await
}

/// The upstream sees of a request what has come of it.
pub(super) fn before(upstream: SocketAddr) -> Rc<Worker> {
    Rc::new(testing::worker(&format!(
        "[listener.http]\naddress = \"127.0.0.1:0\"\n\
         [upstream.app]\nservers = [\"http://{upstream}\"]\n\
         [route.app]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n\
         buffer = {{ request = false }}\n"
    )))
}

async fn connected_to(worker: &Rc<Worker>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, remote) = listener.accept().await.unwrap();
    let (peer, counted) = introduced(worker, &stream, remote);
    spawn_local(serve(Rc::clone(worker), ClientStream::Plain(stream), peer, counted));
    client
}

/// What is known of a client that was accepted on the listener of [`before`].
pub(super) fn introduced(worker: &Rc<Worker>, stream: &TcpStream, remote: SocketAddr) -> (Rc<Peer>, Counted) {
    let local = stream.local_addr().unwrap();
    let peer = Peer {
        listener: Arc::from("http"),
        remote,
        local,
        trusted: false,
        tls: false,
        certificate: None,
        written: Default::default(),
        host: Default::default(),
    };
    let counted = Counted::new(&worker.gateway().listeners["http"].metrics, worker.id, Protocol::Http1);
    (Rc::new(peer), counted)
}

/// All that is answered to `request` until the gateway closes.
async fn told(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

const GET_CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn nothing_is_read_behind_trailers_that_are_malformed() {
    on_a_worker(async {
        // Takes a request's head and body, and answers once it is whole.
        let upstream = backend(|mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                while read_head(&mut stream).await.is_some_and(|chunks| !chunks.ends_with("0\r\n\r\n")) {}
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        })
        .await;
        for trailers in ["A : b\r\n\r\n", " A: b\r\n\r\n", ": b\r\n\r\n", "A: b\r\n c\r\n\r\n"] {
            let mut client = connected(upstream).await;
            let request = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailers}{GET_CLOSE}"
            );
            let answer = told(&mut client, &request).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    });
}

#[test]
fn an_answer_without_content_states_no_length() {
    on_a_worker(async {
        let mut client =
            connected(answering("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nConnection: close\r\n\r\n").await)
                .await;
        let answer = told(&mut client, GET_CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.contains("content-length"), "{answer}");
    });
}

#[test]
fn a_switch_to_what_was_not_asked_for_is_no_tunnel() {
    on_a_worker(async {
        for (switched, status) in [("websocket", "101"), ("h2c", "502"), ("websocket, h2c", "502"), ("", "502")] {
            let head =
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {switched}\r\n\r\n");
            let upstream = backend(move |mut stream| {
                let head = head.clone();
                async move {
                    read_head(&mut stream).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                }
            })
            .await;
            let mut client = connected(upstream).await;
            let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert_eq!(head.get(9..12), Some(status), "{switched}");
        }
    });
}

#[test]
fn an_upgraded_connection_counts_as_nothing_else() {
    on_a_worker(async {
        let upstream = backend(|mut stream| async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
            let _ = stream.write_all(head).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        })
        .await;
        let worker = before(upstream);
        let metrics = Arc::clone(&worker.gateway().listeners["http"].metrics);
        let open = || [Protocol::Http1, Protocol::Upgraded].map(|protocol| metrics.open(protocol));
        let mut client = connected_to(&worker).await;
        assert_eq!(open(), [1, 0]);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nx").await.unwrap();
        assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 101 "));
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        assert_eq!(open(), [0, 1]);
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        tokio::task::yield_now().await;
        assert_eq!(open(), [0, 0]);
    });
}

#[test]
fn an_answer_before_the_request_has_come_whole_says_that_it_is_the_last() {
    on_a_worker(async {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ] {
            let mut client = connected(answering(answer).await).await;
            client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
            // It can still send the rest, and reads the answer to its end.
            client.write_all(&[b'x'; 1000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
        }
    });
}

#[test]
fn a_kept_connection_that_the_server_closes_costs_no_retry_budget() {
    on_a_worker(async {
        // Answers one request, and hangs up at the sight of a second.
        let upstream = backend(|mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = stream.read_u8().await;
        })
        .await;
        let mut client = connected(upstream).await;
        for round in 0..200 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "round {round}: {head}");
            client.read_exact(&mut [0; 2]).await.unwrap();
        }
    });
}

#[test]
fn a_client_that_takes_nothing_over_tls_is_given_up() {
    on_a_worker(async {
        let files = Certificates::new();
        let listener = files.listen().await;
        let mut settings = settings(&[(&listener.url(), 1)], crate::config::settings::Balance::RoundRobin);
        settings.tls = files.settings("orders.test");
        let upstream = build(&settings, None);
        let servers = upstream.servers();
        let (client, stream) = tokio::join!(connect(&servers[0], PATIENCE), listener.accept());
        let ServerStream::Tls(_client) = client.unwrap() else { panic!("not TLS") };
        SockRef::from(stream.get_ref().0).set_send_buffer_size(16 * 1024).unwrap();
        let mut wire = Wire::new(ClientStream::Tls(Box::new(stream)));
        wire.body_timeout = Duration::from_millis(50);
        // Until the socket is full, and then some more that TLS takes.
        let gone = std::future::poll_fn(|cx| {
            loop {
                wire.out.gather().extend_from_slice(&[b'x'; 1024]);
                match wire.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(gone)) => return Poll::Ready(gone),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        assert_eq!(gone.await, Gone);
    });
}

/// Bytes that differ by place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// One that answers each head with the first `sent` bytes of a pattern and says that `stated` come. It wants `asked`
/// bytes of the request's body in the middle of that.
async fn answering_at_length(stated: usize, sent: usize, asked: usize) -> SocketAddr {
    backend(move |mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let body = pattern(sent);
            let (first, rest) = body.split_at(sent / 2);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {stated}\r\n\r\n");
            stream.write_all(&[head.as_bytes(), first].concat()).await.unwrap();
            stream.read_exact(&mut vec![0; asked]).await.unwrap();
            let _ = stream.write_all(rest).await;
            if sent < stated {
                return;
            }
        }
    })
    .await
}

/// The content of the next answer.
async fn content(client: &mut TcpStream, length: usize) -> std::io::Result<Vec<u8>> {
    assert!(read_head(client).await.unwrap().starts_with("HTTP/1.1 200 "));
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    Ok(body)
}

const LONG: usize = 3 * 1024 * 1024;

#[test]
fn long_bodies_go_through_a_pipe_and_come_whole() {
    on_a_worker(async {
        let worker = before(answering_at_length(LONG, LONG, 0).await);
        let mut client = connected_to(&worker).await;
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(content(&mut client, LONG).await.unwrap() == pattern(LONG));
            assert_eq!(crate::body::Pipe::count(), 1);
        }
        drop(client);
        while crate::body::Pipe::count() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn all_that_there_was_of_a_long_answer_arrives() {
    on_a_worker(async {
        let worker = before(answering_at_length(LONG * 2, LONG, 0).await);
        let mut client = connected_to(&worker).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let servers = worker.gateway().upstreams["app"].servers();
        for is_busy in [false, true] {
            while (servers[0].in_flight() > 0) == is_busy {
                tokio::task::yield_now().await;
            }
        }
        // The server is gone, and the client has read nothing: all that there was reaches it.
        assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200 "));
        let mut came = Vec::new();
        client.read_to_end(&mut came).await.unwrap();
        assert!(came == pattern(LONG));
    });
}

#[test]
fn a_request_goes_on_while_its_long_answer_comes() {
    on_a_worker(async {
        let mut client = connected(answering_at_length(LONG, LONG, 1000).await).await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
        assert!(content(&mut client, LONG / 2).await.unwrap() == pattern(LONG / 2));
        client.write_all(&[b'x'; 1000]).await.unwrap();
        let mut rest = vec![0; LONG - LONG / 2];
        client.read_exact(&mut rest).await.unwrap();
        assert!(rest == pattern(LONG)[LONG / 2..]);
    });
}

#[test]
fn a_server_is_done_with_a_long_answer_though_its_client_takes_nothing() {
    on_a_worker(async {
        let worker = before(answering_at_length(LONG * 4, LONG * 4, 0).await);
        let mut client = connected_to(&worker).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let servers = worker.gateway().upstreams["app"].servers();
        while servers[0].in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        // What the sockets and the pipe do not hold is read ahead.
        while servers[0].in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(content(&mut client, LONG * 4).await.unwrap() == pattern(LONG * 4));
    });
}
