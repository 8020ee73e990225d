//! How often, and how many at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Caller;
use super::auth::Building;
use crate::config::settings::{At, LimitSettings, StoreSettings};
use crate::request::rejection::Rejection;
use crate::worker::Worker;

/// What a worker keeps of the stores that limits are counted in.
#[derive(Default)]
pub struct Stores {}

/// One `[limit.NAME]` of a snapshot.
pub struct Limit {}

/// Every `[limit.NAME]` by its name.
pub type AllLimits = BTreeMap<Arc<str>, Arc<Limit>>;

/// Compiles every limit. What `before` has counted lives on where the settings are the same.
pub fn build(
    _limits: &BTreeMap<String, LimitSettings>,
    _stores: &BTreeMap<String, StoreSettings>,
    _before: Option<&AllLimits>,
    _building: &mut Building<'_>,
) -> AllLimits {
    AllLimits::new()
}

/// The limits of one route.
pub struct Limits {}

/// What of a request is counted by.
pub struct Counting<'a> {
    pub worker: &'a Worker,
    pub client: IpAddr,
    pub headers: &'a HeaderMap,
}

/// What a request holds until its answer has ended, and what its answer tells of the limits.
#[derive(Default)]
pub struct Held {}

impl Held {
    /// `RateLimit` and `RateLimit-Policy`.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        std::iter::empty()
    }
}

impl Limits {
    pub fn build(_route: &str, _names: &[At<String>], _all: &AllLimits) -> Limits {
        Limits {}
    }

    /// Those that need not know who is calling.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub async fn before_identity(&self, _counting: &Counting<'_>, _held: &mut Held) -> Result<(), Rejection> {
        Ok(())
    }

    /// Those by caller.
    ///
    /// # Errors
    /// The first limit that is passed.
    pub async fn by_caller(
        &self,
        _counting: &Counting<'_>,
        _caller: &Caller,
        _held: &mut Held,
    ) -> Result<(), Rejection> {
        Ok(())
    }
}
