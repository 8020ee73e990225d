//! How often, and how many at once.
//!
//! A limit counts in this process ([`counts`]) or in a store that several gateways share. All limits of a route hold;
//! those that need not know the caller are asked first, in the order in which the route lists them, then the others.
//! A request that a limit refuses takes nothing from that limit, nor from those behind it; those before it have
//! counted it. What a request holds of limits on how many run at once it gives back when its record ends: after its
//! answer's last byte, at the end of its tunnel, or when the client has left.

pub mod concurrent;
pub mod counts;
pub mod fields;
pub mod gcra;
pub mod key;
pub mod link;
pub mod links;
pub mod places;
pub mod redis;
pub mod store;
pub mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

pub use self::links::Stores;

use self::counts::{Counts, Got, SECOND, Verdict};
use self::fields::{RATE_LIMIT, RATE_LIMIT_POLICY};
use self::gcra::{Gcra, Room, seconds};
use self::key::CountedBy;
use self::link::{Answer, Lease};
use self::redis::{Question, Reply};
use self::store::{AllStores, Store};
use super::Caller;
use super::auth::Building;
use crate::clock;
use crate::config::settings::{At, LimitSettings, StoreSettings, WhenUnreachable};
use crate::headers::Headers;
use crate::observe::metrics::{LimitReading, Metrics, RuleMetrics};
use crate::request::rejection::{Cause, Rejection};
use crate::worker::Worker;

/// One `[limit.NAME]` of a snapshot.
pub struct Limit {
    name: Arc<str>,
    settings: LimitSettings,
    counts: Arc<Counts>,
    /// Where it is counted with other gateways, and the arithmetic there.
    shared: Option<Shared>,
    /// Its items of `RateLimit-Policy`.
    policy: String,
}

/// A limit in a store.
struct Shared {
    store: Arc<Store>,
    gcra: Option<Gcra>,
    most: u64,
}

/// Every `[limit.NAME]` and `[store.NAME]` by its name.
#[derive(Default)]
pub struct AllLimits {
    limits: BTreeMap<Arc<str>, Arc<Limit>>,
    stores: AllStores,
}

/// Compiles every limit. What `before` has counted lives on where the settings are the same.
pub fn build(
    limits: &BTreeMap<String, LimitSettings>,
    stores: &BTreeMap<String, StoreSettings>,
    before: Option<&AllLimits>,
    building: &mut Building<'_>,
) -> AllLimits {
    let none = AllLimits::default();
    let before = before.unwrap_or(&none);
    let stores = store::build(stores, &before.stores, building);
    let built = limits.iter().map(|(name, settings)| {
        let before = before.limits.get(name.as_str()).map(Arc::as_ref);
        let limit = Limit::build(name, settings, &stores, before, building.metrics);
        (Arc::clone(&limit.name), Arc::new(limit))
    });
    AllLimits { limits: built.collect(), stores }
}

impl AllLimits {
    /// Lets a worker begin to reach the stores, so that they are there when requests come.
    pub fn prepare(&self, worker: &Stores) {
        for store in self.stores.values() {
            worker.link(store);
        }
    }
}

