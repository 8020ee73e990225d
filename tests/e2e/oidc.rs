//! Tokens of a real, OpenID-certified identity provider, which rotates its keys, dies and comes back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::harness::http::Client;
use super::harness::idp::{self, IdentityProvider};
use super::harness::{Fake, Gateway, Response, Setup, eventually};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/jwks";

/// In front of a backend that answers with what it is sent, `[auth.staff]` takes the provider's JWTs; `auth` and
/// `route` add lines to its section and to that of the only route.
fn setup(provider: &IdentityProvider, backend: &Fake, auth: &str, route: &str) -> Setup {
    Setup::before([backend.url()]).route(&format!("auth = [\"staff\"]\n{route}")).rest(&format!(
        "[auth.staff]\nkind = \"jwt\"\nissuer = \"{}\"\naudience = [\"orders\"]\n{auth}\n",
        provider.issuer()
    ))
}

pub fn ask(gateway: &Gateway, token: &str) -> Response {
    let authorization = format!("Bearer {token}");
    Client::connect(gateway.port("http")).ask("GET", "/", &[("Authorization", &authorization)])
}

/// The value of a field that the backend was sent.
pub fn sent(response: &Response, name: &str) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    let text = response.text();
    let mut values = text.lines().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    });
    values.next().unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// What a 401 says of the token.
fn refusal(response: &Response) -> String {
    assert_eq!((response.status, response.cause().as_str()), (401, "invalid_credentials"), "{response:?}");
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"staff\", error=\"invalid_token\", error_description=\""));
    challenge.split('"').nth(5).unwrap().to_owned()
}

pub fn is_unavailable(response: &Response) -> bool {
    response.status == 503 && response.cause() == "auth_unavailable"
}

/// Claims of a JWT.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The same token behind another header.
fn with_header(token: &str, header: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), token.split_once('.').unwrap().1)
}

#[test]
fn tokens_of_every_algorithm_are_verified_by_keys_that_are_discovered() {
    let (provider, backend) = (idp::shared(), Fake::echo());
    let listed = ["RS256", "RS384", "PS256", "PS512", "ES256", "ES384", "EdDSA"];
    let gateway = setup(provider, &backend, &format!("algorithms = {listed:?}"), "").start();
    for algorithm in listed {
        let answer = ask(&gateway, &provider.token("alice", "orders:read", &format!("alg={algorithm}")));
        assert_eq!(sent(&answer, "x-auth-subject"), "alice", "{algorithm}");
        assert_eq!(sent(&answer, "x-auth-method"), "jwt");
    }
    // A valid signature of an algorithm that is not listed.
    refusal(&ask(&gateway, &provider.token("alice", "orders:read", "alg=RS512")));

    // A client has no user; it is its own subject (RFC 9068 section 2.2).
    let answer = ask(&gateway, &provider.client_token("orders:read", "alg=ES256"));
    assert_eq!(sent(&answer, "x-auth-subject"), "shop");
}

#[test]
fn roles_and_scopes_of_a_token_reach_the_backend() {
    let (provider, backend) = (idp::shared(), Fake::echo());
    let gateway = setup(
        provider,
        &backend,
        "roles_claim = \"realm_access.roles\"\ntoken_type = \"at+jwt\"\n\
         roles_map = { \"shop-admins\" = [\"clerk\", \"reader\"], \"shop-users\" = [\"reader\"] }",
        "roles = [\"reader\"]\nscopes = [\"orders:read\"]",
    )
    .start();
    let token = provider.token("alice", "orders:write orders:read", "alg=ES256&roles=shop-admins,clerk,root");
    let answer = ask(&gateway, &token);
    let mut roles: Vec<String> = sent(&answer, "x-auth-roles").split(',').map(str::to_owned).collect();
    roles.sort();
    assert_eq!(roles, ["clerk", "reader"], "only what the map makes of them");
    let scopes = sent(&answer, "x-auth-scopes");
    assert!(scopes == "orders:read orders:write" || scopes == "orders:write orders:read", "{scopes}");
    assert_eq!(sent(&answer, "authorization"), format!("Bearer {token}"), "the service sees what it saw before");

    for roles in ["", "&roles=reader"] {
        let answer = ask(&gateway, &provider.token("bob", "orders:read", &format!("alg=ES256{roles}")));
        assert_eq!((answer.status, answer.cause().as_str()), (403, "role_missing"), "{roles}: {answer:?}");
    }
    let answer = ask(&gateway, &provider.token("bob", "orders:write", "alg=ES256&roles=shop-users"));
    assert_eq!((answer.status, answer.cause().as_str()), (403, "scope_missing"));
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\"orders:read\""));
}

