//! A compact JWS (RFC 7515 section 7.1) that carries claims, read strictly and not yet believed.
//!
//! A header may name keys of its own (`jwk`, `jku`, `x5u`, `x5c`), and extensions that must be understood (`crit`).
//! None of that is for a client to say: such tokens are refused, whether or not anybody would heed it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use crate::config::settings::JwtAlgorithm;

/// Bytes of a token: more than the head of a request has room for, by default.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Bytes of a `kid`.
pub const MAX_KEY_ID: usize = 1024;

/// Members of a header that bring keys along, or say where there are some.
const KEYS_OF_ITS_OWN: [&str; 4] = ["jwk", "jku", "x5u", "x5c"];

/// Why a token is none, in words for the client: fixed, of the characters of RFC 6750 section 3.
pub type Refusal = &'static str;

pub const MALFORMED: Refusal = "the token is malformed";
pub const TOO_LONG: Refusal = "the token is too long";
pub const UNSIGNED: Refusal = "the token is not signed";
pub const ALGORITHM: Refusal = "the algorithm of the token is not taken";
pub const OWN_KEY: Refusal = "the token brings a key of its own";
pub const CRITICAL: Refusal = "the token has a critical extension";

/// What a token says. Nothing of it is proved before its signature is.
pub struct Token<'a> {
    /// What the signature is of.
    pub message: &'a [u8],
    /// Still in base64url.
    pub signature: &'a str,
    pub algorithm: JwtAlgorithm,
    /// `kid`
    pub key_id: Option<String>,
    /// `typ`
    pub kind: Option<String>,
    pub claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// `algorithms`: those that the configuration takes.
    ///
    /// # Errors
    /// Why this is no token that could be valid.
    pub fn parse(token: &'a [u8], algorithms: &[JwtAlgorithm]) -> Result<Token<'a>, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(TOO_LONG);
        }
        let token = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
        let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = message.split_once('.').ok_or(MALFORMED)?;
        let mut header = object(header)?;
        let algorithm = algorithm(&header, algorithms)?;
        if header.contains_key("crit") {
            return Err(CRITICAL);
        }
        if KEYS_OF_ITS_OWN.iter().any(|name| header.contains_key(*name)) {
            return Err(OWN_KEY);
        }
        let key_id = text(&mut header, "kid")?;
        if key_id.as_ref().is_some_and(|id| id.len() > MAX_KEY_ID) {
            return Err(MALFORMED);
        }
        let kind = text(&mut header, "typ")?;
        let claims = object(payload)?;
        Ok(Token { message: message.as_bytes(), signature, algorithm, key_id, kind, claims })
    }
}

fn algorithm(header: &Map<String, Value>, algorithms: &[JwtAlgorithm]) -> Result<JwtAlgorithm, Refusal> {
    let name = header.get("alg").and_then(Value::as_str).ok_or(MALFORMED)?;
    if name.eq_ignore_ascii_case("none") {
        return Err(UNSIGNED);
    }
    JwtAlgorithm::named(name).filter(|algorithm| algorithms.contains(algorithm)).ok_or(ALGORITHM)
}

/// Without padding, without bits that say nothing, without a second dot.
fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    json::object(&text).map_err(|_| MALFORMED)
}

fn text(header: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match header.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(MALFORMED),
    }
}

/// Whether `typ` is `wanted` (RFC 7515 section 4.1.9): whatever the case, with or without `application/`.
pub fn is_of_kind(kind: Option<&str>, wanted: &str) -> bool {
    let bare = |text: &str| {
        let (before, rest) = text.split_at_checked("application/".len()).unwrap_or(("", text));
        let rest = if before.eq_ignore_ascii_case("application/") { rest } else { text };
        rest.to_ascii_lowercase()
    };
    kind.is_some_and(|kind| bare(kind) == bare(wanted))
}
