//! Validation of bodies: nothing that is invalid reaches the service, and what is valid reaches it unchanged.

use std::path::Path;
use std::process::Command;

use http::Request;
use rustls::version::TLS13;
use serde_json::{Value, json};

use crate::harness::gateway::passerelle;
use crate::harness::http::{Client, head};
use crate::harness::http2::Http2;
use crate::harness::tls::{Certificate, client_config};
use crate::harness::{Fake, Gateway, Response, Setup, eventually};

const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["customer", "items"],
    "additionalProperties": false,
    "properties": {
        "customer": {"type": "string", "format": "email"},
        "address": {"$ref": "parts/address.json#/$defs/address"},
        "items": {"type": "array", "minItems": 1, "items": {
            "type": "object",
            "required": ["sku"],
            "properties": {"sku": {"pattern": "^[A-Z]{3}-[0-9]+$"}, "price": {"type": "number", "minimum": 0}}
        }}
    }
}"#;

const ADDRESS: &str = r#"{"$defs": {"address": {"type": "object", "required": ["city"]}}}"#;

/// A gap or two, an escape and a number in a form of its own: whoever wrote it anew would change it.
const ORDER: &str = "{ \"customer\":\"a\\u0040example.com\",\n \"items\" : [{\"sku\":\"ABC-1\",\"price\":1.50e1}] }\n";

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn write_schemas(directory: &Path) {
    std::fs::create_dir_all(directory.join("schemas/parts")).unwrap();
    std::fs::write(directory.join("schemas/order.json"), SCHEMA).unwrap();
    std::fs::write(directory.join("schemas/parts/address.json"), ADDRESS).unwrap();
}

fn start(setup: &Setup) -> Gateway {
    Gateway::start_with(&setup.text(), |directory, _: &mut Command| write_schemas(directory))
}

/// A gateway before `fake` whose only route has these lines, and these in its `validate`.
fn validating(fake: &Fake, route: &str, validate: &str) -> Gateway {
    let setup = Setup::before([fake.url()]).route(route).rest(&format!("[route.all.validate]\n{validate}"));
    start(&setup)
}

fn by_schema(fake: &Fake, more: &str) -> Gateway {
    validating(
        fake,
        "",
        &format!("body_schema = \"schemas/order.json\"\nschemas = [\"schemas/parts/address.json\"]\n{more}"),
    )
}

fn post(gateway: &Gateway, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
    Client::connect(gateway.port("http")).ask_with("POST", "/orders", headers, body.as_ref())
}

/// Place, pointer and rule of each violation of a problem.
fn violations(problem: &Value) -> Vec<(String, String)> {
    let list = problem["violations"].as_array().unwrap_or_else(|| panic!("{problem}")).iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.map(|violation| (text(&violation["in"]) + &text(&violation["pointer"]), text(&violation["rule"]))).collect()
}

fn are(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(pointer, rule)| ((*pointer).to_owned(), (*rule).to_owned())).collect()
}

fn chunked(body: &str, size: usize, trailer: &str) -> String {
    let mut text = String::new();
    for chunk in body.as_bytes().chunks(size) {
        text.push_str(&format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()));
    }
    text + "0\r\n" + trailer + "\r\n"
}

#[test]
fn what_is_valid_arrives_unchanged_and_nothing_else_does() {
    let fake = Fake::ok();
    let gateway = by_schema(&fake, "");
    assert_eq!(post(&gateway, &[JSON], ORDER).status, 200);
    let request = fake.request();
    assert_eq!(String::from_utf8(request.body).unwrap(), ORDER);
    assert_eq!(request.head.to_lowercase().matches("content-length").count(), 1, "{}", request.head);

    let bad = json!({
        "items": [{"sku": "ABC-1"}, {"sku": "x", "price": -1}, {"price": "hunter2"}],
        "address": {}, "a/b": 1, "customer": "nobody",
    });
    let answer = post(&gateway, &[JSON], bad.to_string());
    assert_eq!((answer.status, answer.cause().as_str()), (422, "invalid_request"));
    let mut found = violations(&answer.json());
    found.sort();
    let expected = [
        ("body/address/city", "required"),
        ("body/a~1b", "additionalProperties"),
        ("body/customer", "format"),
        ("body/items/1/price", "minimum"),
        ("body/items/1/sku", "pattern"),
        ("body/items/2/price", "type"),
        ("body/items/2/sku", "required"),
    ];
    let mut expected = are(&expected);
    expected.sort();
    assert_eq!(found, expected);
    assert!(!answer.text().contains("hunter2") && !answer.text().contains("nobody"), "values are not told");
    let record = gateway.access_record(&answer).to_string();
    assert!(record.contains("validate.body") && !record.contains("hunter2"), "{record}");

    assert_eq!(fake.requests().len(), 1, "nothing invalid came");
    assert!(gateway.metric("passerelle_denied_total", &["route=\"all\"", "rule=\"validate.body\""]) == 1.0);
}

