//! API keys, of which only digests are known here.
//!
//! A key that is shown is hashed and its digest looked up. The look-up tells a clock nothing: the table's own hash of a
//! digest is keyed at random, so that nobody can choose digests that lie near one another, and digests themselves are
//! compared in constant time. It also costs the same for one key and for a hundred thousand.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::auth::{Building, Failure, Judged};
use super::credential::decoded;
use super::digest::{Digest, digest};
use super::identity::{Identity, Method};
use crate::config::keys_file;
use crate::config::problem::Problem;
use crate::config::settings::{ApiKeyEntry, ApiKeyPlace, ApiKeySettings};

/// `kind = "api_key"`
pub struct ApiKeys {
    place: ApiKeyPlace,
    holders: HashMap<OfKey, Arc<Identity>>,
}

/// What is held instead of a key.
#[derive(Clone, Copy)]
struct OfKey(Digest);

impl PartialEq for OfKey {
    fn eq(&self, other: &OfKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for OfKey {}

impl Hash for OfKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl ApiKeys {
    /// Reads `keys_file`. `None`: its problems are told.
    pub fn build(auth: &Arc<str>, settings: &ApiKeySettings, building: &mut Building<'_>) -> Option<ApiKeys> {
        let mut keys = ApiKeys { place: settings.place.clone(), holders: HashMap::new() };
        keys.add(auth, &settings.keys);
        let Some(file) = &settings.keys_file else { return Some(keys) };
        let entries = keys_file::read(file, building.problems)?;
        // Within the file nothing is there twice; beside `keys` something may be.
        for entry in &entries {
            let name = entry.name.escape_debug();
            let wrong = if settings.keys.iter().any(|key| key.name == entry.name) {
                format!("`{name}` has a key in `keys` and one in `{}`", file.value.display())
            } else if keys.holders.contains_key(&OfKey(entry.hash)) {
                format!("the key of `{name}` in `{}` is that of another in `keys`", file.value.display())
            } else {
                continue;
            };
            building.problems.push(Problem::error(&file.span, wrong).help("take one of them out"));
            return None;
        }
        keys.add(auth, &entries);
        Some(keys)
    }

    fn add(&mut self, auth: &Arc<str>, entries: &[ApiKeyEntry]) {
        for ApiKeyEntry { name, hash, roles, scopes } in entries {
            let identity = Identity::new(auth, Method::ApiKey, name, roles.iter().cloned(), scopes.iter().cloned());
            self.holders.insert(OfKey(*hash), Arc::new(identity));
        }
    }

    pub fn place(&self) -> &ApiKeyPlace {
        &self.place
    }

    /// Who holds this key; one from a query is still encoded.
    ///
    /// # Errors
    /// Nobody does.
    pub fn judge(&self, key: &[u8]) -> Judged {
        let key = match &self.place {
            ApiKeyPlace::Header(_) => Cow::Borrowed(key),
            ApiKeyPlace::Query(_) => decoded(key),
        };
        let holder = self.holders.get(&OfKey(digest([&key])));
        holder.cloned().ok_or(Failure::Invalid("the key is not known"))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::config::settings::At;
    use crate::observe::metrics::Metrics;
    use crate::upstream::tls::SystemRoots;

    fn entry(name: &str, key: &str) -> ApiKeyEntry {
        ApiKeyEntry { name: name.into(), hash: digest([key.as_bytes()]), roles: vec!["r".into()], scopes: Vec::new() }
    }

    fn build(settings: &ApiKeySettings) -> Result<ApiKeys, Vec<String>> {
        let mut problems = Vec::new();
        let mut building =
            Building { metrics: &Metrics::new(1), system_roots: &SystemRoots::default(), problems: &mut problems };
        let built = ApiKeys::build(&Arc::from("partners"), settings, &mut building);
        built.ok_or_else(|| problems.into_iter().map(|problem| problem.message).collect())
    }

    fn subject(judged: &Judged) -> Result<&str, &Failure> {
        judged.as_ref().map(|identity| identity.subject())
    }

    #[test]
    fn a_key_is_known_by_its_digest() {
        let place = ApiKeyPlace::Header(HeaderName::from_static("x-api-key"));
        let keys = vec![entry("acme", "one"), entry("zeta", "two")];
        let keys = build(&ApiKeySettings { place, keys, keys_file: None }).ok().unwrap();
        assert_eq!(subject(&keys.judge(b"one")), Ok("acme"));
        assert_eq!(subject(&keys.judge(b"two")), Ok("zeta"));
        assert!(keys.judge(b"one").unwrap().has_role("r"));
        for wrong in ["", "One", "one ", "onetwo", "%6fne"] {
            assert_eq!(
                subject(&keys.judge(wrong.as_bytes())),
                Err(&Failure::Invalid("the key is not known")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_key_in_a_query_is_decoded_first() {
        let place = ApiKeyPlace::Query("key".into());
        let keys =
            build(&ApiKeySettings { place, keys: vec![entry("acme", "a b+c/d")], keys_file: None }).ok().unwrap();
        for shown in ["a%20b%2Bc%2fd", "a+b%2bc/d"] {
            assert_eq!(subject(&keys.judge(shown.as_bytes())), Ok("acme"), "{shown}");
        }
        assert!(keys.judge(b"a b+c/d").is_err());
    }

    #[test]
    fn a_file_adds_keys_and_repeats_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let hex = |key: &str| digest([key.as_bytes()]).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let settings = ApiKeySettings {
            place: ApiKeyPlace::Header(HeaderName::from_static("x-api-key")),
            keys: vec![entry("acme", "one")],
            keys_file: Some(At { value: path.clone(), span: crate::upstream::testing::span() }),
        };
        let told = |name: &str, key: &str| {
            std::fs::write(&path, format!("keys = [{{ name = \"{name}\", hash = \"sha256:{}\" }}]", hex(key))).unwrap();
            build(&settings)
        };
        let keys = told("zeta", "two").ok().unwrap();
        assert_eq!((subject(&keys.judge(b"one")), subject(&keys.judge(b"two"))), (Ok("acme"), Ok("zeta")));
        assert!(told("acme", "two").is_err_and(|told| told[0].starts_with("`acme` has a key in `keys` and one in")));
        assert!(told("zeta", "one").is_err_and(|told| told[0].starts_with("the key of `zeta`")));
    }
}
