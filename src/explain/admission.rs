//! Limits, and who is calling.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::Moment;
use super::explanation::{Decision, Place};
use super::walk::{Normal, Walk};
use super::wording::listed;
use crate::admit::Caller;
use crate::admit::auth::{Auth, Failure, Kind};
use crate::admit::authorization::Scheme;
use crate::admit::credential::{Credential, Place as Shown, Withheld};
use crate::admit::gate::{Gate, Guard};
use crate::admit::identity::Identity;
use crate::admit::jwt::claims::{AUDIENCE, ISSUER, Round, time};
use crate::admit::limit::counts::{Got, SECOND, Verdict as Admitted};
use crate::admit::limit::gcra::seconds;
use crate::admit::limit::{Count, Limit};
use crate::admit::offhand::{Opinion, Said, Verdict};
use crate::config::settings::{ApiKeyPlace, LimitKey};
use crate::observe::timestamp::rfc3339_seconds;
use crate::request::decisions::asking;
use crate::request::rejection::{Cause, Rejection};
use crate::request::route::Route;

/// Who is calling, as far as that can be said.
pub(super) enum Who {
    Caller(Caller),
    /// Somebody, of whom only somebody else could tell.
    Somebody,
}

/// A request that would be let in.
pub(super) struct LetIn<'p> {
    pub(super) who: Who,
    pub(super) withheld: Withheld<'p>,
}

impl Who {
    /// As what runs behind the gate would see it.
    pub(super) fn caller(&self) -> Caller {
        match self {
            Who::Caller(caller) => caller.clone(),
            Who::Somebody => Caller::Anonymous,
        }
    }
}

impl<'g> Walk<'g> {
    /// `who`: limits by caller; `None`: those that need not know.
    pub(super) fn limits(&mut self, route: &Route, normal: &Normal<'_>, who: Option<&Who>) -> Result<(), Rejection> {
        let anonymous = Who::Caller(Caller::Anonymous);
        let (by_caller, who) = (who.is_some(), who.unwrap_or(&anonymous));
        let caller = who.caller();
        for peeked in route.limits.peek(by_caller, normal.client, &normal.inbound.headers, &caller) {
            let limit = peeked.limit;
            let step = format!("limit {}", limit.name());
            let place = self.limit_place(limit, &peeked.count);
            let what = limit_text(limit);
            if let Who::Somebody = who {
                self.step(&step, Decision::Unknown, format!("{what}; whose it is nobody knows here"), place);
                continue;
            }
            match peeked.count {
                Count::None => {
                    self.step(&step, Decision::Skipped, format!("{what}; such requests are not counted"), place)
                }
                Count::InStore(store) => {
                    let said = format!("{what}; counted in the store {store}, which is not asked");
                    self.step(&step, Decision::Unknown, said, place);
                }
                Count::Here(_) if self.moment == Moment::Offline => {
                    self.step(&step, Decision::Unknown, format!("{what}; --live tells what is left"), place);
                }
                Count::Here(got) => {
                    let said = format!("{what}; {}", room_text(&got));
                    if let Err(rejection) = limit.allows(got.verdict) {
                        return Err(self.refuse(&step, &said, place, rejection));
                    }
                    self.pass(&step, said, place);
                }
            }
        }
        Ok(())
    }

    /// The key that decides: what is exceeded, or what is written first.
    fn limit_place(&self, limit: &Limit, count: &Count<'_>) -> Option<Place> {
        let key = |key: &str| format!("limit.{}{key}", limit.name());
        let (rate, concurrent, section) = (key(".rate"), key(".concurrent"), key(""));
        match count {
            Count::Here(Got { verdict: Admitted::TooManyAtOnce, .. }) => self.place(&[&concurrent, &rate, &section]),
            Count::Here(_) | Count::InStore(_) | Count::None => self.place(&[&rate, &concurrent, &section]),
        }
    }

