//! Stores that several gateways count in, and what a worker keeps of each.
//!
//! A worker has one connection to each store. A task of the worker makes it, makes it again when it is lost, and looks
//! after the places that requests hold. Requests only ever use a connection that works: once the store is known to be
//! away none of them waits for it, until the task has found that it counts again within its time-out.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak as RcWeak};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::redis::{Address, Connection, Failure, LEASE, Question, Reply, Tls, within};
use crate::admit::auth::Building;
use crate::config::problem::Problem;
use crate::config::settings::{StoreSettings, WhenUnreachable};
use crate::observe::metrics::{Asked, StoreMetrics, WorkerId};
use crate::upstream::tls;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Between attempts to reach a store that is away, doubling.
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(2);

/// Before anything is known of a store, requests wait for the first attempt to reach it, but no longer than this.
const FIRST: Duration = Duration::from_millis(500);

/// So many decisions in a row that take too long, and the store is held to be away.
const PATIENCE: u32 = 3;

/// How often places are renewed: twice before one would be lost.
const RENEWAL: Duration = Duration::from_secs(10);

/// One `[store.NAME]` of a snapshot.
pub struct Store {
    pub name: Arc<str>,
    settings: StoreSettings,
    address: Address,
    metrics: Arc<StoreMetrics>,
    /// How many workers have lost it.
    lost: AtomicUsize,
}

/// Every `[store.NAME]` by its name.
pub type AllStores = BTreeMap<Arc<str>, Arc<Store>>;

/// Compiles every store; contacts none. One whose settings are the same is the very one of before.
pub fn build(stores: &BTreeMap<String, StoreSettings>, before: &AllStores, building: &mut Building<'_>) -> AllStores {
    let built = stores.iter().filter_map(|(name, settings)| {
        let store = Store::build(name, settings, before.get(name.as_str()), building)?;
        Some((Arc::clone(&store.name), store))
    });
    built.collect()
}

impl Store {
    fn build(
        name: &str,
        settings: &StoreSettings,
        before: Option<&Arc<Store>>,
        building: &mut Building<'_>,
    ) -> Option<Arc<Store>> {
        let tls = if settings.url.tls { Some(read_tls(settings, building)?) } else { None };
        let same = |before: &&Arc<Store>| {
            let now = &before.settings;
            now.url == settings.url
                && now.timeout == settings.timeout
                && now.when_unreachable == settings.when_unreachable
                && before.address.ca() == tls.as_ref().and_then(|tls| tls.ca.as_deref())
        };
        if let Some(before) = before.filter(same) {
            return Some(Arc::clone(before));
        }
        Some(Arc::new(Store {
            name: Arc::from(name),
            settings: settings.clone(),
            address: Address::new(settings.url.clone(), tls),
            metrics: building.metrics.store(name),
            lost: AtomicUsize::new(0),
        }))
    }

    pub fn when_unreachable(&self) -> WhenUnreachable {
        self.settings.when_unreachable
    }

    fn is_lost(&self, why: &Failure) {
        self.metrics.lost(true);
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            let until_then = match self.settings.when_unreachable {
                WhenUnreachable::Local => "each gateway counts for itself",
                WhenUnreachable::Allow => "requests are not counted",
                WhenUnreachable::Deny => "requests are refused",
            };
            tracing::warn!(
                store = &*self.name,
                address = self.address.shown(),
                detail = self.without_secrets(why.to_string()),
                "the store of limits is away; until it is back {until_then}"
            );
        }
    }

    /// Servers repeat the name of a user who may not do something.
    fn without_secrets(&self, text: String) -> String {
        let secrets = [&self.settings.url.user, &self.settings.url.password];
        secrets.into_iter().flatten().fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }

    fn is_found(&self) {
        self.metrics.lost(false);
        if self.lost.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!(store = &*self.name, "the store of limits is back");
        }
    }
}

fn read_tls(settings: &StoreSettings, building: &mut Building<'_>) -> Option<Tls> {
    let roots = tls::trusting(settings.ca.as_ref(), &settings.span, building.system_roots, building.problems);
    let (_, config) = roots?;
    let ca = match &settings.ca {
        None => None,
        Some(ca) => match crate::config::read_bounded(&ca.value, crate::gateway::pem::LARGEST) {
            Ok(text) => Some(text),
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", ca.value.display());
                building.problems.push(Problem::error(&ca.span, message));
                return None;
            }
        },
    };
    Some(Tls { config, ca })
}

/// What a worker keeps of the stores that limits are counted in.
#[derive(Default)]
pub struct Stores {
    links: RefCell<Vec<Rc<Link>>>,
}

