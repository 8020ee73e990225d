//! The keys that signatures are verified with: a JWK Set (RFC 7517), or a secret.
//!
//! Each key is bound to the algorithms that it may be used with when it is read, from what the configuration allows
//! and what the key itself says. A token only chooses among these, so that no token makes a public key a secret or
//! uses a curve with another's algorithm.

use std::cmp::Reverse;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::json;
use super::token::MAX_KEY_ID;
use crate::config::settings::JwtAlgorithm;

/// Members of one set, whatever they are good for.
const MAX_MEMBERS: usize = 256;
/// Keys of one set that can be used: more than any issuer has. A token that names none is tried with each that fits,
/// and each costs a signature.
const MAX_KEYS: usize = 64;
/// RFC 7518 sections 3.3 and 3.5 demand 2048 bits; beyond 8192 a verification takes too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// At least one key that can be used.
#[derive(PartialEq, Eq)]
pub struct KeySet {
    keys: Box<[Key]>,
}

struct Key {
    /// `kid`
    id: Option<Box<str>>,
    /// At least one.
    algorithms: Box<[JwtAlgorithm]>,
    decoding: DecodingKey,
    /// What it is compared by; nothing of a secret.
    public: Public,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point of a curve, as the algorithm that goes with the curve has it.
    Point(Vec<u8>),
    /// Not compared: it is in the settings.
    Secret,
}

/// What a signature proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Valid,
    /// There is a key of the name that the token gives, and it is not by that key.
    Invalid,
    /// There is no key of that name, or it gives none and is by none of these: its key may be newer than the set.
    UnknownKey,
}

/// Why there are no keys, for people; nothing of the keys in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoKeys {
    /// This is no set of keys, or too large a one.
    Unreadable(String),
    /// This is one, and none of it can be used.
    NoneFits(String),
}

impl fmt::Display for NoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoKeys::Unreadable(why) | NoKeys::NoneFits(why) => f.write_str(why),
        }
    }
}

impl KeySet {
    /// The keys of a JWK Set that can be used with one of `algorithms`. Others are passed over, as RFC 7517 section 5
    /// says: encryption keys, kinds that are not known, RSA keys that are too short.
    ///
    /// # Errors
    /// Why none can be used.
    pub fn parse(text: &[u8], algorithms: &[JwtAlgorithm]) -> Result<KeySet, NoKeys> {
        let unreadable = |why: &str| NoKeys::Unreadable(why.to_owned());
        let set = json::object(text).map_err(|_| unreadable("it is not a JSON object, or names a member twice"))?;
        let Some(Value::Array(members)) = set.get("keys") else {
            return Err(unreadable("it has no list `keys`: it is no JWK Set (RFC 7517)"));
        };
        if members.len() > MAX_MEMBERS {
            return Err(NoKeys::Unreadable(format!("it has more than {MAX_MEMBERS} keys")));
        }
        let mut keys = Vec::new();
        let mut passed_over: Vec<String> = Vec::new();
        for member in members {
            match Key::parse(member, algorithms) {
                Ok(key) => keys.push(key),
                Err(why) if passed_over.contains(&why) => {}
                Err(why) => passed_over.push(why),
            }
        }
        keys.sort_by(|one, other| one.order().cmp(&other.order()));
        keys.dedup();
        if keys.is_empty() {
            let names: Vec<&str> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            let why = if passed_over.is_empty() { "it is empty".to_owned() } else { passed_over.join("; ") };
            return Err(NoKeys::NoneFits(format!("it has no key for {}: {why}", names.join(", "))));
        }
        if keys.len() > MAX_KEYS {
            return Err(NoKeys::Unreadable(format!("it has more than {MAX_KEYS} keys that can be used")));
        }
        Ok(KeySet { keys: keys.into_boxed_slice() })
    }

