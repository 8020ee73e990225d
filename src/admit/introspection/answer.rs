//! What an introspection server says of a token (RFC 7662 section 2.2), read strictly.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Map, Value};

use super::super::identity::{Identity, Method};
use super::super::jwt::claims::{self, Round};
use super::super::jwt::json;
use crate::config::settings::IntrospectionSettings;
use crate::fetch::{Answer, FetchError};

/// How far ahead `nbf` may lie: clocks differ, and the server has judged it too.
const LEEWAY: Duration = Duration::from_secs(30);

const OWN_CREDENTIALS: &str =
    "it refuses the gateway's own credentials: check client_id and client_secret or private_key";

/// What came of a question.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Active {
        identity: Arc<Identity>,
        /// The token's own `exp`.
        until: Option<SystemTime>,
    },
    Refused(Refused),
    Failed(Failed),
}

/// The token lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// In words for the client: fixed, of the characters of RFC 6750 section 3.
    pub(super) why: &'static str,
    /// When that may change.
    pub(super) until: Option<SystemTime>,
}

/// Nobody knows what the token is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// For the log; nothing of the token in it.
    pub(super) why: String,
    pub(super) whose: Whose,
}

/// What a failure tells of the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The server is there; it may be this token that it cannot cope with.
    Token,
    /// It would fare no better.
    Server,
}

impl Failed {
    pub(super) fn of(error: &FetchError) -> Failed {
        let whose = match error {
            FetchError::TooLarge(_) => Whose::Token,
            FetchError::Lookup(_)
            | FetchError::Connect(_)
            | FetchError::Tls(_)
            | FetchError::Timeout(_)
            | FetchError::Redirect(_)
            | FetchError::Coded
            | FetchError::Broken(_)
            | FetchError::Unasked(_) => Whose::Server,
        };
        Failed { why: error.to_string(), whose }
    }
}

/// What `answer` means at `now` to the `[auth.NAME]` of these settings.
pub(super) fn judge(answer: &Answer, auth: &Arc<str>, settings: &IntrospectionSettings, now: SystemTime) -> Outcome {
    let failed = |whose, why: String| Outcome::Failed(Failed { why, whose });
    let status = answer.status;
    if is_unsupported(answer) {
        return refused("the token is of a kind that its server does not look into");
    }
    if status != StatusCode::OK {
        let (whose, why) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Whose::Server, OWN_CREDENTIALS),
            // Of RFC 6749 section 5.2, which some answer in this way here too.
            StatusCode::BAD_REQUEST if has_error(answer, "invalid_client") => (Whose::Server, OWN_CREDENTIALS),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                (Whose::Server, "that is no introspection endpoint: check `url`")
            }
            StatusCode::TOO_MANY_REQUESTS => (Whose::Server, "it is asked too often: check max_in_flight and `cache`"),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                (Whose::Server, "it is not available")
            }
            // 500 above all: were it held against the server, whoever finds a token that makes it fail could have it
            // let alone, and shut everybody else out.
            _ => (Whose::Token, "it did not say whether the token is active"),
        };
        return failed(whose, format!("status {}: {why}", status.as_u16()));
    }
    let Ok(mut members) = json::object(&answer.body) else {
        return failed(Whose::Token, "its answer is not a JSON object, or names a member twice".to_owned());
    };
    // Servers that fill in a form write null for what they do not know.
    members.retain(|_, value| !value.is_null());
    match members.get("active") {
        Some(Value::Bool(true)) => active(&members, auth, settings, now),
        Some(Value::Bool(false)) => refused("the token is not active"),
        Some(_) | None => failed(Whose::Token, "its answer does not say whether the token is active".to_owned()),
    }
}

/// What some servers say of JWTs and of other tokens that they keep nothing about: an error of RFC 7009 section 2.2.1,
/// which is about the token and not about who asks.
fn is_unsupported(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && has_error(answer, "unsupported_token_type")
}

fn has_error(answer: &Answer, name: &str) -> bool {
    json::object(&answer.body).is_ok_and(|members| members.get("error").is_some_and(|error| error == name))
}

