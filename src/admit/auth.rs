//! An `[auth.NAME]` of a snapshot: whoever can say who shows a credential.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::api_key::ApiKeys;
use super::authorization::Scheme;
use super::basic::Basic;
use super::challenge::Challenge;
use super::client_certificate::ClientCertificates;
use super::credential::{Credential, Place};
use super::digest::Digested;
use super::identity::{Identity, Method};
use super::introspection::{Introspection, Standing};
use super::jwt::Jwt;
use super::jwt::keys::Keys;
use super::verified::Seen;
use crate::config::problem::Problem;
use crate::config::settings::{ApiKeyPlace, AuthKind, AuthSettings, TokenFrom};
use crate::observe::metrics::Metrics;
use crate::request::peer::ClientCertificate;
use crate::upstream::tls::SystemRoots;
use crate::worker::Worker;

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
    /// Likewise, and neither time nor other keys will make it valid here: it is for somebody else.
    Foreign(&'static str),
    /// Whoever could judge it is away; why, for the log.
    Unavailable(String),
}

/// What can be said of a credential without asking anybody outside this process.
pub enum Offhand {
    Judged(Judged),
    /// It is whose it says it is if its signature is valid; there are no keys to say so, and why.
    Unproved {
        identity: Arc<Identity>,
        why: String,
    },
    /// Only whoever is asked there could say.
    Elsewhere(String),
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

/// An auth that takes a credential, with what it judges of it.
pub enum Asked<'a> {
    Jwt(&'a Jwt, &'a Digested<'a>),
    Introspection(&'a Introspection, &'a Digested<'a>),
    ApiKey(&'a ApiKeys, &'a [u8]),
    Certificate(&'a ClientCertificates, &'a ClientCertificate),
    Basic(&'a Basic, &'a [u8]),
}

/// What an auth says without waiting for anything.
pub enum Known {
    Now(Judged),
    /// It has to look into it.
    Later,
}

/// What everything else asks of a kind of auth. A further kind answers these, and those of [`Asked`].
impl Kind {
    /// How those whom it proves are known.
    pub fn method(&self) -> Method {
        match self {
            Kind::Jwt(_) => Method::Jwt,
            Kind::Introspection(_) => Method::Introspection,
            Kind::ApiKey(_) => Method::ApiKey,
            Kind::ClientCertificate(_) => Method::ClientCertificate,
            Kind::Basic(_) => Method::Basic,
        }
    }

    /// Where it looks for credentials.
    pub fn place(&self) -> Place<'_> {
        match self {
            Kind::Jwt(jwt) => match jwt.token_from() {
                TokenFrom::Header => Place::Authorization(Scheme::Bearer),
                TokenFrom::Cookie(name) => Place::Cookie(name),
            },
            Kind::Introspection(_) => Place::Authorization(Scheme::Bearer),
            Kind::ApiKey(keys) => Place::Key(keys.place()),
            Kind::ClientCertificate(_) => Place::Connection,
            Kind::Basic(_) => Place::Authorization(Scheme::Basic),
        }
    }

    /// How a client that is refused is told of it; `realm` is the auth's name.
    pub fn challenge(&self, realm: &str) -> Challenge {
        match self {
            Kind::Jwt(_) | Kind::Introspection(_) => Challenge::Bearer,
            Kind::ApiKey(keys) => Challenge::Other(match keys.place() {
                ApiKeyPlace::Header(name) => format!("ApiKey realm=\"{realm}\", header=\"{name}\""),
                ApiKeyPlace::Query(_) => format!("ApiKey realm=\"{realm}\""),
            }),
            Kind::ClientCertificate(_) => Challenge::Other(format!("ClientCertificate realm=\"{realm}\"")),
            Kind::Basic(_) => Challenge::Other(format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")),
        }
    }

    /// What it judges of this credential; `None`: it does not take it.
    pub fn asked<'a>(&'a self, credential: &'a Credential<'_, 'a>) -> Option<Asked<'a>> {
        match self {
            Kind::Jwt(jwt) => {
                let token = match jwt.token_from() {
                    TokenFrom::Header => credential.bearer(),
                    TokenFrom::Cookie(name) => credential.cookie(name),
                };
                token.map(|token| Asked::Jwt(jwt, token))
            }
            Kind::Introspection(introspection) => {
                credential.bearer().map(|token| Asked::Introspection(introspection, token))
            }
            Kind::ApiKey(keys) => credential.key(keys.place()).map(|key| Asked::ApiKey(keys, key)),
            Kind::ClientCertificate(certificates) => {
                credential.certificate().map(|certificate| Asked::Certificate(certificates, certificate))
            }
            Kind::Basic(basic) => credential.basic().map(|text| Asked::Basic(basic, text)),
        }
    }

    /// The keys that tokens are verified with.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        match self {
            Kind::Jwt(jwt) => Some(jwt.keys()),
            Kind::Introspection(_) | Kind::ApiKey(_) | Kind::ClientCertificate(_) | Kind::Basic(_) => None,
        }
    }

