//! The gate of one route: who is calling, and may that caller come in.
//!
//! An invalid credential never falls through to another kind, and where a route takes JWTs, what looks like one is
//! never asked about elsewhere.

use std::sync::Arc;

use http::header::{ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};

use super::Caller;
use super::auth::{Auth, Auths, Failure, Judged, Kind};
use super::authorization::Scheme;
use super::challenge::{Challenges, Error};
use super::credential::{Ambiguous, Credential, Places, Withheld};
use super::identity::Identity;
use crate::config::settings::{Access, TokenFrom};
use crate::observe::metrics::{Metrics, RuleMetrics};
use crate::request::cors::Cors;
use crate::request::peer::Peer;
use crate::request::rejection::{Cause, Rejection};
use crate::request::target::Host;
use crate::worker::Worker;

/// Whom a route lets in, compiled.
pub enum Gate {
    Open,
    Guarded(Box<Guard>),
}

/// What a guarded route demands.
pub struct Guard {
    /// At least one.
    auths: Vec<Arc<Auth>>,
    places: Places,
    challenges: Challenges,
    roles: Vec<String>,
    scopes: Vec<String>,
    /// Where JWTs are listed, what is shaped like one is never introspected.
    takes_jwt: bool,
    denied: Denied,
}

/// How often each rule of the route kept somebody out.
struct Denied {
    auth: Arc<RuleMetrics>,
    origin: Arc<RuleMetrics>,
    roles: Arc<RuleMetrics>,
    scopes: Arc<RuleMetrics>,
}

/// What of a request the gate looks at.
pub struct Asking<'a> {
    pub worker: &'a Worker,
    pub peer: &'a Peer,
    pub method: &'a Method,
    pub host: Option<&'a Host>,
    pub headers: &'a HeaderMap,
    pub query: Option<&'a [u8]>,
    /// Whether it asks for an upgrade, as a WebSocket does.
    pub upgrade: bool,
    pub cors: Option<&'a Cors>,
    /// The route's `forward_credential`.
    pub forward_credential: Option<bool>,
}

/// A request that was let in.
pub struct Admitted {
    pub caller: Caller,
    pub withheld: Withheld,
}

/// A request that was not.
pub struct Refused {
    pub rejection: Rejection,
    /// Who asked, if that is known and was not enough.
    pub caller: Option<Arc<Identity>>,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Refused {
        Refused { rejection, caller: None }
    }
}

impl Gate {
    /// Auths that could not be built have made problems of their own; without any the gate is `None`, never open.
    pub fn build(route: &str, access: &Access, auths: &Auths, metrics: &Metrics) -> Option<Gate> {
        let demands = match access {
            Access::Public => return Some(Gate::Open),
            Access::Demands(demands) => demands,
        };
        let auths: Vec<Arc<Auth>> =
            demands.auths.iter().map(|name| auths.get(name.value.as_str()).cloned()).collect::<Option<_>>()?;
        let each = || auths.iter().map(Arc::as_ref);
        let denied = Denied {
            auth: metrics.rule(route, "auth"),
            origin: metrics.rule(route, "origin"),
            roles: metrics.rule(route, "roles"),
            scopes: metrics.rule(route, "scopes"),
        };
        let (places, challenges) = (Places::of(each()), Challenges::of(each()));
        let takes_jwt = each().any(|auth| matches!(auth.kind, Kind::Jwt(_)));
        let (roles, scopes) = (demands.roles.clone(), demands.scopes.clone());
        let guard = Guard { auths, places, challenges, roles, scopes, takes_jwt, denied };
        Some(Gate::Guarded(Box::new(guard)))
    }

    /// The parameters of a query that hold credentials here.
    pub fn query_keys(&self) -> impl Iterator<Item = &str> + Clone {
        let guard = match self {
            Gate::Open => None,
            Gate::Guarded(guard) => Some(guard),
        };
        guard.into_iter().flat_map(|guard| guard.places.query_keys())
    }

    /// A 403 for a caller who was let in and lacks something that is demanded further on.
    pub fn forbidden(&self, identity: &Identity, cause: Cause, description: &str, scopes: &[String]) -> Rejection {
        match self {
            Gate::Open => cause.into(),
            Gate::Guarded(guard) => guard.forbidden(identity, cause, description, scopes),
        }
    }