#[test]
fn bodies_without_a_length_are_judged_whole_and_get_one() {
    let fake = Fake::ok();
    let gateway = by_schema(&fake, "");
    let headers = [JSON, ("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")];
    for size in [1, 7, 4096] {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("POST", "/", &headers)).send(chunked(ORDER, size, "X-Sum: 1\r\n"));
        assert_eq!(client.answer_to("POST").status, 200, "chunks of {size}");
        // The connection goes on after what was refused, too.
        client.send(head("POST", "/", &headers)).send(chunked("{\"customer\": 1}", size, ""));
        assert_eq!(client.answer_to("POST").status, 422, "chunks of {size}");
        assert_eq!(client.ask_with("POST", "/", &[JSON], ORDER.as_bytes()).status, 200);
    }
    let requests = fake.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests.iter().all(|request| request.body == ORDER.as_bytes()));
    assert!(requests.iter().all(|request| request.header("content-length").is_some()));
    assert_eq!(requests[0].trailers, "");
}

#[test]
fn json_is_read_strictly_wherever_it_is_validated() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "", "max_depth = 3");
    let wrong = |body: &[u8]| {
        let answer = post(&gateway, &[JSON], body);
        assert_eq!(answer.status, 422, "{}", String::from_utf8_lossy(body));
        violations(&answer.json()).remove(0)
    };
    let is = |pointer: &str, rule: &str| (pointer.to_owned(), rule.to_owned());
    assert_eq!(wrong(br#"{"a": 1, "\u0061": 2}"#), is("body/a", "duplicate_key"));
    assert_eq!(wrong(b"[[[[1]]]]"), is("body/0/0/0", "max_depth"));
    for body in [&b"{\"a\": NaN}"[..], b"{} {}", b"\"\xff\"", b"\"\\ud800\"", b"[1e999]", b"", b"\xef\xbb\xbf{}"] {
        if !body.is_empty() {
            assert_eq!(wrong(body).1, "json", "{}", String::from_utf8_lossy(body));
        }
    }
    assert_eq!(fake.requests().len(), 0);
    assert_eq!(post(&gateway, &[JSON], r#"{"a": [{}]}"#).status, 200);
    assert_eq!(post(&gateway, &[("Content-Type", "text/plain")], "NaN").status, 200, "what is not JSON is not judged");
    assert_eq!(post(&gateway, &[("Content-Type", "application/vnd.api+JSON; charset=UTF-8")], "[[[[1]]]]").status, 422);
}

#[test]
fn types_that_are_not_listed_are_refused() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "", "content_types = [\"application/json\", \"image/*\"]");
    let refused = |headers: &[(&str, &str)]| {
        let answer = post(&gateway, headers, "{}");
        assert_eq!((answer.status, answer.cause().as_str()), (415, "unsupported_media_type"), "{headers:?}");
        assert_eq!(answer.header("accept"), Some("application/json, image/*"));
    };
    refused(&[]);
    refused(&[("Content-Type", "text/plain")]);
    refused(&[("Content-Type", "application/json; charset")]);
    refused(&[("Content-Type", "application/json, text/plain")]);
    refused(&[("Content-Type", "application/json; charset=utf-16")]);
    refused(&[("Content-Type", "application/json; charset=utf-8; charset=utf-16")]);
    refused(&[JSON, JSON]);
    assert_eq!(fake.requests().len(), 0);
    for text in ["application/json", "Application/JSON ; charset=\"utf-8\"", "image/png"] {
        assert_eq!(post(&gateway, &[("Content-Type", text)], "{}").status, 200, "{text}");
    }
    let mut client = Client::connect(gateway.port("http"));
    assert_eq!(client.ask("GET", "/", &[]).status, 200, "without a body none is needed");
    assert_eq!(client.ask_with("POST", "/", &[], b"").status, 200);
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked")])).send("0\r\n\r\n");
    assert_eq!(client.answer_to("POST").status, 200);
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked")])).send("2\r\n{}\r\n0\r\n\r\n");
    assert_eq!(client.answer_to("POST").status, 415);
}

#[test]
fn what_the_service_does_not_get_is_not_judged() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "", "content_types = [\"text/plain\"]");
    let plain = ("Content-Type", "text/plain");
    assert_eq!(post(&gateway, &[plain, ("Connection", "keep-alive, x-more")], "{}").status, 200);
    // The service would be left to guess the type, and might take it for JSON.
    for listed in ["Content-Type", "keep-alive, content-type"] {
        let answer = post(&gateway, &[plain, ("Connection", listed)], "{}");
        assert_eq!((answer.status, answer.cause().as_str()), (415, "unsupported_media_type"), "{listed}");
    }
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn coded_bodies_are_refused() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "", "max_depth = 3");
    for coding in ["gzip", "identity, br", "x"] {
        let answer = post(&gateway, &[JSON, ("Content-Encoding", coding)], "{}");
        assert_eq!((answer.status, answer.cause().as_str()), (415, "coded_body"), "{coding}");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
    assert_eq!(fake.requests().len(), 0);
    assert_eq!(post(&gateway, &[JSON, ("Content-Encoding", "Identity")], "{}").status, 200);
}

