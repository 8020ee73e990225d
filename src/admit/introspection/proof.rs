//! How the gateway proves who it is to an introspection server: `client_secret_basic` or `private_key_jwt`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;

use super::super::digest::{Digest, digest};
use crate::config::problem::Problem;
use crate::config::settings::{At, ClientProof, IntrospectionSettings, JwtAlgorithm};
use crate::gateway::pem;

/// RFC 7521 section 4.2
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion is good, in seconds: until the server has read it.
const ASSERTION_LIFETIME: u64 = 60;

/// Ready to be used for every question.
pub(super) enum Proof {
    /// RFC 6749 section 2.3.1
    Basic(HeaderValue),
    /// RFC 7523 section 2.2
    Assertion(Box<Assertion>),
}

pub(super) struct Assertion {
    key: Key,
    algorithm: JwtAlgorithm,
    key_id: Option<String>,
    client_id: String,
    /// Of the assertion: the issuer where it is known, as RFC 7523 recommends, or else the URL that is asked.
    audience: String,
}

enum Key {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Proof {
    /// Reads the private key. Beside it something that differs if what proves differs, wherever it is read from.
    /// `None`: the problems are told.
    pub(super) fn build(
        settings: &IntrospectionSettings,
        problems: &mut Vec<Problem>,
    ) -> Option<(Proof, Option<Digest>)> {
        match &settings.client {
            ClientProof::Secret(secret) => {
                // Both are encoded as forms are before the colon goes between them.
                let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(&settings.client_id), encoded(secret.expose()));
                // Base64 always fits a field.
                let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
                value.set_sensitive(true);
                Some((Proof::Basic(value), None))
            }
            ClientProof::PrivateKey { key: file, algorithm, key_id } => {
                let der = pem::read_key(file, problems)?;
                let (key, fitting) = read(&der, *algorithm, file, problems)?;
                let assertion = Assertion {
                    key,
                    algorithm: algorithm.unwrap_or(fitting),
                    key_id: key_id.clone(),
                    client_id: settings.client_id.clone(),
                    audience: settings.issuer.clone().unwrap_or_else(|| settings.url.written()),
                };
                Some((Proof::Assertion(Box::new(assertion)), Some(digest([der.secret_der()]))))
            }
        }
    }

    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        match self {
            Proof::Basic(value) => Some(value.clone()),
            Proof::Assertion(_) => None,
        }
    }

    /// Adds what goes with the question itself.
    ///
    /// # Errors
    /// Why nothing can be signed.
    pub(super) fn add_to(&self, form: &mut form_urlencoded::Serializer<'_, String>) -> Result<(), String> {
        match self {
            Proof::Basic(_) => Ok(()),
            Proof::Assertion(assertion) => {
                let signed = assertion.sign(SystemTime::now())?;
                form.append_pair("client_id", &assertion.client_id)
                    .append_pair("client_assertion_type", ASSERTION_TYPE)
                    .append_pair("client_assertion", &signed);
                Ok(())
            }
        }
    }
}

/// A private key, and the algorithm that goes with it where none is named.
fn read(
    der: &PrivateKeyDer<'_>,
    wanted: Option<JwtAlgorithm>,
    file: &At<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Option<(Key, JwtAlgorithm)> {
    let Some((key, fitting)) = of_kind(der) else {
        let wrong = format!("`{}` is of a kind that signs no assertion", file.value.display());
        problems.push(
            Problem::error(&file.span, wrong).help("take a key of RSA (2048 bits and more), P-256, P-384 or Ed25519"),
        );
        return None;
    };
    let fits = wanted.is_none_or(|wanted| match &key {
        Key::Rsa(_) => rsa(wanted).is_some(),
        Key::Ecdsa(_) | Key::Ed25519(_) => wanted == fitting,
    });
    if !fits {
        let wrong = format!("`{}` does not go with private_key_algorithm", file.value.display());
        let help = format!("this key signs with {}: write that, or leave it out", fitting.as_str());
        problems.push(Problem::error(&file.span, wrong).help(help));
        return None;
    }
    Some((key, fitting))
}

fn of_kind(der: &PrivateKeyDer<'_>) -> Option<(Key, JwtAlgorithm)> {
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
        if let PrivateKeyDer::Pkcs8(key) = der {
            EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der()).ok()
        } else if let PrivateKeyDer::Sec1(key) = der {
            EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok()
        } else {
            None
        }
    };
    if let PrivateKeyDer::Pkcs1(key) = der {
        return RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(|key| (Key::Rsa(key), JwtAlgorithm::Rs256));
    }
    if let PrivateKeyDer::Pkcs8(key) = der
        && let Ok(key) = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
    {
        return Some((Key::Rsa(key), JwtAlgorithm::Rs256));
    }
    if let Some(key) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING) {
        return Some((Key::Ecdsa(key), JwtAlgorithm::Es256));
    }
    if let Some(key) = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING) {
        return Some((Key::Ecdsa(key), JwtAlgorithm::Es384));
    }
    if let PrivateKeyDer::Pkcs8(key) = der {
        let key = Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der()).ok()?;
        return Some((Key::Ed25519(key), JwtAlgorithm::EdDsa));
    }
    None
}

