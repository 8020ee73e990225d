//! An issuer's keys as they change: by reloads, by rotations that name nothing, and when they are taken back.

use serde_json::{Value, json};

use super::harness::{Fake, Gateway, eventually, free_port};
use super::issuer::{Provider, all_at_once, jwt, ok, reason, status};
use super::jwt::testing::{Signer, claims, with};
use super::oidc::{ask, is_unavailable};

/// A token that does not say by which key it is.
fn bare(provider: &Provider, signer: &Signer) -> String {
    let claims = with(claims(), json!({ "iss": provider.issuer() }));
    signer.sign_with(&with(signer.header(), json!({ "kid": null })), &claims)
}

/// A set of this one key, which has no name.
fn nameless(signer: &Signer) -> String {
    json!({ "keys": [with(signer.jwk(), json!({ "kid": null }))] }).to_string()
}

fn is_ready(gateway: &Gateway) -> bool {
    gateway.admin("/ready").status == 200
}

/// Whom to trust when asking, and what to take, is no reason to forget what was said.
#[test]
fn a_reload_keeps_the_keys_while_the_issuer_is_away() {
    let (one, other) = (Signer::new("ES256", "one"), Signer::new("ES384", "other"));
    let mut provider = Provider::of_keys(&[&one, &other]);
    let backend = Fake::ok();
    let mut gateway = jwt(&provider, &backend, "").start();
    let (by_one, by_other) = (provider.token(&one), provider.token(&other));
    assert_eq!((ask(&gateway, &by_one).status, ask(&gateway, &by_other).status), (200, 401));
    provider.die();
    let made = rcgen::generate_simple_self_signed(vec!["idp.test".to_owned()]).unwrap();
    std::fs::write(gateway.directory().join("idp.pem"), made.cert.pem()).unwrap();
    let cases = [
        ("algorithms = [\"ES256\", \"ES384\"]", 200, 200),
        ("algorithms = [\"ES256\", \"ES384\"]\nca = \"idp.pem\"", 200, 200),
        ("algorithms = [\"ES384\"]\nca = \"idp.pem\"", 401, 200),
        ("", 200, 401),
    ];
    for (lines, of_one, of_other) in cases {
        gateway.write_config(&jwt(&provider, &backend, lines).text());
        let (status, output) = gateway.reload();
        assert!(status.success(), "{output}");
        assert_eq!((ask(&gateway, &by_one).status, ask(&gateway, &by_other).status), (of_one, of_other), "{lines}");
        assert!(is_ready(&gateway), "{lines}");
    }
    // Of what fits none of them there is no key.
    gateway.write_config(&jwt(&provider, &backend, "algorithms = [\"EdDSA\"]").text());
    let (status, output) = gateway.reload();
    assert!(status.success(), "{output}");
    assert!(is_unavailable(&ask(&gateway, &provider.token(&Signer::new("EdDSA", "another")))));
    assert!(!is_ready(&gateway));
}

#[test]
fn a_rotation_of_keys_without_names_is_noticed_at_once() {
    let (old, new, forger) = (Signer::new("ES256", "a"), Signer::new("ES256", "b"), Signer::new("ES256", "c"));
    let provider = Provider::of_keys(&[]);
    let keys = |signer: &Signer| {
        let (documents, keys) = (provider.documents(&[]), ok(&nameless(signer)));
        provider.answer(move |request| if request.target() == "/jwks" { keys.clone() } else { documents(request) });
    };
    keys(&old);
    let backend = Fake::ok();
    let gateway = jwt(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, &bare(&provider, &old)).status, 200);
    keys(&new);
    assert_eq!(ask(&gateway, &bare(&provider, &new)).status, 200);
    assert_eq!(provider.asked("/jwks"), 2);
    assert_eq!(ask(&gateway, &bare(&provider, &old)).status, 401);
    // Whoever invents signatures makes no more questions than whoever invents names.
    let inventions: Vec<String> = (0..20).map(|_| bare(&provider, &forger)).collect();
    let answers = all_at_once(&gateway, &inventions, || {});
    assert!(answers.iter().all(|answer| answer.status == 401), "{answers:?}");
    assert_eq!(provider.asked("/jwks"), 2);
}

