//! What a worker has of one store that limits are counted in: a connection, and the places that it holds there.
//!
//! A task of the worker makes the connection, makes it again when it is lost, and looks after the places. Requests only
//! ever use a connection that works: once the store is known to be away none of them waits for it, until the task has
//! found that it counts again within its time-out. Everything goes over the one connection without waiting for what
//! went before, and in order: what was given back is on its way before whatever is asked next.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak as RcWeak};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::places::{Batch, Places, RENEWAL};
use super::redis::{Connection, Failure, Question, Reply, within};
use super::store::Store;
use crate::observe::metrics::{Asked, Standing, StoreMetrics, Turn, WorkerId};

/// How long anything that no request waits for may take.
const PATIENT: Duration = Duration::from_secs(2);

/// Between attempts to reach a store that is away, doubling.
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(2);

/// So many decisions in a row that take too long, and the store is held to be away.
const PATIENCE: u32 = 3;

/// How often it is looked whether places are due to be renewed.
const ROUND: Duration = Duration::from_secs(1);

/// So many batches may be on their way at the same time; decisions have to wait behind them.
const GIVEN_BACK_AT_ONCE: usize = 1024;
const RENEWED_AT_ONCE: usize = 16;

enum State {
    /// No attempt has ended yet.
    Unknown,
    Up(Connection),
    Away,
}

impl State {
    fn standing(&self) -> Standing {
        match self {
            State::Unknown => Standing::Unknown,
            State::Up(_) => Standing::Up,
            State::Away => Standing::Away,
        }
    }
}

