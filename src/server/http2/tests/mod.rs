//! The bounds of a connection, tried with a client that does as it likes.

mod bounds;
mod by_hand;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::super::stream::ClientStream;
use super::super::testing::{self, backend};
use super::{STREAM_WINDOW, serve};
use crate::request::peer::Peer;
use crate::worker::Worker;

/// Long enough for whatever is to happen, short enough to wait for when it does not.
const SOON: Duration = Duration::from_secs(10);

/// One that never answers.
async fn silent() -> SocketAddr {
    backend(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// One that never ends its answer.
async fn endless() -> SocketAddr {
    backend(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await
}

struct Served {
    worker: Rc<Worker>,
    client: SendRequest<Bytes>,
    /// The client's side of the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
    /// The gateway's.
    serving: JoinHandle<()>,
}

/// A connection to a listener with these settings, before a server at `upstream`.
async fn connect(settings: &str, upstream: SocketAddr) -> Served {
    connect_by_way_of(settings, upstream, "").await
}

/// The same, with these settings of the upstream.
async fn connect_by_way_of(settings: &str, upstream: SocketAddr, rules: &str) -> Served {
    let (worker, stream, serving) = accepted(settings, upstream, rules).await;
    let (client, connection): (_, Connection<_, Bytes>) = h2::client::handshake(stream).await.unwrap();
    Served { worker, client, connection: spawn_local(connection), serving }
}

/// The client's side of a connection, and whoever serves it.
async fn accepted(settings: &str, upstream: SocketAddr, rules: &str) -> (Rc<Worker>, TcpStream, JoinHandle<()>) {
    let worker = Rc::new(testing::worker(&format!(
        "[listener.http]\naddress = \"127.0.0.1:0\"\n{settings}\n\
         [upstream.app]\nservers = [\"http://{upstream}\"]\n{rules}\n\
         [route.app]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n\
         [route.fixed]\npath = \"/fixed\"\nrespond = {{ status = 200, body = \"fixed\" }}\n"
    )));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, remote) = listener.accept().await.unwrap();
    let peer = peer(remote, accepted.local_addr().unwrap());
    let listener = Arc::clone(&worker.gateway().listeners["http"]);
    let serving = serve(Rc::clone(&worker), listener, ClientStream::Plain(accepted), Rc::new(peer));
    (worker, stream, spawn_local(serving))
}

fn peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    Peer {
        listener: Arc::from("http"),
        remote,
        local,
        trusted: false,
        tls: true,
        certificate: None,
        written: std::cell::OnceCell::new(),
        host: Default::default(),
    }
}

impl Served {
    async fn ask(&mut self, request: Request<()>) -> Result<Response<RecvStream>, h2::Error> {
        let mut client = self.client.clone().ready().await?;
        client.send_request(request, true)?.0.await
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://a.test{path}")).body(()).unwrap()
}

async fn text(response: Response<RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

/// Runs a test on one thread, as a worker does.
fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(SOON * 3, test).await.unwrap() });
}

