//! Whole documents, and requests to them.

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::api::{Api, BodyRule, Missing};
use super::compile;
use crate::headers::Headers;
use crate::request::violation::Violations;
use crate::validate::Reserved;
use crate::validate::content::MediaType;

mod deep;
mod values;

fn api(document: &Value) -> Api {
    compile("", document.to_string().as_bytes(), &[]).unwrap_or_else(|unusable| panic!("{unusable}"))
}

fn unusable(document: &Value) -> String {
    compile("", document.to_string().as_bytes(), &[]).err().expect("it can be used").to_string()
}

/// `place pointer rule` of each violation.
fn listed(violations: Violations) -> Vec<String> {
    let list = violations.into_vec().into_iter();
    list.map(|found| format!("{} {} {}", found.place.as_str(), found.pointer, found.rule)).collect()
}

fn fields(fields: &[(&str, &str)]) -> Headers {
    let field =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    fields.iter().map(field).collect()
}

/// What is wrong with the parameters of a request.
fn request(api: &Api, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Vec<String>, Missing> {
    request_with(api, method, target, headers, &Reserved { field: &|_| false, cookie: None })
}

fn request_with(
    api: &Api,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    reserved: &Reserved<'_>,
) -> Result<Vec<String>, Missing> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = Api::decoded(path);
    let found = api.find(&Method::from_bytes(method.as_bytes()).unwrap(), &path)?;
    let mut violations = Violations::default();
    found.judge_parameters(query.map(str::as_bytes), &fields(headers), reserved, &mut violations);
    Ok(listed(violations))
}

/// What is wrong with a body; `Err`: its type is not taken.
fn body(api: &Api, target: &str, media_type: &str, text: &[u8]) -> Result<Vec<String>, String> {
    let path = Api::decoded(target);
    let id = api.find(&Method::POST, &path).unwrap().id;
    let stated = MediaType::parse(media_type).unwrap();
    let mut violations = Violations::default();
    match api.body(id, Some(&stated)) {
        BodyRule::Free => {}
        BodyRule::Refused { accept } => return Err(accept),
        BodyRule::Json(id) => api.judge_json(id, &serde_json::from_slice(text).unwrap(), &mut violations),
        BodyRule::Bytes(id) => {
            let boundary = stated.parameter("boundary");
            api.judge_bytes(id, boundary.as_deref(), text, 64, &mut violations).unwrap();
        }
    }
    Ok(listed(violations))
}

const FINE: Result<Vec<String>, Missing> = Ok(Vec::new());

fn wrong(list: &[&str]) -> Result<Vec<String>, Missing> {
    Ok(list.iter().map(|text| (*text).to_owned()).collect())
}

fn operation(parameters: Value) -> Value {
    json!({"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": parameters}}}})
}

#[test]
fn paths_and_methods() {
    let api = api(&json!({
        "openapi": "3.1.0",
        "servers": [{"url": "https://{host}/api/{v}/", "variables": {"host": {"default": "a"}, "v": {"default": "v1"}}}],
        "paths": {
            "/items/{id}": {"get": {}, "delete": {}},
            "/items/mine": {"post": {}},
            "x-note": {},
        },
    }));
    for target in ["/items/7", "/api/v1/items/7", "/items/mine"] {
        assert_eq!(request(&api, "GET", target, &[]), FINE, "{target}");
        assert_eq!(request(&api, "HEAD", target, &[]), FINE, "{target}");
    }
    assert_eq!(request(&api, "POST", "/api/v1/items/mine", &[]), FINE);
    for target in ["/", "/items", "/items/", "/items/7/8", "/api/v2/items/7", "/api/v1items/7"] {
        assert_eq!(request(&api, "GET", target, &[]), Err(Missing::Path), "{target}");
    }
    let allow = |text: &str| Err(Missing::Method { allow: text.parse().unwrap() });
    assert_eq!(request(&api, "PUT", "/items/7", &[]), allow("DELETE, GET, HEAD"));
    assert_eq!(request(&api, "OPTIONS", "/items/mine", &[]), allow("DELETE, GET, HEAD, POST"));
}