/// One worker's connection to one store.
pub struct Link {
    store: Weak<Store>,
    /// While this is the worker's newest link to a store of the name, and a snapshot has the store.
    counted: RefCell<Option<Arc<StoreMetrics>>>,
    state: RefCell<State>,
    /// Told when the state is another one, and when the store has answered what it was given back.
    changed: Notify,
    /// Wakes the task.
    wake: Notify,
    /// Decisions in a row that took too long.
    slow: Cell<u32>,
    places: RefCell<Places>,
    /// Batches of what was given back that are on their way.
    returning: Cell<usize>,
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
    /// Begins to reach the store, unless another link of the worker, to one of the same name, says how that stands.
    pub fn start<'a>(store: &Arc<Store>, mut others: impl Iterator<Item = &'a Rc<Link>>) -> Rc<Link> {
        let state = others.find_map(|link| link.make_way(store)).unwrap_or(State::Unknown);
        let link = Rc::new(Link {
            store: Arc::downgrade(store),
            counted: RefCell::new(Some(Arc::clone(store.metrics()))),
            state: RefCell::new(state),
            changed: Notify::new(),
            wake: Notify::new(),
            slow: Cell::new(0),
            places: RefCell::default(),
            returning: Cell::new(0),
        });
        tokio::task::spawn_local(look_after(Rc::downgrade(&link), Arc::downgrade(store)));
        link
    }

    /// Whether a snapshot has the store.
    pub fn is_wanted(&self) -> bool {
        self.store.strong_count() > 0
    }

    pub fn leads_to(&self, store: &Arc<Store>) -> bool {
        std::ptr::eq(self.store.as_ptr(), Arc::as_ptr(store))
    }

    /// Asks for a decision; takes no longer than the store's time-out.
    pub async fn ask(self: &Rc<Self>, store: &Store, worker: WorkerId, question: Question) -> Answer {
        let began = Instant::now();
        let until = began + store.timeout();
        let Some(mut connection) = self.connection(until).await else {
            store.metrics().asked(worker, Asked::Away);
            return Answer::Away;
        };
        // Held from before the question on: if the request is given up meanwhile, the place may have been given.
        let lease = (question.most > 0).then(|| self.hold(&question));
        self.give_back_of(&question.key, &connection);
        let reply = timeout_at(until, connection.decide(&question)).await.unwrap_or(Err(Failure::Timeout));
        store.metrics().took(worker, began.elapsed());
        match reply {
            Ok(reply @ Reply::Admitted { .. }) => {
                self.slow.set(0);
                store.metrics().asked(worker, Asked::Admitted);
                Answer::Decided(reply, lease)
            }
            Ok(reply @ (Reply::TooFast { .. } | Reply::TooManyAtOnce)) => {
                self.slow.set(0);
                store.metrics().asked(worker, Asked::Refused);
                if let Some(lease) = &lease {
                    // There is none to give back.
                    self.places.borrow_mut().forget(&lease.place);
                }
                Answer::Decided(reply, None)
            }
            Err(failure) => {
                let slow = matches!(failure, Failure::Timeout);
                store.metrics().asked(worker, if slow { Asked::Timeout } else { Asked::Failure });
                self.slow.set(self.slow.get().saturating_add(1));
                if !slow || self.slow.get() >= PATIENCE {
                    self.lose_over(&connection, &failure);
                }
                Answer::Away
            }
        }
    }

    /// Before anything is known of the store, requests wait for the first attempt to reach it; until a few have waited
    /// in vain.
    async fn connection(&self, until: Instant) -> Option<Connection> {
        loop {
            let changed = self.changed.notified();
            match &*self.state.borrow() {
                State::Up(connection) => return Some(connection.clone()),
                State::Away => return None,
                State::Unknown if self.slow.get() >= PATIENCE => return None,
                State::Unknown => {}
            }
            if timeout_at(until, changed).await.is_err() {
                self.slow.set(self.slow.get().saturating_add(1));
                return None;
            }
        }
    }

    fn up(&self) -> Option<Connection> {
        match &*self.state.borrow() {
            State::Up(connection) => Some(connection.clone()),
            State::Unknown | State::Away => None,
        }
    }

    /// Whether it was not lost and made again meanwhile.
    fn still_uses(&self, connection: &Connection) -> bool {
        self.up().is_some_and(|current| Rc::ptr_eq(current.closed(), connection.closed()))
    }

    fn hold(self: &Rc<Self>, question: &Question) -> Lease {
        self.places.borrow_mut().hold(&question.key, &question.place, Instant::now());
        Lease { link: Rc::clone(self), place: Rc::clone(&question.place) }
    }

    /// Tells the store what was given back, that of `key` before all else: a decision about it is next, and nobody must
    /// be refused by what the worker itself has still to give back.
    fn give_back_of(self: &Rc<Self>, key: &str, connection: &Connection) {
        let batch = self.places.borrow_mut().to_give_back_of(key, Instant::now());
        batch.into_iter().for_each(|batch| self.send_back(connection, batch));
        self.give_back(connection);
    }

    /// Tells the store at once what was given back.
    fn give_back(self: &Rc<Self>, connection: &Connection) {
        let room = GIVEN_BACK_AT_ONCE.saturating_sub(self.returning.get());
        let batches = self.places.borrow_mut().to_give_back(room, Instant::now());
        batches.into_iter().for_each(|batch| self.send_back(connection, batch));
    }

    fn send_back(self: &Rc<Self>, connection: &Connection, batch: Batch) {
        self.returning.set(self.returning.get().saturating_add(1));
        begin(Rc::clone(self).give_back_batch(connection.clone(), batch));
    }

    async fn give_back_batch(self: Rc<Self>, mut connection: Connection, batch: Batch) {
        let told = within(PATIENT, connection.give_back(&batch.key, &batch.places)).await;
        self.returning.set(self.returning.get().saturating_sub(1));
        if let Err(failure) = told {
            self.places.borrow_mut().give_back_again(batch);
            self.lose_over(&connection, &failure);
        }
        // There may be more, for which there was no room.
        if self.places.borrow().owes() {
            self.wake.notify_one();
        }
        self.changed.notify_waiters();
    }

    /// Renews what is due, beside everything else.
    fn renew(self: &Rc<Self>, connection: &Connection, now: Instant) {
        let due = self.places.borrow_mut().to_renew(now);
        let turns = due.len().min(RENEWED_AT_ONCE);
        let due = Rc::new(RefCell::new(due));
        for _ in 0..turns {
            begin(Rc::clone(self).renew_in_turn(connection.clone(), Rc::clone(&due)));
        }
    }

    async fn renew_in_turn(self: Rc<Self>, mut connection: Connection, due: Rc<RefCell<Vec<Batch>>>) {
        loop {
            let next = due.borrow_mut().pop();
            let Some(mut batch) = next else { return };
            self.places.borrow().keep_held(&mut batch);
            if batch.places.is_empty() {
                continue;
            }
            // After a failure all are due as soon as there is a connection again.
            if let Err(failure) = within(PATIENT, connection.renew(&batch.key, &batch.places)).await {
                return self.lose_over(&connection, &failure);
            }
            self.places.borrow_mut().were_renewed(batch, Instant::now());
            if self.places.borrow().owes() {
                self.wake.notify_one();
            }
        }
    }

    /// Gives back whatever is held.
    pub fn give_all_back(&self) {
        self.places.borrow_mut().give_all_back(Instant::now());
        self.wake.notify_one();
    }

    /// Returns when the store has been told all that was given back, or cannot be told.
    pub async fn all_returned(&self) {
        loop {
            let changed = self.changed.notified();
            let none = self.returning.get() == 0 && !self.places.borrow().owes();
            if none || self.up().is_none() {
                return;
            }
            changed.await;
        }
    }

    /// What was asked over this connection failed: if it is still in use, the store is away.
    fn lose_over(&self, connection: &Connection, why: &Failure) {
        if self.still_uses(connection)
            && let Some(store) = self.store.upgrade()
        {
            self.lose(&store, why);
        }
    }

    /// From now on nobody asks, until the task has reached it again.
    fn lose(&self, store: &Store, why: &Failure) {
        if self.becomes(State::Away) == Some(Turn::Lost) {
            store.is_lost(why);
        }
        self.wake.notify_one();
    }

    fn find(&self, store: &Store, connection: Connection) {
        if self.becomes(State::Up(connection)) == Some(Turn::Found) {
            store.is_found();
        }
        self.slow.set(0);
    }

    fn becomes(&self, state: State) -> Option<Turn> {
        let now = state.standing();
        let before = self.state.replace(state).standing();
        self.changed.notify_waiters();
        self.counted.borrow().as_ref()?.stands(before, now)
    }

    /// What is known of the store for a newer one of its name, whose link is counted from now on instead of this one.
    fn make_way(&self, newer: &Store) -> Option<State> {
        let counted = self.counted.borrow().as_ref().is_some_and(|metrics| Arc::ptr_eq(metrics, newer.metrics()));
        if !counted {
            return None;
        }
        let metrics = self.counted.take()?;
        let same = self.store.upgrade().is_some_and(|store| store.is_where(newer));
        Some(match &*self.state.borrow() {
            State::Up(connection) if same => State::Up(connection.clone()),
            State::Up(_) => {
                metrics.stands(Standing::Up, Standing::Unknown);
                State::Unknown
            }
            // Whether it is there now the task finds out before long, and nobody waits for that.
            State::Away => State::Away,
            State::Unknown => State::Unknown,
        })
    }

    /// No snapshot has the store any more.
    fn retire(&self) {
        self.becomes(State::Unknown);
        self.counted.take();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.retire();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.link.places.borrow_mut().give_back(&self.place, Instant::now()) {
            self.link.wake.notify_one();
        }
    }
}