#[test]
fn tokens_for_others_by_others_and_of_the_past_are_refused() {
    let (provider, backend) = (idp::shared(), Fake::echo());
    let gateway = setup(provider, &backend, "leeway = \"0s\"", "").start();
    let token = |properties: &str| provider.token("alice", "orders:read", &format!("alg=ES256{properties}"));

    refusal(&ask(&gateway, &token("&audience=invoices")));
    // The same subject, audience, key type: another issuer.
    let other = IdentityProvider::start();
    refusal(&ask(&gateway, &other.token("alice", "orders:read", "alg=ES256")));
    // Another's claims behind a valid token's signature.
    let (one, two) = (token(""), token(""));
    let parts: Vec<&str> = one.split('.').collect();
    let mixed = [parts[0], two.split('.').nth(1).unwrap(), parts[2]].join(".");
    refusal(&ask(&gateway, &mixed));
    assert_eq!(ask(&gateway, &one).status, 200);
    assert_eq!(backend.requests().len(), 1, "nothing else came through");

    // One that holds for two seconds; that it was verified once does not make it hold longer.
    let short = token("&ttl=2");
    assert_eq!(ask(&gateway, &short).status, 200);
    let refused = eventually("the token expires", || Some(ask(&gateway, &short)).filter(|answer| answer.status != 200));
    refusal(&refused);
    let expires = claims(&short)["exp"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now >= expires, "it was refused before its end");
}

#[test]
fn a_key_that_is_new_is_fetched_at_once_and_one_that_has_vanished_is_dropped() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = setup(&provider, &backend, "", "").start();
    let token = || provider.token("alice", "orders:read", "alg=RS256");
    let (old, unseen) = (token(), token());
    assert_eq!(ask(&gateway, &old).status, 200);
    let fetched = provider.asked(KEYS);

    provider.rotate(false);
    assert_eq!(ask(&gateway, &token()).status, 200, "a token by the new key");
    assert_eq!(provider.asked(KEYS), fetched + 1);
    refusal(&ask(&gateway, &old));
    refusal(&ask(&gateway, &unseen));
    assert_eq!(ask(&gateway, &token()).status, 200);
}

#[test]
fn keys_that_are_added_leave_the_others_valid() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = setup(&provider, &backend, "", "").start();
    let token = || provider.token("alice", "orders:read", "alg=ES256");
    let (old, unseen) = (token(), token());
    assert_eq!(ask(&gateway, &old).status, 200);
    provider.rotate(true);
    for token in [&token(), &old, &unseen, &token()] {
        assert_eq!(ask(&gateway, token).status, 200);
    }
}

#[test]
fn made_up_keys_do_not_make_the_gateway_hammer_the_provider() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = setup(&provider, &backend, "", "").start();
    let valid = provider.token("alice", "orders:read", "alg=ES256");
    assert_eq!(ask(&gateway, &valid).status, 200);
    let asked = || provider.asked(KEYS) + provider.asked(DISCOVERY);
    let before = asked();
    let mut client = Client::connect(gateway.port("http"));
    for index in 0..200 {
        let header = format!("{{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"made-up-{index}\"}}");
        let authorization = format!("Bearer {}", with_header(&valid, &header));
        refusal(&client.ask("GET", "/", &[("Authorization", &authorization)]));
    }
    assert!(asked() - before <= 4, "{} fetches", asked() - before);
    assert_eq!(ask(&gateway, &valid).status, 200);
}

#[test]
fn a_provider_that_dies_under_load_costs_nobody_a_request() {
    let (mut provider, backend) = (IdentityProvider::start(), Fake::echo());
    let gateway = setup(&provider, &backend, "", "").start();
    // Each is verified, none is known from before.
    let tokens: Vec<String> =
        (0..120).map(|user| provider.token(&format!("user-{user}"), "orders:read", "alg=ES256")).collect();
    let by_another_key = with_header(&tokens[0], "{\"alg\":\"ES256\",\"kid\":\"another\"}");
    let (next, killed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(token) = tokens.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let answer = ask(&gateway, token);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    // Half of them after the kill.
                    if next.load(Ordering::SeqCst) > tokens.len() / 2 {
                        eventually("the provider is killed", || killed.load(Ordering::SeqCst).then_some(()));
                    }
                }
            });
        }
        eventually("some were verified", || (next.load(Ordering::SeqCst) > tokens.len() / 4).then_some(()));
        provider.kill();
        killed.store(true, Ordering::SeqCst);
        // By a key that nobody can be asked about: it may be good. Whose key is known goes on.
        let answer = ask(&gateway, &by_another_key);
        assert!(is_unavailable(&answer), "{answer:?}");
    });
    gateway.metric_reaches("passerelle_auth_key_fetches_total", &["auth=\"staff\"", "result=\"failure\""], 1.0);
    assert_eq!(gateway.admin("/ready").status, 200, "the last good keys serve");

    // It comes back with other keys, and its tokens are taken.
    provider.start_again();
    let token = provider.token("alice", "orders:read", "alg=ES256");
    eventually("tokens of the provider that came back are taken", || {
        (ask(&gateway, &token).status == 200).then_some(())
    });
}