    pub(super) async fn admit<'p>(&mut self, route: &'p Route, normal: &Normal<'_>) -> Result<LetIn<'p>, Rejection> {
        let guard = match &route.gate {
            Gate::Open => {
                let place = self.route_key(route, "auth");
                self.pass("auth", "open to everybody", place);
                return Ok(LetIn { who: Who::Caller(Caller::Anonymous), withheld: Withheld::Nothing });
            }
            Gate::Guarded(guard) => guard,
        };
        let asking = asking(normal.peer, normal.inbound, normal.host.as_ref(), normal.query, route);
        let place = self.route_key(route, "auth");
        let credential = match guard.shown(&asking) {
            Ok(credential) => credential,
            Err(rejection) => {
                let said = not_shown(rejection.cause, guard);
                return Err(self.refuse("credential", &said, place, rejection));
            }
        };
        self.pass("credential", shown(&credential), place);
        let (opinions, verdict) = guard.opinions(&credential, self.moment == Moment::Live).await;
        for opinion in &opinions {
            self.opinion(opinion, &credential);
        }
        let identity = match verdict {
            Verdict::Known(identity) => Some(identity),
            Verdict::Perhaps { auth, identity } => {
                self.provided(match &identity {
                    Some(_) => format!("the signature of the token is valid by the keys of [auth.{auth}]"),
                    None => format!("the server of [auth.{auth}] takes the token"),
                });
                identity
            }
            Verdict::Refused(rejection) => {
                // Each auth has said why it does not take it.
                if opinions.iter().all(|opinion| matches!(opinion.said, Said::NotIts | Said::KeptFrom)) {
                    let place = self.route_key(route, "auth");
                    let said = rejection.detail().unwrap_or_default().to_owned();
                    return Err(self.refuse("credential", &said, place, rejection));
                }
                return Err(rejection);
            }
        };
        self.demands(route, guard, identity.as_deref())?;
        let withheld = credential.withheld(asking.forward_credential);
        let who = identity.map_or(Who::Somebody, |identity| Who::Caller(Caller::Known(identity)));
        Ok(LetIn { who, withheld })
    }

    fn opinion(&mut self, opinion: &Opinion<'_>, credential: &Credential<'_, '_>) {
        let auth = opinion.auth;
        let step = format!("auth {}", auth.name);
        let kind = auth.kind.method().as_str();
        let section = format!("auth.{}", auth.name);
        let place = match &opinion.said {
            Said::Judged(Err(Failure::Foreign(why) | Failure::Invalid(why))) if *why == AUDIENCE => {
                self.place(&[&format!("{section}.audience"), &section])
            }
            Said::Judged(Err(Failure::Foreign(why) | Failure::Invalid(why))) if *why == ISSUER => {
                self.place(&[&format!("{section}.issuer"), &section])
            }
            Said::NotIts | Said::KeptFrom | Said::Judged(_) | Said::Unproved { .. } | Said::Elsewhere(_) => {
                self.place(&[&section])
            }
        };
        let claims = claims_text(auth, credential);
        let (decision, said) = match &opinion.said {
            Said::NotIts => (Decision::Skipped, "takes another kind of credential".to_owned()),
            Said::KeptFrom => {
                (Decision::Skipped, "is not asked: what looks like a JWT is for the jwt auths of the route".to_owned())
            }
            Said::Judged(Ok(identity)) => (Decision::Passed, format!("{}{claims}", whose(identity))),
            Said::Judged(Err(Failure::Invalid(why) | Failure::Foreign(why))) => {
                (Decision::Refused, format!("{why}{claims}"))
            }
            Said::Judged(Err(Failure::Unavailable(why))) => (Decision::Refused, format!("{why}{claims}")),
            Said::Unproved { identity, .. } => {
                let keys =
                    "the keys for its signature are fetched by the running gateway (--live); not verified, it says";
                (Decision::Unknown, format!("{keys}: {}{claims}", whose(identity)))
            }
            Said::Elsewhere(whom) => (Decision::Unknown, format!("would ask {whom}")),
        };
        let health = self.standing(auth);
        self.step(&step, decision, format!("{kind}: {said}{health}"), place);
    }