impl Limit {
    fn build(
        name: &str,
        settings: &LimitSettings,
        stores: &AllStores,
        before: Option<&Limit>,
        metrics: &Metrics,
    ) -> Limit {
        let before = before.map(|before| &before.counts).filter(|counts| counts.fit(settings));
        let counts = before.map_or_else(|| Arc::new(Counts::new(settings)), Arc::clone);
        let reading: Arc<dyn LimitReading> = counts.clone();
        metrics.read_limit_from(name, &reading);
        // A store that does not exist, or could not be built, was told.
        let store = settings.store.as_ref().and_then(|store| stores.get(store.value.as_str()));
        let shared = store.map(|store| Shared {
            store: Arc::clone(store),
            gcra: redis::gcra(&settings.rules),
            most: settings.rules.concurrent().map_or(0, |most| u64::from(most.get())),
        });
        let policy = fields::policy(name, &settings.rules);
        Limit { name: Arc::from(name), settings: settings.clone(), counts, shared, policy }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn settings(&self) -> &LimitSettings {
        &self.settings
    }

    /// # Errors
    /// Why a request with this verdict may not go on.
    pub fn allows(&self, verdict: Verdict) -> Result<(), Rejection> {
        match verdict {
            Verdict::Admitted => Ok(()),
            Verdict::TooFast(wait) => Err(refusal(Cause::RateLimited, &self.name, seconds(wait, SECOND))),
            // When one of the others ends nobody knows.
            Verdict::TooManyAtOnce => Err(refusal(Cause::TooManyAtOnce, &self.name, 1)),
        }
    }

    async fn ask(&self, by: CountedBy<'_>, worker: &Worker) -> Result<Got, Uncounted> {
        let Some(shared) = &self.shared else { return Ok(self.count(by)) };
        match shared.ask(&self.name, by, worker).await {
            Some(got) => Ok(got),
            None => match shared.store.when_unreachable() {
                WhenUnreachable::Local => Ok(self.count(by)),
                WhenUnreachable::Allow => Err(Uncounted::Allowed),
                WhenUnreachable::Deny => Err(Uncounted::Denied),
            },
        }
    }

    /// Counts in this process. Whom an old reading of the clock refuses is counted once more by the clock itself: a worker
    /// that stood still knows an old time, and others may have counted by newer ones meanwhile.
    fn count(&self, by: CountedBy<'_>) -> Got {
        let now = clock::recent();
        let got = self.counts.count(by, now);
        match got.verdict {
            Verdict::TooFast(wait) => {
                let fresh = clock::fresh();
                let is_over = fresh.saturating_duration_since(now).as_nanos() >= u128::from(wait);
                if is_over { self.counts.count(by, fresh) } else { got }
            }
            Verdict::Admitted | Verdict::TooManyAtOnce => got,
        }
    }
}

/// What becomes of a request that could not be counted.
enum Uncounted {
    Allowed,
    Denied,
}

impl Shared {
    /// `None`: the store cannot be asked.
    async fn ask(&self, limit: &str, by: CountedBy<'_>, worker: &Worker) -> Option<Got> {
        let link = worker.admission.stores.link(&self.store);
        let place = if self.most > 0 { places::place() } else { Rc::from("") };
        let question = Question { gcra: self.gcra, most: self.most, key: redis::key(limit, &by).into(), place };
        let Answer::Decided(reply, lease) = link.ask(&self.store, worker.id, question).await else { return None };
        let at_once = |held: u64| (self.most > 0).then(|| self.most.saturating_sub(held));
        let room = |ahead: u64| self.gcra.map(|gcra| here(gcra.room(ahead, 0)));
        let permit = lease.map(Permit::Leased);
        Some(match reply {
            Reply::Admitted { ahead, held } => {
                Got { rate: room(ahead), at_once: at_once(held), verdict: Verdict::Admitted, permit }
            }
            Reply::TooFast { ahead, held } => {
                let room = room(ahead);
                let verdict = Verdict::TooFast(room.map_or(1, |room| room.until));
                Got { rate: room, at_once: at_once(held), verdict, permit }
            }
            Reply::TooManyAtOnce => Got { rate: None, at_once: Some(0), verdict: Verdict::TooManyAtOnce, permit },
        })
    }
}

/// A room in ticks of the store, in ticks of this process.
fn here(room: Room) -> Room {
    let tick = SECOND.checked_div(redis::SECOND).unwrap_or(1);
    Room { until: room.until.saturating_mul(tick), ..room }
}

/// The limits of one route.
pub struct Limits {
    route: Arc<str>,
    before_identity: Box<[Applied]>,
    by_caller: Box<[Applied]>,
    /// The value of `RateLimit-Policy`; `None` without limits.
    policy: Option<HeaderValue>,
}

/// A limit as one route has it.
struct Applied {
    limit: Arc<Limit>,
    denied: Arc<RuleMetrics>,
}

/// A store is asked.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<(), Rejection>> + 'a>>;

impl Applied {
    /// # Errors
    /// Why a request that was counted like this, or was not, may not go on.
    fn heard(&self, got: Result<Got, Uncounted>, counting: &Counting<'_>, held: &mut Held) -> Result<(), Rejection> {
        let limit = &*self.limit;
        let got = match got {
            Ok(got) => got,
            Err(Uncounted::Allowed) => return Ok(()),
            Err(Uncounted::Denied) => {
                self.denied.denied(counting.worker.id);
                return Err(refusal(Cause::LimitStoreUnavailable, &limit.name, 1));
            }
        };
        held.tell(&limit.name, &got);
        if let Err(rejection) = limit.allows(got.verdict) {
            self.denied.denied(counting.worker.id);
            return Err(rejection);
        }
        held.permits.extend(got.permit);
        Ok(())
    }
}

/// What of a request is counted by.
pub struct Counting<'a> {
    pub worker: &'a Worker,
    pub client: IpAddr,
    pub headers: &'a Headers,
}

/// What a request holds until its answer has ended, and what its answer tells of the limits.
#[derive(Default)]
pub struct Held {
    policy: Option<HeaderValue>,
    /// The value of `RateLimit`.
    room: Vec<u8>,
    permits: Vec<Permit>,
}

/// A place among those that run at the same time.
pub enum Permit {
    Here(counts::Place),
    Leased(Lease),
}

impl Held {
    /// `RateLimit` and `RateLimit-Policy`.
    pub fn fields(&mut self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let policy = self.policy.take().map(|policy| (RATE_LIMIT_POLICY, policy));
        let room = if self.room.is_empty() { None } else { HeaderValue::from_bytes(&self.room).ok() };
        policy.into_iter().chain(room.map(|room| (RATE_LIMIT, room)))
    }