#[test]
fn what_is_too_long_is_refused_before_the_service_is_bothered() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "max_body = \"10 B\"", "max_body = \"1 KiB\"");
    assert_eq!(post(&gateway, &[], vec![b'x'; 1024]).status, 200, "over the route's");
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Content-Length", "1025"), ("Expect", "100-continue")]));
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.interim.len()), (413, 0), "at once");
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Transfer-Encoding", "chunked")]));
    client.send(format!("400\r\n{}\r\n1\r\nx\r\n", "x".repeat(1024)));
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.cause().as_str()), (413, "body_too_large"), "while it comes");
    assert_eq!(fake.connections(), 1, "the one that was served");
    gateway.metric_reaches("passerelle_denied_total", &["rule=\"validate.max_body\""], 2.0);
}

#[test]
fn whoever_waits_to_be_told_to_go_on_is_told() {
    let fake = Fake::ok();
    let gateway = by_schema(&fake, "");
    let length = ORDER.len().to_string();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[JSON, ("Content-Length", &length), ("Expect", "100-continue")]));
    let interim = client.read_head().unwrap();
    assert_eq!(interim.status, 100);
    client.send(ORDER);
    assert_eq!(client.answer_to("POST").status, 200);
    // What is clear from the head alone is refused without.
    client.send(head("POST", "/", &[("Content-Length", &length), ("Expect", "100-continue")]));
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.interim.len()), (415, 0));
    let mut old = Client::connect(gateway.port("http"));
    old.send(format!(
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{ORDER}"
    ));
    assert_eq!(old.answer_to("POST").status, 200, "HTTP/1.0");
}

#[test]
fn a_missing_body_is_a_violation_where_the_method_means_to_send_one() {
    let fake = Fake::ok();
    let gateway = by_schema(&fake, "");
    let mut client = Client::connect(gateway.port("http"));
    for method in ["POST", "PUT", "PATCH"] {
        let answer = client.ask_with(method, "/", &[JSON], b"");
        assert_eq!(violations(&answer.json()), are(&[("body", "required")]), "{method}");
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        assert_eq!(client.ask(method, "/", &[]).status, 200, "{method}");
    }
    assert_eq!(client.ask_with("GET", "/", &[JSON], b"{}").status, 422, "a body that is there is judged");
}

