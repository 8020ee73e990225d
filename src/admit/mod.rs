//! Who may come in: credentials to an identity, roles and scopes, limits.
//!
//! One policy a file. The order is fixed: what can be decided before the caller is known comes first, so that a flood
//! of bad credentials is cheap; then who is calling; then what that caller may do and how often. What runs after
//! admission gets a [`Caller`].

pub mod api_key;
pub mod auth;
pub mod authorization;
pub mod background;
pub mod basic;
pub mod challenge;
pub mod client_certificate;
pub mod credential;
pub mod demands;
pub mod digest;
pub mod gate;
pub mod generations;
pub mod identity;
pub mod introspection;
pub mod jwt;
pub mod limit;
pub mod offhand;
pub mod origin;
pub mod verified;

use std::sync::Arc;

use self::identity::Identity;

/// Who is calling, for everything that runs after admission.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The route is open to everybody: nobody was asked.
    Anonymous,
    Known(Arc<Identity>),
}

impl Caller {
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Caller::Anonymous => None,
            Caller::Known(identity) => Some(identity),
        }
    }
}

/// What the requests of one worker share of admission, without locks.
#[derive(Default)]
pub struct PerWorker {
    pub verified: verified::Verified,
    pub stores: limit::Stores,
}
