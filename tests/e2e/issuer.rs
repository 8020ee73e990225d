//! What no orderly identity provider does: documents that lead astray, keys that never come, answers that make no
//! sense; and how often exactly one is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use serde_json::{Value, json};

use super::harness::fake::{Connection, Request};
use super::harness::http::Client;
use super::harness::{Fake, Gateway, PATIENCE, Response, Setup, eventually, free_port};
use super::jwt::testing::{Signer, claims, now, with};
use super::oidc::{ask, is_unavailable, sent};

const DISCOVERY: &str = "/.well-known/openid-configuration";

type Handler = Box<dyn Fn(&Request) -> String + Send + Sync>;

/// A provider that answers as it is told to; it remembers across deaths what it was asked.
pub struct Provider {
    port: u16,
    fake: Option<Fake>,
    shared: Arc<Shared>,
}

struct Shared {
    handler: RwLock<Handler>,
    asked: Mutex<Vec<Request>>,
    /// While it is shut, answers wait.
    gate: (Mutex<bool>, Condvar),
    waiting: AtomicUsize,
}

impl Provider {
    pub fn start(handler: impl Fn(&Request) -> String + Send + Sync + 'static) -> Provider {
        let shared = Shared {
            handler: RwLock::new(Box::new(handler)),
            asked: Mutex::default(),
            gate: (Mutex::new(true), Condvar::new()),
            waiting: AtomicUsize::new(0),
        };
        let mut provider = Provider { port: free_port(), fake: None, shared: Arc::new(shared) };
        provider.revive();
        provider
    }

    /// Discovery and keys as they should be.
    pub fn of_keys(signers: &[&Signer]) -> Provider {
        let provider = Provider::start(|_| String::new());
        provider.answer(provider.documents(signers));
        provider
    }

    pub fn documents(&self, signers: &[&Signer]) -> impl Fn(&Request) -> String + Send + Sync + 'static {
        let document = json!({ "issuer": self.issuer(), "jwks_uri": format!("{}/jwks", self.issuer()) });
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        let (document, keys) = (document.to_string(), json!({ "keys": keys }).to_string());
        move |request| match request.target() {
            DISCOVERY => ok(&document),
            "/jwks" => ok(&keys),
            _ => status("404 Not Found"),
        }
    }

    pub fn answer(&self, handler: impl Fn(&Request) -> String + Send + Sync + 'static) {
        *self.shared.handler.write().unwrap() = Box::new(handler);
    }

    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn die(&mut self) {
        self.fake = None;
    }

    pub fn revive(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.fake = Some(Fake::start_at(self.port, move |connection| shared.serve(connection)));
    }

    pub fn asked(&self, target: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|request| request.target() == target).count()
    }

    /// From now on answers wait for [`Provider::open`].
    pub fn shut(&self) {
        *self.shared.gate.0.lock().unwrap() = false;
    }

    pub fn open(&self) {
        *self.shared.gate.0.lock().unwrap() = true;
        self.shared.gate.1.notify_all();
    }

    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// A token of `signer` for orders.
    pub fn token(&self, signer: &Signer) -> String {
        signer.sign(&with(claims(), json!({ "iss": self.issuer() })))
    }
}