    /// How whoever is asked for keys or tokens fares.
    fn standing(&self, auth: &Auth) -> String {
        if self.moment == Moment::Offline {
            return String::new();
        }
        let ago = |at: tokio::time::Instant| format!("{}s ago", at.elapsed().as_secs());
        if let Some(keys) = auth.kind.keys()
            && let Some(standing) = keys.standing()
        {
            let usable = keys.current().map_or(0, |keys| keys.count());
            let fetched = standing.fetched.map_or("never".to_owned(), ago);
            let failing = standing.failing.map_or(String::new(), |failing| format!(", failing since: {}", failing.why));
            return format!("; {usable} keys, fetched {fetched}{failing}");
        }
        match auth.kind.standing().and_then(|standing| standing.failing()) {
            Some(failing) => format!("; no answer since {}: {}", ago(failing.since), failing.why),
            None => String::new(),
        }
    }

    fn demands(&mut self, route: &Route, guard: &Guard, identity: Option<&Identity>) -> Result<(), Rejection> {
        let demands = guard.demands();
        let met = identity.map(|identity| guard.demands_met_by(identity));
        let lacks = |cause: Cause| matches!(&met, Some(Err(rejection)) if rejection.cause == cause);
        let has = |items: Vec<&str>| match items.is_empty() {
            true => "none".to_owned(),
            false => listed(items.into_iter()),
        };
        let (role, scope) = (lacks(Cause::RoleMissing), lacks(Cause::ScopeMissing));
        for (key, wanted, wants, missing, there) in [
            ("roles", &demands.roles, "one of", role, identity.map(|identity| has(identity.roles().collect()))),
            ("scopes", &demands.scopes, "all of", scope, identity.map(|identity| has(identity.scopes().collect()))),
        ] {
            if wanted.is_empty() {
                continue;
            }
            let wants = format!("{wants} {}", listed(wanted.iter()));
            let place = self.route_key(route, key);
            match there {
                None => {
                    self.step(key, Decision::Unknown, format!("{wants}; what the caller has is not known here"), place)
                }
                Some(there) if missing => self.step(key, Decision::Refused, format!("{wants}; has {there}"), place),
                Some(there) => self.pass(key, format!("{wants}; has {there}"), place),
            }
            if missing {
                break;
            }
        }
        if identity.is_none() && !(demands.roles.is_empty() && demands.scopes.is_empty()) {
            self.provided("the caller has the roles and scopes that the route demands".to_owned());
        }
        met.unwrap_or(Ok(()))
    }
}

fn limit_text(limit: &Limit) -> String {
    let settings = limit.settings();
    let rules = &settings.rules;
    let rate = rules.rate().map(|limit| {
        let per = match limit.rate.per.as_secs() {
            1 => "s".to_owned(),
            60 => "min".to_owned(),
            3600 => "h".to_owned(),
            seconds => format!("{seconds}s"),
        };
        format!("{}/{per}, bursts of {}", limit.rate.count, limit.burst)
    });
    let at_once = rules.concurrent().map(|most| format!("{most} at once"));
    let key = match &settings.key {
        LimitKey::ClientIp => "client_ip".to_owned(),
        LimitKey::Subject => "subject".to_owned(),
        LimitKey::ApiKey => "api_key".to_owned(),
        LimitKey::Header(name) => format!("header:{name}"),
        LimitKey::Route => "route".to_owned(),
    };
    format!("{} by {key}", listed(rate.into_iter().chain(at_once)))
}

fn room_text(got: &Got) -> String {
    let rate = got.rate.map(|room| match room.left {
        0 => format!("nothing left for {}s", seconds(room.until, SECOND)),
        left if room.until == 0 => format!("all {left} left"),
        left => format!("{left} left, full again in {}s", seconds(room.until, SECOND)),
    });
    let at_once = got.at_once.map(|left| format!("{left} more at once"));
    listed(rate.into_iter().chain(at_once))
}

