//! What is judged is the value that the service gets, however its framework reads it.

use serde_json::json;

use super::{FINE, api, operation, request, request_with, wrong};
use crate::validate::Reserved;

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
