//! Tokens of a real, OpenID-certified identity provider, which rotates its keys, dies and comes back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::harness::idp;

/// A part of a JWT.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What all else here rests on.
#[test]
fn the_provider_issues_what_it_is_asked_for() {
    let provider = idp::shared();
    for algorithm in ["RS256", "PS384", "ES256", "ES384", "EdDSA"] {
        let token = provider.token("alice", "orders:read", &format!("alg={algorithm}&roles=clerk,reader"));
        let (header, claims) = (part(&token, 0), part(&token, 1));
        assert_eq!((&header["alg"], &header["typ"]), (&json!(algorithm), &json!("at+jwt")));
        assert_eq!(claims["iss"], provider.issuer());
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["realm_access"]["roles"], json!(["clerk", "reader"]));
    }
    assert!(!provider.token("alice", "orders:read", "").contains('.'));
}