#[test]
fn every_dialect_lists_every_violation() {
    let bad = r#"{"customer": "a@example.com", "items": [{"sku": "ABC-1"}, {"price": -1}], "<b>": 1}"#;
    let answer = |errors: &str, headers: &[(&str, &str)]| {
        let fake = Fake::ok();
        let gateway = validating(
            &fake,
            &format!("errors = \"{errors}\""),
            "body_schema = \"schemas/order.json\"\nschemas = [\"schemas/parts/address.json\"]",
        );
        let answer = post(&gateway, &[&[JSON], headers].concat(), bad);
        assert_eq!(fake.connections(), 0);
        assert_eq!(
            gateway.access_record(&answer)["status"],
            json!(answer.status),
            "the record tells what was answered"
        );
        answer
    };
    let fastapi = answer("fastapi", &[]);
    assert_eq!((fastapi.status, fastapi.header("content-type")), (422, Some("application/json")));
    let detail = fastapi.json()["detail"].clone();
    for expected in [
        json!({"loc": ["body", "items", 1, "sku"], "msg": "Field required", "type": "missing"}),
        json!({"loc": ["body", "items", 1, "price"], "msg": "Input should be greater than or equal to 0", "type": "greater_than_equal"}),
        json!({"loc": ["body", "<b>"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}),
    ] {
        assert!(detail.as_array().unwrap().contains(&expected), "{detail}");
    }
    let drf = answer("drf", &[]);
    assert_eq!(drf.status, 400);
    assert_eq!(
        drf.json(),
        json!({
            "items": [{}, {"price": ["This field must be at least 0."], "sku": ["This field is required."]}],
            "<b>": ["This field is not known here."],
        })
    );
    let plain = answer("plain", &[]);
    assert_eq!((plain.status, plain.text().lines().count()), (422, 4), "{}", plain.text());
    assert!(plain.text().contains("\nbody/items/1/sku is required (required)\n"), "{}", plain.text());
    let page = answer("problem", &[("Accept", "text/html")]);
    assert_eq!((page.status, page.header("content-type")), (422, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("body/items/1/sku") && page.text().contains("&lt;b&gt;"), "{}", page.text());
    assert!(!page.text().contains("<b>"));
}

#[test]
fn http2_is_judged_as_http1_is() {
    let fake = Fake::ok();
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([fake.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n[listener.https.tls]\n\
         certificates = [{ chain = \"site.pem\", key = \"site.key\" }]\n\
         [route.all.validate]\nbody_schema = \"schemas/order.json\"\nschemas = [\"schemas/parts/address.json\"]\n\
         max_body = \"1 KiB\"",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _| {
        write_schemas(directory);
        certificate.write(directory, "site");
    });
    let config = client_config(&[&certificate], &["h2"], &[&TLS13]);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &config);
    let mut ask = |content_type: &str, body: &[u8]| {
        let request = Request::post("https://localhost/orders").header("content-type", content_type).body(()).unwrap();
        http2.ask(request, body).unwrap()
    };
    assert_eq!(ask("application/json", ORDER.as_bytes()).status(), 200);
    assert_eq!(fake.request().body, ORDER.as_bytes());
    let invalid = ask("application/json", b"{\"items\": [], \"customer\": \"a@example.com\"}");
    assert_eq!(invalid.status(), 422);
    assert_eq!(violations(&invalid.json()), are(&[("body/items", "minItems")]));
    assert_eq!(ask("text/plain", b"{}").status(), 415);
    assert_eq!(ask("application/json", &[b' '; 1025]).status(), 413);
    assert_eq!(violations(&ask("application/json", b"").json()), are(&[("body", "required")]));
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn report_lets_through_and_counts() {
    let fake = Fake::ok();
    let gateway = by_schema(&fake, "mode = \"report\"\nmax_body = \"1 KiB\"");
    let large = format!("{ORDER}{}", " ".repeat(5000));
    let count = |rule: &str| {
        gateway
            .metric("passerelle_validation_violations_total", &["route=\"all\"", &format!("rule=\"validate.{rule}\"")])
    };
    assert_eq!(post(&gateway, &[JSON], ORDER).status, 200);
    assert_eq!(["body", "content_types", "coding", "max_body"].map(count), [0.0; 4]);

    let let_through = post(&gateway, &[JSON], r#"{"customer": "hunter2"}"#);
    assert_eq!(let_through.status, 200);
    let record = gateway.access_record(&let_through).to_string();
    assert!(record.contains("let through: validate.body") && record.contains("body/customer format"), "{record}");
    assert!(!record.contains("hunter2"), "{record}");
    assert_eq!(post(&gateway, &[], "x").status, 200);
    assert_eq!(post(&gateway, &[JSON, ("Content-Encoding", "gzip")], "x").status, 200);
    assert_eq!(post(&gateway, &[JSON], &large).status, 200);
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[JSON, ("Transfer-Encoding", "chunked")])).send(chunked(&large, 1000, ""));
    assert_eq!(client.answer_to("POST").status, 200);
    assert_eq!(["body", "content_types", "coding", "max_body"].map(count), [1.0, 1.0, 1.0, 2.0]);
    let requests = fake.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests[4..].iter().all(|request| request.body == large.as_bytes()), "whole, however it came");
    assert_eq!(gateway.metric("passerelle_denied_total", &["route=\"all\""]), 0.0);
}

#[test]
fn the_route_s_own_bound_holds_while_validation_only_reports() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "max_body = \"2 KiB\"", "max_body = \"1 KiB\"\nmode = \"report\"");
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[JSON, ("Transfer-Encoding", "chunked")]));
    client.send(chunked(&" ".repeat(1500), 100, ""));
    assert_eq!(client.answer_to("POST").status, 200);
    assert_eq!(fake.request().body.len(), 1500);
    let gateway = validating(&fake, "max_body = \"2 KiB\"", "mode = \"report\"");
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[JSON, ("Transfer-Encoding", "chunked")]));
    client.send(chunked(&" ".repeat(2500), 1000, ""));
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.cause().as_str()), (413, "body_too_large"));
    assert_eq!(fake.requests().len(), 1, "a body is given on whole or not at all");
}

