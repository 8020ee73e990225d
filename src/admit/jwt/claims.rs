//! What claims say, and whether they may be believed now (RFC 7519 section 4).

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::token::Refusal;
use crate::config::settings::{ClaimPath, ClaimSettings};

/// Bytes of a subject; OpenID Connect allows 255.
pub const MAX_SUBJECT: usize = 1024;
/// The last second of the year 9999: nobody means a later one.
const LAST: u64 = 253_402_300_799;
/// How far ahead a token may say that it was issued: no leeway, but clocks that are so wrong mean something.
const FAR: Duration = Duration::from_secs(10 * 60);

pub const ISSUER: Refusal = "the token is of another issuer";
pub const AUDIENCE: Refusal = "the token is for another audience";
pub const NO_EXPIRY: Refusal = "the token does not say when it ends";
pub const EXPIRED: Refusal = "the token has expired";
pub const NOT_YET: Refusal = "the token is not valid yet";
pub const BAD_TIME: Refusal = "a time in the token is none";
pub const NO_SUBJECT: Refusal = "the token names no subject";

/// What a token must say.
pub struct Demanded<'a> {
    pub issuer: &'a str,
    /// Any one of these.
    pub audience: &'a [String],
    pub leeway: Duration,
}

/// What there is to know of a token that fits.
#[derive(Debug, PartialEq, Eq)]
pub struct Fitting<'a> {
    pub subject: &'a str,
    /// When it ends, the leeway included.
    pub until: SystemTime,
}

impl Demanded<'_> {
    /// # Errors
    /// The token is of somebody else, or for somebody else.
    pub fn is_ours(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) {
            return Err(ISSUER);
        }
        if is_for(self.audience, claims.get("aud")) { Ok(()) } else { Err(AUDIENCE) }
    }

    /// # Errors
    /// Why these claims are not to be believed at `now`, whoever signed them.
    pub fn judge<'a>(&self, claims: &'a Map<String, Value>, now: SystemTime) -> Result<Fitting<'a>, Refusal> {
        self.is_ours(claims)?;
        let until = time(claims, "exp", Round::Down)?.ok_or(NO_EXPIRY)?.checked_add(self.leeway).ok_or(BAD_TIME)?;
        if until <= now {
            return Err(EXPIRED);
        }
        if ahead(claims, "nbf", now, self.leeway)? || ahead(claims, "iat", now, self.leeway.saturating_add(FAR))? {
            return Err(NOT_YET);
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(NO_SUBJECT);
        }
        Ok(Fitting { subject, until })
    }
}

/// Whether `aud`, one string or a list (RFC 7519 section 4.1.3), names any of ours.
pub fn is_for(ours: &[String], audience: Option<&Value>) -> bool {
    let fits = |value: &Value| value.as_str().is_some_and(|name| ours.iter().any(|ours| ours == name));
    match audience {
        Some(Value::Array(names)) => names.iter().any(fits),
        Some(one) => fits(one),
        None => false,
    }
}

/// Whether the time of this name is further ahead than `by`.
fn ahead(claims: &Map<String, Value>, name: &str, now: SystemTime, by: Duration) -> Result<bool, Refusal> {
    let time = time(claims, name, Round::Up)?;
    Ok(time.is_some_and(|time| time.duration_since(now).is_ok_and(|ahead| ahead > by)))
}

#[derive(Clone, Copy)]
pub enum Round {
    Down,
    Up,
}

/// A NumericDate (RFC 7519 section 2): seconds, perhaps with a fraction.
///
/// # Errors
/// It is no time.
pub fn time(claims: &Map<String, Value>, name: &str, round: Round) -> Result<Option<SystemTime>, Refusal> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(BAD_TIME);
        }
    };
    let seconds = match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) => seconds,
        (None, Some(seconds)) => whole(seconds, round)?,
        (None, None) => return Err(BAD_TIME),
    };
    if seconds > LAST {
        return Err(BAD_TIME);
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Some).ok_or(BAD_TIME)
}

/// Before 1970 is as good as 1970.
fn whole(seconds: f64, round: Round) -> Result<u64, Refusal> {
    let seconds = match round {
        Round::Down => seconds.floor(),
        Round::Up => seconds.ceil(),
    };
    // Past 2^53 this is not exact, and refused anyway.
    match Duration::try_from_secs_f64(seconds.max(0.0)) {
        Ok(duration) => Ok(duration.as_secs()),
        Err(_) => Err(BAD_TIME),
    }
}