/// Starts `future` now, ahead of whatever its caller does next, and lets it go on by itself.
fn begin(future: impl Future<Output = ()> + 'static) {
    let mut future = Box::pin(future);
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        tokio::task::spawn_local(future);
    }
}

/// Makes the connection and makes it again, gives places back and renews them, for as long as a snapshot has the store.
async fn look_after(link: RcWeak<Link>, store: Weak<Store>) {
    let mut pause = SOONEST;
    let mut found = Instant::now();
    let mut round = found + ROUND;
    loop {
        let Some(link) = link.upgrade() else { return };
        let Some(there) = store.upgrade() else { return link.retire() };
        let Some(connection) = link.up() else {
            match reach(&there).await {
                Ok(connection) => {
                    found = Instant::now();
                    link.find(&there, connection.clone());
                    // One that was started again has forgotten who runs.
                    link.places.borrow_mut().all_are_due(found);
                    link.renew(&connection, found);
                }
                Err(failure) => {
                    link.lose(&there, &failure);
                    link.places.borrow_mut().forget_what_is_over(Instant::now());
                    drop((link, there));
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LATEST);
                }
            }
            continue;
        };
        // Not held while nothing happens: whether a snapshot still has the store is how this ends.
        drop(there);
        tend(&link, &connection, &mut round).await;
        if link.up().is_some() {
            continue;
        }
        // One that is lost soon after it was found, again and again, is not tried ever more often.
        pause = if found.elapsed() >= RENEWAL { SOONEST } else { pause.saturating_mul(2).min(LATEST) };
        sleep(pause).await;
    }
}

/// A connection over which the store counts, and fast enough.
async fn reach(store: &Store) -> Result<Connection, Failure> {
    let mut connection = within(PATIENT, store.address().connect()).await?;
    // One round trip, as a decision is.
    within(store.timeout(), connection.probe()).await?;
    Ok(connection)
}

/// Waits for something to do, at most until the next round, and does it.
async fn tend(link: &Rc<Link>, connection: &Connection, round: &mut Instant) {
    let closed = connection.closed();
    tokio::select! {
        () = closed.wait() => {}
        () = link.wake.notified() => {}
        () = sleep_until(*round) => {}
    }
    if closed.is_closed() {
        return link.lose_over(connection, &Failure::Closed);
    }
    if !link.still_uses(connection) {
        return;
    }
    link.give_back(connection);
    let now = Instant::now();
    if now >= *round {
        link.renew(connection, now);
        *round = now + ROUND;
    }
}