#[test]
fn a_gateway_that_starts_while_the_provider_is_away_serves_when_it_comes() {
    let (mut provider, backend) = (IdentityProvider::start(), Fake::echo());
    let token = provider.token("alice", "orders:read", "alg=ES256");
    provider.kill();
    let setup = setup(&provider, &backend, "", "")
        .rest("[route.open]\npath = \"/open\"\nupstream = \"app\"\nauth = \"public\"");
    let gateway = setup.start();
    let answer = ask(&gateway, &token);
    assert!(is_unavailable(&answer), "nobody can say whether it is valid: {answer:?}");
    assert_eq!(gateway.get("/").status, 401, "who shows nothing needs no keys to be refused");
    assert_eq!(gateway.get("/open").status, 200);
    let ready = gateway.admin("/ready");
    assert!(ready.status == 503 && ready.text().contains("staff"), "{ready:?}");

    provider.start_again();
    let token = provider.token("alice", "orders:read", "alg=ES256");
    eventually("the provider's tokens are taken", || (ask(&gateway, &token).status == 200).then_some(()));
    assert_eq!(gateway.admin("/ready").status, 200);
}

#[test]
fn a_provider_that_hangs_holds_nothing_up() {
    let (provider, backend) = (IdentityProvider::start(), Fake::echo());
    let token = provider.token("alice", "orders:read", "alg=ES256");
    provider.freeze();
    // It starts in spite of that.
    let gateway = setup(&provider, &backend, "", "").start();
    assert!(is_unavailable(&ask(&gateway, &token)));
    provider.thaw();
    eventually("the provider's tokens are taken", || (ask(&gateway, &token).status == 200).then_some(()));

    // Unknown keys while it hangs: others do not wait with them.
    let new = {
        provider.rotate(true);
        provider.token("bob", "orders:read", "alg=ES256")
    };
    provider.freeze();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&gateway, &new));
        for _ in 0..20 {
            assert_eq!(ask(&gateway, &token).status, 200);
        }
        let answer = waiting.join().unwrap();
        assert!(is_unavailable(&answer), "nobody can say whether that key is the issuer's: {answer:?}");
    });
    provider.thaw();
    eventually("the new key is taken", || (ask(&gateway, &new).status == 200).then_some(()));
}

#[test]
fn the_name_of_an_issuer_counts_to_the_letter() {
    let (provider, backend) = (idp::shared(), Fake::echo());
    let token = provider.token("alice", "orders:read", "alg=ES256");
    for other in [format!("{}/", provider.issuer()), provider.issuer().replace("127.0.0.1", "localhost")] {
        let text = setup(provider, &backend, "", "")
            .text()
            .replace(&format!("issuer = \"{}\"", provider.issuer()), &format!("issuer = \"{other}\""));
        // The document that is found there is of another issuer, and so is the token.
        let gateway = Gateway::start(&text);
        refusal(&ask(&gateway, &token));
        let ready = gateway.admin("/ready");
        assert!(ready.status == 503 && ready.text().contains("staff"), "{other}: {ready:?}");
        gateway.log_line("what is wrong with the issuer", |line| line.to_string().contains("which is not `issuer`"));
    }
}

#[test]
fn an_issuer_is_asked_over_tls_if_its_own_authority_vouches_for_it() {
    let (provider, backend) = (IdentityProvider::start_with_tls(), Fake::echo());
    let ca = format!("ca = \"{}\"", provider.authority().display());
    let token = provider.token("alice", "orders:read", "alg=ES256");
    let trusting = setup(&provider, &backend, &ca, "").start();
    assert_eq!(sent(&ask(&trusting, &token), "x-auth-subject"), "alice");
    let answer = ask(&setup(&provider, &backend, "", "").start(), &token);
    assert!(is_unavailable(&answer), "{answer:?}");
}