/// What was found where; nothing of it.
fn shown(credential: &Credential<'_, '_>) -> String {
    match credential {
        Credential::Bearer(_) => "a Bearer token in Authorization".to_owned(),
        Credential::Cookie { name, .. } => format!("a token in the cookie {name}"),
        Credential::ApiKey { place: ApiKeyPlace::Header(name), .. } => format!("an API key in the header {name}"),
        Credential::ApiKey { place: ApiKeyPlace::Query(name), .. } => format!("an API key in the query as {name}"),
        Credential::Basic(_) => "a user name and a password in Authorization".to_owned(),
        Credential::Malformed(Scheme::Bearer) => "Authorization, as something like a Bearer token".to_owned(),
        Credential::Malformed(Scheme::Basic) => "Authorization, as something like a password".to_owned(),
        Credential::Certificate(_) => "the client certificate of the connection".to_owned(),
    }
}

fn not_shown(cause: Cause, guard: &Guard) -> String {
    if cause == Cause::OriginRefused {
        return "a cookie counts only with an Origin of this host, or one that cors of the route lists".to_owned();
    }
    let mut places: Vec<String> = Vec::new();
    for auth in guard.auths() {
        let place = match auth.kind.place() {
            Shown::Authorization(Scheme::Bearer) => "a Bearer token in Authorization".to_owned(),
            Shown::Authorization(Scheme::Basic) => "a user name and a password in Authorization".to_owned(),
            Shown::Cookie(name) => format!("a token in the cookie {name}"),
            Shown::Key(ApiKeyPlace::Header(name)) => format!("a key in the header {name}"),
            Shown::Key(ApiKeyPlace::Query(name)) => format!("a key in the query as {name}"),
            Shown::Connection => "a client certificate, which cannot be shown here".to_owned(),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let places = places.join(", or ");
    match cause == Cause::AmbiguousCredentials {
        true => format!("more than one is shown, where one is taken: {places}"),
        false => format!("none is shown: {places}"),
    }
}

fn whose(identity: &Arc<Identity>) -> String {
    let all = |items: Vec<&str>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(" "),
    };
    let (roles, scopes) = (all(identity.roles().collect()), all(identity.scopes().collect()));
    format!("subject {}, roles {roles}, scopes {scopes}", identity.subject().escape_debug())
}

/// What a token says of its issuer, its audience and its time; nothing of other credentials.
fn claims_text(auth: &Auth, credential: &Credential<'_, '_>) -> String {
    let Kind::Jwt(jwt) = &auth.kind else { return String::new() };
    let token = match credential {
        Credential::Bearer(token) | Credential::Cookie { token, .. } => Some(token),
        Credential::ApiKey { .. } | Credential::Basic(_) | Credential::Malformed(_) | Credential::Certificate(_) => {
            None
        }
    };
    let Some(claims) = token.and_then(|token| jwt.claims(token.text())) else { return String::new() };
    let issuer = claims.get("iss").and_then(Value::as_str).map(|issuer| format!("issuer {}", cut(issuer)));
    let audience = match claims.get("aud") {
        Some(Value::Array(names)) => {
            Some(names.iter().filter_map(Value::as_str).map(cut).collect::<Vec<_>>().join(" "))
        }
        Some(one) => one.as_str().map(cut),
        None => None,
    };
    let audience = audience.map(|audience| format!("audience {audience}"));
    let expires = expiry(&claims);
    let said = listed(issuer.into_iter().chain(audience).chain(expires));
    if said.is_empty() { said } else { format!(" ({said})") }
}

fn expiry(claims: &Map<String, Value>) -> Option<String> {
    let at = time(claims, "exp", Round::Down).ok()??;
    let shown = rfc3339_seconds(at);
    Some(match at.duration_since(SystemTime::now()) {
        Ok(left) => format!("expires {shown}{}", rough(left).map_or(String::new(), |left| format!(", in {left}"))),
        Err(past) => {
            let past = rough(past.duration()).map_or(String::new(), |past| format!(", {past} ago"));
            format!("expired {shown}{past}")
        }
    })
}

/// Long enough for anybody's names, and no longer.
fn cut(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

/// `None`: long enough for the date to say it.
fn rough(duration: Duration) -> Option<String> {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => Some(format!("{seconds}s")),
        120..=7199 => Some(format!("{} min", seconds / 60)),
        7200..=172_799 => Some(format!("{} h", seconds / 3600)),
        _ => None,
    }
}