/// The roles that `claims` give their bearer: a list of strings, or one string, which is one role. What is no string
/// is passed over.
pub fn roles(claims: &Map<String, Value>, settings: &ClaimSettings) -> Vec<String> {
    let named: Vec<&str> = match find(claims, &settings.roles) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    };
    match &settings.roles_map {
        None => named.into_iter().map(str::to_owned).collect(),
        Some(map) => named.into_iter().filter_map(|name| map.get(name)).flatten().cloned().collect(),
    }
}

/// Likewise its scopes: one string with blanks between them (RFC 8693 section 4.2), or a list.
pub fn scopes(claims: &Map<String, Value>, settings: &ClaimSettings) -> Vec<String> {
    match find(claims, &settings.scopes) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(one) => one.as_str().unwrap_or_default().split(' ').map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

/// The claim that `path` leads to. At each object the longest name goes first, so that a claim whose own name has dots
/// goes before what its parts would lead to.
pub fn find<'a>(claims: &'a Map<String, Value>, path: &ClaimPath) -> Option<&'a Value> {
    within(claims, &path.whole)
}

/// Each object is looked at with at most one rest of the path, so this ends after as many steps as there are objects;
/// they are not deeper within one another than `json::object` allows.
fn within<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        path.rmatch_indices('.').find_map(|(dot, _)| {
            let (name, rest) = (path.get(..dot)?, path.get(dot.saturating_add(1)..)?);
            within(claims.get(name)?.as_object()?, rest)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> ClaimPath {
        ClaimPath { whole: text.to_owned(), segments: text.split('.').map(str::to_owned).collect() }
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_name_with_dots_goes_before_what_its_parts_lead_to() {
        let claims = object(json!({"a.b": 1, "a": {"b": 2, "b.c": 3}, "a.b.c.d": {"e": 4}}));
        assert_eq!(find(&claims, &path("a.b")), Some(&json!(1)));
        assert_eq!(find(&claims, &path("a.b.c")), Some(&json!(3)));
        assert_eq!(find(&claims, &path("a.b.c.d.e")), Some(&json!(4)));
        for nowhere in ["b", "a.c", "a.b.d", "a.b.c.d.e.f", ".a", "a.", ""] {
            assert_eq!(find(&claims, &path(nowhere)), None, "{nowhere}");
        }
    }

    /// Few names, some with dots, so that paths meet them.
    fn claims() -> impl Strategy<Value = Map<String, Value>> {
        let name = prop_oneof!["[ab]", "[ab]\\.[ab]", "[ab]\\.[ab]\\.[ab]"];
        let leaf =
            prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), "[ab.]{0,3}".prop_map(Value::from)];
        let tree = leaf.prop_recursive(4, 32, 4, move |inner| {
            prop::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        });
        let top = prop_oneof!["[ab]", "[ab]\\.[ab]"];
        prop::collection::btree_map(top, tree, 0..4).prop_map(|members| members.into_iter().collect())
    }

    /// Every value with the names that lead to it.
    fn all<'a>(object: &'a Map<String, Value>, before: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a Value)>) {
        for (name, value) in object {
            let names = [before, &[name]].concat();
            found.push((names.clone(), value));
            if let Value::Object(inner) = value {
                all(inner, &names, found);
            }
        }
    }

    proptest! {
        /// What is found is what the names lead to, and of several the one whose first name is the longest, and so on.
        #[test]
        fn a_path_finds_what_its_names_lead_to(claims in claims(), wanted in "[ab](\\.[ab]){0,4}") {
            let mut values = Vec::new();
            all(&claims, &[], &mut values);
            values.retain(|(names, _)| names.join(".") == wanted);
            values.sort_by_key(|(names, _)| names.iter().map(|name| std::cmp::Reverse(name.len())).collect::<Vec<_>>());
            prop_assert_eq!(find(&claims, &path(&wanted)), values.first().map(|(_, value)| *value));
        }

        /// No claims, whatever they are, give a role that is not written in them whole.
        #[test]
        fn roles_are_strings_of_the_claim(claims in claims(), wanted in "[ab](\\.[ab]){0,2}") {
            let settings = ClaimSettings { roles: path(&wanted), scopes: path("scope"), roles_map: None };
            let text = Value::Object(claims.clone()).to_string();
            for role in roles(&claims, &settings) {
                prop_assert!(text.contains(&Value::from(role).to_string()));
            }
        }
    }
}
