//! Asking an issuer for its keys: by OIDC discovery, or where the configuration says they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::json;
use super::keyset::{KeySet, NoKeys};
use crate::config::parse_fetch_url;
use crate::config::settings::{FetchUrl, JwtAlgorithm};
use crate::fetch::{Answer, Client, Question, What};
use crate::observe::metrics::KeysMetrics;

/// The bounds of one document.
const MAX_DOCUMENT: usize = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long keys are good before they are fetched again, where the answer does not say, and the bounds of what it says.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// OpenID Connect Discovery 1.0: the document names the place. It must name this very issuer too.
    Discovery {
        issuer: String,
        document: FetchUrl,
    },
    Url(FetchUrl),
}

/// One issuer, as an `[auth.NAME]` knows it.
pub struct Issuer {
    /// The name of the `[auth.NAME]`.
    pub auth: Arc<str>,
    pub place: Place,
    pub algorithms: Vec<JwtAlgorithm>,
    /// How long keys serve after they were fetched.
    pub max_stale: Duration,
    pub client: Arc<Client>,
    pub metrics: Arc<KeysMetrics>,
}

/// What an issuer gave.
pub struct Fetched {
    /// In its words.
    pub told: Bytes,
    /// Or why none of them can be used: it has answered, and these are the keys that it has.
    pub keys: Result<KeySet, String>,
    /// How long they are good.
    pub lifetime: Duration,
}

impl Issuer {
    /// Whether the keys of the one are those of the other.
    pub fn gives_what(&self, other: &Issuer) -> bool {
        self.auth == other.auth && self.place == other.place
    }

    /// Whether both are asked in the same way, and their answers are taken in the same way.
    pub fn is_asked_like(&self, other: &Issuer) -> bool {
        let same = self.algorithms == other.algorithms && self.max_stale == other.max_stale;
        same && Arc::ptr_eq(&self.client, &other.client)
    }

    /// # Errors
    /// Why it is not known what keys there are, for the log.
    pub async fn fetch(&self) -> Result<Fetched, String> {
        let place = match &self.place {
            Place::Url(url) => url.clone(),
            Place::Discovery { issuer, document } => self.discover(issuer, document).await?,
        };
        let answer = self.ask(&place).await.map_err(|why| format!("its keys: {why}"))?;
        let keys = match KeySet::parse(&answer.body, &self.algorithms) {
            Ok(keys) => Ok(keys),
            Err(NoKeys::NoneFits(why)) => Err(format!("its keys: {why}")),
            Err(NoKeys::Unreadable(why)) => return Err(format!("its keys: {why}")),
        };
        Ok(Fetched { lifetime: lifetime(&answer.headers), told: answer.body, keys })
    }

    async fn discover(&self, issuer: &str, document: &FetchUrl) -> Result<FetchUrl, String> {
        let wrong = |why: String| format!("its discovery document: {why}");
        let answer = self.ask(document).await.map_err(wrong)?;
        let document = json::object(&answer.body)
            .map_err(|_| wrong("it is not a JSON object, or names a member twice".to_owned()))?;
        // Section 4.3: exactly. Another issuer's document would bring another issuer's keys.
        match document.get("issuer") {
            Some(Value::String(told)) if told == issuer => {}
            Some(Value::String(told)) => {
                let told: String = told.chars().take(200).collect();
                return Err(wrong(format!("it is of the issuer \"{}\", which is not `issuer`", told.escape_debug())));
            }
            Some(_) | None => return Err(wrong("it names no issuer".to_owned())),
        }
        let Some(Value::String(place)) = document.get("jwks_uri") else {
            return Err(wrong("it has no jwks_uri".to_owned()));
        };
        parse_fetch_url(place).map_err(|why| wrong(format!("its jwks_uri {}", why.as_str())))
    }

    async fn ask(&self, url: &FetchUrl) -> Result<Answer, String> {
        let question = Question { url, what: What::Get, authorization: None, max_body: MAX_DOCUMENT, timeout: TIMEOUT };
        let answer = self.client.ask(&question).await.map_err(|error| error.to_string())?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            status => Err(format!("it was answered with status {}", status.as_u16())),
        }
    }
}

/// `max-age` (RFC 9111 section 5.2.2.1), within our bounds.
fn lifetime(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let max_age = directives.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then_some(value)
    });
    match max_age.and_then(|value| value.trim().trim_matches('"').parse().ok()) {
        Some(seconds) => Duration::from_secs(seconds).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME),
        None => LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_bounded() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, http::HeaderValue::from_static(value));
            lifetime(&headers).as_secs()
        };
        assert_eq!(lifetime(&HeaderMap::new()), LIFETIME);
        assert_eq!(of("public, max-age=600, must-revalidate"), 600);
        assert_eq!((of("Max-Age=\"600\""), of("max-age=0"), of("max-age=86400")), (600, 60, 3600));
        assert_eq!((of("no-store"), of("max-age=soon"), of("s-maxage=1")), (900, 900, 900));
    }
}