    /// How the server fares that is asked about tokens.
    pub fn standing(&self) -> Option<&Standing> {
        match self {
            Kind::Introspection(introspection) => Some(introspection.standing()),
            Kind::Jwt(_) | Kind::ApiKey(_) | Kind::ClientCertificate(_) | Kind::Basic(_) => None,
        }
    }

    /// What is to be run on the control plane for it, once, and until it ends by itself. Keys are kept beside.
    pub fn task(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        match self {
            Kind::Introspection(introspection) => introspection.task(),
            Kind::Jwt(_) | Kind::ApiKey(_) | Kind::ClientCertificate(_) | Kind::Basic(_) => None,
        }
    }
}

impl Asked<'_> {
    /// What was found of this not long ago, or is found out at once.
    pub fn known(&self, worker: &Worker) -> Known {
        let seen = |known: Option<Seen>| match known {
            Some(Seen::Proved(identity)) => Known::Now(Ok(identity)),
            Some(Seen::Foreign(why)) => Known::Now(Err(Failure::Foreign(why))),
            None => Known::Later,
        };
        match self {
            Asked::Jwt(jwt, token) => seen(jwt.known(worker, token)),
            Asked::Introspection(introspection, token) => seen(introspection.known(worker, token)),
            Asked::ApiKey(keys, key) => Known::Now(keys.judge(key)),
            Asked::Certificate(certificates, certificate) => Known::Now(certificates.judge(certificate)),
            Asked::Basic(basic, text) => seen(basic.known(worker, text)),
        }
    }

    /// An auth that is asked after this one took what is foreign to this one, which need not look into it each time.
    pub fn taken_elsewhere(&self, worker: &Worker, why: &'static str) {
        match self {
            Asked::Jwt(jwt, token) => jwt.taken_elsewhere(worker, token, why),
            Asked::Basic(basic, text) => basic.taken_elsewhere(worker, text, why),
            Asked::Introspection(..) | Asked::ApiKey(..) | Asked::Certificate(..) => {}
        }
    }

    /// Judges it without asking anybody outside this process, and remembers nothing of that.
    pub async fn offhand(&self) -> Offhand {
        match self {
            Asked::Jwt(jwt, token) => jwt.judge_now(token.text(), SystemTime::now()),
            Asked::Introspection(introspection, token) => introspection.judge_offhand(token),
            Asked::ApiKey(keys, key) => Offhand::Judged(keys.judge(key)),
            Asked::Certificate(certificates, certificate) => Offhand::Judged(certificates.judge(certificate)),
            Asked::Basic(basic, text) => Offhand::Judged(basic.judge_for_nobody(text).await),
        }
    }

    /// # Errors
    /// Why it proves nothing.
    pub async fn judge(&self, worker: &Worker) -> Judged {
        match self {
            Asked::Jwt(jwt, token) => jwt.judge(worker, token).await,
            Asked::Introspection(introspection, token) => introspection.judge(worker, token).await,
            Asked::ApiKey(keys, key) => keys.judge(key),
            Asked::Certificate(certificates, certificate) => certificates.judge(certificate),
            Asked::Basic(basic, text) => basic.judge(worker, text).await,
        }
    }
}

/// Every `[auth.NAME]` by its name.
pub type Auths = BTreeMap<Arc<str>, Arc<Auth>>;
