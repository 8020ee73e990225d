//! JSON Web Tokens (RFC 7519) as access tokens.
//!
//! The configuration says what is taken; a token only has to fit. What can be refused without a signature is refused
//! before one is verified, the issuer first: a token of somebody else's never makes the gateway ask for keys.

pub mod claims;
pub mod issuer;
pub mod json;
pub mod keys;
pub mod keyset;
mod rounds;
pub mod token;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use self::claims::{Demanded, Fitting};
use self::issuer::{Issuer, Place};
use self::keys::{Keys, Refetched};
use self::keyset::{KeySet, Signature};
use self::token::{MAX_TOKEN, Refusal, Token, is_of_kind};
use super::auth::{Building, Failure, Judged, Offhand};
use super::digest::Digested;
use super::identity::{Identity, Method};
use super::verified::{Holds, Prover, Seen};
use crate::clock;
use crate::config::problem::Problem;
use crate::config::settings::{At, JwtAlgorithm, JwtKeys, JwtSettings, TokenFrom};
use crate::config::source::Span;
use crate::fetch::{Client, Tls};
use crate::worker::Worker;

/// A verified token is judged anew at least this often, should the clock on the wall be set back.
const VERIFIED: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a `jwks_file`.
const MAX_FILE: u64 = 1024 * 1024;

const BAD_SIGNATURE: Refusal = "the signature of the token is not valid";
const UNKNOWN_KEY: Refusal = "the key of the token is not known";

/// `kind = "jwt"`
pub struct Jwt {
    name: Arc<str>,
    settings: JwtSettings,
    keys: Arc<Keys>,
    /// The same in the next snapshot if the settings and a file's keys are.
    prover: Prover,
}

impl Jwt {
    /// `span`: where problems are told that no file has.
    pub fn build(
        name: &Arc<str>,
        settings: &JwtSettings,
        span: &Span,
        before: Option<&Jwt>,
        building: &mut Building<'_>,
    ) -> Option<Jwt> {
        let keys_before = before.map(|before| &before.keys);
        let before = before.filter(|before| before.settings == *settings);
        let keys = match &settings.keys {
            JwtKeys::File(file) => {
                let keys = read_file(file, &settings.algorithms, building.problems)?;
                match before.filter(|before| before.keys.current().is_ok_and(|before| *before == keys)) {
                    Some(before) => Arc::clone(&before.keys),
                    None => Arc::new(Keys::fixed(keys)),
                }
            }
            JwtKeys::Secret(secret) => match before {
                Some(before) => Arc::clone(&before.keys),
                None => Arc::new(Keys::fixed(KeySet::secret(secret.expose().as_bytes(), &settings.algorithms))),
            },
            JwtKeys::Discovery(document) => {
                let place = Place::Discovery { issuer: settings.issuer.clone(), document: document.clone() };
                let tls = if document.https { Tls::Always } else { Tls::Perhaps };
                fetched(name, settings, place, tls, span, keys_before, building)?
            }
            JwtKeys::Url(url) => {
                fetched(name, settings, Place::Url(url.clone()), Tls::to(url), span, keys_before, building)?
            }
        };
        let prover = match before.filter(|before| Arc::ptr_eq(&before.keys, &keys)) {
            Some(before) => before.prover,
            None => Prover::new(),
        };
        Some(Jwt { name: Arc::clone(name), settings: settings.clone(), keys, prover })
    }

    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub fn token_from(&self) -> &TokenFrom {
        &self.settings.token_from
    }

    /// What was found of this token not long ago.
    pub fn known(&self, worker: &Worker, token: &Digested<'_>) -> Option<Seen> {
        if token.text().len() > MAX_TOKEN {
            return None;
        }
        worker.admission.verified.get(self.prover, self.keys.generation(), token.mark())
    }

    /// Another auth took what is foreign here.
    pub fn taken_elsewhere(&self, worker: &Worker, token: &Digested<'_>, why: &'static str) {
        worker.admission.verified.foreign(self.prover, self.keys.generation(), token.mark(), why, VERIFIED);
    }

    pub async fn judge(&self, worker: &Worker, token: &Digested<'_>) -> Judged {
        let read = self.read(token.text())?;
        let fitting = self.fit(&read, clock::recent_wall())?;
        let generation = self.signed(&read).await?;
        let identity = self.identity(&read, &fitting);
        let holds = Holds { until: Some(fitting.until), at_most: VERIFIED };
        worker.admission.verified.put(self.prover, generation, token.mark(), &identity, holds);
        Ok(identity)
    }

    /// The same by the keys of this moment, without asking the issuer for others.
    pub fn judge_now(&self, token: &[u8], now: SystemTime) -> Offhand {
        let fitting = self.read(token).and_then(|read| {
            let identity = self.identity(&read, &self.fit(&read, now)?);
            Ok((read, identity))
        });
        let (read, identity) = match fitting {
            Ok(fitting) => fitting,
            Err(failure) => return Offhand::Judged(Err(failure)),
        };
        let keys = match self.keys.current() {
            Ok(keys) => keys,
            Err(why) => return Offhand::Unproved { identity, why },
        };
        let refused = |why| Offhand::Judged(Err(Failure::Invalid(why)));
        match keys.verify(read.algorithm, read.key_id.as_deref(), read.message, read.signature) {
            Signature::Valid => Offhand::Judged(Ok(identity)),
            Signature::Invalid => refused(BAD_SIGNATURE),
            Signature::UnknownKey => refused(UNKNOWN_KEY),
        }
    }