    /// # Errors
    /// Why the request may not come in.
    pub async fn admit(&self, asking: &Asking<'_>) -> Result<Admitted, Refused> {
        match self {
            Gate::Open => Ok(Admitted { caller: Caller::Anonymous, withheld: Withheld::Nothing }),
            Gate::Guarded(guard) => guard.admit(asking).await,
        }
    }
}

impl Guard {
    async fn admit(&self, asking: &Asking<'_>) -> Result<Admitted, Refused> {
        let certificate = asking.peer.certificate.as_deref();
        let found = self.places.find(asking.headers, asking.query, certificate);
        let credential = match found {
            Ok(Some(credential)) => credential,
            Ok(None) => return Err(self.unauthenticated(asking).into()),
            Err(Ambiguous) => return Err(self.ambiguous(asking).into()),
        };
        if let Credential::Cookie { .. } = credential {
            self.same_origin(asking)?;
        }
        let judged = match self.at_once(asking.worker, &credential) {
            Some(judged) => judged,
            // Rarely taken, and large: on the heap.
            None => Box::pin(self.judge(asking.worker, &credential)).await,
        };
        let identity = match judged {
            Ok(identity) => identity,
            Err(failure) => return Err(self.refused(asking, &credential, failure).into()),
        };
        if let Err(rejection) = self.may(asking, &identity) {
            return Err(Refused { rejection, caller: Some(identity) });
        }
        let withheld = credential.withheld(asking.forward_credential);
        Ok(Admitted { caller: Caller::Known(identity), withheld })
    }

    /// What can be said of a credential without waiting for anything.
    fn at_once(&self, worker: &Worker, credential: &Credential<'_>) -> Option<Judged> {
        match credential {
            Credential::Bearer(_) | Credential::Cookie { .. } | Credential::Basic(_) => {
                self.known(worker, credential).map(Ok)
            }
            Credential::Malformed(_) => Some(Err(MALFORMED)),
            Credential::ApiKey { place, key } => Some(first(self.auths.iter().filter_map(|auth| match &auth.kind {
                Kind::ApiKey(keys) if keys.place() == *place => Some(keys.judge(key)),
                Kind::ApiKey(_)
                | Kind::Jwt(_)
                | Kind::Introspection(_)
                | Kind::ClientCertificate(_)
                | Kind::Basic(_) => None,
            }))),
            Credential::Certificate(certificate) => {
                Some(first(self.auths.iter().filter_map(|auth| match &auth.kind {
                    Kind::ClientCertificate(certificates) => Some(certificates.judge(certificate)),
                    Kind::ApiKey(_) | Kind::Jwt(_) | Kind::Introspection(_) | Kind::Basic(_) => None,
                })))
            }
        }
    }

    /// Whoever showed this credential not long ago.
    fn known(&self, worker: &Worker, credential: &Credential<'_>) -> Option<Arc<Identity>> {
        self.auths.iter().find_map(|auth| match (&auth.kind, credential) {
            (Kind::Jwt(jwt), Credential::Bearer(token)) if *jwt.token_from() == TokenFrom::Header => {
                jwt.known(worker, token)
            }
            (Kind::Jwt(jwt), Credential::Cookie { name, token }) if is_cookie(jwt.token_from(), name) => {
                jwt.known(worker, token)
            }
            // Another route may have had it introspected.
            (Kind::Introspection(_), Credential::Bearer(token)) if self.takes_jwt && is_jwt_shaped(token) => None,
            (Kind::Introspection(introspection), Credential::Bearer(token)) => introspection.known(worker, token),
            (Kind::Basic(basic), Credential::Basic(text)) => basic.known(worker, text),
            (
                Kind::Jwt(_) | Kind::Introspection(_) | Kind::ApiKey(_) | Kind::ClientCertificate(_) | Kind::Basic(_),
                _,
            ) => None,
        })
    }

