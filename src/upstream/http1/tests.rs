//! Exchanges over one end of a socket pair, the test being the server at the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;

use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::testing::{ANYONE, Certificates, build, held, settings};
use super::super::{Upstream, connect};
use super::*;
use crate::body::{RequestBody, ResponseBody};
use crate::config::settings::Balance;
use crate::headers::Headers;

const TIMEOUTS: ExchangeTimeouts = ExchangeTimeouts {
    response: Duration::from_secs(60),
    between_bytes: Duration::from_secs(5),
    keep_alive: Duration::ZERO,
};

/// Remembers the informational responses.
#[derive(Default)]
struct Seen(RefCell<Vec<u16>>);

impl Interim for Seen {
    fn interim(&self, status: StatusCode, _: &Headers) {
        self.0.borrow_mut().push(status.as_u16());
    }
}

/// A request's body that the test feeds while it is sent.
struct Fed(mpsc::UnboundedReceiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn fed() -> (mpsc::UnboundedSender<Bytes>, Replay) {
    let (feed, body) = mpsc::unbounded_channel();
    (feed, Replay::new(RequestBody::Stream(Box::pin(Fed(body)))))
}

fn no_body() -> Replay {
    Replay::new(RequestBody::Empty)
}

fn upstream() -> Upstream {
    build(&settings(&[("http://127.0.0.1:1", 1)], Balance::LeastRequests), None)
}

fn exchange(stream: ServerStream, framing: SentFraming) -> Exchange {
    let lease = upstream().choose(ANYONE, &[]).unwrap();
    let head = |out: &mut BytesMut| {
        out.extend_from_slice(b"POST / HTTP/1.1\r\n\r\n");
        Ok(())
    };
    Exchange::new(lease, Connection::new(stream, None), Rc::default(), Rc::default(), TIMEOUTS, framing, head).unwrap()
}

fn pair() -> (ServerStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (ServerStream::Unix(near), far)
}

/// What comes of a whole exchange without a request body.
async fn answered(far: impl Future<Output = ()>, near: ServerStream) -> (Result<String, Cause>, Vec<u16>) {
    let seen = Seen::default();
    let answer = async {
        let mut body = no_body();
        let answer = exchange(near, SentFraming::None).answer(&mut body, &seen).await.map_err(|failed| failed.cause)?;
        let content = answer.exchange.into_content(&Method::GET, &answer.head, body).map_err(|failed| failed.cause)?;
        read(content).await
    };
    let (answer, ()) = tokio::join!(answer, far);
    (answer, seen.0.into_inner())
}

async fn read(content: Content) -> Result<String, Cause> {
    let mut text = Vec::new();
    match content {
        Content::Empty => {}
        Content::Full(bytes) => text.extend_from_slice(&bytes),
        Content::Stream(mut source) => {
            while let Some(frame) = std::future::poll_fn(|cx| source.as_mut().poll_frame(cx)).await {
                if let Ok(data) = frame?.into_data() {
                    text.extend_from_slice(&data);
                }
            }
        }
    }
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_informational_response_does_not_cut_the_time_for_the_answer() {
    let (near, mut far) = pair();
    let server = async {
        far.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    };
    assert_eq!(answered(server, near).await, (Ok("ok".into()), vec![103]));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_not_waited_for_without_end() {
    let (near, mut far) = pair();
    let start = Instant::now();
    let server = async {
        for byte in b"HTTP/1.1 200 OK\r\nServer: slow\r\n".iter().cycle() {
            if far.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    };
    assert_eq!(answered(server, near).await.0, Err(Cause::UpstreamTimeout));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_more_of_a_body_that_paused_is_not_waited_for_without_end() {
    let (near, mut far) = pair();
    let (feed, mut body) = fed();
    let seen = Seen::default();
    let mut head = [0; 19];
    let client = async {
        far.read_exact(&mut head).await.unwrap();
        // Whenever all has gone, the client is waited for; until the socket takes nothing of what comes next.
        while feed.send(Bytes::from(vec![b'x'; 1024])).is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let exchange = exchange(near, SentFraming::Chunked);
    let answer = tokio::time::timeout(Duration::from_secs(600), exchange.answer(&mut body, &seen));
    let answer = tokio::select! { answer = answer => answer.expect("it ends"), () = client => unreachable!() };
    assert_eq!(answer.err().map(|failed| failed.cause), Some(Cause::UpstreamSendTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_timed_by_its_bytes_also_when_the_request_ended_after_the_head() {
    let (near, mut far) = pair();
    let (feed, mut body) = fed();
    let seen = Seen::default();
    let exchange = exchange(near, SentFraming::Chunked);
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    let answer = exchange.answer(&mut body, &seen).await.ok().unwrap();
    let content = answer.exchange.into_content(&Method::POST, &answer.head, body).ok().unwrap();
    let start = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(feed);
    };
    assert_eq!(tokio::join!(read(content), end).0, Err(Cause::UpstreamBodyTimeout));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_requests_body_is_let_go_once_it_is_sent_though_the_answer_goes_on() {
    let (near, mut far) = pair();
    let (alive, body) = held();
    let mut body = Replay::new(body);
    let exchange = exchange(near, SentFraming::Length(4));
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    let answer = exchange.answer(&mut body, &Seen::default()).await.ok().unwrap();
    assert_eq!(Rc::strong_count(&alive), 2, "it could be sent again");
    let content = answer.exchange.into_content(&Method::POST, &answer.head, body).ok().unwrap();
    let Content::Stream(mut source) = content else { panic!("there is more to come") };
    std::future::poll_fn(|cx| source.as_mut().poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[tokio::test]
async fn over_tls_a_request_is_sent_to_its_last_byte() {
    const LENGTH: usize = 1024 * 1024;
    let files = Certificates::new();
    let server = files.listen().await;
    let mut settings = settings(&[(&server.url(), 1)], Balance::LeastRequests);
    settings.tls = files.settings("orders.test");
    let upstream = build(&settings, None);
    let server = async {
        let mut stream = server.accept().await;
        // Read slowly: only once the socket is full does anything lie in a buffer of TLS.
        let mut whole = vec![0; LENGTH + 19];
        for piece in whole.chunks_mut(128 * 1024) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.read_exact(piece).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let client = async {
        let stream = connect::connect(&upstream.servers()[0], Duration::from_secs(10)).await.unwrap();
        let ServerStream::Tls(tls) = &stream else { panic!("not TLS") };
        socket2::SockRef::from(tls.get_ref().0).set_send_buffer_size(16 * 1024).unwrap();
        let pieces: VecDeque<_> = (0..LENGTH / 65536).map(|_| Bytes::from(vec![b'x'; 65536])).collect();
        let (feed, mut body) = fed();
        pieces.into_iter().for_each(|piece| feed.send(piece).unwrap());
        drop(feed);
        let seen = Seen::default();
        let answer = exchange(stream, SentFraming::Length(LENGTH as u64)).answer(&mut body, &seen).await;
        answer.map(|answer| answer.head.status).map_err(|failed| failed.cause)
    };
    let both = async { tokio::join!(client, server).0 };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), both).await, Ok(Ok(StatusCode::OK)));
}

#[tokio::test]
async fn a_client_that_does_not_read_yet_is_still_read_from() {
    let (near, mut far) = pair();
    let (feed, mut body) = fed();
    let exchange = exchange(near, SentFraming::Chunked);
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nfirst").await.unwrap();
    let answer = exchange.answer(&mut body, &Seen::default()).await.ok().unwrap();
    let content = answer.exchange.into_content(&Method::POST, &answer.head, body).ok().unwrap();
    let mut body = ResponseBody::new(content);
    let polled = std::future::poll_fn(|cx| {
        body.poll_ahead(cx);
        Poll::<()>::Pending
    });
    let server = async {
        let (mut came, mut piece) = (Vec::new(), [0; 1024]);
        while !came.ends_with(b"0\r\n\r\n") {
            let read = far.read(&mut piece).await.unwrap();
            came.extend_from_slice(&piece[..read]);
        }
    };
    let client = async {
        for _ in 0..10 {
            feed.send(Bytes::from(vec![b'x'; 100_000])).unwrap();
            tokio::task::yield_now().await;
        }
        drop(feed);
    };
    let both = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(server, client) });
    tokio::select! { both = both => drop(both.expect("it is sent whole")), () = polled => unreachable!() }
    let first = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
}