impl Shared {
    fn serve(&self, mut connection: Connection) {
        while let Some(request) = connection.read_request() {
            self.asked.lock().unwrap().push(request.clone());
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let open = self.gate.0.lock().unwrap();
            drop(self.gate.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let answer = (self.handler.read().unwrap())(&request);
            if answer.is_empty() || !connection.send(answer) {
                return;
            }
        }
    }
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")
}

/// Answers with the head that it was sent.
fn echo() -> Fake {
    Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            let body = request.head;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

pub fn jwt(provider: &Provider, backend: &Fake, lines: &str) -> Setup {
    Setup::before([backend.url()]).route("auth = [\"staff\"]").rest(&format!(
        "[auth.staff]\nkind = \"jwt\"\nissuer = \"{}\"\naudience = [\"orders\"]\n{lines}\n",
        provider.issuer()
    ))
}

fn opaque(provider: &Provider, backend: &Fake, lines: &str) -> Setup {
    Setup::before([backend.url()]).route("auth = [\"opaque\"]").rest(&format!(
        "[auth.opaque]\nkind = \"introspection\"\nurl = \"{}/introspect\"\nclient_id = \"gateway\"\n\
         client_secret = \"hunter2-hunter2\"\n{lines}\n",
        provider.issuer()
    ))
}

/// Why the issuer's keys, or its answers, are not to be had.
pub fn reason(gateway: &Gateway, of: &str) -> Option<String> {
    Some(gateway.status()["auths"][0][of]["reason"].as_str()?.to_owned())
}

fn is_ready(gateway: &Gateway) -> bool {
    gateway.admin("/ready").status == 200
}

/// What each of these clients, all at once, is answered.
pub fn all_at_once(gateway: &Gateway, tokens: &[String], meanwhile: impl FnOnce()) -> Vec<Response> {
    let mut clients: Vec<_> = tokens
        .iter()
        .map(|token| {
            let mut client = Client::connect(gateway.port("http"));
            client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {token}\r\n\r\n"));
            client
        })
        .collect();
    meanwhile();
    clients.iter_mut().map(Client::answer).collect()
}

#[test]
fn what_an_issuer_may_not_answer() {
    let signer = Signer::new("ES256", "one");
    let provider = Provider::of_keys(&[&signer]);
    let token = provider.token(&signer);
    let backend = Fake::ok();
    let issuer = provider.issuer();
    let document = |members: Value| ok(&with(json!({ "issuer": issuer }), members).to_string());
    let cases: [(&str, &str, String, &str); 9] = [
        ("a redirect", DISCOVERY, status(&format!("302 Found\r\nLocation: {issuer}/jwks")), "it redirects (302)"),
        ("another status", DISCOVERY, status("500 Oops"), "status 500"),
        ("too much", DISCOVERY, ok(&" ".repeat(1024 * 1024 + 1)), "longer than 1048576 bytes"),
        ("no JSON", DISCOVERY, ok("<html>"), "not a JSON object"),
        ("no place", DISCOVERY, document(json!({})), "it has no jwks_uri"),
        ("a place in the clear", DISCOVERY, document(json!({ "jwks_uri": "http://10.1.2.3/jwks" })), "another machine"),
        ("a place of a file", DISCOVERY, document(json!({ "jwks_uri": "file:///etc/passwd" })), "no https:// URL"),
        (
            "keys by redirect",
            "/jwks",
            status(&format!("307 Elsewhere\r\nLocation: {issuer}/x")),
            "its keys: it redirects",
        ),
        ("no keys", "/jwks", ok("{\"keys\":[]}"), "its keys: "),
    ];
    for (what, place, answer, why) in cases {
        let good = provider.documents(&[&signer]);
        provider.answer(move |request| if request.target() == place { answer.clone() } else { good(request) });
        let gateway = jwt(&provider, &backend, "").start();
        let told = eventually(what, || reason(&gateway, "keys"));
        assert!(told.contains(why), "{what}: {told}");
        assert!(is_unavailable(&ask(&gateway, &token)), "{what}");
        let ready = eventually("it serves", || {
            let ready = gateway.admin("/ready");
            (!ready.text().contains("not_bound")).then_some(ready)
        });
        let reasons = json!({ "status": "not_ready", "reasons": [{ "reason": "no_keys", "auth": "staff" }] });
        assert_eq!((ready.status, ready.json()), (503, reasons), "{what}");
        assert_eq!(gateway.metric("passerelle_auth_keys", &["auth=\"staff\""]), 0.0, "{what}");
        let line = gateway.log_line("a warning", |line| line["message"] == "the issuer's keys cannot be fetched");
        assert!(line["reason"].as_str().unwrap().contains(why), "{what}: {line}");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn the_last_good_keys_serve_for_a_while_and_no_longer() {
    let signer = Signer::new("ES256", "one");
    let mut provider = Provider::of_keys(&[&signer]);
    let (token, backend) = (provider.token(&signer), Fake::ok());
    let gateway = jwt(&provider, &backend, "max_stale = \"8s\"").start();
    eventually("it is ready", || is_ready(&gateway).then_some(()));
    assert_eq!(ask(&gateway, &token).status, 200);
    provider.die();
    gateway.metric_reaches("passerelle_auth_key_fetches_total", &["result=\"failure\""], 1.0);
    assert_eq!((ask(&gateway, &token).status, is_ready(&gateway)), (200, true));
    assert!(reason(&gateway, "keys").is_some());
    // The token was verified before, and is cached; it needs keys all the same.
    eventually("the keys are too old", || is_unavailable(&ask(&gateway, &token)).then_some(()));
    assert!(!is_ready(&gateway));
    gateway.log_line("an error", |line| line["message"] == "there are no keys to verify tokens with");
    provider.revive();
    eventually("keys again", || (ask(&gateway, &token).status == 200).then_some(()));
    assert!(is_ready(&gateway) && reason(&gateway, "keys").is_none());
    gateway.log_line("a line of relief", |line| line["message"] == "the issuer's keys are fetched again");
    let warnings = gateway.log().iter().filter(|line| line["message"] == "the issuer's keys cannot be fetched").count();
    assert_eq!(warnings, 1, "one line, however often it failed");
}

#[test]
fn whoever_shows_a_new_key_waits_for_the_one_question() {
    let (old, new, other) = (Signer::new("ES256", "old"), Signer::new("ES256", "new"), Signer::new("ES256", "other"));
    let provider = Provider::of_keys(&[&old]);
    let backend = Fake::ok();
    let gateway = jwt(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, &provider.token(&old)).status, 200);
    assert_eq!(provider.asked("/jwks"), 1);
    provider.answer(provider.documents(&[&old, &new]));
    provider.shut();
    let tokens: Vec<String> = (0..20).map(|_| provider.token(&new)).collect();
    let answers = all_at_once(&gateway, &tokens, || {
        eventually("it is asked", || (provider.waiting() > 0).then_some(()));
        // The others do not wait.
        assert_eq!(ask(&gateway, &provider.token(&old)).status, 200);
        provider.open();
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(provider.asked("/jwks"), 2);
    // During the cool-down nobody is asked, whatever the tokens say.
    let inventions: Vec<String> = (0..20).map(|_| provider.token(&other)).collect();
    let answers = all_at_once(&gateway, &inventions, || {});
    assert!(answers.iter().all(|answer| answer.status == 401), "{answers:?}");
    assert_eq!((provider.asked("/jwks"), provider.asked(DISCOVERY)), (2, 2));
}

#[test]
fn a_reload_asks_nobody_again() {
    let signer = Signer::new("ES256", "one");
    let mut provider = Provider::of_keys(&[&signer]);
    let (token, backend) = (provider.token(&signer), Fake::ok());
    let mut gateway = jwt(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, &token).status, 200);
    provider.die();
    for lines in ["leeway = \"10s\"", "max_stale = \"1h\"", ""] {
        gateway.write_config(&jwt(&provider, &backend, lines).text());
        let (status, output) = gateway.reload();
        assert!(status.success(), "{output}");
        assert_eq!(ask(&gateway, &token).status, 200, "{lines}");
    }
    assert_eq!(provider.asked("/jwks"), 1);
    // Other algorithms are other keys: those of before do not serve.
    gateway.write_config(&jwt(&provider, &backend, "algorithms = [\"ES384\"]").text());
    let (status, output) = gateway.reload();
    assert!(status.success(), "{output}");
    assert_ne!(ask(&gateway, &token).status, 200);
}

#[test]
fn a_token_is_asked_about_once() {
    let provider = Provider::start(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        match body.contains("token=good") {
            true => ok(r#"{"active":true,"sub":"alice","scope":"read write","roles":["clerk"],"token_type":"Bearer"}"#),
            false => ok(r#"{"active":false}"#),
        }
    });
    let backend = echo();
    let gateway = opaque(&provider, &backend, "").start();
    for _ in 0..20 {
        let answer = ask(&gateway, "good/+=");
        assert_eq!((sent(&answer, "x-auth-subject"), sent(&answer, "x-auth-roles")), ("alice".into(), "clerk".into()));
        assert_eq!(sent(&answer, "x-auth-scopes"), "read write");
        assert_eq!(sent(&answer, "x-auth-method"), "introspection");
        let answer = ask(&gateway, "bad");
        assert_eq!((answer.status, answer.cause().as_str()), (401, "invalid_credentials"));
        let challenge = answer.header("www-authenticate").unwrap();
        assert_eq!(
            challenge,
            "Bearer realm=\"opaque\", error=\"invalid_token\", error_description=\"the token is not active\""
        );
    }
    // What is no token is not asked about.
    assert_eq!(ask(&gateway, "a\"b").status, 401);
    let asked = provider.shared.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("authorization"), Some("Basic Z2F0ZXdheTpodW50ZXIyLWh1bnRlcjI="));
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked[0].body, b"token=good%2F%2B%3D&token_type_hint=access_token");
    assert_eq!(provider.fake.as_ref().unwrap().connections(), 1, "the connection is kept");
    let count = |result: &str| gateway.metric("passerelle_introspections_total", &["auth=\"opaque\"", result]);
    assert_eq!((count("result=\"active\""), count("result=\"inactive\"")), (1.0, 1.0));
    let (status, output) = gateway.stop();
    assert!(status.success());
    for secret in ["hunter2", "good/", "alice"] {
        assert!(!output.contains(secret), "{secret} is in the log:\n{output}");
    }
}

#[test]
fn a_reload_forgets_no_answer_unless_the_question_is_another() {
    let provider = Provider::start(|_| ok(r#"{"active":true,"sub":"alice"}"#));
    let backend = Fake::ok();
    let mut gateway = opaque(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, "token").status, 200);
    let questions = [("", 1), ("audience = \"orders\"", 2), ("audience = \"orders\"", 2), ("cache = \"1m\"", 3)];
    for (lines, asked) in questions {
        // A comment makes it another text.
        gateway.write_config(&opaque(&provider, &backend, lines).rest("# again").text());
        let (status, output) = gateway.reload();
        assert!(status.success(), "{output}");
        let expected = if lines.contains("audience") { 401 } else { 200 };
        assert_eq!((ask(&gateway, "token").status, provider.asked("/introspect")), (expected, asked), "{lines}");
    }
}

#[test]
fn what_was_said_holds_for_the_cache_time_and_not_past_exp() {
    let provider = Provider::start(|_| ok(r#"{"active":true,"sub":"alice"}"#));
    let backend = Fake::ok();
    let gateway = opaque(&provider, &backend, "cache = \"4s\"").start();
    assert_eq!(ask(&gateway, "token").status, 200);
    provider.answer(|_| ok(r#"{"active":false}"#));
    assert_eq!(ask(&gateway, "token").status, 200, "that is not known yet");
    eventually("it is revoked", || (ask(&gateway, "token").status == 401).then_some(()));
    let soon = now() + 5;
    provider.answer(move |_| ok(&json!({ "active": true, "sub": "alice", "exp": soon }).to_string()));
    let gateway = opaque(&provider, &backend, "cache = \"1h\"").start();
    assert_eq!(ask(&gateway, "token").status, 200);
    eventually("it expires", || (ask(&gateway, "token").status == 401).then_some(()));
}

#[test]
fn the_server_never_has_more_questions_than_it_may() {
    let provider = Provider::start(|_| ok(r#"{"active":true,"sub":"alice"}"#));
    let backend = Fake::ok();
    let gateway = opaque(&provider, &backend, "max_in_flight = 2\ntimeout = \"30s\"").start();
    assert_eq!(ask(&gateway, "known").status, 200);
    // One question, however many show the token.
    provider.shut();
    let answers = all_at_once(&gateway, &vec!["one".to_owned(); 30], || {
        eventually("it is asked", || (provider.waiting() == 1).then_some(()));
        provider.open();
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(provider.asked("/introspect"), 2);
    // Two at one time, 32 in line, no more; who is known does not notice.
    provider.shut();
    let flood: Vec<String> = (0..60).map(|index| format!("made-up-{index}")).collect();
    let answers = all_at_once(&gateway, &flood, || {
        eventually("two are asked", || (provider.waiting() == 2).then_some(()));
        assert_eq!(gateway.metric("passerelle_introspections_in_flight", &[]), 2.0);
        gateway.metric_reaches("passerelle_rejections_total", &["cause=\"auth_unavailable\""], 26.0);
        assert_eq!((ask(&gateway, "known").status, ask(&gateway, "one").status), (200, 200));
        assert_eq!(provider.waiting(), 2);
        provider.open();
    });
    let unavailable = answers.iter().filter(|answer| is_unavailable(answer)).count();
    assert_eq!((unavailable, answers.iter().filter(|answer| answer.status == 200).count()), (26, 34));
    assert_eq!(provider.asked("/introspect"), 2 + 34);
}

#[test]
fn a_server_that_does_not_say_is_no_reason_to_refuse_anybody() {
    let mut provider = Provider::start(|_| ok(r#"{"active":true,"sub":"alice"}"#));
    let backend = Fake::ok();
    let cases: [(&str, String, &str); 6] = [
        ("our own credentials", status("401 Unauthorized"), "the gateway's own credentials"),
        ("a redirect", status("302 Found\r\nLocation: /x"), "it redirects (302)"),
        ("down", status("503 Down"), "status 503"),
        ("too much", ok(&" ".repeat(64 * 1024 + 1)), "longer than 65536 bytes"),
        ("no JSON", ok("<html>"), "not a JSON object"),
        ("not a yes", ok(r#"{"active":"true","sub":"alice"}"#), "does not say whether"),
    ];
    for (what, answer, why) in cases {
        provider.answer(move |_| answer.clone());
        let gateway = opaque(&provider, &backend, "").start();
        assert!(is_unavailable(&ask(&gateway, "token")), "{what}");
        let told = reason(&gateway, "introspection").unwrap();
        assert!(told.contains(why), "{what}: {told}");
        let line = gateway.log_line("a warning", |line| {
            line["message"] == "the introspection server gives no answer that can be used"
        });
        assert!(line["reason"].as_str().unwrap().contains(why), "{what}: {line}");
    }
    // It dies: who is known comes in, who is not gets 503; and it is not asked at each request.
    provider.answer(|_| ok(r#"{"active":true,"sub":"alice"}"#));
    let gateway = opaque(&provider, &backend, "").start();
    assert_eq!(ask(&gateway, "known").status, 200);
    provider.die();
    for index in 0..50 {
        assert!(is_unavailable(&ask(&gateway, &format!("token-{index}"))), "{index}");
    }
    assert_eq!(ask(&gateway, "known").status, 200);
    let failures = gateway.metric("passerelle_introspections_total", &["result=\"failure\""]);
    assert!((3.0..=12.0).contains(&failures), "{failures}");
    provider.revive();
    eventually("it is asked again", || (ask(&gateway, "token").status == 200).then_some(()));
    gateway.log_line("a line of relief", |line| line["message"] == "the introspection server answers again");
    assert!(reason(&gateway, "introspection").is_none());
}

#[test]
fn what_looks_like_a_jwt_is_not_asked_about_where_jwts_are_taken() {
    let signer = Signer::new("ES256", "one");
    let provider = Provider::of_keys(&[&signer]);
    let keys = provider.documents(&[&signer]);
    provider.answer(move |request| match request.target() {
        "/introspect" => ok(r#"{"active":true,"sub":"alice"}"#),
        _ => keys(request),
    });
    let backend = echo();
    let both = opaque(&provider, &backend, "").text().replace("[\"opaque\"]", "[\"opaque\", \"staff\"]");
    let staff = format!("[auth.staff]\nkind = \"jwt\"\nissuer = \"{}\"\naudience = \"orders\"\n", provider.issuer());
    let gateway = Gateway::start(&(both + &staff));
    assert_eq!(sent(&ask(&gateway, &provider.token(&signer)), "x-auth-method"), "jwt");
    let stranger = Signer::new("ES256", "one");
    assert_eq!(ask(&gateway, &provider.token(&stranger)).status, 401);
    assert_eq!(provider.asked("/introspect"), 0);
    assert_eq!(sent(&ask(&gateway, "opaque"), "x-auth-method"), "introspection");
}