/// `None`: not one of RSA's.
fn rsa(algorithm: JwtAlgorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        JwtAlgorithm::Rs256 => Some(&RSA_PKCS1_SHA256),
        JwtAlgorithm::Rs384 => Some(&RSA_PKCS1_SHA384),
        JwtAlgorithm::Rs512 => Some(&RSA_PKCS1_SHA512),
        JwtAlgorithm::Ps256 => Some(&RSA_PSS_SHA256),
        JwtAlgorithm::Ps384 => Some(&RSA_PSS_SHA384),
        JwtAlgorithm::Ps512 => Some(&RSA_PSS_SHA512),
        JwtAlgorithm::Es256
        | JwtAlgorithm::Es384
        | JwtAlgorithm::EdDsa
        | JwtAlgorithm::Hs256
        | JwtAlgorithm::Hs384
        | JwtAlgorithm::Hs512 => None,
    }
}

impl Assertion {
    /// RFC 7523 section 3: who we are, twice; for whom; not for long; and never the same again.
    fn sign(&self, now: SystemTime) -> Result<String, String> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| "no random bytes are to be had".to_owned())?;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut header = json!({ "alg": self.algorithm.as_str(), "typ": "JWT" });
        if let (Some(header), Some(id)) = (header.as_object_mut(), &self.key_id) {
            header.insert("kid".to_owned(), id.as_str().into());
        }
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now,
            "exp": now.saturating_add(ASSERTION_LIFETIME),
        });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let unsigned = |_| "the assertion cannot be signed".to_owned();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let encoding = rsa(self.algorithm).ok_or_else(|| "the key does not fit".to_owned())?;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message.as_bytes(), &mut signature).map_err(unsigned)?;
                signature
            }
            Key::Ecdsa(key) => key.sign(&random, message.as_bytes()).map_err(unsigned)?.as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::KeySize;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;
    use crate::config::source::{SourceFile, Span};
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    fn at(path: PathBuf) -> At<PathBuf> {
        At { value: path, span: Span::whole_file(&std::sync::Arc::new(SourceFile::new("test.toml", ""))) }
    }

    fn pkcs8(der: Vec<u8>) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(der).into()
    }

    fn assertion(key: &PrivateKeyDer<'_>, algorithm: JwtAlgorithm) -> Assertion {
        let (key, _) = of_kind(key).unwrap();
        let (client_id, audience) = ("gateway".to_owned(), "https://login.test".to_owned());
        Assertion { key, algorithm, key_id: Some("one".to_owned()), client_id, audience }
    }

    #[test]
    fn an_assertion_is_verified_by_another_library() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = pkcs8(AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap().as_ref().to_vec());
        use aws_lc_rs::signature::KeyPair;
        let public = DecodingKey::from_rsa_der(rsa.public_key().as_ref());
        for (algorithm, theirs) in [(JwtAlgorithm::Rs256, Algorithm::RS256), (JwtAlgorithm::Ps384, Algorithm::PS384)] {
            let assertion = assertion(&der, algorithm);
            let signed = assertion.sign(SystemTime::now()).unwrap();
            let mut validation = Validation::new(theirs);
            validation.set_audience(&["https://login.test"]);
            validation.set_issuer(&["gateway"]);
            let token = jsonwebtoken::decode::<serde_json::Value>(&signed, &public, &validation).unwrap();
            assert_eq!(token.header.kid.as_deref(), Some("one"));
            assert_eq!(token.claims["sub"], "gateway");
            let life = token.claims["exp"].as_u64().unwrap() - token.claims["iat"].as_u64().unwrap();
            assert_eq!(life, ASSERTION_LIFETIME);
            assert_ne!(assertion.sign(SystemTime::now()).unwrap(), signed, "none is used twice");
        }
    }

    #[test]
    fn the_algorithm_goes_with_the_key() {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let cases = [
            (p256.as_ref(), JwtAlgorithm::Es256),
            (p384.as_ref(), JwtAlgorithm::Es384),
            (ed25519.as_ref(), JwtAlgorithm::EdDsa),
        ];
        let file = at("key.pem".into());
        for (der, fitting) in cases {
            let der = pkcs8(der.to_vec());
            let mut problems = Vec::new();
            let (_, found) = read(&der, None, &file, &mut problems).unwrap();
            assert_eq!(found, fitting);
            assert!(read(&der, Some(fitting), &file, &mut problems).is_some());
            assert!(problems.is_empty());
            assert!(read(&der, Some(JwtAlgorithm::Rs256), &file, &mut problems).is_none());
            assert!(problems[0].message.contains("does not go with private_key_algorithm"), "{problems:?}");
            assert!(assertion(&der, fitting).sign(SystemTime::now()).is_ok());
        }
    }

    #[test]
    fn a_secret_is_encoded_before_it_is_sent() {
        // RFC 6749 section 2.3.1 and its appendix B.
        let settings = super::super::testing::settings("https://login.test/introspect", "gate way", "s:e%c+r");
        let (proof, _) = Proof::build(&settings, &mut Vec::new()).unwrap();
        let value = proof.authorization().unwrap();
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"gate+way:s%3Ae%25c%2Br");
    }

    #[test]
    fn a_file_without_a_key_is_told_without_its_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hunter2").unwrap();
        let mut settings = super::super::testing::settings("https://login.test/introspect", "gateway", "x");
        let key = at(file.path().to_owned());
        settings.client = ClientProof::PrivateKey { key, algorithm: None, key_id: None };
        let mut problems = Vec::new();
        assert!(Proof::build(&settings, &mut problems).is_none());
        assert!(!format!("{problems:?}").contains("hunter2") && problems.len() == 1, "{problems:?}");
    }
}
