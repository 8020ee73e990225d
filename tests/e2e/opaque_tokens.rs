//! Opaque tokens of a real identity provider, which is asked about each, takes some back, hangs and dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::harness::idp::{self, IdentityProvider};
use super::harness::{Fake, Setup, eventually};
use super::oidc::{ask, is_unavailable, sent};

/// `[auth.opaque]` asks the provider about tokens.
fn introspecting(provider: &IdentityProvider, backend: &Fake, auth: &str) -> Setup {
    Setup::before([backend.url()]).route("auth = [\"opaque\"]").rest(&format!(
        "[auth.opaque]\nkind = \"introspection\"\nurl = \"{}\"\nroles_claim = \"realm_access.roles\"\n{auth}\n",
        provider.introspection_url()
    ))
}

fn with_secret() -> String {
    format!("client_id = \"gateway\"\nclient_secret = \"{}\"", idp::SECRET)
}

const INTROSPECTION: &str = "/token/introspection";

#[test]
fn opaque_tokens_are_asked_about_once_and_again_when_the_answer_is_old() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = introspecting(&provider, &backend, &format!("{}\ncache = \"1s\"", with_secret())).start();
    let token = provider.token("olga", "orders:read orders:write", "roles=clerk,reader");
    let answer = ask(&gateway, &token);
    assert_eq!(sent(&answer, "x-auth-subject"), "olga");
    assert_eq!(sent(&answer, "x-auth-method"), "introspection");
    assert_eq!(sent(&answer, "x-auth-roles"), "clerk,reader");
    assert_eq!(sent(&answer, "x-auth-scopes"), "orders:read orders:write");

    provider.revoke(&token);
    let refused = eventually("the revocation is seen", || Some(ask(&gateway, &token)).filter(|it| it.status != 200));
    assert_eq!((refused.status, refused.cause().as_str()), (401, "invalid_credentials"));
    assert!(refused.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
}

#[test]
fn answers_about_tokens_are_kept_refusals_too() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = introspecting(&provider, &backend, &format!("{}\ncache = \"10m\"", with_secret())).start();
    let (good, bad) = (provider.token("olga", "orders:read", ""), "made-up-by-somebody");
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &good).status, 200);
        assert_eq!(ask(&gateway, bad).status, 401);
    }
    assert_eq!(provider.asked(INTROSPECTION), 2);
    // Never longer than the token itself holds.
    let short = provider.token("olga", "orders:read", "ttl=2");
    assert_eq!(ask(&gateway, &short).status, 200);
    eventually("the token expires", || (ask(&gateway, &short).status == 401).then_some(()));
}

#[test]
fn one_token_is_asked_about_once_at_a_time() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = introspecting(&provider, &backend, &with_secret()).start();
    let token = provider.token("olga", "orders:read", "");
    provider.freeze();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..16).map(|_| scope.spawn(|| ask(&gateway, &token))).collect();
        gateway.metric_reaches("passerelle_requests_in_flight", &[], 16.0);
        provider.thaw();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().status, 200);
        }
    });
    assert_eq!(provider.asked(INTROSPECTION), 1);
}

#[test]
fn the_gateway_can_prove_itself_by_a_key() {
    let (provider, backend) = (idp::shared(), Fake::echo());
    let by_key = format!(
        "client_id = \"gateway-by-key\"\nprivate_key = \"{}\"\nprivate_key_algorithm = \"ES256\"\n\
         private_key_id = \"client-key\"",
        provider.client_key().display()
    );
    let gateway = introspecting(provider, &backend, &by_key).start();
    // An assertion counts once (RFC 7523 section 3): each question has one of its own.
    for user in ["olga", "otto"] {
        let answer = ask(&gateway, &provider.token(user, "orders:read", ""));
        assert_eq!(sent(&answer, "x-auth-subject"), user);
    }
    assert_eq!(ask(&gateway, "made-up").status, 401);
}

#[test]
fn a_token_is_told_to_nobody_whom_nobody_vouches_for() {
    let (provider, backend) = (IdentityProvider::start_with_tls(), Fake::echo());
    let token = provider.token("olga", "orders:read", "");
    let answer = ask(&introspecting(&provider, &backend, &with_secret()).start(), &token);
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(provider.asked(INTROSPECTION), 0);
    let auth = format!("{}\nca = \"{}\"", with_secret(), provider.authority().display());
    let answer = ask(&introspecting(&provider, &backend, &auth).start(), &token);
    assert_eq!(sent(&answer, "x-auth-subject"), "olga");
}