#[test]
fn schemas_find_each_other_by_their_names() {
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[route.all.validate]\nbody_schema = \"schemas/named.json\"\n\
         schemas = [\"schemas/parts/address.json\", \"schemas/parts/money.json\"]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _| {
        write_schemas(directory);
        let named = json!({
            "$id": "https://example.com/schemas/named.json",
            "properties": {"price": {"$ref": "money.json"}, "tip": {"$ref": "https://example.com/schemas/money.json"}},
        });
        // Another draft may be referred to.
        let money = json!({
            "$schema": "http://json-schema.org/draft-04/schema#", "id": "https://example.com/schemas/money.json",
            "minimum": 0, "exclusiveMinimum": true,
        });
        std::fs::write(directory.join("schemas/named.json"), named.to_string()).unwrap();
        std::fs::write(directory.join("schemas/parts/money.json"), money.to_string()).unwrap();
    });
    assert_eq!(post(&gateway, &[JSON], r#"{"price": 1, "tip": 1}"#).status, 200);
    let mut found = violations(&post(&gateway, &[JSON], r#"{"price": 0, "tip": 0}"#).json());
    found.sort();
    assert_eq!(found, are(&[("body/price", "exclusiveMinimum"), ("body/tip", "exclusiveMinimum")]));
}

#[test]
fn large_bodies_are_judged_to_their_last_value() {
    let fake = Fake::ok();
    let gateway = validating(
        &fake,
        "max_body = \"20 MiB\"",
        "body_schema = \"schemas/order.json\"\nschemas = [\"schemas/parts/address.json\"]",
    );
    let item = r#"{"sku":"ABC-1","price":1.25},"#;
    let body = |last: &str| {
        format!("{{\"customer\":\"a@example.com\",\"items\":[{}{last}]}}", item.repeat(2 * 1024 * 1024 / item.len()))
    };
    let (good, bad) = (body(r#"{"sku":"ABC-2"}"#), body(r#"{"sku":"abc"}"#));
    assert_eq!(post(&gateway, &[JSON], &good).status, 200);
    assert_eq!(fake.request().body, good.as_bytes());
    let answer = post(&gateway, &[JSON], &bad);
    assert_eq!(answer.status, 422);
    let last = format!("body/items/{}/sku", 2 * 1024 * 1024 / item.len());
    let found = violations(&answer.json());
    assert_eq!(found, are(&[(&last, "pattern")]));
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn a_slow_body_is_waited_for_by_the_gateway() {
    let fake = Fake::ok();
    let setup =
        Setup::before([fake.url()]).listener("body_timeout = \"300ms\"").rest("[route.all.validate]\nmax_depth = 9");
    let gateway = start(&setup);
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[JSON, ("Content-Length", "9")])).send("[1,");
    let answer = client.answer_to("POST");
    assert_eq!((answer.status, answer.cause().as_str()), (408, "body_timeout"));
    let mut gone = Client::connect(gateway.port("http"));
    gone.send(head("POST", "/", &[JSON, ("Content-Length", "9")])).send("[1,");
    drop(gone);
    gateway.metric_reaches("passerelle_rejections_total", &["cause=\"client_closed\""], 1.0);
    assert_eq!(fake.connections(), 0, "the service heard of neither");
}

/// 512 MiB may be held in all; a body counts twice, for its buffer grows by doubling.
#[test]
fn memory_for_validation_is_bounded() {
    let fake = Fake::ok();
    let gateway = validating(&fake, "max_body = \"200 MiB\"", "max_depth = 9");
    let length = (100 << 20).to_string();
    let piece = vec![b' '; 1 << 20];
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..3 {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("POST", "/", &[JSON, ("Content-Length", &length)]));
        // All but the end, so that it must be held; one that is refused is no longer read.
        let sent = (0..99).all(|_| client.try_send(&piece).is_ok());
        if !sent {
            refused = Some(client);
            break;
        }
        held.push(client);
    }
    let answer = match refused {
        Some(mut client) => client.try_answer_to("POST").ok(),
        None => None,
    };
    if let Some(answer) = &answer {
        assert_eq!((answer.status, answer.cause().as_str()), (503, "validation_overloaded"));
        assert!(answer.header("retry-after").is_some());
    }
    gateway.metric_reaches("passerelle_rejections_total", &["cause=\"validation_overloaded\""], 1.0);
    drop(held);
    eventually("there is room again", || (post(&gateway, &[JSON], vec![b'x'; 100]).status == 422).then_some(()));
    assert_eq!(fake.connections(), 0);
}

#[test]
fn an_upgrade_passes_a_validated_route() {
    let fake = Fake::start(|mut connection| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi");
        connection.hold();
    });
    let gateway = by_schema(&fake, "");
    let mut client = Client::connect(gateway.port("http"));
    let answer = client.ask("GET", "/", &[("Connection", "Upgrade"), ("Upgrade", "echo")]);
    assert_eq!(answer.status, 101);
    assert_eq!(client.read_exactly(2).unwrap(), b"hi");
}

#[test]
fn check_tells_what_is_wrong_with_a_schema() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("passerelle.toml");
    let check = |schema: &str, more: &str| {
        write_schemas(home.path());
        std::fs::write(home.path().join("schemas/tried.json"), schema).unwrap();
        let setup = Setup::before(["http://127.0.0.1:9".to_owned()]);
        let setup = setup.rest(&format!("[route.all.validate]\nbody_schema = \"schemas/tried.json\"\n{more}"));
        std::fs::write(&path, setup.text().replace("@http@", "8080")).unwrap();
        let (status, text) = passerelle(&["check", "--config", path.to_str().unwrap()]);
        (status.code(), text)
    };
    for (schema, said) in [
        ("{", "is not JSON as it must be"),
        (r#"{"type": "object", "type": "array"}"#, "/type comes twice"),
        (r#"{"properties": {"a": {"type": "strin"}}}"#, "at /properties/a/type"),
        (r#"{"properties": {"a": {"pattern": "(?=a)"}}}"#, "linear time"),
        (r#"{"$ref": "https://example.com/other.json"}"#, "nothing is fetched"),
        (r#"{"$ref": "../../../../etc/hosts"}"#, "nothing is fetched"),
        (r#"{"$ref": "parts/address.json"}"#, "nothing is fetched"),
        (r##"{"$ref": "#/$defs/missing"}"##, "nothing is fetched"),
    ] {
        let (code, text) = check(schema, "");
        assert_eq!(code, Some(2), "{schema}: {text}");
        assert!(text.contains(said) && text.contains("body_schema = "), "{schema}: {text}");
    }
    let reaches = r##"{"$ref": "parts/address.json#/$defs/address"}"##;
    let (code, text) = check(reaches, "schemas = [\"schemas/parts/address.json\"]");
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = check("true", "schemas = [\"schemas/none.json\"]");
    assert_eq!(code, Some(2));
    assert!(text.contains("schemas/none.json") && text.contains("cannot be read"), "{text}");
}
