//! Tokens through the whole of `kind = "jwt"`: the vectors of the RFCs, and what attackers send.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keyset::{KeySet, NoKeys, Signature};
use super::testing::{Signer, claims, compact, encode, jwks, now, with};
use super::token::Token;
use super::{claims as judged, token};
use crate::admit::auth::{Auth, Failure, Judged, Kind};
use crate::admit::digest::Digested;
use crate::admit::verified::Seen;
use crate::config::settings::JwtAlgorithm;
use crate::server::testing;
use crate::worker::Worker;

const ALL: [JwtAlgorithm; 12] = {
    use JwtAlgorithm::*;
    [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, Es256, Es384, EdDsa, Hs256, Hs384, Hs512]
};

/// A worker of a gateway with `[auth.staff]`.
struct Gate {
    worker: Worker,
    staff: Arc<Auth>,
}

impl Gate {
    /// `more`: its keys beside what every one has.
    fn new(more: &str) -> Gate {
        let text = format!(
            "[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/{{*rest}}\"\nauth = [\"staff\"]\n\
             respond = {{ status = 204 }}\n[auth.staff]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\n\
             audience = [\"orders\", \"https://orders.example\"]\n{more}\n"
        );
        let worker = testing::worker(&text);
        let staff = Arc::clone(worker.gateway().auths.get("staff").unwrap());
        Gate { worker, staff }
    }

    fn with_keys(keys: &str, more: &str) -> Gate {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("jwks.json");
        std::fs::write(&path, keys).unwrap();
        Gate::new(&format!("jwks_file = \"{}\"\n{more}", path.display()))
    }

    fn judge(&self, token: &str) -> Judged {
        let Kind::Jwt(jwt) = &self.staff.kind else { panic!("not a jwt") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(jwt.judge(&self.worker, &Digested::new(token.as_bytes())))
    }

    fn known(&self, token: &str) -> Option<String> {
        let Kind::Jwt(jwt) = &self.staff.kind else { panic!("not a jwt") };
        match jwt.known(&self.worker, &Digested::new(token.as_bytes()))? {
            Seen::Proved(identity) => Some(identity.subject().to_owned()),
            Seen::Foreign(why) => panic!("{why}"),
        }
    }

    fn subject(&self, token: &str) -> Result<String, Failure> {
        self.judge(token).map(|identity| identity.subject().to_owned())
    }
}

/// Each vector is valid with its key, and with no bit of its signature changed.
#[test]
fn vectors_of_rfc_7515_7520_and_8037() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert_eq!(vectors.len(), 8);
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let (from, token) = (text("from"), text("token"));
        let Some(algorithm) = JwtAlgorithm::named(text("algorithm")) else {
            // ES512: neither its keys nor its tokens are taken.
            assert_eq!(from, "RFC 7520 section 4.3");
            assert!(KeySet::parse(json!({"keys": [vector["key"]]}).to_string().as_bytes(), &ALL).is_err());
            assert_eq!(Token::parse(token.as_bytes(), &ALL).err(), Some(token::ALGORITHM));
            continue;
        };
        let keys = match algorithm.secret_bytes() {
            Some(_) => KeySet::secret(&URL_SAFE_NO_PAD.decode(vector["key"]["k"].as_str().unwrap()).unwrap(), &ALL),
            None => KeySet::parse(json!({"keys": [vector["key"]]}).to_string().as_bytes(), &ALL).unwrap(),
        };
        let (message, signature) = token.rsplit_once('.').unwrap();
        let id = vector["key"]["kid"].as_str();
        assert_eq!(keys.verify(algorithm, id, message.as_bytes(), signature), Signature::Valid, "{from}");
        assert_eq!(keys.verify(algorithm, None, message.as_bytes(), signature), Signature::Valid, "{from}");
        let mut broken = URL_SAFE_NO_PAD.decode(signature).unwrap();
        broken[7] ^= 1;
        // Whoever names no key may mean one that is not there.
        let refused = match (id, algorithm.secret_bytes()) {
            (None, None) => Signature::UnknownKey,
            (Some(_), _) | (None, Some(_)) => Signature::Invalid,
        };
        assert_eq!(keys.verify(algorithm, id, message.as_bytes(), &encode(&broken)), refused, "{from}");
        let other = format!("{message}A");
        assert_eq!(keys.verify(algorithm, id, other.as_bytes(), signature), refused, "{from}");
    }
}