/// This provider knows its JWTs only by their signatures, and answers with an error.
#[test]
fn a_token_of_a_kind_that_the_server_does_not_look_into_is_refused() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = introspecting(&provider, &backend, &with_secret()).start();
    let token = provider.token("olga", "orders:read", "alg=ES256");
    for _ in 0..3 {
        let answer = ask(&gateway, &token);
        assert_eq!((answer.status, answer.cause().as_str()), (401, "invalid_credentials"), "{answer:?}");
    }
    assert_eq!(provider.asked(INTROSPECTION), 1, "the refusal is kept");
}

#[test]
fn without_an_answer_about_it_a_token_is_not_called_invalid() {
    let (mut provider, backend) = (IdentityProvider::start(), Fake::echo());
    let token = |user: &str| provider.token(user, "orders:read", "");
    let (known, unknown) = (token("olga"), token("otto"));
    // The provider refuses the gateway itself.
    let wrong = introspecting(&provider, &backend, "client_id = \"gateway\"\nclient_secret = \"a mistake\"").start();
    let answer = ask(&wrong, &known);
    assert!(is_unavailable(&answer), "{answer:?}");

    let auth = format!("{}\ncache = \"10m\"\ntimeout = \"500ms\"", with_secret());
    let gateway = introspecting(&provider, &backend, &auth).start();
    assert_eq!(ask(&gateway, &known).status, 200);
    // It hangs.
    provider.freeze();
    let answer = ask(&gateway, &unknown);
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(ask(&gateway, &known).status, 200, "the answer about it is not old");
    provider.thaw();
    eventually("it is asked again", || (ask(&gateway, &unknown).status == 200).then_some(()));
    // It is gone.
    let another = provider.token("ophelia", "orders:read", "");
    provider.kill();
    for _ in 0..3 {
        let answer = ask(&gateway, &another);
        assert!(is_unavailable(&answer), "{answer:?}");
    }
    assert_eq!(ask(&gateway, &known).status, 200);
    // It is back, without the tokens of before.
    provider.start_again();
    eventually("it is asked again", || (ask(&gateway, &another).status == 401).then_some(()));
    let new = provider.token("ophelia", "orders:read", "");
    assert_eq!(sent(&ask(&gateway, &new), "x-auth-subject"), "ophelia");
}

#[test]
fn a_flood_of_made_up_tokens_reaches_the_server_a_few_at_a_time() {
    // A server that thinks about made-up tokens for as long as the test wants.
    let thinks = Arc::new(AtomicBool::new(true));
    let server = Fake::start({
        let thinks = Arc::clone(&thinks);
        move |mut connection| {
            while let Some(request) = connection.read_request() {
                let known = String::from_utf8_lossy(&request.body).contains("token=known&");
                if !known {
                    eventually("the server has thought", || (!thinks.load(Ordering::SeqCst)).then_some(()));
                }
                let answer = format!("{{\"active\":{known},\"sub\":\"olga\"}}");
                let head = format!("Content-Type: application/json\r\nContent-Length: {}", answer.len());
                connection.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{answer}"));
            }
        }
    });
    let backend = Fake::echo();
    let gateway = Setup::before([backend.url()])
        .route("auth = [\"opaque\"]")
        .rest(&format!(
            "[auth.opaque]\nkind = \"introspection\"\nurl = \"{}/introspect\"\nmax_in_flight = 2\n{}",
            server.url(),
            with_secret()
        ))
        .start();
    assert_eq!(ask(&gateway, "known").status, 200);
    std::thread::scope(|scope| {
        let gateway = &gateway;
        let flood: Vec<_> =
            (0..32).map(|index| scope.spawn(move || ask(gateway, &format!("made-up-{index}")))).collect();
        gateway.metric_reaches("passerelle_requests_in_flight", &[], 32.0);
        // Whoever is known does not wait with them.
        for _ in 0..10 {
            assert_eq!(ask(gateway, "known").status, 200);
        }
        assert_eq!(server.requests().len(), 1 + 2, "no more at a time than were allowed");
        thinks.store(false, Ordering::SeqCst);
        for answer in flood.into_iter().map(|one| one.join().unwrap()) {
            assert!(answer.status == 401 || is_unavailable(&answer), "{answer:?}");
        }
    });
    assert_eq!(backend.requests().len(), 11, "none of them came through");
}