    /// Asks every auth of the credential's kind that may take its time; the first that knows the caller decides.
    async fn judge(&self, worker: &Worker, credential: &Credential<'_>) -> Judged {
        let mut failure = None;
        for auth in &self.auths {
            let judged = match (&auth.kind, credential) {
                (Kind::Jwt(jwt), Credential::Bearer(token)) => match jwt.token_from() {
                    TokenFrom::Header => jwt.judge(worker, token).await,
                    TokenFrom::Cookie(_) => continue,
                },
                (Kind::Jwt(jwt), Credential::Cookie { name, token }) if is_cookie(jwt.token_from(), name) => {
                    jwt.judge(worker, token).await
                }
                (Kind::Introspection(_), Credential::Bearer(token)) if self.takes_jwt && is_jwt_shaped(token) => {
                    continue;
                }
                (Kind::Introspection(introspection), Credential::Bearer(token)) => {
                    introspection.judge(worker, token).await
                }
                (Kind::Basic(basic), Credential::Basic(text)) => basic.judge(worker, text).await,
                (
                    Kind::Jwt(_)
                    | Kind::Introspection(_)
                    | Kind::ApiKey(_)
                    | Kind::ClientCertificate(_)
                    | Kind::Basic(_),
                    _,
                ) => continue,
            };
            match judged {
                Ok(identity) => return Ok(identity),
                Err(reason) => failure = Some(graver(failure, reason)),
            }
        }
        Err(failure.unwrap_or(NOT_OF_THESE))
    }

    /// Roles (any one of the route's) and scopes (all of them).
    fn may(&self, asking: &Asking<'_>, identity: &Identity) -> Result<(), Rejection> {
        if !self.roles.is_empty() && !self.roles.iter().any(|role| identity.has_role(role)) {
            self.denied.roles.denied(asking.worker.id);
            return Err(self.forbidden(identity, Cause::RoleMissing, "a role is missing", &[]));
        }
        if !self.scopes.iter().all(|scope| identity.has_scope(scope)) {
            self.denied.scopes.denied(asking.worker.id);
            return Err(self.forbidden(identity, Cause::ScopeMissing, "a scope is missing", &self.scopes));
        }
        Ok(())
    }

    /// A 403 for a caller who is known and lacks something, told as RFC 6750 section 3.1 says to one with a token.
    pub fn forbidden(&self, identity: &Identity, cause: Cause, description: &str, scopes: &[String]) -> Rejection {
        use super::identity::Method;
        let rejection = Rejection::from(cause);
        match identity.method() {
            Method::Jwt | Method::Introspection => {
                let challenge = self.challenges.for_bearer(Error::InsufficientScope { description, scopes });
                rejection.with_fields(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)))
            }
            Method::ApiKey | Method::ClientCertificate | Method::Basic => rejection,
        }
    }

    fn unauthenticated(&self, asking: &Asking<'_>) -> Rejection {
        self.denied.auth.denied(asking.worker.id);
        self.challenging(Cause::Unauthenticated, Error::None)
    }

    fn ambiguous(&self, asking: &Asking<'_>) -> Rejection {
        self.denied.auth.denied(asking.worker.id);
        let challenge = self.challenges.for_bearer(Error::InvalidRequest("more than one credential"));
        Rejection::from(Cause::AmbiguousCredentials)
            .with_fields(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)))
    }

    fn refused(&self, asking: &Asking<'_>, credential: &Credential<'_>, failure: Failure) -> Rejection {
        match failure {
            Failure::Invalid(why) => {
                self.denied.auth.denied(asking.worker.id);
                let error = match credential {
                    Credential::Bearer(_) | Credential::Cookie { .. } | Credential::Malformed(Scheme::Bearer) => {
                        Error::InvalidToken(why)
                    }
                    Credential::ApiKey { .. }
                    | Credential::Basic(_)
                    | Credential::Malformed(Scheme::Basic)
                    | Credential::Certificate(_) => Error::None,
                };
                self.challenging(Cause::InvalidCredentials, error).with_detail(why.to_owned())
            }
            Failure::Unavailable(why) => Rejection::from(Cause::AuthUnavailable).with_detail(why),
        }
    }

    fn challenging(&self, cause: Cause, error: Error<'_>) -> Rejection {
        let challenges = self.challenges.all(error);
        Rejection::from(cause).with_fields(challenges.into_iter().map(|challenge| (WWW_AUTHENTICATE, challenge)))
    }

    /// A browser sends a cookie whoever made it send the request: what changes something, or opens a WebSocket, must
    /// come from a page of this site, or of an origin that `cors` names.
    fn same_origin(&self, asking: &Asking<'_>) -> Result<(), Rejection> {
        let harmless = matches!(*asking.method, Method::GET | Method::HEAD | Method::OPTIONS) && !asking.upgrade;
        if harmless || fits(asking) {
            return Ok(());
        }
        self.denied.origin.denied(asking.worker.id);
        Err(Cause::OriginRefused.into())
    }
}

