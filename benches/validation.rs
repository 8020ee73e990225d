//! What validation costs: reading JSON strictly beside reading it, holding it to a schema, and to an OpenAPI document.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use passerelle::request::violation::{Place, Violations};
use passerelle::validate::content::MediaType;
use passerelle::validate::json::read;
use passerelle::validate::memory::Held;
use passerelle::validate::openapi::Alone;
use passerelle::validate::schema::{Formats, Schema, Surroundings};
use serde_json::{Value, json};

fn order(items: usize) -> Value {
    let items: Vec<Value> =
        (0..items).map(|index| json!({"sku": format!("ABC-{index}"), "price": 1.25, "note": "as it was"})).collect();
    json!({"customer": "a@example.com", "items": items})
}

fn schema() -> Schema {
    let schema = json!({
        "type": "object",
        "required": ["customer", "items"],
        "additionalProperties": false,
        "properties": {
            "customer": {"type": "string", "format": "email"},
            "items": {"type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["sku"],
                "properties": {
                    "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
                    "price": {"type": "number", "minimum": 0},
                    "note": {"type": "string", "maxLength": 100}
                }
            }}
        }
    });
    Schema::compile(&schema, Surroundings::default(), Formats::Assert).unwrap()
}

fn media_type(c: &mut Criterion) {
    c.bench_function("validation/media_type", |b| {
        b.iter(|| black_box(MediaType::parse("application/json; charset=utf-8").unwrap().is_json()));
    });
}

fn bodies(c: &mut Criterion) {
    let schema = schema();
    // Some 1 KiB, 64 KiB and 1 MiB.
    for items in [18, 1_200, 19_000] {
        let value = order(items);
        let text = serde_json::to_vec(&value).unwrap();
        let mut group = c.benchmark_group(format!("validation/{}", text.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("serde_json", |b| {
            b.iter(|| black_box(serde_json::from_slice::<Value>(&text).unwrap()));
        });
        group.bench_function("strict", |b| b.iter(|| black_box(read(&text, 64, &mut Held::nothing()).unwrap())));
        group.bench_function("schema", |b| b.iter(|| assert!(black_box(schema.accepts(&value)))));
        let mut wrong = value.clone();
        *wrong.pointer_mut(&format!("/items/{}/price", items - 1)).unwrap() = json!(-1);
        group.bench_function("explain", |b| {
            b.iter(|| {
                let mut violations = Violations::default();
                schema.judge(&wrong, Place::Body, "", &mut violations);
                assert_eq!(violations.as_slice().len(), 1);
            });
        });
    }
}

/// An operation that is found by its path, and its body, in each way that it may be written.
fn openapi(c: &mut Criterion) {
    let item = json!({"type": "object", "required": ["sku", "quantity"], "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
        "quantity": {"type": "integer", "minimum": 1},
        "note": {"type": "string", "maxLength": 100}
    }});
    let content = json!({
        "application/json": {"schema": {"$ref": "#/components/schemas/Item"}},
        "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/Item"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/Item"}}
    });
    let document = json!({"openapi": "3.1.0", "components": {"schemas": {"Item": item}}, "paths": {
        "/orders/{id}/items": {"post": {"requestBody": {"content": content}}}
    }});
    let api = Alone::compile(document.to_string().as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    let multipart = ["sku\"\r\n\r\nABC-1", "quantity\"\r\n\r\n2", "note\"\r\n\r\nas it was"]
        .map(|part| format!("--X\r\nContent-Disposition: form-data; name=\"{part}\r\n"))
        .concat()
        + "--X--\r\n";
    for (kind, text) in [
        ("application/json", r#"{"sku": "ABC-1", "quantity": 2, "note": "as it was"}"#),
        ("application/x-www-form-urlencoded", "sku=ABC-1&quantity=2&note=as+it+was"),
        ("multipart/form-data; boundary=X", multipart.as_str()),
    ] {
        let media_type = MediaType::parse(kind).unwrap();
        let judge = || api.judge(&Method::POST, "/orders/7/items", &media_type, black_box(text.as_bytes()));
        assert!(judge().unwrap().is_empty(), "{kind}: {:?}", judge());
        c.bench_function(&format!("openapi/{}", media_type.essence()), |b| b.iter(judge));
    }
}

criterion_group!(benches, media_type, bodies, openapi);
criterion_main!(benches);
