//! Requests through `forward` to servers of HTTP/2 that do as the test says.

use std::cell::RefCell;
use std::time::Duration;

use bytes::BytesMut;
use h2::server::{self, Connection as ServerConnection, SendResponse};
use http::{HeaderName, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::forward::{Call, Forwarded, Head, forward};
use super::super::health::State;
use super::super::http1::SentFraming;
use super::super::pool::Pool;
use super::super::testing::{ANYONE, build, held, settings};
use super::super::{Server, Upstream};
use super::*;
use crate::body::{RequestBody, ResponseBody};
use crate::config::settings::{Balance, Priority, UpstreamTimeouts};
use crate::observe::metrics::WorkerId;

/// A request and the means to answer it.
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A server of one address: what comes over all of its connections, and how many there were.
struct Fake {
    url: String,
    asked: mpsc::UnboundedReceiver<(usize, Asked)>,
    connections: Rc<RefCell<Vec<Option<tokio::task::AbortHandle>>>>,
    /// Tells the connections to send GOAWAY.
    leave: Rc<tokio::sync::Notify>,
}

impl Fake {
    async fn start(builder: server::Builder) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("h2c://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        let (connections, leave) = (Rc::new(RefCell::new(Vec::new())), Rc::new(tokio::sync::Notify::new()));
        let (made, leaves) = (Rc::clone(&connections), Rc::clone(&leave));
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = made.borrow().len();
                let (tell, builder, leaves) = (tell.clone(), builder.clone(), Rc::clone(&leaves));
                let task = tokio::task::spawn_local(async move {
                    let mut connection: ServerConnection<TcpStream, Bytes> = builder.handshake(stream).await.unwrap();
                    loop {
                        tokio::select! {
                            asked = connection.accept() => match asked {
                                Some(Ok(asked)) => _ = tell.send((number, asked)),
                                Some(Err(_)) | None => return,
                            },
                            () = leaves.notified() => connection.graceful_shutdown(),
                        }
                    }
                });
                made.borrow_mut().push(Some(task.abort_handle()));
            }
        });
        Fake { url, asked, connections, leave }
    }

    async fn plain() -> Fake {
        Fake::start(server::Builder::new()).await
    }

    async fn next(&mut self) -> (usize, Asked) {
        self.asked.recv().await.unwrap()
    }

    fn made(&self) -> usize {
        self.connections.borrow().len()
    }
}

fn ok(mut respond: SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// Of this content type.
struct Root(Option<&'static str>);

impl Head for Root {
    fn write(&self, _: &Server, _: &mut BytesMut) -> Result<(), Cause> {
        Err(Cause::Internal)
    }

    fn request(&self, _: &Server) -> Result<Request<()>, Cause> {
        let mut request = Request::post("http://a.test/path?x").version(http::Version::HTTP_2);
        if let Some(content_type) = self.0 {
            request = request.header("content-type", content_type);
        }
        Ok(request.body(()).unwrap())
    }
}

#[derive(Default)]
struct Heard(RefCell<Vec<u16>>);

impl Interim for Heard {
    fn interim(&self, status: StatusCode, _: &Headers) {
        self.0.borrow_mut().push(status.as_u16());
    }
}

/// A client of one worker.
#[derive(Clone)]
struct Asking {
    pool: Rc<Pool>,
    upstream: Arc<Upstream>,
    timeouts: UpstreamTimeouts,
    journey: Rc<Journey>,
    heard: Rc<Heard>,
    content_type: Option<&'static str>,
}

impl Asking {
    fn of(url: &str) -> Asking {
        let upstream = Arc::new(build(&settings(&[(url, 1)], Balance::LeastRequests), None));
        let timeouts = *upstream.timeouts();
        Asking {
            pool: Rc::default(),
            upstream,
            timeouts,
            journey: Rc::default(),
            heard: Rc::default(),
            content_type: None,
        }
    }

    async fn ask(&self, method: Method, body: RequestBody) -> Result<(ResponseHead, Content), Cause> {
        let framing = if matches!(body, RequestBody::Empty) { SentFraming::None } else { SentFraming::Chunked };
        let call = Call {
            worker: WorkerId(0),
            pool: &self.pool,
            upstream: &self.upstream,
            timeouts: &self.timeouts,
            by: ANYONE,
            priority: Priority::Normal,
            method: &method,
            head: &Root(self.content_type),
            framing,
            upgrade: false,
            interim: &*self.heard,
            journey: &self.journey,
        };
        match forward(&call, body).await? {
            Forwarded::Response(head, content) => Ok((head, content)),
            Forwarded::Upgraded(..) => panic!("nothing upgrades"),
        }
    }

    async fn get(&self) -> Result<StatusCode, Cause> {
        self.ask(Method::GET, RequestBody::Empty).await.map(|(head, _)| head.status)
    }

    /// In a task of its own.
    fn begin(&self, method: Method) -> tokio::task::JoinHandle<Result<StatusCode, Cause>> {
        let asking = self.clone();
        tokio::task::spawn_local(
            async move { asking.ask(method, RequestBody::Empty).await.map(|(head, _)| head.status) },
        )
    }
}

/// A request's body that the test feeds while it is sent.
struct Fed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Cause>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.0.poll_recv(cx)
    }
}

