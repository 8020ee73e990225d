//! An issuer's keys as they change: by reloads, by rotations that name nothing, and when they are taken back.

use serde_json::json;

use super::harness::{Fake, eventually, free_port};
use super::issuer::{Provider, jwt, ok, reason};
use super::jwt::testing::Signer;

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
