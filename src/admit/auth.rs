//! An `[auth.NAME]` of a snapshot: whoever can say who shows a credential.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api_key::ApiKeys;
use super::basic::Basic;
use super::client_certificate::ClientCertificates;
use super::identity::Identity;
use super::introspection::Introspection;
use super::jwt::Jwt;
use crate::config::problem::Problem;
use crate::config::settings::{AuthKind, AuthSettings};
use crate::observe::metrics::Metrics;
use crate::upstream::tls::SystemRoots;

/// One `[auth.NAME]`, compiled.
pub struct Auth {
    pub name: Arc<str>,
    pub kind: Kind,
}

/// How it judges.
pub enum Kind {
    Jwt(Box<Jwt>),
    Introspection(Introspection),
    ApiKey(ApiKeys),
    ClientCertificate(ClientCertificates),
    Basic(Basic),
}

/// What came of judging a credential.
pub type Judged = Result<Arc<Identity>, Failure>;

/// Why a credential proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is not valid. In few words for the client, of characters that RFC 6750 section 3 allows in
    /// `error_description`; nothing of the credential in it.
    Invalid(&'static str),
    /// Whoever could judge it is away; why, for the log.
    Unavailable(String),
}

/// What every kind is built from.
pub struct Building<'a> {
    pub metrics: &'a Metrics,
    pub system_roots: &'a SystemRoots,
    pub problems: &'a mut Vec<Problem>,
}

impl Auth {
    /// Reads the files that `settings` names; contacts nothing. What `before` has learnt lives on where its settings
    /// are the same. `None`: the problems are told.
    pub fn build(
        name: &str,
        settings: &AuthSettings,
        before: Option<&Auth>,
        building: &mut Building<'_>,
    ) -> Option<Auth> {
        let name: Arc<str> = Arc::from(name);
        let before = before.map(|before| &before.kind);
        let span = &settings.span;
        let kind = match &settings.kind {
            AuthKind::Jwt(settings) => {
                let before = before.and_then(|kind| if let Kind::Jwt(before) = kind { Some(&**before) } else { None });
                Kind::Jwt(Box::new(Jwt::build(&name, settings, span, before, building)?))
            }
            AuthKind::Introspection(settings) => {
                let before =
                    before.and_then(|kind| if let Kind::Introspection(before) = kind { Some(before) } else { None });
                Kind::Introspection(Introspection::build(&name, settings, span, before, building)?)
            }
            AuthKind::ApiKey(settings) => Kind::ApiKey(ApiKeys::build(&name, settings, building)?),
            AuthKind::ClientCertificate(settings) => {
                Kind::ClientCertificate(ClientCertificates::build(&name, settings))
            }
            AuthKind::Basic(settings) => {
                let before = before.and_then(|kind| if let Kind::Basic(before) = kind { Some(before) } else { None });
                Kind::Basic(Basic::build(&name, settings, before, building)?)
            }
        };
        Some(Auth { name, kind })
    }
}

/// Every `[auth.NAME]` by its name.
pub type Auths = BTreeMap<Arc<str>, Arc<Auth>>;