/// RFC 7515 appendix A.5
#[test]
fn an_unsigned_token_is_none() {
    let token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19\
                 yb290Ijp0cnVlfQ.";
    assert_eq!(Token::parse(token.as_bytes(), &ALL).err(), Some(token::UNSIGNED));
}

#[test]
fn tokens_of_every_algorithm_are_taken_where_it_is_listed() {
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let signer = Signer::new(algorithm, "key");
        let gate = Gate::with_keys(&jwks([&signer]), &format!("algorithms = [\"{algorithm}\"]"));
        assert_eq!(gate.subject(&signer.sign(&claims())).as_deref(), Ok("alice"), "{algorithm}");
        let other = if algorithm == "ES256" { "RS256" } else { "ES256" };
        let others = Signer::new(other, "other");
        let gate = Gate::with_keys(&jwks([&others]), &format!("algorithms = [\"{other}\"]"));
        assert_eq!(gate.subject(&signer.sign(&claims())), Err(Failure::Invalid(token::ALGORITHM)), "{algorithm}");
    }
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for algorithm in ["HS256", "HS384", "HS512"] {
        let signer = Signer::of_secret(algorithm, secret.as_bytes());
        let gate = Gate::new(&format!("secret = \"{secret}\"\nalgorithms = [\"{algorithm}\"]"));
        assert_eq!(gate.subject(&signer.sign(&claims())).as_deref(), Ok("alice"), "{algorithm}");
        let forger = Signer::of_secret(algorithm, b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeF");
        assert!(gate.subject(&forger.sign(&claims())).is_err());
    }
}

const SIGNATURE: &str = "the signature of the token is not valid";
const UNKNOWN: &str = "the key of the token is not known";