#[test]
fn parameters_are_read_by_their_types() {
    let api = api(&operation(json!([
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10}},
        {"name": "maybe", "in": "query", "schema": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        {"name": "flag", "in": "query", "schema": {"type": "boolean"}},
        {"name": "price", "in": "query", "schema": {"type": "number"}},
        {"name": "q", "in": "query", "schema": {"type": "string", "minLength": 1, "maxLength": 3}},
        {"name": "either", "in": "query", "schema": {"anyOf": [{"type": "integer", "minimum": 5}, {"enum": ["1", "all"]}]}},
        {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
        {"name": "any", "in": "query", "schema": {}},
        {"name": "none", "in": "query"},
    ])));
    for (query, expected) in [
        ("limit=5&unknown=1&unknown=2", &[][..]),
        ("limit=0", &["query /limit minimum"]),
        ("limit=five", &["query /limit type"]),
        ("limit=1.5", &["query /limit type"]),
        ("limit=", &["query /limit type"]),
        ("limit=+5", &["query /limit type"]),
        ("limit=5&limit=50", &["query /limit maximum"]),
        ("limit=50&limit=5", &["query /limit maximum"]),
        ("maybe=7&maybe=", &[]),
        ("flag=true&flag=False", &[]),
        ("flag=yes", &["query /flag type"]),
        ("price=-1.5e3", &[]),
        ("price=NaN", &["query /price type"]),
        ("price=1e999", &["query /price type"]),
        ("q=123", &[]),
        ("q=1234", &["query /q maxLength"]),
        ("q=%C3%BC%C3%BC%C3%BC", &[]),
        ("q=", &["query /q minLength"]),
        ("either=7&either=1&either=all", &[]),
        ("either=3", &["query /either anyOf"]),
        ("tag=1&tag=2", &[]),
        ("tag=1&tag=x", &["query /tag/1 type"]),
        ("tag=1&tag=2&tag=3", &["query /tag maxItems"]),
        ("any=1&any=x&none=1", &[]),
    ] {
        assert_eq!(request(&api, "GET", &format!("/x?{query}"), &[]), wrong(expected), "{query}");
    }
}

#[test]
fn parameters_of_every_place() {
    let api = api(&json!({
        "openapi": "3.0.3",
        "paths": {"/x/{id}": {
            "parameters": [
                {"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}},
                {"name": "X-Page", "in": "header", "required": true, "schema": {"type": "string"}},
            ],
            "get": {"parameters": [
                {"name": "x-page", "in": "header", "schema": {"type": "integer"}},
                {"name": "X-Page", "in": "header", "required": true, "schema": {"type": "integer"}},
                {"$ref": "#/components/parameters/session"},
                {"name": "Authorization", "in": "header", "required": true, "schema": {"type": "integer"}},
                {"name": "X-Ids", "in": "header", "schema": {"type": "array", "items": {"type": "integer"}}},
                {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"type": "object",
                    "required": ["a"]}}}},
                {"name": "empty", "in": "query", "allowEmptyValue": true, "schema": {"type": "integer"}},
                {"name": "color", "in": "query", "style": "deepObject", "explode": true, "schema": {"type": "object",
                    "properties": {"R": {"type": "integer"}}, "required": ["R"]}},
            ]},
        }},
        "components": {"parameters": {
            "session": {"name": "session", "in": "cookie", "required": true, "schema": {"type": "string", "pattern": "^s-"}},
        }},
    }));
    let id = "7f8f5a5e-2f0e-4b58-9d4c-1f7f8a8f9a10";
    let with = |target: &str, extra: &[(&str, &str)]| {
        let base = [("x-page", "1"), ("cookie", "a=b; session=\"s-1\"")];
        request(&api, "GET", target, &[&base[..], extra].concat())
    };
    let good = format!("/x/{id}");
    assert_eq!(with(&good, &[("x-ids", "1, 2"), ("x-ids", "3")]), FINE);
    assert_eq!(
        request(&api, "GET", "/x/7", &[("x-page", "p"), ("cookie", "session=x")]),
        wrong(&["path /id format", "header /X-Page type", "cookie /session pattern",])
    );
    assert_eq!(request(&api, "GET", &good, &[]), wrong(&["header /X-Page required", "cookie /session required"]));
    assert_eq!(with("/x/%FF", &[]), wrong(&["path /id encoding"]));
    assert_eq!(with(&good, &[("x-ids", "1,x")]), wrong(&["header /X-Ids/1 type"]));
    assert_eq!(with(&format!("{good}?filter=%7B%22a%22:1%7D&empty="), &[]), FINE);
    assert_eq!(with(&format!("{good}?filter=%7B%7D"), &[]), wrong(&["query /filter/a required"]));
    assert_eq!(with(&format!("{good}?filter=x&empty=x"), &[]), wrong(&["query /filter json", "query /empty type"]));
    assert_eq!(with(&format!("{good}?color[R]=1&color%5BG%5D=x"), &[]), FINE);
    assert_eq!(with(&format!("{good}?color[R]=x"), &[]), wrong(&["query /color/R type"]));
    assert_eq!(with(&format!("{good}?color[G]=x"), &[]), wrong(&["query /color/R required"]));
    assert_eq!(with(&format!("{good}?color[R][x]=1"), &[]), wrong(&["query /color style"]));
}