    fn tell(&mut self, name: &str, got: &Got) {
        if let Some(room) = got.rate {
            fields::write_rate(&mut self.room, name, room, SECOND);
        }
        if let Some(left) = got.at_once {
            fields::write_concurrent(&mut self.room, name, left);
        }
    }
}

impl Limits {
    /// Limits that do not exist were refused when the configuration was read.
    pub fn build(route: &str, names: &[At<String>], all: &AllLimits, metrics: &Metrics) -> Limits {
        let limits: Vec<&Arc<Limit>> = names.iter().filter_map(|name| all.limits.get(name.value.as_str())).collect();
        let applied = |early: bool| {
            let limits = limits.iter().filter(|limit| limit.settings.key.before_identity() == early);
            let applied = limits.map(|limit| Applied {
                limit: Arc::clone(limit),
                denied: metrics.rule(route, &format!("limit.{}", limit.name)),
            });
            applied.collect()
        };
        Limits {
            route: Arc::from(route),
            before_identity: applied(true),
            by_caller: applied(false),
            policy: fields::joined(limits.iter().map(|limit| limit.policy.as_str())),
        }
    }

    /// Asks those that need not know who is calling. What it yields has to be waited for: a store is to be asked.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub fn before_identity<'a>(
        &'a self,
        counting: &'a Counting<'a>,
        held: &'a mut Held,
    ) -> Result<Option<Asked<'a>>, Rejection> {
        held.policy.clone_from(&self.policy);
        self.ask(&self.before_identity, counting, &Caller::Anonymous, held)
    }

    /// Those by caller, in the same way.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub fn by_caller<'a>(
        &'a self,
        counting: &'a Counting<'a>,
        caller: &'a Caller,
        held: &'a mut Held,
    ) -> Result<Option<Asked<'a>>, Rejection> {
        self.ask(&self.by_caller, counting, caller, held)
    }

    fn ask<'a>(
        &'a self,
        limits: &'a [Applied],
        counting: &'a Counting<'a>,
        caller: &'a Caller,
        held: &'a mut Held,
    ) -> Result<Option<Asked<'a>>, Rejection> {
        if limits.iter().any(|applied| applied.limit.shared.is_some()) {
            return Ok(Some(Box::pin(self.ask_in_turn(limits, counting, caller, held))));
        }
        for applied in limits {
            if let Some(by) = self.counted_by(applied, counting, caller) {
                applied.heard(Ok(applied.limit.count(by)), counting, held)?;
            }
        }
        Ok(None)
    }

    async fn ask_in_turn(
        &self,
        limits: &[Applied],
        counting: &Counting<'_>,
        caller: &Caller,
        held: &mut Held,
    ) -> Result<(), Rejection> {
        for applied in limits {
            if let Some(by) = self.counted_by(applied, counting, caller) {
                applied.heard(applied.limit.ask(by, counting.worker).await, counting, held)?;
            }
        }
        Ok(())
    }

    fn counted_by<'a>(
        &'a self,
        applied: &'a Applied,
        counting: &'a Counting<'a>,
        caller: &'a Caller,
    ) -> Option<CountedBy<'a>> {
        CountedBy::new(&applied.limit.settings.key, counting.client, counting.headers, &self.route, caller)
    }

    /// What each limit would say to one more such request: those that need not know who is calling, or those by caller.
    /// Nothing is counted, and no store is asked.
    pub fn peek<'a>(
        &'a self,
        by_caller: bool,
        client: IpAddr,
        headers: &'a Headers,
        caller: &'a Caller,
    ) -> impl Iterator<Item = Peeked<'a>> {
        let applied = if by_caller { &self.by_caller } else { &self.before_identity };
        applied.iter().map(move |applied| {
            let limit = &*applied.limit;
            let by = CountedBy::new(&limit.settings.key, client, headers, &self.route, caller);
            let count = match (by, &limit.shared) {
                (None, _) => Count::None,
                (Some(_), Some(shared)) => Count::InStore(&shared.store.name),
                (Some(by), None) => Count::Here(limit.counts.peek(by, Instant::now())),
            };
            Peeked { limit, count }
        })
    }
}

/// A limit, and what it would say.
pub struct Peeked<'a> {
    pub limit: &'a Limit,
    pub count: Count<'a>,
}

/// What is known of a count without asking for it.
pub enum Count<'a> {
    /// Such requests are not counted.
    None,
    /// The store of this name knows.
    InStore(&'a str),
    Here(Got),
}

fn refusal(cause: Cause, limit: &str, wait: u64) -> Rejection {
    Rejection::from(cause).with_fields([(RETRY_AFTER, HeaderValue::from(wait))]).with_detail(format!("limit `{limit}`"))
}