fn active(members: &Map<String, Value>, auth: &Arc<str>, settings: &IntrospectionSettings, now: SystemTime) -> Outcome {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if let Some(issuer) = &settings.issuer
        && text("iss") != Some(issuer)
    {
        return refused("the token is of another issuer");
    }
    if let Some(audience) = &settings.audience
        && !claims::is_for(audience, members.get("aud"))
    {
        return refused("the token is for another audience");
    }
    if !is_access_token(members) {
        return refused("this is no bearer access token");
    }
    let (Ok(until), Ok(from)) = (claims::time(members, "exp", Round::Down), claims::time(members, "nbf", Round::Up))
    else {
        let why = "a time in its answer is none".to_owned();
        return Outcome::Failed(Failed { why, whose: Whose::Token });
    };
    if until.is_some_and(|until| until <= now) {
        return refused("the token has expired");
    }
    let from = from.and_then(|from| from.checked_sub(LEEWAY));
    if from.is_some_and(|from| from > now) {
        return Outcome::Refused(Refused { why: "the token is not valid yet", until: from });
    }
    // A token of a client alone may name nobody else.
    let subject = ["sub", "username", "client_id"].into_iter().find_map(|name| members.get(name));
    let subject = subject.and_then(Value::as_str).filter(|subject| (1..=claims::MAX_SUBJECT).contains(&subject.len()));
    let Some(subject) = subject else { return refused("the token names no subject") };
    let (roles, scopes) = (claims::roles(members, &settings.claims), claims::scopes(members, &settings.claims));
    let identity = Arc::new(Identity::new(auth, Method::Introspection, subject, roles, scopes));
    Outcome::Active { identity, until }
}

fn refused(why: &'static str) -> Outcome {
    Outcome::Refused(Refused { why, until: None })
}

