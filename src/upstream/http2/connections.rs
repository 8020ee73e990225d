//! Connections to servers that speak HTTP/2, shared by the requests of one worker.
//!
//! A server gets one connection, and another only when the streams that it allows on the others are taken. Each is
//! driven by a task of its own, which ends it once nobody has used it for `keep_alive`: as with HTTP/1.1, before the
//! server would.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::connect::{ConnectError, ServerStream, connect};
use super::super::http1::HEAD_LIMITS;
use super::super::{Server, places};
use super::answers::Answers;
use super::sieve::Sieve;
use crate::request::rejection::Cause;

/// Connections of one worker to one server. When the streams of all are taken, requests wait for one to end.
const MOST_CONNECTIONS: usize = 8;

/// Streams on one connection, where the server allows more.
const MOST_STREAMS: usize = 100;

/// What a server may send of one answer before the client has taken it. All streams of a connection together may have
/// as much each: one whose client is slow holds no other up.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;

/// What frames of a few bytes may cost beside these before the library ends the connection. They lie with it only from one
/// look of the connection's task to the next, which takes them off (see [`Answers`]); in one look megabytes may come.
const SMALL_FRAMES: usize = 16 * CONNECTION_WINDOW as usize;

/// What is held of one request that the server does not take.
const SEND_BUFFER: usize = 64 * 1024;

/// RFC 9113 section 6.5.2 counts this for each field beside its name and value.
const FIELD_OVERHEAD: usize = 32;

/// The shortest time between two looks at whether a connection is used.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// How many connections a request may see made, and taken by others or lost again, before it gives up.
const MOST_MADE: usize = 2 * MOST_CONNECTIONS;

/// Tells how a connection came about that is being made.
type Opening = watch::Receiver<Option<Result<(), ConnectError>>>;

/// A worker's connections, by server id.
#[derive(Default)]
pub struct Connections {
    servers: RefCell<BTreeMap<u64, Known>>,
}

#[derive(Default)]
struct Known {
    open: Vec<Rc<Shared>>,
    /// The one that is being made, for whoever needs it.
    opening: Option<Opening>,
}

/// What the requests of one connection, and its task, know of it.
struct Shared {
    /// `None` once it takes no more requests.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    server: Arc<Server>,
    /// Among the server's connections, where these are bounded. Resting while there are no streams.
    seat: Option<places::Place>,
    streams: Cell<usize>,
    answers: Rc<Answers>,
    idle_since: Cell<Instant>,
    keep_alive: Cell<Duration>,
    used: Cell<bool>,
    /// Whether a request has told the server's health that it broke.
    lost: Cell<bool>,
    /// Told when a request on it got no answer in time: the connection may be dead.
    doubted: Notify,
}

/// A request's place on a connection, given back when dropped.
pub(super) struct Place {
    shared: Rc<Shared>,
    pub(super) sender: SendRequest<Bytes>,
    /// Whether the connection has served before.
    pub(super) reused: bool,
    /// Whether it had been kept since, unused: then the server may have closed it meanwhile.
    pub(super) kept: bool,
}

impl Place {
    fn new(shared: &Rc<Shared>, sender: SendRequest<Bytes>, keep_alive: Duration) -> Place {
        let before = shared.streams.get();
        shared.streams.set(before.saturating_add(1));
        shared.keep_alive.set(keep_alive);
        let reused = shared.used.replace(true);
        Place { shared: Rc::clone(shared), sender, reused, kept: reused && before == 0 }
    }

    pub(super) fn answers(&self) -> &Rc<Answers> {
        &self.shared.answers
    }

    /// The connection broke. Whether this request is the first to find out.
    pub(super) fn is_first_to_lose_it(&self) -> bool {
        self.shared.retire();
        !self.shared.lost.replace(true)
    }

    /// The request got no answer in time. Whether the server hears at all is found out by a ping.
    pub(super) fn doubt(&self) {
        self.shared.doubted.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get().saturating_sub(1));
        self.shared.idle_since.set(Instant::now());
        if self.shared.streams.get() == 0 && !self.shared.rests() {
            self.shared.retire();
        }
    }
}

impl Shared {
    /// Takes no more requests; ends once those under way have ended.
    fn retire(&self) {
        *self.sender.borrow_mut() = None;
    }

    /// Whether it may stay open while nobody uses it.
    fn rests(&self) -> bool {
        match &self.seat {
            Some(seat) => seat.rest(),
            // It was made while connections were not bounded.
            None => self.server.slots.limit().is_none(),
        }
    }