impl Stores {
    /// The worker's link to the store; made, and its task started, where there is none yet.
    pub fn link(&self, store: &Arc<Store>) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let known = links.iter().find(|link| std::ptr::eq(link.store.as_ptr(), Arc::as_ptr(store)));
        if let Some(link) = known {
            return Rc::clone(link);
        }
        // Stores that no snapshot has any more take their tasks with them.
        links.retain(|link| link.store.strong_count() > 0);
        let link = Rc::new(Link {
            store: Arc::downgrade(store),
            metrics: RefCell::new(Some(Arc::clone(&store.metrics))),
            state: RefCell::new(State::Unknown),
            settled: Notify::new(),
            wake: Notify::new(),
            slow: Cell::new(0),
            held: RefCell::default(),
            given_back: RefCell::default(),
        });
        links.push(Rc::clone(&link));
        tokio::task::spawn_local(look_after(Rc::downgrade(&link), Arc::downgrade(store)));
        link
    }
}

enum State {
    /// No attempt has ended yet.
    Unknown,
    Up(Connection),
    Away,
}

/// One worker's connection to one store.
pub struct Link {
    store: Weak<Store>,
    /// While there is a snapshot that has the store.
    metrics: RefCell<Option<Arc<StoreMetrics>>>,
    state: RefCell<State>,
    /// Told when it is no longer unknown whether the store can be reached.
    settled: Notify,
    /// Wakes the task.
    wake: Notify,
    /// Decisions in a row that took too long.
    slow: Cell<u32>,
    /// Places that requests hold, by their names: the keys, and since when.
    held: RefCell<HashMap<Rc<str>, (String, Instant)>>,
    /// Places to be given back.
    given_back: RefCell<Vec<(String, Rc<str>)>>,
}

/// A place that is held in the store; given back when this is dropped.
pub struct Lease {
    link: Rc<Link>,
    place: Rc<str>,
}

/// What the store said.
pub enum Answer {
    Decided(Reply, Option<Lease>),
    /// It could not be asked.
    Away,
}

impl Link {
    /// Asks for a decision.
    pub async fn ask(self: &Rc<Self>, store: &Store, worker: WorkerId, question: Question) -> Answer {
        let Some(mut connection) = self.connection().await else {
            store.metrics.asked(worker, Asked::Away);
            return Answer::Away;
        };
        // Held from before the question on: if the request is given up meanwhile, the place may have been given.
        let lease = (question.most > 0).then(|| self.hold(&question));
        let began = Instant::now();
        let reply = within(store.settings.timeout, connection.decide(&question)).await;
        store.metrics.took(worker, began.elapsed());
        match reply {
            Ok(reply @ Reply::Admitted { .. }) => {
                self.slow.set(0);
                store.metrics.asked(worker, Asked::Admitted);
                Answer::Decided(reply, lease)
            }
            Ok(reply @ (Reply::TooFast { .. } | Reply::TooManyAtOnce)) => {
                self.slow.set(0);
                store.metrics.asked(worker, Asked::Refused);
                if let Some(lease) = &lease {
                    // There is none to give back.
                    self.held.borrow_mut().remove(&lease.place);
                }
                Answer::Decided(reply, None)
            }
            Err(failure) => {
                let slow = matches!(failure, Failure::Timeout);
                store.metrics.asked(worker, if slow { Asked::Timeout } else { Asked::Failure });
                self.slow.set(self.slow.get().saturating_add(1));
                if (!slow || self.slow.get() >= PATIENCE) && self.still_uses(&connection) {
                    self.lose(store, &failure);
                }
                Answer::Away
            }
        }
    }

    async fn connection(&self) -> Option<Connection> {
        loop {
            let settled = self.settled.notified();
            match &*self.state.borrow() {
                State::Up(connection) => return Some(connection.clone()),
                State::Away => return None,
                State::Unknown => {}
            }
            timeout(FIRST, settled).await.ok()?;
        }
    }

    /// Whether it was not lost and made again meanwhile.
    fn still_uses(&self, connection: &Connection) -> bool {
        match &*self.state.borrow() {
            State::Up(current) => Rc::ptr_eq(current.closed(), connection.closed()),
            State::Unknown | State::Away => false,
        }
    }

    fn hold(self: &Rc<Self>, question: &Question) -> Lease {
        let place: Rc<str> = Rc::from(question.place.as_str());
        self.held.borrow_mut().insert(Rc::clone(&place), (question.key.clone(), Instant::now()));
        Lease { link: Rc::clone(self), place }
    }

    fn give_back(&self, key: String, place: Rc<str>) {
        self.given_back.borrow_mut().push((key, place));
        self.wake.notify_one();
    }