    /// What a token says of itself, proved or not; `None`: it is none.
    pub fn claims(&self, token: &[u8]) -> Option<Map<String, Value>> {
        Token::parse(token, &self.settings.algorithms).ok().map(|read| read.claims)
    }

    fn read<'t>(&self, token: &'t [u8]) -> Result<Token<'t>, Failure> {
        let read = Token::parse(token, &self.settings.algorithms).map_err(Failure::Invalid)?;
        match &self.settings.token_type {
            Some(wanted) if !is_of_kind(read.kind.as_deref(), wanted) => {
                Err(Failure::Invalid("the token is of another type"))
            }
            Some(_) | None => Ok(read),
        }
    }

    /// Whether what the token says would be enough at `now`, were it signed.
    fn fit<'t>(&self, read: &'t Token<'_>, now: SystemTime) -> Result<Fitting<'t>, Failure> {
        let JwtSettings { issuer, audience, leeway, .. } = &self.settings;
        let demanded = Demanded { issuer, audience, leeway: *leeway };
        demanded.is_ours(&read.claims).map_err(Failure::Foreign)?;
        demanded.judge(&read.claims, now).map_err(Failure::Invalid)
    }

    fn identity(&self, read: &Token<'_>, fitting: &Fitting<'_>) -> Arc<Identity> {
        Arc::new(Identity::new(
            &self.name,
            Method::Jwt,
            fitting.subject,
            claims::roles(&read.claims, &self.settings.claims),
            claims::scopes(&read.claims, &self.settings.claims),
        ))
    }

    /// The generation of the keys that the signature is valid by.
    async fn signed(&self, token: &Token<'_>) -> Result<u64, Failure> {
        // Twice, since what others had asked before this token came may change the keys and still say nothing of it.
        let mut questions: u8 = 2;
        let mut unanswered = false;
        loop {
            // Before the keys: were they changed in between, what they prove is merely not found again.
            let generation = self.keys.generation();
            let keys = self.keys.current().map_err(Failure::Unavailable)?;
            let signature = keys.verify(token.algorithm, token.key_id.as_deref(), token.message, token.signature);
            // A signature that is not valid may be by a new key of an old name.
            if signature != Signature::Valid && questions > 0 {
                match self.keys.refetch(generation).await {
                    Refetched::Others => {
                        questions = questions.saturating_sub(1);
                        continue;
                    }
                    Refetched::Same => {}
                    Refetched::Unanswered => unanswered = true,
                }
            }
            match signature {
                Signature::Valid => return Ok(generation),
                Signature::Invalid => return Err(Failure::Invalid(BAD_SIGNATURE)),
                // It may be the issuer's newest: a client that is told 401 would throw a good token away.
                Signature::UnknownKey if unanswered => {
                    let why = "the key of the token is not known, and the issuer gives no newer ones now";
                    return Err(Failure::Unavailable(why.to_owned()));
                }
                Signature::UnknownKey => return Err(Failure::Invalid(UNKNOWN_KEY)),
            }
        }
    }
}

/// Keys that the issuer is asked for.
fn fetched(
    name: &Arc<str>,
    settings: &JwtSettings,
    place: Place,
    tls: Tls,
    span: &Span,
    before: Option<&Arc<Keys>>,
    building: &mut Building<'_>,
) -> Option<Arc<Keys>> {
    let client_before = before.and_then(|keys| keys.client());
    let ca = settings.ca.as_ref();
    let client = Client::build(ca, tls, span, building.system_roots, client_before, building.problems)?;
    let issuer = Issuer {
        auth: Arc::clone(name),
        place,
        algorithms: settings.algorithms.clone(),
        max_stale: settings.max_stale,
        client,
        metrics: building.metrics.keys(name),
    };
    Some(Keys::fetched(issuer, before))
}

fn read_file(
    file: &At<std::path::PathBuf>,
    algorithms: &[JwtAlgorithm],
    problems: &mut Vec<Problem>,
) -> Option<KeySet> {
    let shown = file.value.display();
    let (message, help) = match crate::config::read_bounded(&file.value, MAX_FILE) {
        Err(error) => {
            (format!("the keys `{shown}` cannot be read: {error}"), "paths are relative to the configuration file")
        }
        Ok(text) if KeySet::holds_private(&text) => (
            format!("the keys `{shown}` are not all public: who reads the file could sign tokens"),
            "leave the members d, p, q, dp, dq, qi, oth and k out, and make new keys if others may have read them",
        ),
        Ok(text) => match KeySet::parse(&text, algorithms) {
            Ok(keys) => return Some(keys),
            Err(why) => (
                format!("the keys `{shown}` cannot be used: {why}"),
                "name a JWK Set (RFC 7517) with the public keys of the issuer",
            ),
        },
    };
    problems.push(Problem::error(&file.span, message).help(help));
    None
}