fn fed() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Cause>>, RequestBody) {
    let (feed, body) = mpsc::unbounded_channel();
    (feed, RequestBody::Stream(Box::pin(Fed(body))))
}

async fn frame(content: &mut Content) -> Option<Result<Frame<Bytes>, Cause>> {
    match content {
        Content::Empty | Content::Full(_) => None,
        Content::Stream(source) => std::future::poll_fn(|cx| source.as_mut().poll_frame(cx)).await,
    }
}

/// Runs a test as a worker runs.
async fn local(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(20), tokio::task::LocalSet::new().run_until(test)).await.unwrap();
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn requests_share_a_connection_as_far_as_the_server_lets_them() {
    local(async {
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(2);
        let mut fake = Fake::start(builder).await;
        let asking = Asking::of(&fake.url);
        let rest: Vec<_> = (0..5).map(|_| asking.begin(Method::GET)).collect();
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(fake.next().await);
        }
        assert_eq!(fake.made(), 3, "two on each");
        held.into_iter().for_each(|(_, (_, respond))| ok(respond));
        for request in rest {
            assert_eq!(request.await.unwrap(), Ok(StatusCode::OK));
        }
    })
    .await;
}

#[tokio::test]
async fn past_the_last_connection_requests_wait() {
    local(async {
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(1);
        let mut fake = Fake::start(builder).await;
        let asking = Asking::of(&fake.url);
        let mut held = Vec::new();
        let mut begun = Vec::new();
        begun.extend((0..8).map(|_| asking.begin(Method::GET)));
        for _ in 0..8 {
            held.push(fake.next().await);
        }
        begun.push(asking.begin(Method::GET));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(fake.asked.try_recv().is_err(), "the ninth waits");
        held.into_iter().for_each(|(_, (_, respond))| ok(respond));
        let (_, (_, respond)) = fake.next().await;
        ok(respond);
        for request in begun {
            assert_eq!(request.await.unwrap(), Ok(StatusCode::OK));
        }
        assert_eq!(fake.made(), 8);
    })
    .await;
}

#[tokio::test]
async fn one_connection_is_made_for_all_that_need_it_and_one_failure_is_told() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let begun: Vec<_> = (0..10).map(|_| asking.begin(Method::GET)).collect();
        for _ in 0..10 {
            let (number, (_, respond)) = fake.next().await;
            assert_eq!(number, 0);
            ok(respond);
        }
        for request in begun {
            assert_eq!(request.await.unwrap(), Ok(StatusCode::OK));
        }
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut nobody = Asking::of(&format!("h2c://127.0.0.1:{port}"));
        let mut settings = nobody.upstream.settings.clone();
        settings.retry.attempts = 0;
        nobody.upstream = Arc::new(build(&settings, None));
        let begun: Vec<_> = (0..10).map(|_| nobody.begin(Method::GET)).collect();
        for request in begun {
            assert_eq!(request.await.unwrap(), Err(Cause::UpstreamConnectRefused));
        }
        assert_eq!(nobody.upstream.servers()[0].health.state(), State::Up, "one failure of the two that eject");
    })
    .await;
}