    /// From now on nobody asks, until the task has reached it again.
    fn lose(&self, store: &Store, why: &Failure) {
        let before = self.state.replace(State::Away);
        match before {
            State::Up(_) | State::Unknown => store.is_lost(why),
            State::Away => {}
        }
        self.settled.notify_waiters();
        self.wake.notify_one();
    }

    /// No snapshot has the store any more.
    fn retire(&self) {
        let metrics = self.metrics.take();
        match (self.state.replace(State::Unknown), metrics) {
            // Nobody is there any more to find it again.
            (State::Away, Some(metrics)) => metrics.lost(false),
            (State::Away | State::Up(_) | State::Unknown, _) => {}
        }
        self.settled.notify_waiters();
    }

    fn find(&self, store: &Store, connection: Connection) {
        let before = self.state.replace(State::Up(connection));
        match before {
            State::Away => store.is_found(),
            State::Up(_) | State::Unknown => {}
        }
        self.slow.set(0);
        self.settled.notify_waiters();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.retire();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = self.link.held.borrow_mut().remove(&self.place);
        if let Some((key, _)) = held {
            self.link.give_back(key, Rc::clone(&self.place));
        }
    }
}

/// Makes the connection and makes it again, gives places back and renews them, for as long as a snapshot has the store.
async fn look_after(link: RcWeak<Link>, store: Weak<Store>) {
    let mut pause = SOONEST;
    let mut found = Instant::now();
    loop {
        let Some(link) = link.upgrade() else { return };
        let Some(there) = store.upgrade() else { return link.retire() };
        let connection = match &*link.state.borrow() {
            State::Up(connection) => Some(connection.clone()),
            State::Away | State::Unknown => None,
        };
        let Some(connection) = connection else {
            match reach(&there).await {
                Ok(connection) => {
                    found = Instant::now();
                    link.find(&there, connection);
                }
                Err(failure) => {
                    link.lose(&there, &failure);
                    drop((link, there));
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LATEST);
                }
            }
            continue;
        };
        // Not held while nothing happens: whether a snapshot still has the store is how this ends.
        drop(there);
        match (tend(&link, connection).await, store.upgrade()) {
            (Err(failure), Some(store)) => link.lose(&store, &failure),
            (Ok(()), _) | (Err(_), None) => {}
        }
        if matches!(&*link.state.borrow(), State::Up(_)) {
            continue;
        }
        // One that is lost soon after it was found, again and again, is not tried ever more often.
        pause = if found.elapsed() >= RENEWAL { SOONEST } else { pause.saturating_mul(2).min(LATEST) };
        tokio::time::sleep(pause).await;
    }
}

/// A connection over which the store counts, and fast enough.
async fn reach(store: &Store) -> Result<Connection, Failure> {
    let mut connection = within(CONNECT, store.address.connect()).await?;
    within(store.settings.timeout, connection.probe()).await?;
    Ok(connection)
}

/// Waits for something to do, at most until places have to be renewed, and does it.
async fn tend(link: &Link, mut connection: Connection) -> Result<(), Failure> {
    let closed = Rc::clone(connection.closed());
    tokio::select! {
        () = closed.wait() => {}
        () = link.wake.notified() => {}
        () = tokio::time::sleep(RENEWAL) => {}
    }
    if !matches!(&*link.state.borrow(), State::Up(_)) {
        return Ok(());
    }
    if closed.is_closed() {
        return Err(Failure::Closed);
    }
    loop {
        let next = link.given_back.borrow_mut().pop();
        let Some((key, place)) = next else { break };
        within(CONNECT, connection.give_back(&key, &place)).await?;
    }
    let now = Instant::now();
    let old = |(_, (_, since)): &(&Rc<str>, &(String, Instant))| now.duration_since(*since) >= RENEWAL;
    let due: Vec<(Rc<str>, String)> =
        link.held.borrow().iter().filter(old).map(|(place, (key, _))| (Rc::clone(place), key.clone())).collect();
    for (place, key) in due {
        within(CONNECT, connection.renew(&key, &place)).await?;
        if let Some((_, since)) = link.held.borrow_mut().get_mut(&place) {
            *since = now;
        }
    }
    Ok(())
}

/// A name that no other place has, in this gateway or another.
pub fn place() -> String {
    static GATEWAY: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
    thread_local! {
        static COUNT: Cell<u64> = Cell::new(fastrand::u64(..));
    }
    let count = COUNT.get().wrapping_add(1);
    COUNT.set(count);
    format!("{:x}.{count:x}", *GATEWAY)
}

const _: () = assert!(RENEWAL.as_secs() * 2 < LEASE.as_secs());
