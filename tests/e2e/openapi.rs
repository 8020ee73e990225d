//! `openapi`: a real FastAPI service is held to the document that it publishes.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::backends::{Backend, python_program};
use crate::harness::gateway::passerelle;
use crate::harness::http::{self, Client};
use crate::harness::{Fake, Gateway, Response, Setup, eventually};
use crate::jwt::testing::Signer;

fn shop() -> Backend {
    Backend::uvicorn("../tests/openapi", "shop:app")
}

fn before(shop: &Backend, validate: &str) -> Setup {
    let table = format!("[route.all.validate]\nopenapi = \"upstream:/openapi.json\"\n{validate}");
    Setup::before([shop.url()]).rest(&table)
}

/// How many operations the document in use has, and why there is no newer one.
fn document(gateway: &Gateway) -> (u64, Option<String>) {
    let status = gateway.status();
    let document = &status["routes"][0]["openapi"];
    let reason = document["reason"].as_str().map(str::to_owned);
    (document["operations"].as_u64().unwrap(), reason)
}

fn ready(gateway: &Gateway) {
    eventually("a document", || (document(gateway).0 > 0).then_some(()));
}

fn ask(gateway: &Gateway, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
    Client::connect(gateway.port("http")).ask_with(method, target, headers, body.as_bytes())
}