    /// Whether it is still open for the first of its streams: another worker may have closed it, to have one of its own.
    fn wakes(&self) -> bool {
        self.streams.get() > 0 || self.seat.as_ref().is_none_or(places::Place::wake_or_stay)
    }

    /// A handle for another request, if there is room for one; `full` looks away from that.
    fn sender(&self, full: bool) -> Option<SendRequest<Bytes>> {
        let mut sender = self.sender.borrow().clone()?;
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = sender.poll_ready(&mut cx) {
            self.retire();
            return None;
        }
        let room = self.streams.get() < sender.current_max_send_streams().min(MOST_STREAMS);
        if !room && !full {
            return None;
        }
        if !self.wakes() {
            self.retire();
            return None;
        }
        Some(sender)
    }
}

/// Why there is no place.
pub struct NoPlace {
    pub error: ConnectError,
    /// Whether it is another request's to tell of it: the one that the connection was to be made for.
    pub told: bool,
}

impl Connections {
    /// A place for one more request to `server`, on a connection that may have to be made.
    ///
    /// # Errors
    /// As of [`connect`].
    pub(super) async fn place(
        self: &Rc<Self>,
        server: &Arc<Server>,
        patience: Duration,
        keep_alive: Duration,
    ) -> Result<Place, NoPlace> {
        for _ in 0..MOST_MADE {
            let (opening, told) = match self.find(server.id, keep_alive) {
                Found::Place(place) => return Ok(place),
                Found::Opening(opening) => (opening, true),
                Found::Nothing => (self.open(server, patience, keep_alive), false),
            };
            wait(opening).await.map_err(|error| NoPlace { error, told })?;
        }
        match self.find(server.id, keep_alive) {
            Found::Place(place) => Ok(place),
            Found::Opening(_) | Found::Nothing => Err(NoPlace { error: closed(), told: false }),
        }
    }

    fn find(&self, server: u64, keep_alive: Duration) -> Found {
        let mut servers = self.servers.borrow_mut();
        let known = servers.entry(server).or_default();
        known.open.retain(|shared| shared.sender.borrow().is_some());
        let free = known.open.iter().find_map(|shared| Some((shared, shared.sender(false)?)));
        if let Some((shared, sender)) = free {
            return Found::Place(Place::new(shared, sender, keep_alive));
        }
        if let Some(opening) = &known.opening {
            return Found::Opening(opening.clone());
        }
        if known.open.len() >= MOST_CONNECTIONS {
            let least = known.open.iter().min_by_key(|shared| shared.streams.get());
            if let Some((shared, sender)) = least.and_then(|shared| Some((shared, shared.sender(true)?))) {
                return Found::Place(Place::new(shared, sender, keep_alive));
            }
        }
        Found::Nothing
    }

    /// Makes a connection in a task of its own: others may wait for it by the time that the request has left.
    fn open(self: &Rc<Self>, server: &Arc<Server>, patience: Duration, keep_alive: Duration) -> Opening {
        let (made, opening) = watch::channel(None);
        self.servers.borrow_mut().entry(server.id).or_default().opening = Some(opening.clone());
        let (connections, server) = (Rc::clone(self), Arc::clone(server));
        tokio::task::spawn_local(async move {
            let seat = places::Place::take(&server);
            let result = handshake(&server, seat.as_ref(), patience).await;
            let mut servers = connections.servers.borrow_mut();
            let known = servers.entry(server.id).or_default();
            known.opening = None;
            let told = result.map(|(sender, connection)| {
                let shared = Rc::new(Shared {
                    sender: RefCell::new(Some(sender)),
                    server: Arc::clone(&server),
                    seat,
                    streams: Cell::new(0),
                    answers: Rc::default(),
                    idle_since: Cell::new(Instant::now()),
                    keep_alive: Cell::new(keep_alive),
                    used: Cell::new(false),
                    lost: Cell::new(false),
                    doubted: Notify::new(),
                });
                // Until the request that it is made for has come for it.
                shared.rests();
                known.open.push(Rc::clone(&shared));
                tokio::task::spawn_local(drive(connection, shared, patience, Rc::downgrade(&connections), server.id));
            });
            if known.open.is_empty() {
                servers.remove(&server.id);
            }
            drop(servers);
            // Nobody may wait for it any more.
            let _ = made.send(Some(told));
        });
        opening
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.servers.borrow().is_empty()
    }

