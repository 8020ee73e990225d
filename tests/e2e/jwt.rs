//! `kind = "jwt"`: tokens in front of a service, over HTTP/1.1 and HTTP/2, in headers and in cookies.

use std::path::Path;
use std::sync::Arc;

use http::Request;
use rustls::version::TLS13;
use serde_json::{Value, json};

use crate::harness::http::{Client, Response};
use crate::harness::http2::Http2;
use crate::harness::tls::{Certificate, client_config};
use crate::harness::{Fake, Gateway, Setup, backends, eventually};

#[path = "../../src/admit/jwt/testing.rs"]
pub mod testing;

use testing::{Signer, claims, jwks, now, with};

const STAFF: &str = "[auth.staff]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\n\
                     jwks_file = \"jwks.json\"\n";

/// In front of `url`; `auth` and `route` add lines to their sections.
fn setup(url: String, auth: &str, route: &str) -> String {
    Setup::before([url]).route("auth = [\"staff\"]").route(route).rest(STAFF).rest(auth).text()
}

fn start(config: &str, keys: &str) -> Gateway {
    Gateway::start_with(config, |directory, _| write(directory, "jwks.json", keys))
}

/// Whole, by renaming.
fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join("next"), text).unwrap();
    std::fs::rename(directory.join("next"), directory.join(name)).unwrap();
}

fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask(method, path, headers)
}

fn with_token(gateway: &Gateway, path: &str, token: &str) -> Response {
    ask(gateway, "GET", path, &[("Authorization", &format!("Bearer {token}"))])
}

/// Its status, cause, and the challenge that it carries.
fn refusal(response: &Response) -> (u16, String, Option<&str>) {
    (response.status, response.cause(), response.header("www-authenticate"))
}