/// Of a credential that no auth of the route is for.
const NOT_OF_THESE: Failure = Failure::Invalid("this credential is not of a kind that is taken here");

/// Of an `Authorization` that is not of the form that is taken here.
const MALFORMED: Failure = Failure::Invalid("the Authorization field is malformed");

/// The first that knows the caller; if none does, what matters most of what they say.
fn first(judged: impl Iterator<Item = Judged>) -> Judged {
    let mut failure = None;
    for judged in judged {
        match judged {
            Ok(identity) => return Ok(identity),
            Err(reason) => failure = Some(graver(failure, reason)),
        }
    }
    Err(failure.unwrap_or(NOT_OF_THESE))
}

/// That one auth could not say matters more than that another does not know the caller.
fn graver(before: Option<Failure>, reason: Failure) -> Failure {
    match (before, reason) {
        (Some(Failure::Unavailable(why)), _) | (None | Some(Failure::Invalid(_)), Failure::Unavailable(why)) => {
            Failure::Unavailable(why)
        }
        (Some(Failure::Invalid(why)), Failure::Invalid(_)) | (None, Failure::Invalid(why)) => Failure::Invalid(why),
    }
}

fn is_cookie(token_from: &TokenFrom, name: &str) -> bool {
    match token_from {
        TokenFrom::Header => false,
        TokenFrom::Cookie(cookie) => cookie == name,
    }
}

/// Three parts with dots between them (RFC 7515 section 7.1), or five of one that is encrypted (RFC 7516 section 7.1).
/// Whether they are base64url and hold what they should, or anything, is for whoever judges the token: nobody else may
/// take a JWT that is merely malformed.
fn is_jwt_shaped(token: &[u8]) -> bool {
    matches!(token.iter().filter(|byte| **byte == b'.').count(), 2 | 4)
}

fn fits(asking: &Asking<'_>) -> bool {
    let mut origins = asking.headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    asking.cors.is_some_and(|cors| cors.names(origin)) || is_own(origin, asking)
}

/// Whether a page of this very host made the request. Over TLS a page that came without it may be anybody's.
fn is_own(origin: &HeaderValue, asking: &Asking<'_>) -> bool {
    let Some(host) = asking.host else { return false };
    let origin = origin.as_bytes();
    let forwarded = || asking.headers.get(crate::request::names::X_FORWARDED_PROTO);
    let secure = asking.peer.tls || (asking.peer.trusted && forwarded().is_some_and(|proto| proto == "https"));
    let after = |scheme: &str| {
        let (before, rest) = origin.split_at_checked(scheme.len())?;
        before.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    let (authority, default_port) = match (after("https://"), after("http://")) {
        (Some(authority), _) => (authority, &b":443"[..]),
        (None, Some(authority)) if !secure => (authority, &b":80"[..]),
        (None, Some(_) | None) => return false,
    };
    let host = host.as_str().as_bytes();
    let host = host.strip_suffix(default_port).unwrap_or(host);
    authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_jwt() {
        for token in ["eyJhbGciOiJub25lIn0.e30.", "a.b.c", "a..", ".b.c", "a.b.c=", "a b.c.d", "a.b.c.d.e", "a..c.d.e"]
        {
            assert!(is_jwt_shaped(token.as_bytes()), "{token}");
        }
        for token in ["", "opaque", "a.b", ".", "a.b.c.d", "a.b.c.d.e.f"] {
            assert!(!is_jwt_shaped(token.as_bytes()), "{token}");
        }
    }
}