/// Servers call refresh tokens and ID tokens active too, and the hint binds nobody; where they say what a token is, it
/// must be one that is shown as `Bearer`.
fn is_access_token(members: &Map<String, Value>) -> bool {
    let is_one_of = |name: &str, known: &[&str]| match members.get(name) {
        None => true,
        Some(told) => told.as_str().is_some_and(|told| known.iter().any(|known| told.eq_ignore_ascii_case(known))),
    };
    let is_another = ["Refresh", "Offline", "ID", "Logout"];
    // `typ` is Keycloak's, `token_use` that of Ory and Cognito.
    is_one_of("token_type", &["Bearer", "access_token"])
        && is_one_of("token_use", &["access_token", "access"])
        && !members.get("typ").and_then(Value::as_str).is_some_and(|typ| is_another.contains(&typ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn settings() -> IntrospectionSettings {
        super::super::testing::settings("https://login.test/introspect", "gateway", "x")
    }

    fn of(status: u16, body: &str, settings: &IntrospectionSettings) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) };
        judge(&answer, &Arc::from("opaque"), settings, now())
    }

    fn refusal(body: &str, settings: &IntrospectionSettings) -> &'static str {
        match of(200, body, settings) {
            Outcome::Refused(refused) => refused.why,
            other @ (Outcome::Active { .. } | Outcome::Failed(_)) => panic!("{body}: {other:?}"),
        }
    }

    fn identity(body: &str) -> Arc<Identity> {
        match of(200, body, &settings()) {
            Outcome::Active { identity, .. } => identity,
            other @ (Outcome::Refused(_) | Outcome::Failed(_)) => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn an_active_token_is_somebody() {
        let body =
            r#"{"active":true,"sub":"alice","username":"a","scope":"read write","roles":["clerk"],"exp":1060.9}"#;
        let who = identity(body);
        assert_eq!((who.subject(), who.method()), ("alice", Method::Introspection));
        assert!(who.has_scope("read") && who.has_scope("write") && who.has_role("clerk"));
        assert!(matches!(of(200, body, &settings()),
            Outcome::Active { until: Some(until), .. } if until == now() + Duration::from_secs(60)));
        assert_eq!(identity(r#"{"active":true,"username":"bob","client_id":"c"}"#).subject(), "bob");
        assert_eq!(identity(r#"{"active":true,"client_id":"batch","token_type":"bearer"}"#).subject(), "batch");
    }

    /// Servers whose answers have a fixed form write null for what they do not know.
    #[test]
    fn null_is_as_good_as_absent() {
        let body =
            r#"{"active":true,"sub":null,"username":"bob","exp":null,"nbf":null,"roles":null,"token_type":null}"#;
        assert_eq!(identity(body).subject(), "bob");
        assert!(matches!(of(200, body, &settings()), Outcome::Active { until: None, .. }));
        assert_eq!(refusal(r#"{"active":true,"sub":null}"#, &settings()), "the token names no subject");
        let mut wanting = settings();
        wanting.audience = Some(vec!["orders".to_owned()]);
        assert_eq!(refusal(r#"{"active":true,"sub":"a","aud":null}"#, &wanting), "the token is for another audience");
        assert!(matches!(of(200, r#"{"active":null,"sub":"a"}"#, &settings()), Outcome::Failed(_)));
    }

    #[test]
    fn what_lets_nobody_in() {
        let mut wanting = settings();
        wanting.issuer = Some("https://login.test".to_owned());
        wanting.audience = Some(vec!["orders".to_owned()]);
        let cases = [
            (r#"{"active":false}"#, "the token is not active"),
            (r#"{"active":false,"sub":"alice"}"#, "the token is not active"),
            (r#"{"active":true,"sub":"alice"}"#, "the token is of another issuer"),
            (r#"{"active":true,"sub":"a","iss":"https://login.test/"}"#, "the token is of another issuer"),
            (r#"{"active":true,"sub":"a","iss":"https://login.test"}"#, "the token is for another audience"),
            (
                r#"{"active":true,"sub":"a","iss":"https://login.test","aud":["x"]}"#,
                "the token is for another audience",
            ),
        ];
        for (body, why) in cases {
            assert_eq!(refusal(body, &wanting), why, "{body}");
        }
        let good = r#"{"active":true,"sub":"a","iss":"https://login.test","aud":["x","orders"]}"#;
        assert!(matches!(of(200, good, &wanting), Outcome::Active { .. }));
        let cases = [
            (r#"{"active":true}"#, "the token names no subject"),
            (r#"{"active":true,"sub":""}"#, "the token names no subject"),
            (r#"{"active":true,"sub":7,"username":"bob"}"#, "the token names no subject"),
            (r#"{"active":true,"sub":"a","exp":1000}"#, "the token has expired"),
            (r#"{"active":true,"sub":"a","nbf":1031}"#, "the token is not valid yet"),
            (r#"{"active":true,"sub":"a","token_type":"DPoP"}"#, "this is no bearer access token"),
            (r#"{"active":true,"sub":"a","token_use":"refresh_token"}"#, "this is no bearer access token"),
            (r#"{"active":true,"sub":"a","typ":"Refresh"}"#, "this is no bearer access token"),
        ];
        for (body, why) in cases {
            assert_eq!(refusal(body, &settings()), why, "{body}");
        }
        assert!(matches!(of(200, r#"{"active":true,"sub":"a","nbf":1030}"#, &settings()), Outcome::Active { .. }));
    }

    #[test]
    fn what_the_server_does_not_look_into() {
        let body = r#"{"error":"unsupported_token_type","error_description":"structured"}"#;
        assert!(matches!(of(400, body, &settings()), Outcome::Refused(_)));
    }

    #[test]
    fn what_says_nothing_of_the_token() {
        let cases = [
            (200, "", Whose::Token),
            (200, "<html>", Whose::Token),
            (200, "[]", Whose::Token),
            (200, "{}", Whose::Token),
            (200, r#"{"active":"true","sub":"a"}"#, Whose::Token),
            (200, r#"{"active":1,"sub":"a"}"#, Whose::Token),
            (200, r#"{"active":false,"active":true,"sub":"a"}"#, Whose::Token),
            (200, r#"{"active":true,"sub":"a","exp":"soon"}"#, Whose::Token),
            (201, r#"{"active":true,"sub":"a"}"#, Whose::Token),
            (400, "", Whose::Token),
            (400, r#"{"error":"invalid_request"}"#, Whose::Token),
            (400, r#"{"error":"invalid_client"}"#, Whose::Server),
            (500, r#"{"error":"unsupported_token_type"}"#, Whose::Token),
            (500, "", Whose::Token),
            (401, r#"{"active":true,"sub":"a"}"#, Whose::Server),
            (403, "", Whose::Server),
            (404, "", Whose::Server),
            (429, "", Whose::Server),
            (503, "", Whose::Server),
        ];
        for (status, body, whose) in cases {
            match of(status, body, &settings()) {
                Outcome::Failed(failed) => assert_eq!(failed.whose, whose, "{status} {body}"),
                other @ (Outcome::Active { .. } | Outcome::Refused(_)) => panic!("{status} {body}: {other:?}"),
            }
        }
    }
}