#[test]
fn a_new_key_by_the_name_of_the_old_one_is_noticed_at_once() {
    let (old, new, forger) = (Signer::new("ES256", "k"), Signer::new("ES256", "k"), Signer::new("ES256", "k"));
    let mut provider = Provider::of_keys(&[&old]);
    let backend = Fake::ok();
    let gateway = jwt(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, &provider.token(&old)).status, 200);
    provider.answer(provider.documents(&[&new]));
    assert_eq!(ask(&gateway, &provider.token(&new)).status, 200);
    assert_eq!(ask(&gateway, &provider.token(&old)).status, 401);
    // A bad signature is one, whether or not the issuer can be asked.
    provider.die();
    let answer = ask(&gateway, &provider.token(&forger));
    assert_eq!((answer.status, answer.cause().as_str()), (401, "invalid_credentials"));
}

/// In an emergency an issuer publishes none.
#[test]
fn keys_that_the_issuer_takes_back_do_not_serve_on() {
    let (signer, other) = (Signer::new("ES256", "one"), Signer::new("ES384", "other"));
    let provider = Provider::of_keys(&[&signer]);
    let backend = Fake::ok();
    let (token, unknown) = (provider.token(&signer), provider.token(&Signer::new("ES256", "unknown")));
    for (withdrawn, why) in [(vec![], "it is empty"), (vec![other.jwk()], "a key is for ES384")] {
        provider.answer(provider.documents(&[&signer]));
        let gateway = jwt(&provider, &backend, "").start();
        assert_eq!(ask(&gateway, &token).status, 200);
        let asked = provider.asked("/jwks");
        let (documents, keys) = (provider.documents(&[]), ok(&json!({ "keys": withdrawn }).to_string()));
        provider.answer(move |request| if request.target() == "/jwks" { keys.clone() } else { documents(request) });
        ask(&gateway, &unknown);
        assert_eq!(provider.asked("/jwks"), asked + 1);
        assert!(is_unavailable(&ask(&gateway, &token)), "{why}");
        assert!(!is_ready(&gateway));
        let told = reason(&gateway, "keys").unwrap();
        assert!(told.contains(why), "{told}");
        assert_eq!(gateway.metric("passerelle_auth_keys", &["auth=\"staff\""]), 0.0);
        let line = gateway.log_line("an error", |line| line["message"] == "there are no keys to verify tokens with");
        assert!(line["reason"].as_str().unwrap().contains(why), "{line}");
        provider.answer(provider.documents(&[&signer]));
        eventually("keys again", || (ask(&gateway, &token).status == 200).then_some(()));
        assert!(is_ready(&gateway) && reason(&gateway, "keys").is_none());
    }
}

/// What is no set of keys says nothing of them.
#[test]
fn an_answer_that_is_none_takes_no_keys_back() {
    let signer = Signer::new("ES256", "one");
    let provider = Provider::of_keys(&[&signer]);
    let backend = Fake::ok();
    let (token, unknown) = (provider.token(&signer), provider.token(&Signer::new("ES256", "unknown")));
    let many = json!({ "keys": vec![Value::Null; 257] }).to_string();
    for answer in [ok("{}"), ok("{\"keys\":[],\"keys\":[]}"), ok("<html>"), ok(&many), status("404 Not Found")] {
        provider.answer(provider.documents(&[&signer]));
        let gateway = jwt(&provider, &backend, "").start();
        assert_eq!(ask(&gateway, &token).status, 200);
        let documents = provider.documents(&[]);
        let told = answer.clone();
        provider.answer(move |request| if request.target() == "/jwks" { told.clone() } else { documents(request) });
        assert!(is_unavailable(&ask(&gateway, &unknown)));
        assert!(reason(&gateway, "keys").is_some(), "{answer}");
        assert_eq!(ask(&gateway, &token).status, 200, "{answer}");
        assert!(is_ready(&gateway));
    }
}

/// A document in the clear, on this machine, may lead to keys that are elsewhere.
#[test]
fn keys_over_https_of_an_issuer_in_the_clear_are_judged_by_the_systems_authorities() {
    let signer = Signer::new("ES256", "one");
    let provider = Provider::of_keys(&[&signer]);
    let place = format!("https://127.0.0.1:{}/jwks", free_port());
    let document = json!({ "issuer": provider.issuer(), "jwks_uri": place }).to_string();
    provider.answer(move |_| ok(&document));
    let backend = Fake::ok();
    let gateway = jwt(&provider, &backend, "").start();
    let told = eventually("a reason", || reason(&gateway, "keys"));
    // Nobody is there; but there would be somebody to vouch for whoever is.
    assert!(told.contains("cannot be connected to"), "{told}");
}