/// What a real service is told, in both protocols.
#[test]
fn a_service_is_told_who_calls() {
    let certificate = Certificate::new(&["localhost"]);
    let signer = Signer::new("RS256", "2026-11");
    let config = setup(backends::chat().url(), "roles_claim = \"realm_access.roles\"", "roles = [\"clerk\"]")
        + "roles_map = { \"shop-admins\" = [\"clerk\", \"reader\"], \"shop-users\" = [\"reader\"] }\n\
           [listener.https]\naddress = \"127.0.0.1:@https@\"\n\
           tls = { certificates = [{ chain = \"own.pem\", key = \"own.key\" }] }\n";
    let gateway = Gateway::start_with(&config, |directory, _| {
        write(directory, "jwks.json", &jwks([&signer]));
        certificate.write(directory, "own");
    });
    let token = signer.sign(&with(claims(), json!({"realm_access": {"roles": ["shop-admins", "unknown"]}})));
    let expected = [
        ("x-auth-subject", "alice"),
        ("x-auth-roles", "clerk,reader"),
        ("x-auth-scopes", "orders:list orders:read"),
        ("x-auth-method", "jwt"),
    ];
    let forged: Vec<(String, &str)> =
        ["X-Auth-Subject", "x-auth-roles", "X-AUTH-SCOPES", "X_Auth_Roles", "x_auth-subject"]
            .map(|name| (name.to_owned(), "root"))
            .to_vec();
    let check = |seen: &Value, what: &str| {
        let fields: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
        let told: Vec<(&str, &str)> = fields
            .iter()
            .filter(|(name, _)| name.to_lowercase().replace('_', "-").starts_with("x-auth"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(told, expected, "{what}");
        let authorization = fields.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
        assert_eq!(authorization, Some(format!("Bearer {token}").as_str()), "a token goes on: {what}");
    };

    let bearer = format!("Bearer {token}");
    let mut headers: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    headers.push(("Authorization", &bearer));
    for round in ["at first", "known"] {
        let response = ask(&gateway, "GET", "/echo", &headers);
        assert_eq!(response.status, 200, "{response:?}");
        check(&response.json(), round);
    }

    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let mut request = Request::get("https://localhost/echo").header("authorization", &bearer);
    for (name, value) in &forged {
        request = request.header(name.as_str(), *value);
    }
    let answer = http2.ask(request.body(()).unwrap(), b"").unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    check(&answer.json(), "HTTP/2");
    let answer = http2.get("https://localhost/echo").unwrap();
    assert_eq!(
        (answer.status(), &answer.head.headers["www-authenticate"]),
        (401, &"Bearer realm=\"staff\"".parse().unwrap())
    );
}

fn http2_config(certificate: &Certificate) -> Arc<rustls::ClientConfig> {
    client_config(&[certificate], &["h2"], &[&TLS13])
}

/// RFC 6750 section 3: the exact answers.
#[test]
fn refusals_are_those_of_rfc_6750() {
    let (signer, other) = (Signer::new("ES256", "key"), Signer::new("ES256", "other"));
    let fake = Fake::ok();
    let config = setup(fake.url(), "", "roles = [\"reader\"]\nscopes = [\"orders:read\", \"orders:write\"]");
    let gateway = start(&config, &jwks([&signer]));
    let told =
        |error: &str, why: &str| format!("Bearer realm=\"staff\", error=\"{error}\", error_description=\"{why}\"");

    let response = gateway.get("/");
    assert_eq!(refusal(&response), (401, "unauthenticated".into(), Some("Bearer realm=\"staff\"")));
    assert_eq!(ask(&gateway, "GET", "/", &[("Authorization", "Digest x")]).status, 401);

    let expired = signer.sign(&with(claims(), json!({"exp": now() - 3600})));
    for (token, why) in [
        ("opaque".to_owned(), "the token is malformed"),
        (String::new(), "the token is malformed"),
        (expired, "the token has expired"),
        (other.sign(&claims()), "the key of the token is not known"),
        (testing::compact("{\"alg\":\"none\"}", &claims().to_string(), b""), "the token is not signed"),
    ] {
        let response = with_token(&gateway, "/", &token);
        let challenge = told("invalid_token", why);
        assert_eq!(refusal(&response), (401, "invalid_credentials".into(), Some(challenge.as_str())));
        assert!(token.is_empty() || !response.text().contains(&token), "an answer quotes no token");
    }

    let response = with_token(&gateway, "/", &signer.sign(&with(claims(), json!({"roles": ["guest"]}))));
    let challenge = told("insufficient_scope", "a role is missing");
    assert_eq!(refusal(&response), (403, "role_missing".into(), Some(challenge.as_str())));
    let response = with_token(&gateway, "/", &signer.sign(&claims()));
    let challenge = told("insufficient_scope", "a scope is missing") + ", scope=\"orders:read orders:write\"";
    assert_eq!(refusal(&response), (403, "scope_missing".into(), Some(challenge.as_str())));

    let bearer = format!("Bearer {}", signer.sign(&claims()));
    let response = ask(&gateway, "GET", "/", &[("Authorization", &bearer), ("Authorization", &bearer)]);
    let challenge = told("invalid_request", "more than one credential");
    assert_eq!(refusal(&response), (400, "ambiguous_credentials".into(), Some(challenge.as_str())));
    assert_eq!(fake.requests().len(), 0, "nobody came through");

    let scopes = json!({"scope": "orders:write orders:read"});
    assert_eq!(with_token(&gateway, "/", &signer.sign(&with(claims(), scopes))).status, 200);
    // Neither the records nor the log name a token.
    let (_, output) = gateway.stop();
    assert!(!output.contains("eyJ"), "{output}");
}

/// The caller's name is nobody's field but the gateway's, trailers included.
#[test]
fn claims_and_trailers_forge_nothing() {
    let signer = Signer::new("EdDSA", "key");
    let fake = Fake::ok();
    let config = setup(fake.url(), "", "") + "[defaults]\nbuffer = { request = false }\n";
    let gateway = start(&config, &jwks([&signer]));
    let hostile = json!({"sub": "eve\r\nX-Auth-Roles: admin", "roles": ["a,admin", "b\nadmin", "\u{e9}"], "scope": ""});
    let bearer = format!("Bearer {}", signer.sign(&with(claims(), hostile)));
    let mut client = Client::connect(gateway.port("http"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\nTransfer-Encoding: chunked\r\n\
         X-Auth-Roles: admin\r\nTrailer: X-Auth-Subject\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Auth-Subject: root\r\nX-Auth-Roles: admin\r\nx_auth_roles: admin\r\nX-Sum: 1\r\n\r\n"
    ));
    assert_eq!(client.answer_to("POST").status, 200);
    let request = fake.request();
    assert_eq!(request.header("x-auth-subject"), Some("eve%0D%0AX-Auth-Roles:%20admin"));
    assert_eq!(request.header("x-auth-roles"), Some("a%2Cadmin,b%0Aadmin,%C3%A9"));
    assert_eq!(request.header("x-auth-scopes"), Some(""));
    assert_eq!(request.trailers.to_lowercase(), "x-sum: 1\n");
    let told = request.head.lines().filter(|line| line.to_lowercase().replace('_', "-").starts_with("x-auth-"));
    assert_eq!(told.count(), 4, "{}", request.head);
}

/// Names that the operator chose are as good as the usual ones, on every route.
#[test]
fn fields_by_other_names_are_nobody_elses_either() {
    let signer = Signer::new("ES256", "key");
    let fake = Fake::ok();
    let config = setup(fake.url(), "", "forward_identity = { subject = \"Remote-User\" }")
        + "[route.open]\npath = \"/open\"\nupstream = \"app\"\nauth = \"public\"\n"
        + "[defaults]\nbuffer = { request = false }\n";
    let gateway = start(&config, &jwks([&signer]));
    let bearer = signer.sign(&claims());
    for path in ["/", "/open"] {
        let mut client = Client::connect(gateway.port("http"));
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nRemote-User: root\r\n\
             remote_user: root\r\nX-Auth-Subject: root\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nRemote-User: root\r\nREMOTE-USER: root\r\nX-Sum: 1\r\n\r\n"
        ));
        assert_eq!(client.answer_to("POST").status, 200, "{path}");
    }
    let requests = fake.requests();
    assert_eq!(requests[0].header("remote-user"), Some("alice"));
    for request in &requests {
        assert!(!request.head.contains("root"), "{}", request.head);
        assert_eq!(request.trailers.to_lowercase(), "x-sum: 1\n");
    }
}

