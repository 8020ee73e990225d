//! What is judged is the value that the service gets, however its framework reads it.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::super::api::Api;
use super::super::{Operation, asked_for};
use super::{FINE, api, body, fields, form, operation, request, request_with, wrong};
use crate::headers::Headers;
use crate::request::rejection::Cause;
use crate::request::violation::Violations;
use crate::validate::Reserved;
use crate::validate::content;

fn posted(content: Value) -> Api {
    api(&json!({"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody": {"content": content}}}}}))
}

/// A multipart form of these: the rest of each part's head, and what is in it.
fn judged(api: &Api, parts: &[(&str, &[u8])]) -> Vec<String> {
    let mut text = Vec::new();
    for (head, content) in parts {
        text.extend(format!("--X\r\nContent-Disposition: form-data; name={head}\r\n\r\n").bytes());
        text.extend(*content);
        text.extend(b"\r\n");
    }
    text.extend(b"--X--\r\n");
    body(api, "/x", "multipart/form-data; boundary=X", &text).unwrap()
}

#[test]
fn what_the_gateway_writes_is_not_the_clients_to_send() {
    let api = api(&operation(json!([
        {"name": "x-auth-subject", "in": "header", "required": true, "schema": {"type": "string", "pattern": "^[a-z]+$"}},
        {"name": "X-Page", "in": "header", "required": true, "schema": {"type": "integer"}},
        {"name": "session", "in": "cookie", "required": true, "schema": {"type": "string"}},
    ])));
    let reserved = Reserved { field: &|name| name == "x-auth-subject", cookie: Some("session") };
    let with = |headers: &[(&str, &str)]| request_with(&api, "GET", "/x", headers, &reserved);
    assert_eq!(with(&[("X-Page", "1")]), FINE);
    assert_eq!(with(&[("X-Page", "1"), ("X-Auth-Subject", "EVIL"), ("Cookie", "session=")]), FINE);
    assert_eq!(with(&[("X-Auth-Subject", "evil")]), wrong(&["header /X-Page required"]));
}