/// `in pointer rule` of each violation.
fn violations(answer: &Response) -> Vec<String> {
    let list = answer.json()["violations"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|found| format!("{} {} {}", text(&found["in"]), text(&found["pointer"]), text(&found["rule"])))
        .collect()
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn requests_are_held_to_the_document() {
    let shop = shop();
    let gateway = before(&shop, "").start();
    ready(&gateway);
    assert_eq!(gateway.get("/articles/7?limit=5&colours=red&colours=green&unknown=1").status, 200);
    let answer =
        ask(&gateway, "GET", "/articles/0?limit=x&colours=blue", &[("X-Page", "-1"), ("Cookie", "session=NOT")], "");
    assert_eq!((answer.status, answer.cause().as_str()), (422, "invalid_request"));
    let found = violations(&answer);
    let places = ["path /article ", "query /limit ", "query /colours/0 ", "header /x-page ", "cookie /session "];
    for (found, place) in found.iter().zip(places) {
        assert!(found.starts_with(place), "{found:?}");
    }
    assert_eq!(found.len(), places.len(), "{found:?}");

    let missing = gateway.get("/nothing");
    assert_eq!((missing.status, missing.cause().as_str()), (404, "unknown_operation"));
    let method = ask(&gateway, "DELETE", "/articles/7", &[], "");
    assert_eq!((method.status, method.cause().as_str()), (405, "unknown_method"));
    assert_eq!(method.header("allow"), Some("GET, HEAD"));
    // A browser that asks beforehand is answered by the service, which has a say in that.
    let preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")];
    assert_eq!(ask(&gateway, "OPTIONS", "/articles/7", &preflight, "").header("server"), Some("uvicorn"));
    let preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")];
    assert_eq!(ask(&gateway, "OPTIONS", "/articles/7", &preflight, "").cause(), "unknown_method");
    // The shop knows no HEAD; it is let say so itself.
    assert_eq!(Client::connect(gateway.port("http")).ask("HEAD", "/articles/7", &[]).header("server"), Some("uvicorn"));

    let order = json!({"customer": "7f8f5a5e-2f0e-4b58-9d4c-1f7f8a8f9a10", "kind": "gift",
        "lines": [{"article": "tea", "quantity": 2}], "parent": null});
    assert_eq!(ask(&gateway, "POST", "/orders", &[JSON], &order.to_string()).status, 201);
    let wrong = json!({"customer": "me", "kind": "gift", "lines": [{"article": "TEA", "quantity": 0, "more": 1}]});
    let answer = ask(&gateway, "POST", "/orders", &[JSON], &wrong.to_string());
    assert_eq!(answer.status, 422, "{answer:?}");
    let mut found = violations(&answer);
    found.sort();
    let expected = [
        "body /customer format",
        "body /lines/0/article pattern",
        "body /lines/0/more additionalProperties",
        "body /lines/0/quantity minimum",
    ];
    assert_eq!(found, expected);
    assert_eq!(violations(&ask(&gateway, "POST", "/orders", &[JSON], "")), ["body  required"]);
    let answer = ask(&gateway, "POST", "/orders", &[("Content-Type", "text/plain")], "x");
    assert_eq!((answer.status, answer.cause().as_str()), (415, "unsupported_media_type"));
    assert_eq!(answer.header("accept"), Some("application/json"));

    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(ask(&gateway, "POST", "/login", &form, "name=a&age=18&tags=red&tags=green").status, 200);
    assert_eq!(violations(&ask(&gateway, "POST", "/login", &form, "name=a&age=17")), ["body /age minimum"]);

    let multipart = [("Content-Type", "multipart/form-data; boundary=X")];
    let part =
        |head: &str, content: &str| format!("--X\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n");
    let photo = part("name=\"photo\"; filename=\"a.png\"", "\u{0}\u{1}");
    let whole = format!("{}{photo}--X--\r\n", part("name=\"title\"", "A"));
    let answer = ask(&gateway, "POST", "/photos", &multipart, &whole);
    assert_eq!((answer.status, answer.json()["size"].as_u64()), (200, Some(2)), "{answer:?}");
    let answer = ask(&gateway, "POST", "/photos", &multipart, &format!("{photo}--X--\r\n"));
    assert_eq!(violations(&answer), ["body /title required"]);

    let refused: Vec<String> = serde_json::from_value(http::get(shop.port(), "/refused").json()).unwrap();
    assert_eq!(refused, ["405 OPTIONS /articles/7?", "405 HEAD /articles/7?"], "what the shop had to refuse");
    assert!(gateway.metric("passerelle_denied_total", &["route=\"all\"", "rule=\"validate.openapi\""]) > 0.0);
    assert!(gateway.metric("passerelle_openapi_document_timestamp_seconds", &["route=\"all\""]) > 1e9);
}

/// Everything that schemathesis makes of the document, valid and not, gets the same verdict from the gateway and from
/// the shop; and what the shop would refuse never gets to it.
#[test]
fn schemathesis_finds_no_way_around() {
    let shop = shop();
    let gateway = before(&shop, "").start();
    ready(&gateway);
    let attack = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi/attack.py");
    let through = format!("http://127.0.0.1:{}", gateway.port("http"));
    let output = Command::new(python_program("python")).args([attack, &through, &shop.url(), "25"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let refused: Vec<String> = serde_json::from_value(http::get(shop.port(), "/refused").json()).unwrap();
    assert_eq!(refused, [""; 0], "{text}");
}

#[test]
fn a_service_that_starts_later_is_waited_for() {
    let mut shop = shop();
    shop.kill();
    let gateway = before(&shop, "").start();
    let answer = gateway.get("/articles/7");
    assert_eq!((answer.status, answer.cause().as_str()), (503, "document_unavailable"));
    let (operations, _) = document(&gateway);
    assert_eq!(operations, 0);
    assert_eq!(gateway.metric("passerelle_openapi_document_timestamp_seconds", &["route=\"all\""]), 0.0);
    shop.start_again();
    ready(&gateway);
    assert_eq!(gateway.get("/articles/7").status, 200);
    assert_eq!(gateway.get("/articles/x").status, 422);
    assert!(gateway.metric("passerelle_openapi_fetches_total", &["result=\"unreachable\""]) >= 1.0);
}

#[test]
fn what_is_only_reported_gets_through_and_is_counted() {
    let mut shop = shop();
    shop.kill();
    let gateway = before(&shop, "mode = \"report\"").start();
    assert_eq!(gateway.get("/articles/7").cause(), "upstream_connect_refused");
    let reported = || gateway.metric("passerelle_validation_violations_total", &["rule=\"validate.openapi\""]);
    assert_eq!(reported(), 1.0);
    shop.start_again();
    ready(&gateway);
    let answer = gateway.get("/articles/x");
    assert_eq!((answer.status, answer.header("server")), (422, Some("uvicorn")), "the shop's own answer");
    assert_eq!(gateway.get("/nothing").header("server"), Some("uvicorn"));
    assert_eq!(reported(), 3.0);
    assert_eq!(gateway.get("/articles/7").status, 200);
    assert_eq!(reported(), 3.0);
}

#[test]
fn a_new_release_is_noticed_and_the_last_good_document_outlives_the_service() {
    let mut shop = shop();
    let mut gateway = before(&shop, "").start();
    ready(&gateway);
    let (before_release, _) = document(&gateway);
    assert_eq!(gateway.get("/novelty").cause(), "unknown_operation");
    assert_eq!(Client::connect(shop.port()).ask("POST", "/release/novelty", &[("Content-Length", "0")]).status, 200);
    // Whoever asks for it makes the gateway look.
    eventually("the new operation", || (gateway.get("/novelty").status == 200).then_some(()));
    assert_eq!(document(&gateway).0, before_release + 1);
    gateway.log_line("that it changed", |line| line["message"] == "OpenAPI document changed");

    shop.kill();
    eventually("a fetch that fails", || {
        assert_eq!(gateway.get("/nothing").cause(), "unknown_operation");
        document(&gateway).1
    });
    assert_eq!(gateway.get("/articles/x").status, 422, "the last good document is kept");
    assert_eq!(gateway.get("/articles/7").cause(), "upstream_connect_refused");
    // It outlives a reload too.
    gateway.write_config(&before_with_limit(&shop));
    gateway.signal(Signal::HUP);
    eventually("the new configuration", || {
        (gateway.status()["configuration"]["generation"].as_u64() == Some(2)).then_some(())
    });
    assert_eq!(gateway.get("/articles/x").status, 422);
    // A service of another version, whose document the gateway looks at as soon as somebody asks for what it lacks.
    shop.start_again();
    eventually("the older document", || {
        gateway.get("/nothing");
        (document(&gateway) == (before_release, None)).then_some(())
    });
}

fn before_with_limit(shop: &Backend) -> String {
    before(shop, "max_body = \"1 MiB\"").text()
}

#[test]
fn the_scopes_of_the_document_are_demanded() {
    let shop = shop();
    let secret = "a secret of 32 bytes at the least";
    let auth = "[auth.staff]\nkind = \"jwt\"\nissuer = \"shop\"\naudience = \"shop\"\nsecret = \"${file:secret}\"\nalgorithms = [\"HS256\"]\n";
    let setup = before(&shop, "openapi_security = true").route("auth = [\"staff\"]").rest(auth);
    let gateway = Gateway::start_with(&setup.text(), |directory, _| {
        std::fs::write(directory.join("secret"), secret).unwrap();
    });
    ready(&gateway);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ask = |path: &str, scope: &str| {
        let claims = json!({"iss": "shop", "aud": "shop", "sub": "a", "exp": now + 60, "scope": scope});
        let token = format!("Bearer {}", Signer::of_secret("HS256", secret.as_bytes()).sign(&claims));
        Client::connect(gateway.port("http")).ask("GET", path, &[("Authorization", &token)])
    };
    assert_eq!(gateway.get("/audit").status, 401);
    assert_eq!(ask("/audit", "other audit:read").status, 200);
    let answer = ask("/audit", "other");
    assert_eq!((answer.status, answer.cause().as_str()), (403, "scope_missing"));
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("scope=\"audit:read\""), "{challenge}");
    assert_eq!(ask("/articles/7", "other").status, 200, "an operation that demands nothing");
}

const YAML: &str = "openapi: 3.0.3
servers: [{url: https://api.example.com/v1}]
paths:
  /orders/{id}:
    get:
      parameters:
      - {$ref: 'common.yaml#/id'}
      - {name: at, in: query, style: deepObject, schema: {type: object, properties: {x: {type: integer, nullable: true}}}}
      responses: {200: {description: fine}}
";
const COMMON: &str =
    "id: {name: id, in: path, required: true, schema: {type: integer, minimum: 1, exclusiveMinimum: true}}\n";

#[test]
fn a_document_may_be_a_file_and_is_read_again_when_it_changes() {
    let fake = Fake::ok();
    let validate = "[route.all.validate]\nopenapi = \"api.yaml\"\nschemas = [\"common.yaml\"]\n";
    let setup = Setup::before([fake.url()]).rest(validate);
    let write = |directory: &Path, name: &str, text: &str| {
        std::fs::write(directory.join("next"), text).unwrap();
        std::fs::rename(directory.join("next"), directory.join(name)).unwrap();
    };
    let gateway = Gateway::start_with(&setup.text(), |directory, _| {
        write(directory, "common.yaml", COMMON);
        write(directory, "api.yaml", YAML);
    });
    for path in ["/orders/2", "/v1/orders/2?at[x]=1", "/orders/2?at[x]="] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    assert_eq!(violations(&gateway.get("/v1/orders/1?at[x]=y")), ["path /id exclusiveMinimum", "query /at/x type"]);
    assert_eq!(gateway.get("/v2/orders/2").cause(), "unknown_operation");
    assert_eq!(gateway.status()["routes"][0].get("openapi"), None, "only what is fetched has a standing");
    write(gateway.directory(), "common.yaml", &COMMON.replace("minimum: 1", "minimum: 100"));
    eventually("the file is read again", || (gateway.get("/orders/2").status == 422).then_some(()));

    // What cannot be used is told by `check`, with its place.
    write(gateway.directory(), "api.yaml", &YAML.replace("common.yaml#/id", "https://example.com/x.yaml#/id"));
    let (status, text) = passerelle(&["check", "--config", gateway.config_path().to_str().unwrap()]);
    assert!(!status.success());
    assert!(text.contains("leads out of the document") && text.contains("/parameters/0"), "{text}");
    assert!(text.contains("openapi = \"api.yaml\""), "{text}");
    write(gateway.directory(), "api.yaml", &YAML.replace("minimum", "pattern: 'a(?=b)', minimum"));
    write(gateway.directory(), "common.yaml", &COMMON.replace("minimum: 1,", "minimum: 1, pattern: 'a(?=b)',"));
    let (status, text) = passerelle(&["check", "--config", gateway.config_path().to_str().unwrap()]);
    assert!(status.success() && text.contains("linear time") && text.contains("/id/schema/pattern"), "{text}");
}

#[test]
fn what_the_gateway_writes_is_not_asked_of_clients() {
    let fake = Fake::ok();
    let names = ["x-auth-subject", "X-Auth-Roles", "X-Request-Id", "X-Forwarded-For", "X-Real-Ip", "Via", "X-Tenant"];
    let header =
        |name| json!({"name": name, "in": "header", "required": true, "schema": {"type": "string", "pattern": "^a$"}});
    let mut parameters: Vec<_> = names.iter().map(header).collect();
    parameters.push(json!({"name": "X-Page", "in": "header", "schema": {"type": "integer"}}));
    let security = json!([{"oauth": ["a"]}, {"key": []}]);
    let document = json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"get": {"parameters": parameters, "security": security}}},
        "components": {"securitySchemes": {"oauth": {"type": "oauth2"}, "key": {"type": "apiKey"}}},
    });
    let validate = "[route.all.headers.request]\nset = { X-Tenant = \"b\" }\n\
                    [route.all.validate]\nopenapi = \"api.json\"\nopenapi_security = true\n\
                    [auth.staff]\nkind = \"jwt\"\nissuer = \"shop\"\naudience = \"shop\"\n\
                    secret = \"${file:secret}\"\nalgorithms = [\"HS256\"]\n";
    let secret = "a secret of 32 bytes at the least";
    let setup = Setup::before([fake.url()]).route("auth = [\"staff\"]").rest(validate);
    let gateway = Gateway::start_with(&setup.text(), |directory, _| {
        std::fs::write(directory.join("api.json"), document.to_string()).unwrap();
        std::fs::write(directory.join("secret"), secret).unwrap();
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": "shop", "aud": "shop", "sub": "a", "exp": now + 60});
    let token = format!("Bearer {}", Signer::of_secret("HS256", secret.as_bytes()).sign(&claims));
    let ask = |name: &str, value: &str| {
        let headers = [("Authorization", token.as_str()), (name, value)];
        Client::connect(gateway.port("http")).ask("GET", "/x", &headers)
    };
    assert_eq!(ask("X-Page", "1").status, 200);
    for name in names {
        assert_eq!(ask(name, "EVIL").status, 200, "{name}");
    }
    assert_eq!(violations(&ask("X-Page", "x")), ["header /X-Page type"]);
    // And whoever demands scopes is told of the way in that has none.
    let (status, text) = passerelle(&["check", "--config", gateway.config_path().to_str().unwrap()]);
    assert!(status.success() && text.contains("demand no scopes") && text.contains("/get/security"), "{text}");
}

/// What is no document does not push a good one out; what has not changed is not sent again.
#[test]
fn only_what_can_be_used_is_put_in_force() {
    let document = Arc::new(Mutex::new((r#"{"openapi": "3.1.0", "paths": {"/a": {"get": {}}}}"#.to_owned(), "\"1\"")));
    let fake = Fake::start({
        let document = Arc::clone(&document);
        move |mut connection| {
            while let Some(request) = connection.read_request() {
                let (text, tag) = document.lock().unwrap().clone();
                let answer = |status: &str, text: &str| {
                    format!("HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
                };
                connection.send(&match request.header("if-none-match") {
                    Some(known) if known == tag => format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n"),
                    _ => answer("200 OK", &text),
                });
            }
        }
    });
    let validate = "[route.all.validate]\nopenapi = \"upstream:/openapi.json?full=1\"\n";
    let gateway = Setup::before([fake.url()]).rest(validate).start();
    ready(&gateway);
    let fetches = |result: &str| gateway.metric("passerelle_openapi_fetches_total", &[&format!("result=\"{result}\"")]);
    assert_eq!(gateway.get("/b").cause(), "unknown_operation");
    gateway.metric_reaches("passerelle_openapi_fetches_total", &["result=\"unchanged\""], 1.0);
    assert_eq!((fetches("success"), fetches("unusable")), (1.0, 0.0));

    *document.lock().unwrap() = (r##"{"openapi": "3.1.0", "paths": {"/a": {"$ref": "#/x"}}}"##.to_owned(), "\"2\"");
    let reason = eventually("what came is refused", || {
        assert_eq!(gateway.get("/b").cause(), "unknown_operation");
        document_reason(&gateway)
    });
    assert!(reason.contains("#/paths/~1a") && reason.contains("leads nowhere"), "{reason}");
    assert_eq!(gateway.get("/a").status, 200, "the last good one is kept");
    assert!(fetches("unusable") >= 1.0);

    *document.lock().unwrap() = (r#"{"openapi": "3.1.0", "paths": {"/b": {"get": {}}}}"#.to_owned(), "\"3\"");
    eventually("the next one", || (gateway.get("/b").status == 200).then_some(()));
    assert_eq!(gateway.get("/a").cause(), "unknown_operation");
    assert_eq!(document_reason(&gateway), None);
}

fn document_reason(gateway: &Gateway) -> Option<String> {
    document(gateway).1
}