#[test]
fn requests_go_the_way_of_every_request() {
    on_a_worker(async {
        let echo = backend(|mut stream| async move {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8(head[..length].to_vec()).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let mut served = connect("", echo).await;
        let mut request = get("/a?b=c");
        request.headers_mut().append(COOKIE, "x=1".parse().unwrap());
        request.headers_mut().append(COOKIE, "y=2".parse().unwrap());
        let head = text(served.ask(request).await.unwrap()).await.to_ascii_lowercase();
        assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nhost: a.test\r\n"), "{head}");
        assert!(head.contains("\r\ncookie: x=1; y=2\r\n"), "{head}");

        let response = served.ask(get("/fixed")).await.unwrap();
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        assert_eq!(text(response).await, "fixed");

        let mut head = get("/fixed");
        *head.method_mut() = Method::HEAD;
        let response = served.ask(head).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "");
    });
}

#[test]
fn heads_are_bounded_by_the_table_of_rejections() {
    on_a_worker(async {
        let mut served = connect("max_header_bytes = \"4 KiB\"\nmax_headers = 10", silent().await).await;
        let with = |headers: HeaderMap, path: &str| {
            let mut request = get(path);
            *request.headers_mut() = headers;
            request
        };
        let large = HeaderMap::from_iter([("x-large".parse().unwrap(), "a".repeat(5000).parse().unwrap())]);
        let many = (0..11).map(|n| (format!("x-{n}").parse().unwrap(), "a".parse().unwrap())).collect();
        for (request, status, cause) in [
            (with(large, "/"), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
            (with(many, "/"), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
            (with(HeaderMap::new(), &format!("/{}", "a".repeat(4096))), StatusCode::URI_TOO_LONG, "target_too_long"),
        ] {
            let response = served.ask(request).await.unwrap();
            assert_eq!(response.status(), status);
            assert!(text(response).await.contains(cause));
        }
        // The connection is none the worse for it.
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn taking_whole_requests_back_too_often_ends_the_connection() {
    takes_back_too_often(true);
}

#[test]
fn taking_half_requests_back_too_often_ends_the_connection() {
    takes_back_too_often(false);
}

fn takes_back_too_often(whole: bool) {
    on_a_worker(async move {
        let served = connect("http2 = { max_resets = \"5/min\" }", silent().await).await;
        let mut reset = 0;
        loop {
            let Ok(mut client) = served.client.clone().ready().await else { break };
            let Ok((response, mut stream)) = client.send_request(get("/slow"), whole) else { break };
            // Let it arrive before it is taken back.
            if timeout(Duration::from_millis(20), response).await.is_ok_and(|answer| answer.is_err()) {
                break;
            }
            stream.send_reset(Reason::CANCEL);
            reset += 1;
            assert!(reset < 20);
        }
        assert!(reset > 5, "{reset}");
        timeout(SOON, served.serving).await.unwrap().unwrap();
        // GOAWAY was sent before the end.
        let error = timeout(SOON, served.connection).await.unwrap().unwrap().unwrap_err();
        assert_eq!((error.is_remote(), error.reason()), (true, Some(Reason::ENHANCE_YOUR_CALM)), "{error}");
        assert!(timeout(SOON, served.client.ready()).await.unwrap().is_err());
    });
}

#[test]
fn early_hints_come_before_the_answer() {
    on_a_worker(async {
        let hinting = backend(|mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nConnection: x\r\n\r\n";
            let _ = stream.write_all(hints.as_bytes()).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
        })
        .await;
        let mut served = connect("", hinting).await;
        let mut client = served.client.clone().ready().await.unwrap();
        let (mut response, _) = client.send_request(get("/"), true).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status(), hints.headers().len()), (StatusCode::EARLY_HINTS, 1));
        assert_eq!(hints.headers()["link"], "</style.css>");
        assert_eq!(text(response.await.unwrap()).await, "last");
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn idle_connections_end() {
    on_a_worker(async {
        let mut served = connect("idle_timeout = \"300ms\"", silent().await).await;
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
        timeout(SOON, served.connection).await.unwrap().unwrap().unwrap();
        timeout(SOON, served.serving).await.unwrap().unwrap();
    });
}

#[test]
fn connections_without_a_request_end() {
    on_a_worker(async {
        let served = connect("header_timeout = \"300ms\"", silent().await).await;
        timeout(SOON, served.serving).await.unwrap().unwrap();
        timeout(SOON, served.connection).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_stream_that_waits_for_its_upstream_is_not_idle() {
    on_a_worker(async {
        let late = backend(|mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
        })
        .await;
        let settings = "header_timeout = \"100ms\"\nidle_timeout = \"100ms\"\nbody_timeout = \"100ms\"";
        let mut served = connect(settings, late).await;
        let response = served.ask(get("/")).await.unwrap();
        assert_eq!(text(response).await, "late");
    });
}

#[test]
fn a_client_that_takes_nothing_loses_the_stream_alone() {
    on_a_worker(async {
        let mut served = connect("body_timeout = \"300ms\"", endless().await).await;
        // Nothing is read, so the window fills up.
        let mut stalled = served.ask(get("/")).await.unwrap().into_body();
        let broken = async {
            loop {
                // What had arrived before is still given out; releasing nothing keeps the window shut.
                match stalled.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("the stream ended as if it were whole"),
                }
            }
        };
        let error = timeout(SOON, broken).await.unwrap();
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_body_that_stops_coming_is_refused() {
    on_a_worker(async {
        let mut served = connect("body_timeout = \"300ms\"", silent().await).await;
        let mut client = served.client.clone().ready().await.unwrap();
        let mut request = get("/");
        *request.method_mut() = Method::POST;
        let (response, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"some"), false).unwrap();
        let response = timeout(SOON, response).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(text(response).await.contains("body_timeout"));
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn messages_of_a_few_bytes_that_nobody_reads_yet_do_not_end_the_connection() {
    on_a_worker(async {
        let settings = "[defaults]\nbuffer = { request = false }";
        let mut served = connect_by_way_of(settings, silent().await, "slots = 1").await;
        let mut client = served.client.clone().ready().await.unwrap();
        let taken = client.send_request(get("/"), true).unwrap();
        served.ask(get("/fixed")).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..7 {
            client = client.ready().await.unwrap();
            let mut request = get("/");
            *request.method_mut() = Method::POST;
            let (answer, mut stream) = client.send_request(request, false).unwrap();
            for _ in 0..10_000 {
                stream.send_data(Bytes::from_static(b"\0\0\0\0\x0ffifteen bytes:"), false).unwrap();
            }
            waiting.push((answer, stream));
        }
        // It has come behind all of that.
        assert_eq!(served.ask(get("/fixed")).await.unwrap().status(), StatusCode::OK);
        drop((taken, waiting));
    });
}

#[test]
fn a_drain_lets_streams_end_and_takes_no_more() {
    on_a_worker(async {
        let late = backend(|mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
        })
        .await;
        let mut served = connect("", late).await;
        let mut client = served.client.clone().ready().await.unwrap();
        let (response, _) = client.send_request(get("/"), true).unwrap();
        // An answer to a later request shows that this one has arrived.
        served.ask(get("/fixed")).await.unwrap();
        served.worker.drain.begin();
        assert_eq!(text(response.await.unwrap()).await, "late");
        timeout(SOON, served.serving).await.unwrap().unwrap();
        timeout(SOON, served.connection).await.unwrap().unwrap().unwrap();
        assert!(served.client.ready().await.is_err());
    });
}
