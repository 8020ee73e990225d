//! `WWW-Authenticate`: what a client that is refused is told of how to come in (RFC 9110 section 11.6.1).

use http::HeaderValue;

use super::auth::Auth;

/// How one auth is told of.
pub enum Challenge {
    /// Of tokens. What is wrong with one is told with it.
    Bearer,
    Other(String),
}

/// The ways into a route, as challenges.
#[derive(Default)]
pub struct Challenges {
    /// The name of the first auth that takes Bearer tokens, or tokens in a cookie.
    bearer: Option<String>,
    others: Vec<HeaderValue>,
}

/// `error` of RFC 6750 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<'a> {
    /// Nothing was shown: no error is told.
    None,
    InvalidRequest(&'a str),
    InvalidToken(&'a str),
    /// With the scopes that are demanded, if it is they that are missing.
    InsufficientScope {
        description: &'a str,
        scopes: &'a [String],
    },
}

impl Challenges {
    pub fn of<'a>(auths: impl Iterator<Item = &'a Auth>) -> Challenges {
        let mut challenges = Challenges::default();
        for auth in auths {
            match auth.kind.challenge(&auth.name) {
                Challenge::Bearer => {
                    challenges.bearer.get_or_insert_with(|| auth.name.to_string());
                }
                // Names of auths are plain, so this does not fail.
                Challenge::Other(text) => challenges.others.extend(HeaderValue::try_from(text).ok()),
            }
        }
        challenges
    }

    /// The challenges of a 401, each for a field of its own.
    pub fn all(&self, error: Error<'_>) -> Vec<HeaderValue> {
        self.for_bearer(error).into_iter().chain(self.others.iter().cloned()).collect()
    }

    /// The Bearer challenge alone, where tokens are taken here.
    pub fn for_bearer(&self, error: Error<'_>) -> Option<HeaderValue> {
        let realm = self.bearer.as_ref()?;
        let text = match error {
            Error::None => format!("Bearer realm=\"{realm}\""),
            Error::InvalidRequest(why) => told(realm, "invalid_request", why, &[]),
            Error::InvalidToken(why) => told(realm, "invalid_token", why, &[]),
            Error::InsufficientScope { description, scopes } => told(realm, "insufficient_scope", description, scopes),
        };
        HeaderValue::try_from(text).ok()
    }
}

fn told(realm: &str, error: &str, description: &str, scopes: &[String]) -> String {
    let mut text = format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\"");
    // RFC 6749 appendix A.4: what is no scope token would break the field.
    let plain = |scope: &String| scope.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    if !scopes.is_empty() && scopes.iter().all(plain) {
        text.push_str(", scope=\"");
        text.push_str(&scopes.join(" "));
        text.push('"');
    }
    text
}
