//! `[limit.NAME]` and `[store.NAME]`: how often, and where that is counted.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::{At, Authority, Rate, Secret, Span};

/// `[limit.NAME]`
#[derive(Clone, Debug)]
pub struct LimitSettings {
    pub span: Span,
    pub rules: LimitRules,
    pub key: LimitKey,
    /// Past it new keys share one overflow bucket.
    pub max_keys: NonZeroUsize,
    /// `None`: in this process.
    pub store: Option<At<String>>,
}

/// What is limited: at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitRules {
    Rate(RateLimit),
    Concurrent(NonZeroU32),
    Both(RateLimit, NonZeroU32),
}

impl LimitRules {
    pub fn rate(&self) -> Option<&RateLimit> {
        match self {
            LimitRules::Rate(rate) | LimitRules::Both(rate, _) => Some(rate),
            LimitRules::Concurrent(_) => None,
        }
    }

    /// How many may run at the same time.
    pub fn concurrent(&self) -> Option<NonZeroU32> {
        match self {
            LimitRules::Concurrent(most) | LimitRules::Both(_, most) => Some(*most),
            LimitRules::Rate(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub rate: Rate,
    /// How many may come at once.
    pub burst: NonZeroU32,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// IPv6 by /64.
    ClientIp,
    /// Qualified by the auth's name. Callers who are not known count by their address.
    Subject,
    /// The name of the API key, qualified likewise. Callers who came without one are not counted.
    ApiKey,
    Header(HeaderName),
    Route,
}

impl LimitKey {
    /// Whether it is known before the caller is.
    pub fn before_identity(&self) -> bool {
        match self {
            LimitKey::ClientIp | LimitKey::Header(_) | LimitKey::Route => true,
            LimitKey::Subject | LimitKey::ApiKey => false,
        }
    }
}

/// `[store.NAME]`: Redis or Valkey.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub span: Span,
    pub url: StoreUrl,
    /// For one decision.
    pub timeout: Duration,
    pub when_unreachable: WhenUnreachable,
    /// `None`: the system's authorities.
    pub ca: Option<At<PathBuf>>,
}

/// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    pub tls: bool,
    pub authority: Authority,
    pub database: i64,
    pub user: Option<Secret>,
    pub password: Option<Secret>,
}

/// What a decision is while the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// This process counts by itself.
    Local,
    Allow,
    Deny,
}
