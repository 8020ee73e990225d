//! The gate of one route: who is calling, and may that caller come in.
//!
//! An invalid credential never falls through to another kind, and where a route takes JWTs, what looks like one is
//! never asked about elsewhere.

use std::sync::Arc;

use http::Method;
use http::header::WWW_AUTHENTICATE;

use super::auth::{Asked, Auth, Auths, Failure, Judged, Known};
use super::authorization::Scheme;
use super::challenge::{Challenges, Error};
use super::credential::{Ambiguous, Credential, Places, Withheld};
use super::demands::{Demands, Lacking};
use super::identity::Identity;
use super::{Caller, identity, origin};
use crate::config::settings::Access;
use crate::headers::Headers;
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
    demands: Demands,
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

impl Denied {
    /// The counter of what is refused for this cause; `None`: nobody was kept out by a rule.
    fn count(&self, cause: Cause, worker: &Worker) {
        let rules = [
            (Cause::Unauthenticated, &self.auth),
            (Cause::AmbiguousCredentials, &self.auth),
            (Cause::InvalidCredentials, &self.auth),
            (Cause::OriginRefused, &self.origin),
            (Cause::RoleMissing, &self.roles),
            (Cause::ScopeMissing, &self.scopes),
        ];
        if let Some((_, rule)) = rules.into_iter().find(|(of, _)| *of == cause) {
            rule.denied(worker.id);
        }
    }
}

/// What of a request the gate looks at.
pub struct Asking<'a> {
    pub peer: &'a Peer,
    pub method: &'a Method,
    pub host: Option<&'a Host>,
    pub headers: &'a Headers,
    pub query: Option<&'a [u8]>,
    /// Whether it asks for an upgrade, as a WebSocket does.
    pub upgrade: bool,
    pub cors: Option<&'a Cors>,
    /// The route's `forward_credential`.
    pub forward_credential: Option<bool>,
}

/// A request that was let in.
pub struct Admitted<'p> {
    pub caller: Caller,
    pub withheld: Withheld<'p>,
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
        let takes_jwt = each().any(|auth| auth.kind.method() == identity::Method::Jwt);
        let demands = Demands { roles: demands.roles.clone(), scopes: demands.scopes.clone() };
        let guard = Guard { auths, places, challenges, demands, takes_jwt, denied };
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

    /// Whether a request may come in, as far as that can be said without waiting for anything; `None`: [`admit`] has to
    /// be asked.
    ///
    /// [`admit`]: Gate::admit
    pub fn admit_at_once<'p>(&'p self, asking: &Asking<'_>, worker: &Worker) -> Option<Result<Admitted<'p>, Refused>> {
        match self {
            Gate::Open => Some(Ok(Admitted { caller: Caller::Anonymous, withheld: Withheld::Nothing })),
            Gate::Guarded(guard) => {
                let admitted = match guard.shown(asking) {
                    Ok(credential) => {
                        let judged = guard.at_once(worker, &credential)?;
                        guard.admitted(&credential, judged, asking)
                    }
                    Err(rejection) => Err(rejection.into()),
                };
                Some(guard.counted(admitted, worker))
            }
        }
    }

    /// The same by asking whoever knows.
    ///
    /// # Errors
    /// Why the request may not come in.
    pub async fn admit<'p>(&'p self, asking: &Asking<'_>, worker: &Worker) -> Result<Admitted<'p>, Refused> {
        match self {
            Gate::Open => Ok(Admitted { caller: Caller::Anonymous, withheld: Withheld::Nothing }),
            Gate::Guarded(guard) => {
                let admitted = match guard.shown(asking) {
                    Ok(credential) => guard.admitted(&credential, guard.judge(worker, &credential).await, asking),
                    Err(rejection) => Err(rejection.into()),
                };
                guard.counted(admitted, worker)
            }
        }
    }
}

