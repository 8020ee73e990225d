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
pub mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use self::counts::{Counts, Got, Permit, SECOND, Verdict};
use self::fields::{RATE_LIMIT, RATE_LIMIT_POLICY};
use self::gcra::seconds;
use self::key::CountedBy;
use super::Caller;
use super::auth::Building;
use crate::clock;
use crate::config::settings::{At, LimitSettings, StoreSettings};
use crate::observe::metrics::{LimitReading, Metrics, RuleMetrics};
use crate::request::rejection::{Cause, Rejection};
use crate::worker::Worker;

/// What a worker keeps of the stores that limits are counted in.
#[derive(Default)]
pub struct Stores {}

/// One `[limit.NAME]` of a snapshot.
pub struct Limit {
    name: Arc<str>,
    settings: LimitSettings,
    counts: Arc<Counts>,
    /// Its items of `RateLimit-Policy`.
    policy: String,
}

/// Every `[limit.NAME]` by its name.
pub type AllLimits = BTreeMap<Arc<str>, Arc<Limit>>;

/// Compiles every limit. What `before` has counted lives on where the settings are the same.
pub fn build(
    limits: &BTreeMap<String, LimitSettings>,
    _stores: &BTreeMap<String, StoreSettings>,
    before: Option<&AllLimits>,
    building: &mut Building<'_>,
) -> AllLimits {
    let built = limits.iter().map(|(name, settings)| {
        let before = before.and_then(|before| before.get(name.as_str()));
        let limit = Limit::build(name, settings, before.map(Arc::as_ref), building.metrics);
        (Arc::clone(&limit.name), Arc::new(limit))
    });
    built.collect()
}

impl Limit {
    fn build(name: &str, settings: &LimitSettings, before: Option<&Limit>, metrics: &Metrics) -> Limit {
        let before = before.map(|before| &before.counts).filter(|counts| counts.fit(settings));
        let counts = before.map_or_else(|| Arc::new(Counts::new(settings)), Arc::clone);
        let reading: Arc<dyn LimitReading> = counts.clone();
        metrics.read_limit_from(name, &reading);
        let policy = fields::policy(name, &settings.rules);
        Limit { name: Arc::from(name), settings: settings.clone(), counts, policy }
    }
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

/// What of a request is counted by.
pub struct Counting<'a> {
    pub worker: &'a Worker,
    pub client: IpAddr,
    pub headers: &'a HeaderMap,
}

/// What a request holds until its answer has ended, and what its answer tells of the limits.
#[derive(Default)]
pub struct Held {
    policy: Option<HeaderValue>,
    /// The value of `RateLimit`.
    room: Vec<u8>,
    permits: Vec<Permit>,
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
        let limits: Vec<&Arc<Limit>> = names.iter().filter_map(|name| all.get(name.value.as_str())).collect();
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

    /// Those that need not know who is calling.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub async fn before_identity(&self, counting: &Counting<'_>, held: &mut Held) -> Result<(), Rejection> {
        held.policy.clone_from(&self.policy);
        for applied in &self.before_identity {
            self.ask(applied, counting, &Caller::Anonymous, held).await?;
        }
        Ok(())
    }

    /// Those by caller.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub async fn by_caller(&self, counting: &Counting<'_>, caller: &Caller, held: &mut Held) -> Result<(), Rejection> {
        for applied in &self.by_caller {
            self.ask(applied, counting, caller, held).await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        applied: &Applied,
        counting: &Counting<'_>,
        caller: &Caller,
        held: &mut Held,
    ) -> Result<(), Rejection> {
        let limit = &*applied.limit;
        let by = CountedBy::new(&limit.settings.key, counting.client, counting.headers, &self.route, caller);
        let Some(by) = by else { return Ok(()) };
        let got = limit.counts.count(by, clock::recent());
        held.tell(&limit.name, &got);
        let (cause, wait) = match got.verdict {
            Verdict::Admitted(permit) => {
                held.permits.extend(permit);
                return Ok(());
            }
            Verdict::TooFast(wait) => (Cause::RateLimited, seconds(wait, SECOND)),
            // When one of the others ends nobody knows.
            Verdict::TooManyAtOnce => (Cause::TooManyAtOnce, 1),
        };
        applied.denied.denied(counting.worker.id);
        Err(refusal(cause, &limit.name, wait))
    }
}

fn refusal(cause: Cause, limit: &str, wait: u64) -> Rejection {
    Rejection::from(cause).with_fields([(RETRY_AFTER, HeaderValue::from(wait))]).with_detail(format!("limit `{limit}`"))
}