#[tokio::test]
async fn what_was_refused_is_sent_again_whatever_it_is() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let request = asking.begin(Method::POST);
        let (_, (_, mut respond)) = fake.next().await;
        respond.send_reset(Reason::REFUSED_STREAM);
        let (_, (_, respond)) = fake.next().await;
        ok(respond);
        assert_eq!(request.await.unwrap(), Ok(StatusCode::OK));
        assert_eq!((fake.made(), asking.upstream.servers()[0].health.state()), (1, State::Up));
        // What the server has begun is not.
        let request = asking.begin(Method::POST);
        let (_, (_, mut respond)) = fake.next().await;
        respond.send_reset(Reason::INTERNAL_ERROR);
        assert_eq!(request.await.unwrap(), Err(Cause::UpstreamStreamReset));
        assert!(asking.journey.take_detail().unwrap().contains("unexpected internal error"));
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_one_stream_is_no_others_concern() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let begun = [asking.begin(Method::POST), asking.begin(Method::POST)];
        let (_, (_, mut first)) = fake.next().await;
        let (_, (_, second)) = fake.next().await;
        // Which of the two came first nobody says.
        first.send_reset(Reason::INTERNAL_ERROR);
        let [mut one, mut other] = begun;
        let (reset, open) = tokio::select! {
            reset = &mut one => (reset, other),
            reset = &mut other => (reset, one),
        };
        assert_eq!(reset.unwrap(), Err(Cause::UpstreamStreamReset));
        ok(second);
        assert_eq!(open.await.unwrap(), Ok(StatusCode::OK));
        let third = asking.begin(Method::POST);
        let (number, (_, respond)) = fake.next().await;
        ok(respond);
        third.await.unwrap().unwrap();
        assert_eq!(number, 0, "the connection serves on");
    })
    .await;
}

/// A server that answers each request with these frames at once: type, flags, content.
async fn at_once(frames: &'static [(u8, u8, &'static [u8])]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            // SETTINGS are acknowledged, HEADERS answered.
            let answer = match (head[3], head[4]) {
                (4, 0) => vec![0, 0, 0, 4, 1, 0, 0, 0, 0],
                (1, _) => frames.iter().fold(Vec::new(), |mut answer, (kind, flags, content)| {
                    answer.extend_from_slice(&[0, 0, content.len() as u8, *kind, *flags]);
                    answer.extend_from_slice(&head[5..]);
                    answer.extend_from_slice(content);
                    answer
                }),
                _ => Vec::new(),
            };
            stream.write_all(&answer).await.unwrap();
        }
    });
    url
}

/// `:status` 200 as HPACK has it, and the end of the head.
const HEAD: (u8, u8, &[u8]) = (1, 4, &[0x88]);