impl Guard {
    fn admitted<'p>(
        &'p self,
        credential: &Credential<'p, '_>,
        judged: Judged,
        asking: &Asking<'_>,
    ) -> Result<Admitted<'p>, Refused> {
        let identity = judged.map_err(|failure| self.refused(credential, failure))?;
        if let Err(rejection) = self.demands_met_by(&identity) {
            return Err(Refused { rejection, caller: Some(identity) });
        }
        let withheld = credential.withheld(asking.forward_credential);
        Ok(Admitted { caller: Caller::Known(identity), withheld })
    }

    /// Counts whom the rules keep out.
    fn counted<'p>(&self, admitted: Result<Admitted<'p>, Refused>, worker: &Worker) -> Result<Admitted<'p>, Refused> {
        if let Err(refused) = &admitted {
            self.denied.count(refused.rejection.cause, worker);
        }
        admitted
    }

    /// The one credential that a request shows.
    ///
    /// # Errors
    /// It shows none, or more than one, or a page of somebody else's made a browser show it.
    pub fn shown<'p, 'r>(&'p self, asking: &Asking<'r>) -> Result<Credential<'p, 'r>, Rejection> {
        let certificate = asking.peer.certificate.as_deref();
        let credential = match self.places.find(asking.headers, asking.query, certificate) {
            Ok(Some(credential)) => credential,
            Ok(None) => return Err(self.challenging(Cause::Unauthenticated, Error::None)),
            Err(Ambiguous) => return Err(self.ambiguous()),
        };
        if let Credential::Cookie { .. } = credential
            && !origin::fits(asking)
        {
            return Err(Cause::OriginRefused.into());
        }
        Ok(credential)
    }

    /// # Errors
    /// A role or a scope that the caller lacks.
    pub fn demands_met_by(&self, identity: &Identity) -> Result<(), Rejection> {
        self.demands.met_by(identity).map_err(|lacking| self.lacks(identity, &lacking))
    }

    /// In the order in which they are asked. At least one.
    pub fn auths(&self) -> &[Arc<Auth>] {
        &self.auths
    }

    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// The auths that take this credential. Where JWTs are listed, nobody is asked about what is shaped like one,
    /// whatever another route had introspected.
    fn taking<'a>(&'a self, credential: &'a Credential<'_, 'a>) -> impl Iterator<Item = Asked<'a>> {
        self.auths.iter().filter_map(|auth| auth.kind.asked(credential)).filter(|asked| self.may_ask(asked))
    }

    pub(super) fn may_ask(&self, asked: &Asked<'_>) -> bool {
        match asked {
            Asked::Introspection(_, token) => !(self.takes_jwt && is_jwt_shaped(token.text())),
            Asked::Jwt(..) | Asked::ApiKey(..) | Asked::Certificate(..) | Asked::Basic(..) => true,
        }
    }

    /// What can be said of a credential without waiting for anything; `None`: somebody has to look into it. The order
    /// of the route's list counts here too: what a later auth remembers says nothing until those before it have refused.
    fn at_once(&self, worker: &Worker, credential: &Credential<'_, '_>) -> Option<Judged> {
        let mut failure = None;
        for asked in self.taking(credential) {
            match asked.known(worker) {
                Known::Now(Err(reason @ (Failure::Invalid(_) | Failure::Foreign(_)))) => {
                    failure = failure.or(Some(reason))
                }
                Known::Now(judged @ (Ok(_) | Err(Failure::Unavailable(_)))) => return Some(judged),
                Known::Later => return None,
            }
        }
        Some(Err(failure.unwrap_or_else(|| nobody_takes(credential))))
    }

    /// Asks every auth that takes the credential, which may take its time; the first that does not refuse it decides.
    /// One that cannot say does so too: else whoever can make it unavailable would choose who a caller is.
    async fn judge(&self, worker: &Worker, credential: &Credential<'_, '_>) -> Judged {
        let mut failure = None;
        let mut foreign: Vec<(Asked<'_>, &'static str)> = Vec::new();
        for asked in self.taking(credential) {
            let judged = match asked.known(worker) {
                Known::Now(judged) => judged,
                Known::Later => asked.judge(worker).await,
            };
            match judged {
                Ok(identity) => {
                    foreign.iter().for_each(|(before, why)| before.taken_elsewhere(worker, why));
                    return Ok(identity);
                }
                Err(Failure::Unavailable(why)) => return Err(Failure::Unavailable(why)),
                Err(Failure::Foreign(why)) => {
                    failure = failure.or(Some(Failure::Foreign(why)));
                    foreign.push((asked, why));
                }
                Err(Failure::Invalid(why)) => failure = failure.or(Some(Failure::Invalid(why))),
            }
        }
        Err(failure.unwrap_or_else(|| nobody_takes(credential)))
    }

    fn lacks(&self, identity: &Identity, lacking: &Lacking<'_>) -> Rejection {
        match lacking {
            Lacking::Role => self.forbidden(identity, Cause::RoleMissing, "a role is missing", &[]),
            Lacking::Scopes(scopes) => self.forbidden(identity, Cause::ScopeMissing, "a scope is missing", scopes),
        }
    }

    /// A 403 for a caller who is known and lacks something, told as RFC 6750 section 3.1 says to one with a token.
    fn forbidden(&self, identity: &Identity, cause: Cause, description: &str, scopes: &[String]) -> Rejection {
        use identity::Method;
        let rejection = Rejection::from(cause);
        match identity.method() {
            Method::Jwt | Method::Introspection => {
                let challenge = self.challenges.for_bearer(Error::InsufficientScope { description, scopes });
                rejection.with_fields(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)))
            }
            Method::ApiKey | Method::ClientCertificate | Method::Basic => rejection,
        }
    }

    fn ambiguous(&self) -> Rejection {
        let challenge = self.challenges.for_bearer(Error::InvalidRequest("more than one credential"));
        Rejection::from(Cause::AmbiguousCredentials)
            .with_fields(challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)))
    }

    pub(super) fn refused(&self, credential: &Credential<'_, '_>, failure: Failure) -> Rejection {
        match failure {
            Failure::Invalid(why) | Failure::Foreign(why) => {
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
}

/// Of a credential that no auth of the route judges.
pub(super) fn nobody_takes(credential: &Credential<'_, '_>) -> Failure {
    Failure::Invalid(match credential {
        Credential::Malformed(_) => "the Authorization field is malformed",
        Credential::Bearer(_)
        | Credential::Cookie { .. }
        | Credential::ApiKey { .. }
        | Credential::Basic(_)
        | Credential::Certificate(_) => "this credential is not of a kind that is taken here",
    })
}

/// Three parts with dots between them (RFC 7515 section 7.1), or five of one that is encrypted (RFC 7516 section 7.1).
/// Whether they are base64url and hold what they should, or anything, is for whoever judges the token: nobody else may
/// take a JWT that is merely malformed.
fn is_jwt_shaped(token: &[u8]) -> bool {
    matches!(token.iter().filter(|byte| **byte == b'.').count(), 2 | 4)
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