    fn forget(&self, server: u64, shared: &Rc<Shared>) {
        let mut servers = self.servers.borrow_mut();
        if let Some(known) = servers.get_mut(&server) {
            known.open.retain(|open| !Rc::ptr_eq(open, shared));
            if known.open.is_empty() && known.opening.is_none() {
                servers.remove(&server);
            }
        }
    }
}

fn closed() -> ConnectError {
    let detail = "the server closed the connection before it could be used";
    ConnectError::new(Cause::UpstreamConnectFailed, Some(detail.to_owned()))
}

enum Found {
    Place(Place),
    Opening(Opening),
    Nothing,
}

async fn wait(mut opening: Opening) -> Result<(), ConnectError> {
    match opening.wait_for(Option::is_some).await {
        Ok(made) => made.clone().unwrap_or_else(|| Err(closed())),
        // Its task ends only with the worker.
        Err(_) => Err(closed()),
    }
}

/// How a connection towards a server is set up, whoever uses it.
pub(in super::super) fn builder() -> h2::client::Builder {
    let head = HEAD_LIMITS.bytes.saturating_add(HEAD_LIMITS.fields.saturating_mul(FIELD_OVERHEAD)).saturating_mul(2);
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        // Larger heads than these are not read; those in between are refused by their cause.
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Connects, and waits until the server has said how many streams it allows: what it was sent beyond that it would refuse.
async fn handshake(
    server: &Server,
    seat: Option<&places::Place>,
    patience: Duration,
) -> Result<(SendRequest<Bytes>, Connection<Sieve<ServerStream>, Bytes>), ConnectError> {
    let made = async {
        let stream = connect(server, patience).await?;
        if seat.is_some_and(|seat| !seat.is_over(&stream)) {
            let detail = "no descriptor is left for a second handle on the connection".to_owned();
            let cause = Cause::UpstreamConnectFailed;
            return Err(ConnectError { cause, failure: None, detail: Some(detail), nobody: false });
        }
        let (sender, mut connection) =
            builder().initial_max_send_streams(0).handshake(Sieve::new(stream)).await.map_err(no_http2)?;
        std::future::poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            if sender.current_max_send_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            ended.map(|ended| ended.map_or_else(|error| Err(no_http2(error)), |()| Err(closed())))
        })
        .await?;
        Ok((sender, connection))
    };
    match tokio::time::timeout(patience, made).await {
        Ok(made) => made,
        Err(_) => {
            let detail = format!("no settings of HTTP/2 came within {patience:?}");
            Err(ConnectError::new(Cause::UpstreamConnectTimeout, Some(detail)))
        }
    }
}

fn no_http2(error: h2::Error) -> ConnectError {
    if error.is_library() {
        let detail = format!("what it sends is not HTTP/2: {error}");
        return ConnectError::new(Cause::UpstreamInvalidResponse, Some(detail));
    }
    ConnectError::new(Cause::UpstreamConnectFailed, Some(error.to_string()))
}

/// Drives a connection to its end.
async fn drive(
    mut connection: Connection<Sieve<ServerStream>, Bytes>,
    shared: Rc<Shared>,
    patience: Duration,
    connections: Weak<Connections>,
    server: u64,
) {
    let pings = connection.ping_pong();
    let mut doubts = pin!(doubts(&shared, pings, patience));
    let mut look = pin!(tokio::time::sleep(shared.keep_alive.get().max(SHORTEST_LOOK)));
    let mut connection = pin!(connection);
    loop {
        let course = std::future::poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            shared.answers.gather();
            ended
        });
        tokio::select! {
            _ = course => break,
            () = &mut doubts => break,
            () = &mut look => {
                let keep_alive = shared.keep_alive.get();
                let now = Instant::now();
                let until = match shared.streams.get() {
                    0 => shared.idle_since.get().checked_add(keep_alive).unwrap_or(now),
                    _ => now.checked_add(keep_alive).unwrap_or(now),
                };
                if until <= now && shared.streams.get() == 0 {
                    shared.retire();
                }
                look.as_mut().reset(until.max(now + SHORTEST_LOOK));
            }
        }
    }
    shared.retire();
    if let Some(connections) = connections.upgrade() {
        connections.forget(server, &shared);
    }
}

/// Ends when the server does not even answer a ping. One is sent whenever a request got no answer in time, and never
/// else: servers take pings that nothing calls for as an attack.
async fn doubts(shared: &Shared, pings: Option<PingPong>, patience: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        shared.doubted.notified().await;
        match tokio::time::timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