    /// Whether it holds a private key or a secret (RFC 7518 section 6): nothing that a verifier has.
    pub fn holds_private(text: &[u8]) -> bool {
        let Ok(set) = json::object(text) else { return false };
        let Some(Value::Array(keys)) = set.get("keys") else { return false };
        keys.iter().any(|key| ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| key.get(name).is_some()))
    }

    /// A secret that the issuer and the gateway share, for HS256 to HS512.
    pub fn secret(secret: &[u8], algorithms: &[JwtAlgorithm]) -> KeySet {
        let algorithms = algorithms.iter().copied().filter(|algorithm| algorithm.secret_bytes().is_some()).collect();
        let decoding = DecodingKey::from_secret(secret);
        KeySet { keys: Box::new([Key { id: None, algorithms, decoding, public: Public::Secret }]) }
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Judges `signature`, still in base64url, of `message`. `algorithm` is one that the configuration allows.
    pub fn verify(&self, algorithm: JwtAlgorithm, id: Option<&str>, message: &[u8], signature: &str) -> Signature {
        let named = |key: &&Key| match (id, &key.id) {
            (Some(id), Some(name)) => **name == *id,
            // A key without a name may be the one that is meant.
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let mut tried = self.keys.iter().filter(named).filter(fits);
        let valid = |key: &Key| {
            let verified = jsonwebtoken::crypto::verify(signature, message, &key.decoding, of(algorithm));
            verified.unwrap_or(false)
        };
        if tried.any(valid) {
            return Signature::Valid;
        }
        let is_meant = |key: &Key| match (&key.public, &key.id, id) {
            // There is no other.
            (Public::Secret, ..) => true,
            (Public::Rsa { .. } | Public::Point(_), Some(name), Some(id)) => **name == *id,
            (Public::Rsa { .. } | Public::Point(_), ..) => false,
        };
        if self.keys.iter().any(is_meant) { Signature::Invalid } else { Signature::UnknownKey }
    }
}

/// Leaves the keys out.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Key {}

impl Key {
    /// Named keys before those that may be anyone's; sets of the same keys are the same whatever their order.
    fn order(&self) -> (Reverse<Option<&str>>, &[JwtAlgorithm], &Public) {
        (Reverse(self.id.as_deref()), &self.algorithms, &self.public)
    }

    fn parse(member: &Value, allowed: &[JwtAlgorithm]) -> Result<Key, String> {
        let Value::Object(jwk) = member else { return Err("a key is no JSON object".to_owned()) };
        let id: Option<Box<str>> = match jwk.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID => Some(id.as_str().into()),
            Some(_) => return Err("a `kid` is no string, or far too long".to_owned()),
        };
        may_verify(jwk)?;
        let kind = text(jwk, "kty")?.ok_or("a key has no `kty`")?;
        let (could, decoding, public) = match kind {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            "oct" => return Err("a secret has no place in a set of public keys".to_owned()),
            _ => return Err("a key is of a kind that is not known".to_owned()),
        };
        let said = text(jwk, "alg")?;
        let fits =
            |algorithm: &JwtAlgorithm| could.contains(algorithm) && said.is_none_or(|said| said == algorithm.as_str());
        let algorithms: Box<[JwtAlgorithm]> = allowed.iter().copied().filter(fits).collect();
        if algorithms.is_empty() {
            return Err(match said.and_then(JwtAlgorithm::named) {
                Some(said) => format!("a key is for {}", said.as_str()),
                None => format!("{kind} keys such as one of these are for other algorithms"),
            });
        }
        Ok(Key { id, algorithms, decoding, public })
    }
}

/// `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3).
fn may_verify(jwk: &Map<String, Value>) -> Result<(), String> {
    if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("a key is not for signatures (`use`)".to_owned());
    }
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => false,
    };
    if verifies { Ok(()) } else { Err("a key is not for verifying (`key_ops`)".to_owned()) }
}

type Read = Result<(&'static [JwtAlgorithm], DecodingKey, Public), String>;

/// RFC 7518 section 6.3
fn rsa(jwk: &Map<String, Value>) -> Read {
    use JwtAlgorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let whole = |name| Ok::<_, String>(without_leading_zeros(bytes(jwk, name)?));
    let (n, e) = (whole("n")?, whole("e")?);
    if !RSA_BITS.contains(&bits(&n)) {
        return Err(format!("an RSA key has {} bits: 2048 to 8192 are taken", bits(&n)));
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    // What aws-lc takes: more would only slow verification.
    if !odd(&n) || !odd(&e) || !(2..=33).contains(&bits(&e)) {
        return Err("an RSA key is none".to_owned());
    }
    let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
    Ok((&[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512], decoding, Public::Rsa { n, e }))
}

/// RFC 7518 section 6.2
fn elliptic(jwk: &Map<String, Value>) -> Read {
    let (length, algorithms, verification): (_, &'static [JwtAlgorithm], _) = match text(jwk, "crv")? {
        Some("P-256") => (32, &[JwtAlgorithm::Es256], &ECDSA_P256_SHA256_FIXED),
        Some("P-384") => (48, &[JwtAlgorithm::Es384], &ECDSA_P384_SHA384_FIXED),
        Some(_) | None => return Err("an EC key is of a curve that is not taken: P-256 and P-384 are".to_owned()),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    let mut point = vec![4];
    point.extend_from_slice(&x);
    point.extend_from_slice(&y);
    // Only a point of the curve is a key.
    if x.len() != length || y.len() != length || ParsedPublicKey::new(verification, &point).is_err() {
        return Err("an EC key is no point of its curve".to_owned());
    }
    Ok((algorithms, DecodingKey::from_ec_der(&point), Public::Point(point)))
}

/// RFC 8037 section 2
fn edwards(jwk: &Map<String, Value>) -> Read {
    if text(jwk, "crv")? != Some("Ed25519") {
        return Err("an OKP key is of a curve that is not taken: Ed25519 is".to_owned());
    }
    let x = bytes(jwk, "x")?;
    if ParsedPublicKey::new(&ED25519, &x).is_err() {
        return Err("an Ed25519 key is none".to_owned());
    }
    Ok((&[JwtAlgorithm::EdDsa], DecodingKey::from_ed_der(&x), Public::Point(x)))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("the `{name}` of a key is no string")),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(jwk, name)?.ok_or_else(|| format!("a key has no `{name}`"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("the `{name}` of a key is not base64url"))
}

fn without_leading_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |first| first.leading_zeros());
    number.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

fn of(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Hs384 => Algorithm::HS384,
        JwtAlgorithm::Hs512 => Algorithm::HS512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_issuer_has_is_seen() {
        let public = r#"{"kty": "EC", "crv": "P-256", "x": "WKn-", "y": "y77t"}"#;
        assert!(!KeySet::holds_private(format!("{{\"keys\": [{public}]}}").as_bytes()));
        for private in [r#"{"kty": "EC", "d": "870M"}"#, r#"{"kty": "oct", "k": "AyM1"}"#] {
            let set = format!("{{\"keys\": [{public}, {private}]}}");
            assert!(KeySet::holds_private(set.as_bytes()), "{set}");
        }
    }
}