#[test]
fn openapi_3_0_is_not_json_schema() {
    let api = api(&json!({
        "openapi": "3.0.3",
        "paths": {"/x": {"post": {"requestBody": {"required": true, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/Order", "type": "ignored"}}}}}}},
        "components": {"schemas": {
            "Order": {
                "type": "object",
                "required": ["id", "name", "quantity"],
                "additionalProperties": false,
                "example": {"nullable": true},
                "properties": {
                    "id": {"$ref": "#/components/schemas/Id"},
                    "name": {"type": "string", "nullable": true, "enum": ["a", "b"]},
                    "quantity": {"type": "integer", "minimum": 0, "exclusiveMinimum": true},
                    "parent": {"nullable": true, "allOf": [{"$ref": "#/components/schemas/Order"}]},
                    "nullable": {"type": "boolean"},
                    "const": {"const": 1},
                },
            },
            "Id": {"type": "integer", "readOnly": true},
        }},
    }));
    let judged = |value: &Value| body(&api, "/x", "application/json", value.to_string().as_bytes()).unwrap();
    assert_eq!(judged(&json!({"name": null, "quantity": 1, "parent": null, "nullable": true, "const": 2})), [""; 0]);
    assert_eq!(judged(&json!({"id": 1, "name": "a", "quantity": 1, "parent": {"name": "b", "quantity": 1}})), [""; 0]);
    assert_eq!(judged(&json!({"name": "a", "quantity": 0})), ["body /quantity exclusiveMinimum"]);
    assert_eq!(judged(&json!({"id": "x", "name": "c", "quantity": null, "more": 1})).len(), 4);
}

#[test]
fn openapi_3_1_is() {
    let api = api(&json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {"requestBody": {"content": {"application/*": {"schema": {}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Node", "minProperties": 1}}}}}}},
        "components": {"schemas": {"Node": {
            "type": ["object", "null"],
            "properties": {"kind": {"const": "leaf"}, "next": {"$ref": "#/components/schemas/Node"},
                "size": {"exclusiveMinimum": 0}},
            "dependentRequired": {"size": ["kind"]},
            "unevaluatedProperties": false,
        }}},
    }));
    let judged =
        |value: &Value| body(&api, "/x", "application/json; charset=utf-8", value.to_string().as_bytes()).unwrap();
    assert_eq!(judged(&json!({"kind": "leaf", "size": 1, "next": {"next": null}})), [""; 0]);
    assert_eq!(judged(&json!({"next": {"kind": "x"}})), ["body /next/kind const"]);
    assert_eq!(judged(&json!({})), ["body  minProperties"]);
    assert_eq!(judged(&json!({"kind": "leaf", "size": 0, "more": 1})).len(), 2);
    assert_eq!(body(&api, "/x", "application/xml", b"<"), Ok(Vec::new()));
    assert_eq!(body(&api, "/x", "text/plain", b"x"), Err("application/json, application/*".to_owned()));
}

fn form(media_type: &str, encoding: Value) -> Api {
    api(&json!({
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {"requestBody": {"required": true, "content": {media_type: {
            "encoding": encoding,
            "schema": {"$ref": "#/components/schemas/Form"}}}}}}},
        "components": {"schemas": {"Form": {
            "type": "object",
            "required": ["name", "age"],
            "properties": {
                "name": {"type": "string", "maxLength": 5},
                "age": {"type": "integer"},
                "height": {"type": "number"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "numbers": {"type": "array", "items": {"type": "integer"}},
                "address": {"type": "object", "properties": {"zip": {"type": "string"}}},
                "photo": {"type": "string", "format": "binary", "minLength": 5},
            },
        }}},
    }))
}

#[test]
fn ranges_of_types() {
    let schema = json!({"schema": {"type": "object"}});
    let content = json!({"*/*": schema, "application/*": {"schema": {"type": "array"}}, "application/pdf": {}});
    let path = json!({"post": {"parameters": [{"name": "gone", "in": "path", "schema": {"type": "integer"}}],
        "requestBody": {"content": content}}});
    let api = api(&json!({"openapi": "3.1.0", "paths": {"/x": path}}));
    assert_eq!(body(&api, "/x", "application/json", b"{}").unwrap(), ["body  type"]);
    assert_eq!(body(&api, "/x", "text/json", b"[]").unwrap(), ["body  type"]);
    assert_eq!(body(&api, "/x", "text/json", b"{}").unwrap(), [""; 0]);
    for unknown in ["application/pdf", "application/xml", "image/png"] {
        assert_eq!(body(&api, "/x", unknown, b"\xff").unwrap(), [""; 0], "{unknown}");
    }
    assert_eq!(request(&api, "POST", "/x", &[]), FINE, "a parameter that the path has no place for");
}

#[test]
fn forms() {
    let api = form("application/x-www-form-urlencoded", json!({}));
    let judged = |text: &str| body(&api, "/x", "application/x-www-form-urlencoded", text.as_bytes()).unwrap();
    assert_eq!(judged("name=12&age=7&tags=1&tags=b&numbers=1&numbers=2&height=&more=1"), [""; 0]);
    assert_eq!(judged("name=a+b&age=7&address=%7B%22zip%22:%221%22%7D"), [""; 0]);
    assert_eq!(judged("name=abcdef&age=x"), ["body /age type", "body /name maxLength"]);
    assert_eq!(judged("name=a"), ["body /age required"]);
    assert_eq!(judged("name=a&age="), ["body /age required"]);
    assert_eq!(judged("name=a&age=1&age=2"), ["body /age type"]);
    assert_eq!(judged("name=a&age=1&numbers=1&numbers=x"), ["body /numbers/1 type"]);
    assert_eq!(judged("name=a&age=1&address=x"), ["body /address json"]);
    assert_eq!(judged("name=a&age=1&address=%7B%22zip%22:1%7D"), ["body /address/zip type"]);
}

#[test]
fn forms_with_styles() {
    let api = form(
        "application/x-www-form-urlencoded",
        json!({"numbers": {"style": "pipeDelimited"}, "tags": {"explode": false}, "address": {"style": "deepObject"}}),
    );
    let judged = |text: &str| body(&api, "/x", "application/x-www-form-urlencoded", text.as_bytes()).unwrap();
    assert_eq!(judged("name=a&age=1&numbers=1|2&tags=a,b&address[zip]=1"), [""; 0]);
    assert_eq!(judged("name=a&age=1&numbers=1|x"), ["body /numbers/1 type"]);
    assert_eq!(judged("name=a&age=1&address[zip][x]=1"), ["body /address style"]);
}

#[test]
fn multipart_forms() {
    let api = form("multipart/form-data", json!({"photo": {"contentType": "image/png, image/*"}}));
    let judged = |parts: &[(&str, &str, &[u8])]| {
        let mut text = Vec::new();
        for (name, more, content) in parts {
            text.extend(format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n").bytes());
            text.extend(*content);
            text.extend(b"\r\n");
        }
        text.extend(b"--X--\r\n");
        body(&api, "/x", "multipart/form-data; boundary=X", &text).unwrap()
    };
    let png = "; filename=\"a.png\"\r\nContent-Type: image/png";
    assert_eq!(
        judged(&[
            ("name", "", b"a"),
            ("age", "", b"7"),
            ("photo", png, b"\xff\xd8"),
            ("tags", "", b"1"),
            ("tags", "", b"2")
        ]),
        [""; 0]
    );
    assert_eq!(judged(&[("name", "", b"a"), ("age", "", b"x")]), ["body /age type"]);
    assert_eq!(judged(&[("name", "", b"a")]), ["body /age required"]);
    let text = "; filename=\"a\"\r\nContent-Type: text/html";
    assert_eq!(judged(&[("name", "", b"a"), ("age", "", b"7"), ("photo", text, b"x")]), ["body /photo contentType"]);
    let json = "\r\nContent-Type: application/json";
    assert_eq!(
        judged(&[("name", "", b"a"), ("age", "", b"7"), ("address", json, b"{\"zip\": 1}")]),
        ["body /address/zip type"]
    );
    // A server would read these bytes by another code, as text that nobody has judged.
    assert_eq!(judged(&[("name", "", b"far too long\xff"), ("age", "", b"7")]), ["body /name encoding"]);
    assert_eq!(judged(&[("name", "", b"a"), ("age", "", b"7"), ("unknown", "", b"\xff")]), [""; 0]);
    assert_eq!(body(&api, "/x", "multipart/form-data; boundary=X", b"--Y--").unwrap(), ["body  multipart"]);
    assert_eq!(body(&api, "/x", "multipart/form-data", b"--X--").unwrap(), ["body  multipart"]);
}

/// Depth would be the end of whoever walks through the value: judging it, and dropping it.
#[test]
fn a_field_that_comes_often_is_one_flat_list() {
    let api = form("application/x-www-form-urlencoded", json!({}));
    let judged = |text: &str| body(&api, "/x", "application/x-www-form-urlencoded", text.as_bytes()).unwrap();
    assert_eq!(judged(&format!("name=a&age=1{}", "&more".repeat(1900))), [""; 0]);
    assert_eq!(judged(&format!("name=a{}", "&age=1".repeat(1900))), ["body /age type"]);
    for many in [2000, 16_000, 1_000_000] {
        assert_eq!(judged(&format!("name=a{}", "&age=1".repeat(many))), ["body  form"]);
    }
    let part = |name: &str| format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n1\r\n");
    let api = form("multipart/form-data", json!({}));
    let judged = |ages: usize| {
        let text = format!("{}{}--X--", part("name"), part("age").repeat(ages));
        body(&api, "/x", "multipart/form-data; boundary=X", text.as_bytes()).unwrap()
    };
    assert_eq!((judged(1), judged(1999)), (Vec::new(), vec!["body /age type".to_owned()]));
    assert_eq!(judged(2000), ["body  multipart"]);
}

#[test]
fn what_comes_often_is_a_list_and_what_is_a_list_is_not_taken_for_that() {
    let properties = json!({
        "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 3}]},
        "lists": {"items": {"type": "array", "items": {"type": "integer"}}},
    });
    let content = json!({"multipart/form-data": {"schema": {"type": "object", "properties": properties}}});
    let api = api(&json!({"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody": {"content": content}}}}}));
    let judged = |name: &str, values: &[&str]| {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"\r\nContent-Type: application/json");
        let parts: String = values.iter().map(|value| format!("--X\r\n{head}\r\n\r\n{value}\r\n")).collect();
        body(&api, "/x", "multipart/form-data; boundary=X", format!("{parts}--X--").as_bytes()).unwrap()
    };
    assert_eq!(judged("either", &[r#""a""#; 3]), [""; 0]);
    assert_eq!(judged("either", &[r#""a""#; 4]).len(), 1);
    assert_eq!(judged("lists", &["[1]", "[2, 3]", "[4]"]), [""; 0]);
    assert_eq!(judged("lists", &["[1]", "2"]), ["body /lists/1 type"]);
}

#[test]
fn documents_that_cannot_be_used_say_where() {
    let body = |schema: Value| {
        json!({"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody": {"content": {"application/json":
            {"schema": schema}}}}}}})
    };
    for (document, told) in [
        (body(json!({"$ref": "https://example.com/x.json"})), "leads out of the document"),
        (body(json!({"$ref": "other.json#/x"})), "does not name"),
        (body(json!({"$ref": "#/nowhere"})), "leads nowhere"),
        (body(json!({"type": "strin"})), "#/paths/~1x/post/requestBody"),
        (body(json!({"$dynamicRef": "#x"})), "not supported"),
        (operation(json!([{"name": "a", "in": "body"}])), "#/paths/~1x/get/parameters/0"),
        (operation(json!([{"name": "a", "in": "query", "style": "simple"}])), "style"),
        (json!({"openapi": "3.1.0", "paths": {"x": {}}}), "#/paths/x"),
        (json!({"openapi": "3.1.0", "paths": {"/a".repeat(100_000): {}}}), "too many segments"),
    ] {
        let message = unusable(&document);
        assert!(message.contains(told), "{message}");
    }
}

#[test]
fn patterns_that_look_ahead() {
    let schema = json!({"type": "object", "properties": {
        "price": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}]},
        "other": {"type": "string", "maxLength": 3, "pattern": "a(?=b)"},
    }});
    let content = json!({"application/json": {"schema": schema}});
    let api = api(&json!({"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody": {"content": content}}}}}));
    assert_eq!(api.left_out.len(), 1);
    assert!(api.left_out[0].ends_with("/schema/properties/other/pattern"), "{:?}", api.left_out);
    let judged = |text: &str| body(&api, "/x", "application/json", text.as_bytes()).unwrap();
    assert_eq!(judged(r#"{"price": "1.50", "other": "abc"}"#), [""; 0]);
    assert_eq!(judged(r#"{"price": "-", "other": "abcd"}"#).len(), 2);
}

#[test]
fn times_may_lack_their_offset_as_python_writes_them() {
    let api = api(&operation(json!([
        {"name": "at", "in": "query", "schema": {"type": "string", "format": "date-time"}},
        {"name": "t", "in": "query", "schema": {"type": "string", "format": "time"}},
    ])));
    for query in
        ["at=2026-11-23T10:00:00", "at=2026-11-23T10:00:00.123Z", "at=2026-11-23T10:00:00%2B01:00", "t=10:00:00"]
    {
        assert_eq!(request(&api, "GET", &format!("/x?{query}"), &[]), FINE, "{query}");
    }
    assert_eq!(
        request(&api, "GET", "/x?at=2026-13-23T10:00:00&t=25:00:00", &[]),
        wrong(&["query /at format", "query /t format"])
    );
}

#[test]
fn yaml_will_do() {
    let text = "openapi: 3.0.0\npaths:\n  /x:\n    get:\n      parameters:\n      - {name: a, in: query, required: true, schema: {type: integer}}\n      responses: {200: {description: ok}}\n";
    let api = compile("api.yaml", text.as_bytes(), &[]).unwrap();
    assert_eq!(request(&api, "GET", "/x", &[]), wrong(&["query /a required"]));
}

#[test]
fn schemas_that_refer_to_themselves_are_compiled_once() {
    let mut schemas = serde_json::Map::new();
    for index in 0..60 {
        let refer = |to: usize| json!({"$ref": format!("#/components/schemas/S{}", to % 60)});
        schemas.insert(
            format!("S{index}"),
            json!({"type": "object", "properties": {"a": refer(index + 1),
            "b": {"type": "array", "items": refer(index + 7)}, "c": {"anyOf": [refer(index + 3), {"type": "null"}]}}}),
        );
    }
    let paths: serde_json::Map<String, Value> = (0..60)
        .map(|index| {
            let schema = json!({"$ref": format!("#/components/schemas/S{index}")});
            (
                format!("/x{index}"),
                json!({"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}),
            )
        })
        .collect();
    let began = std::time::Instant::now();
    let api = api(&json!({"openapi": "3.1.0", "paths": paths, "components": {"schemas": schemas}}));
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(body(&api, "/x5", "application/json", br#"{"a": {"a": {"b": [1]}}}"#).unwrap(), ["body /a/a/b/0 type"]);
}