/// What attackers send, and why it is refused.
#[test]
fn attacks() {
    let (rsa, ec, ed) = (Signer::new("RS256", "rsa"), Signer::new("ES256", "ec"), Signer::new("EdDSA", "ed"));
    let keys = jwks([&rsa, &ec, &ed]);
    let gate = Gate::with_keys(&keys, "");
    let refused = |token: String, why: &'static str, what: &str| {
        assert_eq!(gate.subject(&token), Err(Failure::Invalid(why)), "{what}: {token}");
        assert_eq!(gate.known(&token), None, "{what}");
    };
    for signer in [&rsa, &ec, &ed] {
        assert_eq!(gate.subject(&signer.sign(&claims())).as_deref(), Ok("alice"));
    }
    let good = rsa.sign(&claims());
    let header = |others: Value| rsa.sign_with(&with(rsa.header(), others), &claims());

    // No signature.
    for none in ["none", "None", "NONE", "nOnE"] {
        let text = format!(r#"{{"alg":"{none}"}}"#);
        refused(compact(&text, &claims().to_string(), b""), token::UNSIGNED, "none");
        refused(compact(&text, &claims().to_string(), b"x"), token::UNSIGNED, "none with a signature");
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    refused(format!("{message}."), SIGNATURE, "the signature cut off");
    refused(message.to_owned(), token::MALFORMED, "two parts");

    // Another's algorithm.
    for public in [rsa.jwk()["n"].as_str().unwrap().as_bytes(), keys.as_bytes(), b""] {
        let confused = Signer::of_secret("HS256", public);
        refused(
            confused.sign_with(&with(rsa.header(), json!({"alg": "HS256"})), &claims()),
            token::ALGORITHM,
            "a public key as a secret",
        );
    }
    refused(header(json!({"alg": "RS384"})), token::ALGORITHM, "an algorithm that is not listed");
    refused(header(json!({"alg": "rs256"})), token::ALGORITHM, "in another case");
    refused(header(json!({"alg": "PS256"})), token::ALGORITHM, "another padding");
    refused(header(json!({"alg": "ES256"})), SIGNATURE, "the name of a key of another kind");
    refused(ec.sign_with(&with(ec.header(), json!({"kid": "rsa"})), &claims()), SIGNATURE, "likewise");
    refused(ec.sign_with(&with(ec.header(), json!({"alg": "EdDSA"})), &claims()), SIGNATURE, "another curve");
    refused(header(json!({"alg": null})), token::MALFORMED, "no algorithm");
    refused(header(json!({"alg": ["RS256"]})), token::MALFORMED, "a list of algorithms");

    // Keys of its own.
    let forger = Signer::new("RS256", "rsa");
    for (name, value) in [
        ("jwk", forger.jwk()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        refused(forger.sign_with(&with(forger.header(), json!({name: value})), &claims()), token::OWN_KEY, name);
    }
    refused(forger.sign(&claims()), SIGNATURE, "a name that is known, of a key that is not");
    refused(header(json!({"kid": "newer"})), UNKNOWN, "a name that is not known");
    refused(header(json!({"kid": "../../dev/null"})), UNKNOWN, "a path for a name");
    refused(header(json!({"kid": "x' OR '1'='1"})), UNKNOWN, "a statement for a name");
    refused(header(json!({"kid": 1})), token::MALFORMED, "a number for a name");
    refused(header(json!({"kid": "x".repeat(2000)})), token::MALFORMED, "a long name");

    // Extensions.
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), json!("x")] {
        refused(header(json!({"crit": critical})), token::CRITICAL, "crit");
    }

    // Two readings.
    let twice = [
        (format!(r#"{{"alg":"none","alg":"RS256","kid":"{}"}}"#, rsa.id), claims().to_string()),
        (rsa.header().to_string(), claims().to_string().replace("\"sub\":", "\"sub\":\"eve\",\"sub\":")),
        (rsa.header().to_string(), claims().to_string().replace("\"sub\":", "\"s\\u0075b\":\"eve\",\"sub\":")),
    ];
    for (header, payload) in twice {
        refused(rsa.sign_text(&header, &payload), token::MALFORMED, "a member twice");
    }
    refused(format!("{good}="), SIGNATURE, "padding of the signature");
    refused(format!("{message}=.{signature}"), token::MALFORMED, "padding");
    refused(format!("{good}.{signature}"), token::MALFORMED, "four parts");
    refused(format!("{good}.."), token::MALFORMED, "five parts");
    refused(good.replace('.', ".."), token::MALFORMED, "empty parts");
    refused(format!(" {good}"), token::MALFORMED, "a blank before");
    refused(good.replace('.', "\u{ff0e}"), token::MALFORMED, "other dots");
    refused("..".to_owned(), token::MALFORMED, "nothing");
    refused(rsa.sign_text(&rsa.header().to_string(), "[]"), token::MALFORMED, "a list for claims");
    refused(rsa.sign_text(&rsa.header().to_string(), "{}{}"), token::MALFORMED, "two objects");

    // Too much.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    refused(rsa.sign_text(&rsa.header().to_string(), &deep), token::MALFORMED, "depth");
    refused(rsa.sign(&with(claims(), json!({"a": "x".repeat(16 * 1024)}))), token::TOO_LONG, "length");

    // Signatures that some verifiers have taken.
    let (message, signature) = ec.sign(&claims()).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    refused(format!("{message}.{}", encode([0; 64])), SIGNATURE, "nothing but zeros");
    let raw = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    refused(format!("{message}.{}", encode(&raw[..63])), SIGNATURE, "a short one");
    let mut long = raw.clone();
    long.push(0);
    refused(format!("{message}.{}", encode(&long)), SIGNATURE, "a long one");
    let payload = with(claims(), json!({"sub": "eve"})).to_string();
    let head = message.split_once('.').unwrap().0;
    refused(format!("{head}.{}.{signature}", encode(payload)), SIGNATURE, "other claims");
}

/// Claims that are signed and not to be believed.
#[test]
fn claims_are_judged() {
    let signer = Signer::new("ES256", "key");
    let gate = Gate::with_keys(&jwks([&signer]), "leeway = \"10s\"");
    let table = [
        (json!({"iss": "https://idp.example/"}), judged::ISSUER),
        (json!({"iss": "https://IDP.example"}), judged::ISSUER),
        (json!({"iss": ["https://idp.example"]}), judged::ISSUER),
        (json!({"iss": null}), judged::ISSUER),
        (json!({"aud": "orders2"}), judged::AUDIENCE),
        (json!({"aud": ["billing", "order"]}), judged::AUDIENCE),
        (json!({"aud": []}), judged::AUDIENCE),
        (json!({"aud": {"orders": true}}), judged::AUDIENCE),
        (json!({"aud": null}), judged::AUDIENCE),
        (json!({"exp": null}), judged::NO_EXPIRY),
        (json!({"exp": now() - 11}), judged::EXPIRED),
        (json!({"exp": -1}), judged::EXPIRED),
        (json!({"exp": -1.5e308}), judged::EXPIRED),
        (json!({"exp": (now() + 600).to_string()}), judged::BAD_TIME),
        (json!({"exp": 1e300}), judged::BAD_TIME),
        (json!({"exp": u64::MAX}), judged::BAD_TIME),
        (json!({"exp": true}), judged::BAD_TIME),
        (json!({"nbf": now() + 20}), judged::NOT_YET),
        (json!({"nbf": "soon"}), judged::BAD_TIME),
        (json!({"iat": now() + 3600}), judged::NOT_YET),
        (json!({"iat": {}}), judged::BAD_TIME),
        (json!({"sub": null}), judged::NO_SUBJECT),
        (json!({"sub": ""}), judged::NO_SUBJECT),
        (json!({"sub": 42}), judged::NO_SUBJECT),
        (json!({"sub": "x".repeat(1025)}), judged::NO_SUBJECT),
    ];
    for (others, why) in table {
        let token = signer.sign(&with(claims(), others.clone()));
        let foreign = [judged::ISSUER, judged::AUDIENCE].contains(&why);
        let failure = if foreign { Failure::Foreign(why) } else { Failure::Invalid(why) };
        assert_eq!(gate.subject(&token), Err(failure), "{others}");
    }
    let fine = [
        json!({"aud": ["billing", "orders"]}),
        json!({"aud": ["billing", 7, "https://orders.example"]}),
        json!({"exp": now() - 5}),
        json!({"exp": now() as f64 + 30.5}),
        json!({"exp": 253_402_300_799_u64}),
        json!({"nbf": now() + 5, "iat": now() + 60}),
        json!({"nbf": -5, "iat": 0}),
        json!({"iat": null}),
    ];
    for others in fine {
        let token = signer.sign(&with(claims(), others.clone()));
        assert_eq!(gate.subject(&token).as_deref(), Ok("alice"), "{others}");
    }
}

/// RFC 6750 section 3: no quotes, no backslashes; and nothing of a token.
#[test]
fn refusals_can_be_told() {
    let every = [
        [token::MALFORMED, token::TOO_LONG, token::UNSIGNED, token::ALGORITHM, token::OWN_KEY, token::CRITICAL]
            .as_slice(),
        &[judged::ISSUER, judged::AUDIENCE, judged::NO_EXPIRY, judged::EXPIRED, judged::NOT_YET, judged::BAD_TIME],
        &[judged::NO_SUBJECT, SIGNATURE, UNKNOWN],
    ];
    for refusal in every.concat() {
        assert!(
            refusal.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\'),
            "{refusal}"
        );
    }
}

#[test]
fn the_type_is_demanded_where_it_is_configured() {
    let signer = Signer::new("ES256", "key");
    let gate = Gate::with_keys(&jwks([&signer]), "token_type = \"at+jwt\"");
    let typed = |kind: Value| signer.sign_with(&with(signer.header(), json!({"typ": kind})), &claims());
    for kind in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        assert_eq!(gate.subject(&typed(json!(kind))).as_deref(), Ok("alice"), "{kind}");
    }
    for kind in [json!("JWT"), json!(null), json!("text/at+jwt"), json!("at+jwt2"), json!("application/")] {
        assert_eq!(gate.subject(&typed(kind)), Err(Failure::Invalid("the token is of another type")));
    }
}

#[test]
fn roles_and_scopes() {
    let signer = Signer::new("ES256", "key");
    let keys = jwks([&signer]);
    let has = |more: &str, others: Value, roles: &[&str], scopes: &[&str]| {
        let identity = Gate::with_keys(&keys, more).judge(&signer.sign(&with(claims(), others))).unwrap();
        roles.iter().all(|role| identity.has_role(role)) && scopes.iter().all(|scope| identity.has_scope(scope))
    };
    assert!(has("", json!({}), &["reader"], &["orders:read", "orders:list"]));
    assert!(!has("", json!({}), &["clerk"], &[]));
    assert!(has("", json!({"roles": "one role, whole"}), &["one role, whole"], &[]));
    assert!(!has("", json!({"roles": "reader,admin"}), &["admin"], &[]), "a string is one role");
    assert!(has("", json!({"roles": [1, null, {"admin": true}, ["admin"], "reader"]}), &["reader"], &[]));
    assert!(!has("", json!({"roles": [["admin"]]}), &["admin"], &[]));
    assert!(!has("", json!({"roles": {"admin": true}}), &["admin"], &[]));
    assert!(has("scopes_claim = \"scp\"", json!({"scp": ["a", "b"]}), &[], &["a", "b"]));
    let nested = json!({"realm_access": {"roles": ["shop-admins"]}});
    assert!(has("roles_claim = \"realm_access.roles\"", nested.clone(), &["shop-admins"], &[]));
    let mapped = "roles_claim = \"realm_access.roles\"\nroles_map = { shop-admins = [\"clerk\", \"reader\"] }";
    assert!(has(mapped, nested.clone(), &["clerk", "reader"], &[]));
    assert!(!has(mapped, nested, &["shop-admins"], &[]), "what is mapped is no role itself");
    assert!(!has(mapped, json!({"realm_access": {"roles": ["clerk"]}}), &["clerk"], &[]), "nor is a name of ours");
    let url = "roles_claim = \"https://example.com/roles\"";
    assert!(has(url, json!({"https://example.com/roles": ["reader"]}), &["reader"], &[]));
    let client = "roles_claim = \"resource_access.my.app.roles\"";
    assert!(has(client, json!({"resource_access": {"my.app": {"roles": ["reader"]}}}), &["reader"], &[]));
}

#[test]
fn a_repeat_is_known_until_settings_or_keys_change() {
    let (signer, newer) = (Signer::new("ES256", "key"), Signer::new("ES256", "newer"));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("jwks.json");
    std::fs::write(&path, jwks([&signer])).unwrap();
    let settings = format!("jwks_file = \"{}\"", path.display());
    let mut gate = Gate::new(&settings);
    let token = signer.sign(&claims());
    assert_eq!(gate.known(&token), None);
    assert_eq!(gate.subject(&token).as_deref(), Ok("alice"));
    assert_eq!(gate.known(&token).as_deref(), Some("alice"));
    assert_eq!(gate.known(&token.replace('.', ",")), None);

    let reload = |gate: &mut Gate, settings: &str| {
        let text = format!(
            "# moved\n[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/{{*rest}}\"\nauth = [\"staff\"]\n\
             respond = {{ status = 204 }}\n[auth.staff]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\n\
             audience = [\"orders\", \"https://orders.example\"]\n{settings}\n"
        );
        let before = gate.worker.gateway();
        let next = testing::gateway(&text, Some(&before), &gate.worker.metrics);
        gate.staff = Arc::clone(next.auths.get("staff").unwrap());
    };
    reload(&mut gate, &settings);
    assert_eq!(gate.known(&token).as_deref(), Some("alice"), "the same settings, elsewhere in the file");
    reload(&mut gate, &format!("{settings}\nleeway = \"31s\""));
    assert_eq!(gate.known(&token), None, "other settings");
    std::fs::write(&path, jwks([&newer])).unwrap();
    reload(&mut gate, &settings);
    assert_eq!(gate.known(&token), None, "another key");
    assert_eq!(gate.subject(&token), Err(Failure::Invalid(UNKNOWN)));
}

/// A set with the keys that are there, whatever else it holds.
#[test]
fn sets_of_keys() {
    use JwtAlgorithm::{Es256, Ps256, Rs256};
    let (rsa, ec) = (Signer::new("RS256", "rsa"), Signer::new("ES256", "ec"));
    let parse = |keys: Value, algorithms: &[JwtAlgorithm]| {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), algorithms)
    };
    let altered = |signer: &Signer, others: Value| with(signer.jwk(), others);
    let why = |keys: Value| parse(keys, &[Rs256, Es256]).unwrap_err().to_string();
    let short = Signer::new("RS256", "short").jwk()["n"].as_str().unwrap()[..168].to_owned();
    for (keys, reason) in [
        (json!([]), "it is empty"),
        (json!([altered(&rsa, json!({"use": "enc"}))]), "(`use`)"),
        (json!([altered(&rsa, json!({"use": 1}))]), "`use`"),
        (json!([altered(&rsa, json!({"key_ops": ["sign"]}))]), "(`key_ops`)"),
        (json!([altered(&rsa, json!({"key_ops": "verify"}))]), "(`key_ops`)"),
        (json!([altered(&rsa, json!({"alg": "PS256"}))]), "a key is for PS256"),
        (json!([altered(&rsa, json!({"alg": "RSA-OAEP"}))]), "other algorithms"),
        (json!([altered(&rsa, json!({"n": short}))]), "bits: 2048 to 8192"),
        (json!([altered(&rsa, json!({"e": "AQ"}))]), "an RSA key is none"),
        (json!([altered(&rsa, json!({"e": "AQAA"}))]), "an RSA key is none"),
        (json!([altered(&rsa, json!({"n": null}))]), "no `n`"),
        (json!([altered(&rsa, json!({"n": "+/=="}))]), "not base64url"),
        (json!([altered(&rsa, json!({"kty": "oct", "k": "AAAA"}))]), "no place"),
        (json!([altered(&rsa, json!({"kty": "AKP"}))]), "a kind that is not known"),
        (json!([altered(&rsa, json!({"kty": null}))]), "no `kty`"),
        (json!([altered(&rsa, json!({"kid": 7}))]), "`kid`"),
        (json!([altered(&ec, json!({"crv": "P-521"}))]), "a curve that is not taken"),
        (json!([altered(&ec, json!({"crv": "secp256k1"}))]), "a curve that is not taken"),
        (json!([altered(&ec, json!({"crv": "P-384"}))]), "no point of its curve"),
        (json!([altered(&ec, json!({"y": ec.jwk()["x"]}))]), "no point of its curve"),
        (json!([altered(&ec, json!({"kty": "OKP", "crv": "Ed448"}))]), "Ed25519 is"),
        (json!([altered(&ec, json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}))]), "an Ed25519 key is none"),
        (json!(["key"]), "no JSON object"),
    ] {
        let told = why(keys.clone());
        assert!(told.contains(reason), "{keys}: {told}");
        assert_eq!(parse(json!([keys.get(0), rsa.jwk()]), &[Rs256]).map(|keys| keys.count()), Ok(1), "{reason}");
    }
    for (text, reason) in
        [("", "JSON"), ("[]", "JSON"), ("{}", "no list `keys`"), (r#"{"keys":[],"keys":[]}"#, "twice")]
    {
        let Err(NoKeys::Unreadable(told)) = KeySet::parse(text.as_bytes(), &[Rs256]) else { panic!("{text}") };
        assert!(told.contains(reason), "{text}: {told}");
    }
    assert!(why(json!(vec![rsa.jwk(); 300])).contains("more than 256"));

    // Order, repetition and leading zeros say nothing.
    let one = parse(json!([rsa.jwk(), ec.jwk()]), &[Rs256, Es256]).unwrap();
    let padded = encode([&[0], &URL_SAFE_NO_PAD.decode(rsa.jwk()["n"].as_str().unwrap()).unwrap()[..]].concat());
    let other = parse(json!([ec.jwk(), altered(&rsa, json!({"n": padded})), ec.jwk()]), &[Rs256, Es256]).unwrap();
    assert!(one == other);
    assert!(one != parse(json!([rsa.jwk()]), &[Rs256, Es256]).unwrap());
    // A key that does not say for which algorithm is for all of its kind, but for no others.
    let general = parse(json!([altered(&rsa, json!({"alg": null}))]), &[Rs256, Ps256]).unwrap();
    assert!(general != parse(json!([rsa.jwk()]), &[Rs256, Ps256]).unwrap());
}

/// The same name for two keys, keys without a name, tokens without one.
#[test]
fn names_of_keys() {
    let (one, two) = (Signer::new("ES256", "same"), Signer::new("ES256", "same"));
    let nameless = Signer::new("ES256", "nameless");
    let keys = json!({"keys": [one.jwk(), two.jwk(), with(nameless.jwk(), json!({"kid": null}))]}).to_string();
    let gate = Gate::with_keys(&keys, "");
    for signer in [&one, &two, &nameless] {
        assert_eq!(gate.subject(&signer.sign(&claims())).as_deref(), Ok("alice"), "{}", signer.id);
        let bare = signer.sign_with(&with(signer.header(), json!({"kid": null})), &claims());
        assert_eq!(gate.subject(&bare).as_deref(), Ok("alice"), "{}", signer.id);
    }
}

/// However many keys an issuer has, up to the bound that is told when they are read.
#[test]
fn a_token_that_names_no_key_is_tried_with_each() {
    let signers: Vec<Signer> = (0..64).map(|index| Signer::new("ES256", &format!("key-{index}"))).collect();
    let nameless: Vec<Value> = signers.iter().map(|signer| with(signer.jwk(), json!({"kid": null}))).collect();
    for keys in [jwks(&signers), json!({"keys": nameless}).to_string()] {
        let gate = Gate::with_keys(&keys, "");
        for signer in [&signers[0], &signers[31], &signers[63]] {
            let bare = signer.sign_with(&with(signer.header(), json!({"kid": null})), &claims());
            assert_eq!(gate.subject(&bare).as_deref(), Ok("alice"), "{}", signer.id);
        }
    }
    let more = jwks(signers.iter().chain([&Signer::new("ES256", "one more")]));
    let told = KeySet::parse(more.as_bytes(), &[JwtAlgorithm::Es256]).unwrap_err();
    assert!(matches!(&told, NoKeys::Unreadable(why) if why.contains("more than 64")), "{told}");
    // Of those that cannot be used there may be more.
    assert!(matches!(KeySet::parse(more.as_bytes(), &[JwtAlgorithm::EdDsa]), Err(NoKeys::NoneFits(_))));
}