#[test]
fn bytes_in_json_have_their_length() {
    let bytes =
        json!({"type": "string", "maxLength": 5, "pattern": "^a", "contentMediaType": "application/octet-stream"});
    let binary = json!({"type": "string", "format": "binary", "minLength": 2});
    let schema = json!({"$ref": "#/components/schemas/Form"});
    let properties =
        json!({"bytes": bytes, "binary": binary, "deep": {"type": "object", "properties": {"bytes": bytes}}});
    let content = json!({
        "application/json": {"schema": schema},
        "application/x-www-form-urlencoded": {"schema": schema},
        "multipart/form-data": {"schema": schema},
    });
    let api = api(&json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {
            "parameters": [{"name": "b", "in": "query", "schema": bytes}],
            "requestBody": {"content": content},
        }}},
        "components": {"schemas": {"Form": {"type": "object", "properties": properties}}},
    }));
    let json = |text: &str| body(&api, "/x", "application/json", text.as_bytes()).unwrap();
    assert_eq!(json(r#"{"bytes": "abcde", "binary": "ab"}"#), [""; 0]);
    assert_eq!(json(r#"{"bytes": "abcdef"}"#), ["body /bytes maxLength"]);
    assert_eq!(json(r#"{"bytes": "b"}"#), ["body /bytes pattern"]);
    assert_eq!(json(r#"{"binary": "a"}"#), ["body /binary minLength"]);
    let form = |text: &str| body(&api, "/x", "application/x-www-form-urlencoded", text.as_bytes()).unwrap();
    assert_eq!(form("bytes=abcde&binary=ab"), [""; 0]);
    assert_eq!(form("bytes=abcdef"), ["body /bytes maxLength"]);
    assert_eq!(form("binary=%FF%FF"), ["body /binary encoding"]);
    assert_eq!(request(&api, "POST", "/x?b=abcdef", &[]), wrong(&["query /b maxLength"]));
    // Of a file nothing but that it is one.
    assert_eq!(judged(&api, &[("bytes; filename=a", b"\xff far too long"), ("binary; filename=\"\"", b"")]), [""; 0]);
    assert_eq!(judged(&api, &[("deep", br#"{"bytes": "abcdef"}"#)]), ["body /deep/bytes maxLength"]);
}

#[test]
fn files_are_files_and_fields_are_none() {
    let properties = json!({
        "name": {"type": "string"},
        "photo": {"anyOf": [{"type": "string", "format": "binary"}, {"type": "null"}]},
        "photos": {"type": "array", "items": {"$ref": "#/components/schemas/File"}},
        "either": {"anyOf": [{"$ref": "#/components/schemas/File"}, {"type": "string", "maxLength": 3}]},
        "table": {"type": "string", "contentMediaType": "text/csv", "maxLength": 3},
        "pydantic": {"type": "string", "contentMediaType": "application/json", "contentSchema": {}},
        "meta": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "any": {},
    });
    let schema = json!({"type": "object", "properties": properties, "required": ["name"]});
    let api = api(&json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}}},
        "components": {"schemas": {"File": {"type": "string", "contentMediaType": "application/octet-stream"}}},
    }));
    let with = |head: &str, content: &[u8]| judged(&api, &[("name", b"a"), (head, content)]);
    for (head, content) in [
        ("photo; filename=a", &b"\xff"[..]),
        ("photo; filename=a; filename*=utf-8''a", b"\xff"),
        ("photos; filename=a", b"\xff"),
        ("either; filename=a", b"\xff"),
        ("either", b"abc"),
        ("table; filename=a\r\nContent-Type: text/csv; charset=latin1", b"\xff"),
        ("table", b"abc"),
        ("pydantic", b"{}"),
        ("meta", b"{\"a\": 1}"),
        ("meta; filename=blob\r\nContent-Type: application/json", b"{\"a\": 1}"),
        ("any; filename=a", b"\xff"),
        ("any", b"\xff"),
        ("unknown; filename=a\r\nContent-Type: text/plain; charset=latin1", b"\xff"),
    ] {
        assert_eq!(with(head, content), [""; 0], "{head}");
    }
    for (head, content, expected) in [
        ("photo", &b"text"[..], "body /photo file"),
        ("photos", b"text", "body /photos file"),
        ("either", b"\xff", "body /either encoding"),
        ("either", b"abcd", "body /either anyOf"),
        ("table", b"abcd", "body /table anyOf"),
        ("pydantic; filename=a", b"{}", "body /pydantic file"),
        ("meta; filename=blob", b"{\"a\": \"x\"}", "body /meta/a type"),
    ] {
        let found = with(head, content);
        assert!(found.len() == 1 && (found[0] == expected || expected.ends_with("anyOf")), "{head}: {found:?}");
    }
    assert_eq!(judged(&api, &[("name; filename=a", b"a")]), ["body /name file"]);
}

#[test]
fn parts_are_read_as_frameworks_do() {
    let properties = json!({
        "name": {"type": "string", "maxLength": 3},
        "age": {"type": ["integer", "null"]},
        "encoded": {"type": "string", "maxLength": 3},
        "object": {"type": ["object", "string"], "properties": {"a": {"type": "integer"}}},
    });
    let api = posted(json!({"multipart/form-data": {
        "schema": {"type": "object", "properties": properties},
        "encoding": {"encoded": {"contentType": "application/json"}},
    }}));
    let json = |name: &str, text: &str| {
        let head = format!("{name}\r\nContent-Type: application/json");
        judged(&api, &[(&head, text.as_bytes())])
    };
    assert_eq!(json("name", r#""abc""#), ["body /name maxLength"]);
    assert_eq!(json("name", "abc"), [""; 0]);
    assert_eq!(json("age", "7"), [""; 0]);
    assert_eq!(json("age", "null").len(), 1);
    assert_eq!(json("encoded", r#""abc""#), [""; 0]);
    assert_eq!(json("object", r#"{"a": "x"}"#), ["body /object/a type"]);
    let plain = |charset: &str| {
        let head = format!("name\r\nContent-Type: text/plain{charset}");
        judged(&api, &[(&head, b"abc")])
    };
    assert_eq!((plain(""), plain("; charset=UTF-8")), (Vec::new(), Vec::new()));
    for charset in ["; charset=utf-16", "; charset=iso-8859-1", "; charset=utf-8; charset=utf-7", "; charset"] {
        assert_eq!(plain(charset), ["body /name encoding"], "{charset}");
    }
    assert_eq!(judged(&api, &[("\"na\\me\"", b"abc")]), ["body  multipart"]);
}

#[test]
fn text_is_utf_8() {
    let schema = json!({"type": "string", "maxLength": 3});
    let api = Arc::new(posted(json!({"text/plain": {"schema": schema}, "text/*": {"schema": schema}})));
    let taken = |media_type: &'static str| {
        let id = api.find(&Method::POST, b"/x").ok().unwrap().id;
        let mut operation =
            Operation { found: Some((Arc::clone(&api), id)), max_depth: 9, violations: Violations::default() };
        let headers = Headers::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        operation.body(Some(content::stated(&headers))).map_err(|rejection| rejection.cause).map(drop)
    };
    assert_eq!(taken("text/plain; charset=utf-16"), Err(Cause::UnsupportedMediaType));
    assert_eq!((taken("text/plain; charset=utf-8"), taken("text/html; charset=utf-16")), (Ok(()), Ok(())));
    let form = form("application/x-www-form-urlencoded", json!({}));
    let judged = |text: &str| body(&form, "/x", "application/x-www-form-urlencoded", text.as_bytes()).unwrap();
    assert_eq!(judged("name=%FF&age=1"), ["body /name encoding"]);
    assert_eq!(judged("name=%C3%BC+x&age=1"), [""; 0]);
}

#[test]
fn queries_are_utf_8_where_it_matters() {
    let api = super::api(&operation(json!([
        {"name": "q", "in": "query", "schema": {"type": "string", "maxLength": 3}},
        {"name": "deep", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
        {"name": "spread", "in": "query", "schema": {"type": "object", "properties": {"R": {"type": "string"}}}},
    ])));
    for (query, expected) in [
        ("q=%FF", &["query /q encoding"][..]),
        ("q=a&q=%FF", &["query /q encoding"]),
        ("deep[x]=%FF", &["query /deep encoding"]),
        ("R=%FF", &["query /spread encoding"]),
        ("unknown=%FF&G=%FF&deeper=%FF&q=%C3%BC", &[]),
    ] {
        assert_eq!(request(&api, "GET", &format!("/x?{query}"), &[]), wrong(expected), "{query}");
    }
}

#[test]
fn fields_that_come_twice_are_judged_in_each_reading() {
    let api = api(&operation(json!([
        {"name": "X-Name", "in": "header", "schema": {"type": "string", "maxLength": 7, "pattern": "^[a-z,]+$"}},
        {"name": "X-Ids", "in": "header", "schema": {"type": "array", "items": {"type": "integer"}}},
        {"name": "X-Json", "in": "header", "content": {"application/json": {"schema": {"type": "integer"}}}},
        {"name": "session", "in": "cookie", "schema": {"type": "string", "pattern": "^[a-z]+$"}},
    ])));
    let with = |headers: &[(&str, &str)]| request(&api, "GET", "/x", headers);
    assert_eq!(with(&[("X-Name", "abc"), ("X-Name", "def"), ("X-Ids", "1,2"), ("X-Ids", "3"), ("X-Json", "1")]), FINE);
    assert_eq!(with(&[("X-Name", "A"), ("X-Name", "b")]), wrong(&["header /X-Name pattern"]));
    assert_eq!(with(&[("X-Name", "a"), ("X-Name", "B")]), wrong(&["header /X-Name pattern"]));
    // A WSGI server makes one text of them.
    assert_eq!(with(&[("X-Name", "abcd"), ("X-Name", "efgh")]), wrong(&["header /X-Name maxLength"]));
    assert_eq!(with(&[("X-Json", "1"), ("X-Json", "1")]), wrong(&["header /X-Json json"]));
    assert_eq!(with(&[("Cookie", "session=\"\\141bc\"")]), FINE);
    assert_eq!(with(&[("Cookie", "session=\"\\074script\\076\"")]), wrong(&["cookie /session pattern"]));
    assert_eq!(with(&[("Cookie", "a=b"), ("Cookie", "session=abc")]), wrong(&["cookie /session style"]));
}

#[test]
fn what_the_document_declares_is_no_preflight() {
    let api = api(&json!({"openapi": "3.1.0", "paths": {"/x": {"get": {}, "options": {}}, "/y": {"get": {}}}}));
    let headers = fields(&[("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")]);
    let asked = |path: &[u8], headers: &Headers| {
        let (method, preflight) = asked_for(&api, &Method::OPTIONS, path, headers);
        (method.clone(), preflight)
    };
    assert_eq!(asked(b"/x", &headers), (Method::OPTIONS, false));
    assert_eq!(asked(b"/y", &headers), (Method::GET, true));
    assert_eq!(asked(b"/y", &Headers::new()), (Method::OPTIONS, false));
}

#[test]
fn a_path_that_is_there_just_so_goes_before_one_behind_a_server() {
    let id = |kind: &str| json!([{"name": "id", "in": "path", "required": true, "schema": {"type": kind}}]);
    let api = api(&json!({
        "openapi": "3.1.0",
        "servers": [{"url": "/api"}],
        "paths": {
            "/api/items": {"get": {}},
            "/{id}": {"parameters": id("integer"), "get": {}, "put": {}},
            "/api/{id}": {"parameters": id("boolean"), "get": {}},
        },
    }));
    assert_eq!(request(&api, "GET", "/api/items", &[]), FINE);
    assert_eq!(request(&api, "PUT", "/api/items", &[]), wrong(&["path /id type"]));
    assert_eq!(request(&api, "GET", "/api/7", &[]), FINE);
}

#[test]
fn durations_are_what_python_writes() {
    let api =
        api(&operation(json!([{"name": "d", "in": "query", "schema": {"type": "string", "format": "duration"}}])));
    for duration in ["PT0.5S", "-PT1S", "P3DT2H5.5S"] {
        assert_eq!(request(&api, "GET", &format!("/x?d={duration}"), &[]), FINE, "{duration}");
    }
    assert_eq!(request(&api, "GET", "/x?d=5", &[]), wrong(&["query /d format"]));
}

#[test]
fn items_that_share_a_text_are_charged_for() {
    let form = form("application/x-www-form-urlencoded", json!({"numbers": {"style": "pipeDelimited"}}));
    let id = form.find(&Method::POST, b"/x").ok().unwrap().id;
    let stated = content::MediaType::parse("application/x-www-form-urlencoded").unwrap();
    let super::BodyRule::Bytes(id) = form.body(id, Some(&stated)) else { panic!("it is judged") };
    let text = format!("name=a&age=1&numbers=1{}", "|1".repeat(3_000_000));
    let judged = form.judge_bytes(id, None, text.as_bytes(), 64, &mut Violations::default());
    assert!(judged.is_err(), "{judged:?}");
}

#[test]
fn ways_in_without_scopes_are_told() {
    let security = json!([{"oauth": ["a"]}, {"key": []}]);
    let api = api(&json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"get": {"security": security}, "put": {"security": [{"oauth": ["a"]}]}}},
        "components": {"securitySchemes": {"oauth": {"type": "oauth2"}, "key": {"type": "apiKey"}}},
    }));
    assert_eq!(api.unscoped, ["#/paths/~1x/get/security"]);
}