/// Also where a route asks nobody, and where it does not tell.
#[test]
fn nobody_else_names_a_caller() {
    let signer = Signer::new("ES256", "key");
    let fake = Fake::ok();
    let config = setup(fake.url(), "", "forward_identity = false\nforward_credential = false")
        + "[route.open]\npath = \"/open\"\nupstream = \"app\"\nauth = \"public\"\n";
    let gateway = start(&config, &jwks([&signer]));
    let bearer = format!("Bearer {}", signer.sign(&claims()));
    let forged = [("X-Auth-Subject", "root"), ("x_auth_subject", "root"), ("Authorization", bearer.as_str())];
    assert_eq!(ask(&gateway, "GET", "/", &forged).status, 200);
    assert_eq!(ask(&gateway, "GET", "/open", &forged).status, 200);
    let requests = fake.requests();
    for request in &requests {
        let head = request.head.to_lowercase().replace('_', "-");
        assert!(!head.contains("x-auth-"), "{head}");
    }
    assert_eq!(requests[0].header("authorization"), None, "forward_credential = false");
    assert_eq!(requests[1].header("authorization"), Some(bearer.as_str()), "an open route has no credentials");
}

/// A browser sends cookies whoever made it send the request.
#[test]
fn tokens_in_cookies_come_from_pages_of_this_site() {
    let signer = Signer::new("ES256", "key");
    let fake = Fake::ok();
    let cors = "cors = { origins = [\"https://shop.example\"] }";
    let config = setup(fake.url(), "token_from = \"cookie:session\"", cors);
    let gateway = start(&config, &jwks([&signer]));
    let cookie = format!("theme=dark; session={}; lang=fr", signer.sign(&claims()));
    let own = format!("http://localhost:{}", gateway.port("http"));
    let host = format!("localhost:{}", gateway.port("http"));
    let origin = |method: &str, origin: Option<&str>| {
        let mut headers = vec![("Host", host.as_str()), ("Cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        ask(&gateway, method, "/", &headers)
    };
    for method in ["GET", "HEAD"] {
        assert_eq!(origin(method, None).status, 200, "{method}");
        assert_eq!(origin(method, Some("https://evil.example")).status, 200, "{method}");
    }
    assert!(fake.requests().iter().all(|request| request.header("cookie") == Some("theme=dark; lang=fr")));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for origin_of in [None, Some("https://evil.example"), Some("null"), Some("http://localhost:1"), Some("")] {
            let response = origin(method, origin_of);
            assert_eq!((response.status, response.cause()), (403, "origin_refused".into()), "{method} {origin_of:?}");
        }
        assert_eq!(origin(method, Some(&own)).status, 200, "{method} of this host");
        assert_eq!(origin(method, Some("https://shop.example")).status, 200, "{method} that cors names");
    }
    assert_eq!(gateway.get("/").cause(), "unauthenticated");
    let two = format!("{cookie}; session=x");
    assert_eq!(ask(&gateway, "GET", "/", &[("Cookie", &two)]).cause(), "ambiguous_credentials");
    // In a header it is not looked for.
    assert_eq!(with_token(&gateway, "/", &signer.sign(&claims())).cause(), "unauthenticated");
    let response = ask(&gateway, "GET", "/", &[("Cookie", "session=x.y.z")]);
    let challenge = "Bearer realm=\"staff\", error=\"invalid_token\", error_description=\"the token is malformed\"";
    assert_eq!(refusal(&response), (401, "invalid_credentials".into(), Some(challenge)));
}

/// HTTP/2 cuts cookies into crumbs (RFC 9113 section 8.2.3), and over TLS only pages that came over TLS are this site's.
#[test]
fn cookies_in_crumbs_over_http2() {
    let certificate = Certificate::new(&["localhost"]);
    let signer = Signer::new("ES256", "key");
    let fake = Fake::ok();
    let config = setup(fake.url(), "token_from = \"cookie:session\"", "")
        + "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
           tls = { certificates = [{ chain = \"own.pem\", key = \"own.key\" }] }\n";
    let gateway = Gateway::start_with(&config, |directory, _| {
        write(directory, "jwks.json", &jwks([&signer]));
        certificate.write(directory, "own");
    });
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &http2_config(&certificate));
    let mut post = |origin: &str| {
        let request = Request::post("https://localhost/")
            .header("cookie", "theme=dark")
            .header("cookie", format!("session={}", signer.sign(&claims())))
            .header("cookie", "lang=fr")
            .header("origin", origin);
        http2.ask(request.body(()).unwrap(), b"").unwrap().status()
    };
    assert_eq!(post("https://localhost"), 200);
    assert_eq!(post("http://localhost"), 403);
    assert_eq!(post("https://evil.example"), 403);
    let request = fake.request();
    let cookies = request.headers_named("cookie").join("; ");
    assert_eq!(cookies, "theme=dark; lang=fr");
    assert_eq!(request.header("x-auth-subject"), Some("alice"));
}

/// A WebSocket begins with a GET that any page may send.
#[test]
fn websockets_with_a_cookie_come_from_pages_of_this_site() {
    let signer = Signer::new("ES256", "key");
    let config = setup(backends::chat().url(), "token_from = \"cookie:session\"", "");
    let gateway = start(&config, &jwks([&signer]));
    let cookie = format!("session={}", signer.sign(&claims()));
    let host = format!("localhost:{}", gateway.port("http"));
    let own = format!("http://{host}");
    let open = |origin: Option<&str>| {
        let mut headers = vec![
            ("Host", host.as_str()),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Cookie", cookie.as_str()),
        ];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        ask(&gateway, "GET", "/ws", &headers)
    };
    assert_eq!(open(Some(&own)).status, 101);
    for origin in [None, Some("https://evil.example"), Some("null")] {
        assert_eq!(open(origin).cause(), "origin_refused", "{origin:?}");
    }
}

#[test]
fn a_cookie_goes_on_where_that_is_wanted() {
    let signer = Signer::new("ES256", "key");
    let fake = Fake::ok();
    let config = setup(fake.url(), "token_from = \"cookie:session\"", "forward_credential = true");
    let gateway = start(&config, &jwks([&signer]));
    let cookie = format!("session={}", signer.sign(&claims()));
    assert_eq!(ask(&gateway, "GET", "/", &[("Cookie", &cookie)]).status, 200);
    assert_eq!(fake.request().header("cookie"), Some(cookie.as_str()));
}

/// A secret that the issuer shares, drawn from outside.
#[test]
fn tokens_by_a_shared_secret() {
    let secret = "a secret of 32 bytes at the least";
    let fake = Fake::ok();
    let config = Setup::before([fake.url()])
        .route("auth = [\"internal\"]")
        .rest("[auth.internal]\nkind = \"jwt\"\nissuer = \"shop\"\naudience = \"orders\"\nsecret = \"${file:secret}\"")
        .text();
    let gateway = Gateway::start_with(&config, |directory, _| write(directory, "secret", secret));
    let claims = with(claims(), json!({"iss": "shop"}));
    let token = |secret: &[u8]| Signer::of_secret("HS256", secret).sign(&claims);
    assert_eq!(with_token(&gateway, "/", &token(secret.as_bytes())).status, 200);
    assert_eq!(with_token(&gateway, "/", &token(b"another secret of 32 bytes or so")).cause(), "invalid_credentials");
    let (_, output) = gateway.stop();
    assert!(!output.contains(secret), "{output}");
}

/// What was verified by a key that is gone is verified no more.
#[test]
fn another_key_ends_what_the_last_one_proved() {
    let (first, second) = (Signer::new("ES256", "first"), Signer::new("ES256", "second"));
    let fake = Fake::ok();
    let gateway = start(&setup(fake.url(), "", ""), &jwks([&first]));
    let (old, new) = (first.sign(&claims()), second.sign(&claims()));
    for _ in 0..3 {
        assert_eq!(with_token(&gateway, "/", &old).status, 200);
    }
    assert_eq!(with_token(&gateway, "/", &new).cause(), "invalid_credentials");
    // A file that changes reloads the gateway, by itself.
    write(gateway.directory(), "jwks.json", &jwks([&second]));
    eventually("the new key is taken", || (with_token(&gateway, "/", &new).status == 200).then_some(()));
    assert_eq!(with_token(&gateway, "/", &old).cause(), "invalid_credentials");
    // One that is broken changes nothing.
    write(gateway.directory(), "jwks.json", "{}");
    let (status, output) = gateway.reload();
    assert!(!status.success() && output.contains("jwks.json` cannot be used: it has no list `keys`"), "{output}");
    assert_eq!(with_token(&gateway, "/", &new).status, 200);
}
