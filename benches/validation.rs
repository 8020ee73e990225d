//! What validation costs: reading JSON strictly beside reading it, and holding it to a schema.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use passerelle::request::violation::{Place, Violations};
use passerelle::validate::content::MediaType;
use passerelle::validate::json::read;
use passerelle::validate::memory::Held;
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

criterion_group!(benches, media_type, bodies);
criterion_main!(benches);