#[tokio::test]
async fn an_answer_that_is_reset_right_behind_its_head_is_none() {
    local(async {
        let asking = Asking::of(&at_once(&[HEAD, (0, 0, b"half"), (3, 0, &[0, 0, 0, 2])]).await);
        for round in 1..=3 {
            let answer = asking.ask(Method::GET, RequestBody::Empty).await;
            assert_eq!(answer.map(|(head, _)| head.status), Err(Cause::UpstreamCutShort));
            assert!(asking.journey.take_detail().unwrap().contains("unexpected internal error"));
            let state = asking.upstream.servers()[0].health.state();
            assert_eq!(state, if round < 3 { State::Up } else { State::Ejected }, "each is told once");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_has_answered_whole_may_want_no_more_of_the_request() {
    local(async {
        let asking = Asking::of(&at_once(&[HEAD, (0, 1, b"whole"), (3, 0, &[0, 0, 0, 0])]).await);
        for _ in 0..3 {
            let (_feed, body) = fed();
            let (_, mut content) = asking.ask(Method::POST, body).await.unwrap();
            assert_eq!(frame(&mut content).await.unwrap().unwrap().into_data().unwrap(), "whole");
            assert!(frame(&mut content).await.is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_leaves_ends_what_it_has_begun() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let begun = asking.begin(Method::POST);
        let (_, (_, respond)) = fake.next().await;
        fake.leave.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The next goes over another connection, the one under way is answered.
        let next = asking.begin(Method::POST);
        let (number, (_, later)) = fake.next().await;
        assert_eq!(number, 1);
        ok(later);
        ok(respond);
        assert_eq!(begun.await.unwrap(), Ok(StatusCode::OK));
        assert_eq!(next.await.unwrap(), Ok(StatusCode::OK));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_cut_fails_only_what_cannot_be_sent_again() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (get, post) = (asking.begin(Method::GET), asking.begin(Method::POST));
        let _held = (fake.next().await, fake.next().await);
        fake.connections.borrow_mut()[0].take().unwrap().abort();
        assert_eq!(post.await.unwrap(), Err(Cause::UpstreamClosedEarly));
        let (number, (request, respond)) = fake.next().await;
        assert_eq!((number, request.uri().path()), (1, "/path"));
        ok(respond);
        assert_eq!(get.await.unwrap(), Ok(StatusCode::OK));
    })
    .await;
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_at_once() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (feed, body) = fed();
        let server = async {
            let (_, (mut request, mut respond)) = fake.next().await;
            let mut informational = Response::new(());
            *informational.status_mut() = StatusCode::EARLY_HINTS;
            respond.send_informational(informational).unwrap();
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            while let Some(data) = request.body_mut().data().await {
                let data = data.unwrap();
                request.body_mut().flow_control().release_capacity(data.len()).unwrap();
                answer.send_data(data, false).unwrap();
            }
            let trailers = request.body_mut().trailers().await.unwrap().unwrap();
            assert_eq!(trailers["x-sum"], "1");
            answer
                .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]))
                .unwrap();
        };
        let client = async {
            let (head, mut content) = asking.ask(Method::POST, body).await.unwrap();
            assert_eq!(head.status, StatusCode::OK);
            for word in ["one", "two", "three"] {
                feed.send(Ok(Frame::data(Bytes::from(word)))).unwrap();
                assert_eq!(frame(&mut content).await.unwrap().unwrap().into_data().unwrap(), word);
            }
            let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
            feed.send(Ok(Frame::trailers(sum))).unwrap();
            let trailers = frame(&mut content).await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert!(frame(&mut content).await.is_none());
        };
        tokio::join!(server, client);
        assert_eq!(*asking.heard.0.borrow(), [103]);
    })
    .await;
}

#[tokio::test]
async fn a_requests_body_is_let_go_once_it_is_sent_though_the_answer_goes_on() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (alive, body) = held();
        let asked = tokio::task::spawn_local(async move { asking.ask(Method::POST, body).await });
        let (_, (mut request, mut respond)) = fake.next().await;
        while request.body_mut().data().await.is_some() {}
        assert_eq!(Rc::strong_count(&alive), 2, "it could be sent again");
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        answer.send_data(Bytes::from_static(b"ab"), false).unwrap();
        let (_, mut content) = asked.await.unwrap().unwrap();
        frame(&mut content).await.unwrap().unwrap();
        assert_eq!(Rc::strong_count(&alive), 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_the_server_back_and_nobody_else() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (slow, got) = tokio::join!(asking.ask(Method::GET, RequestBody::Empty), async {
            let (_, (_, mut respond)) = fake.next().await;
            respond.send_response(Response::new(()), false).unwrap()
        });
        let mut answer = got;
        answer.reserve_capacity(1 << 20);
        until(|| answer.capacity() > 0).await;
        let mut sent = 0;
        let patience = tokio::time::Instant::now() + Duration::from_millis(300);
        while tokio::time::Instant::now() < patience {
            let room = answer.capacity();
            if room == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            answer.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
            answer.reserve_capacity(1 << 20);
            sent += room;
        }
        assert_eq!(sent, 256 * 1024, "one window");
        // Another request over the same connection gets all of its answer.
        let (other, ()) = tokio::join!(asking.ask(Method::GET, RequestBody::Empty), async {
            let (number, (_, mut respond)) = fake.next().await;
            assert_eq!(number, 0);
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            answer.send_data(Bytes::from(vec![b'y'; 100_000]), true).unwrap();
        });
        let mut content = other.unwrap().1;
        let mut length = 0;
        while let Some(frame) = frame(&mut content).await {
            length += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(length, 100_000);
        drop(slow);
        assert_eq!(std::future::poll_fn(|cx| answer.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    })
    .await;
}

/// A stream whose answer has begun: the client's side, which feeds the request and reads the answer, and the server's.
struct Stream {
    feed: mpsc::UnboundedSender<Result<Frame<Bytes>, Cause>>,
    content: Content,
    request: RecvStream,
    answer: SendStream<Bytes>,
}

impl Stream {
    async fn begin(asking: &Asking, fake: &mut Fake) -> Stream {
        let (feed, body) = fed();
        let (answered, (request, answer)) = tokio::join!(asking.ask(Method::POST, body), async {
            let (_, (request, mut respond)) = fake.next().await;
            (request.into_body(), respond.send_response(Response::new(()), false).unwrap())
        });
        Stream { feed, content: answered.unwrap().1, request, answer }
    }

    /// Passes a word of the client on.
    async fn say(&mut self, word: &'static str) {
        self.feed.send(Ok(Frame::data(Bytes::from_static(word.as_bytes())))).unwrap();
        let heard = tokio::select! {
            heard = self.request.data() => heard,
            _ = frame(&mut self.content) => panic!("nothing was answered"),
        };
        assert_eq!(heard.unwrap().unwrap(), word);
    }
}

#[tokio::test]
async fn a_client_that_is_silent_on_a_stream_may_go_on_later() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let mut stream = Stream::begin(&asking, &mut fake).await;
        stream.say("one").await;
        stream.feed.send(Err(Cause::BodyTimeout)).unwrap();
        stream.feed.send(Err(Cause::BodyTimeout)).unwrap();
        stream.say("two").await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_on_which_neither_side_sends_is_broken_off() {
    local(async {
        let mut fake = Fake::plain().await;
        let mut asking = Asking::of(&fake.url);
        asking.timeouts.between_bytes = Duration::from_millis(300);
        let mut stream = Stream::begin(&asking, &mut fake).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.say("ping").await;
        }
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.answer.send_data(Bytes::from_static(b"pong"), false).unwrap();
            assert_eq!(frame(&mut stream.content).await.unwrap().unwrap().into_data().unwrap(), "pong");
        }
        assert_eq!(frame(&mut stream.content).await.unwrap().unwrap_err(), Cause::StreamSilent);
        drop(stream.content);
        assert_eq!(std::future::poll_fn(|cx| stream.answer.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        assert_eq!(asking.upstream.servers()[0].health.state(), State::Up);
    })
    .await;
}

#[tokio::test]
async fn calls_of_grpc_are_such_streams_before_they_are_answered() {
    local(async {
        let mut fake = Fake::plain().await;
        let mut asking = Asking::of(&fake.url);
        asking.timeouts.between_bytes = Duration::from_millis(300);
        for (content_type, expected) in
            [("text/plain", Cause::BodyTimeout), ("application/grpc+proto", Cause::StreamSilent)]
        {
            asking.content_type = Some(content_type);
            let (feed, body) = fed();
            feed.send(Ok(Frame::data(Bytes::from_static(b"one")))).unwrap();
            feed.send(Err(Cause::BodyTimeout)).unwrap();
            let (answer, asked) = tokio::join!(asking.ask(Method::POST, body), fake.next());
            assert_eq!(answer.map(|(head, _)| head.status), Err(expected), "{content_type}");
            drop(asked);
        }
        assert_eq!(asking.upstream.servers()[0].health.state(), State::Up);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_breaks_off_has_the_servers_stream_reset() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let mut stream = Stream::begin(&asking, &mut fake).await;
        stream.say("half").await;
        stream.answer.send_data(Bytes::from_static(b"an"), false).unwrap();
        assert_eq!(frame(&mut stream.content).await.unwrap().unwrap().into_data().unwrap(), "an");
        stream.feed.send(Err(Cause::BodyTooLarge)).unwrap();
        assert_eq!(frame(&mut stream.content).await.unwrap().unwrap_err(), Cause::BodyTooLarge);
        drop(stream.content);
        assert_eq!(std::future::poll_fn(|cx| stream.answer.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    })
    .await;
}

/// The server's side of an answer without end, and the client's.
async fn endless(asking: &Asking, fake: &mut Fake) -> (usize, SendStream<Bytes>, Content) {
    let (answer, (number, stream)) = tokio::join!(asking.ask(Method::GET, RequestBody::Empty), async {
        let (number, (_, mut respond)) = fake.next().await;
        (number, respond.send_response(Response::new(()), false).unwrap())
    });
    (number, stream, answer.unwrap().1)
}

#[tokio::test]
async fn tiny_pieces_for_clients_that_take_nothing_are_put_together_and_hurt_nobody_else() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (_, mut steady, mut taken) = endless(&asking, &mut fake).await;
        let mut stalled = Vec::new();
        for _ in 0..10 {
            let (_, mut stream, content) = endless(&asking, &mut fake).await;
            stream.reserve_capacity(1 << 20);
            for _ in 0..10_000 {
                stream.send_data(Bytes::from_static(b"data: token 000001\n\n"), false).unwrap();
            }
            stalled.push((stream, content));
        }
        for _ in 0..10 {
            steady.send_data(Bytes::from_static(b"tick"), false).unwrap();
            assert_eq!(frame(&mut taken).await.unwrap().unwrap().into_data().unwrap(), "tick");
        }
        for (mut stream, mut content) in stalled {
            stream.send_data(Bytes::from_static(b"end"), true).unwrap();
            let (mut pieces, mut bytes) = (0, Vec::new());
            while let Some(frame) = frame(&mut content).await {
                bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
                pieces += 1;
            }
            assert_eq!(bytes.len(), 200_003);
            assert!(bytes.ends_with(b"000001\n\nend") && pieces < 1000, "{pieces}");
        }
        assert_eq!((fake.made(), asking.upstream.servers()[0].health.state()), (1, State::Up));
    })
    .await;
}

#[tokio::test]
async fn empty_frames_end_no_connection() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (_, mut stream, mut content) = endless(&asking, &mut fake).await;
        for _ in 0..300 {
            stream.send_data(Bytes::new(), false).unwrap();
            stream.send_data(Bytes::from_static(b"more"), false).unwrap();
            assert_eq!(frame(&mut content).await.unwrap().unwrap().into_data().unwrap(), "more");
        }
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        stream.send_data(Bytes::new(), false).unwrap();
        stream.send_trailers(trailers).unwrap();
        assert_eq!(frame(&mut content).await.unwrap().unwrap().into_trailers().unwrap()["x-sum"], "1");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_reset_and_the_connection_lives_on() {
    local(async {
        let mut fake = Fake::plain().await;
        let mut asking = Asking::of(&fake.url);
        asking.timeouts.response = Duration::from_millis(50);
        let request = asking.begin(Method::POST);
        let (_, (_, mut respond)) = fake.next().await;
        assert_eq!(request.await.unwrap(), Err(Cause::UpstreamTimeout));
        assert_eq!(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        asking.timeouts.response = Duration::from_secs(20);
        let request = asking.begin(Method::POST);
        let (number, (_, respond)) = fake.next().await;
        ok(respond);
        assert_eq!((request.await.unwrap(), number), (Ok(StatusCode::OK), 0));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hears_nothing_loses_its_connection() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut asking = Asking::of(&format!("h2c://{}", listener.local_addr().unwrap()));
        asking.timeouts.response = Duration::from_millis(30);
        asking.timeouts.connect = Duration::from_millis(200);
        let begun = asking.begin(Method::POST);
        let (stream, _) = listener.accept().await.unwrap();
        // Greets, and then neither reads nor writes until the gateway has lost patience.
        let mut connection: ServerConnection<TcpStream, Bytes> = server::handshake(stream).await.unwrap();
        assert_eq!(begun.await.unwrap(), Err(Cause::UpstreamTimeout));
        let known = Rc::clone(&asking.pool.http2);
        until(|| known.is_empty()).await;
        while let Some(Ok(_)) = connection.accept().await {}
        // One that does not even greet is not connected to.
        let begun = asking.begin(Method::POST);
        let _silent = listener.accept().await.unwrap();
        assert_eq!(begun.await.unwrap(), Err(Cause::UpstreamConnectTimeout));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    local(async {
        let mut fake = Fake::plain().await;
        let mut asking = Asking::of(&fake.url);
        asking.timeouts.keep_alive = Duration::from_millis(30);
        for round in 0..2 {
            let request = asking.begin(Method::GET);
            let (number, (_, respond)) = fake.next().await;
            ok(respond);
            request.await.unwrap().unwrap();
            assert_eq!(number, round);
            let ended = Rc::clone(&fake.connections);
            until(|| ended.borrow()[round].as_ref().unwrap().is_finished()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn heads_have_bounds() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        for (fields, length, expected) in [
            (256, 10, Ok(StatusCode::OK)),
            (257, 10, Err(Cause::UpstreamHeadersTooLarge)),
            (70, 1000, Err(Cause::UpstreamHeadersTooLarge)),
            (60, 1000, Ok(StatusCode::OK)),
        ] {
            let request = asking.begin(Method::POST);
            let (_, (_, mut respond)) = fake.next().await;
            let mut answer = Response::new(());
            for number in 0..fields {
                let name: HeaderName = format!("x-{number}").parse().unwrap();
                answer.headers_mut().insert(name, "x".repeat(length).parse().unwrap());
            }
            respond.send_response(answer, true).unwrap();
            assert_eq!(request.await.unwrap(), expected, "{fields} of {length}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_does_not_speak_http2_is_found_out() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asking = Asking::of(&format!("h2c://{}", listener.local_addr().unwrap()));
        tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
            }
        });
        assert_eq!(asking.get().await, Err(Cause::UpstreamInvalidResponse));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_yet_is_still_read_from() {
    const PIECE: usize = 50_000;
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (feed, body) = fed();
        let answer = tokio::task::spawn_local(async move { asking.ask(Method::POST, body).await });
        let (_, (request, mut respond)) = fake.next().await;
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data("first".into(), false).unwrap();
        let (_, content) = answer.await.unwrap().unwrap();
        let mut body = ResponseBody::new(content);
        // More than the server's window has room for at once.
        let server = async {
            let (mut request, mut came) = (request.into_body(), 0);
            while let Some(data) = request.data().await {
                let length = data.unwrap().len();
                came += length;
                request.flow_control().release_capacity(length).unwrap();
            }
            came
        };
        let client = async {
            for _ in 0..10 {
                feed.send(Ok(Frame::data(vec![b'x'; PIECE].into()))).unwrap();
                tokio::task::yield_now().await;
            }
            drop(feed);
        };
        let polled = std::future::poll_fn(|cx| {
            body.poll_ahead(cx);
            Poll::<()>::Pending
        });
        let (came, ()) =
            tokio::select! { both = async { tokio::join!(server, client) } => both, () = polled => unreachable!() };
        assert_eq!(came, 10 * PIECE);
        let first = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "first");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_breaks_off_before_its_answer_is_read_fails_what_is_left_of_that() {
    local(async {
        let mut fake = Fake::plain().await;
        let asking = Asking::of(&fake.url);
        let (feed, body) = fed();
        let answer = tokio::task::spawn_local(async move { asking.ask(Method::POST, body).await });
        let (_, (_request, mut respond)) = fake.next().await;
        let _stream = respond.send_response(Response::new(()), false).unwrap();
        let (_, content) = answer.await.unwrap().unwrap();
        let mut body = ResponseBody::new(content);
        feed.send(Err(Cause::BodyTooLarge)).unwrap();
        body.poll_ahead(&mut Context::from_waker(std::task::Waker::noop()));
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        assert_eq!(frame.unwrap().err(), Some(Cause::BodyTooLarge));
    })
    .await;
}
