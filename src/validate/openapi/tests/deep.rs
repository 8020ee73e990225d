//! Documents that are deep, or that make judging deep: all of it happens on the stack of a thread that others need too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::compile;
use super::super::published::Published;
use super::{api, body, unusable};
use crate::config::settings::At;
use crate::config::source::{SourceFile, Span};
use crate::observe::metrics::Metrics;

/// A document whose one body is judged by the first of these schemas; `of` makes each, with a reference to the next.
fn chain(length: usize, of: impl Fn(Value) -> Value) -> Value {
    let next = |index: usize| json!({"$ref": format!("#/components/schemas/S{index}")});
    let mut schemas: serde_json::Map<_, _> =
        (0..length).map(|index| (format!("S{index}"), of(next(index + 1)))).collect();
    schemas.insert(format!("S{length}"), json!({"type": "object"}));
    let body = json!({"content": {"application/json": {"schema": next(0)}}});
    json!({"openapi": "3.1.0", "paths": {"/x": {"post": {"requestBody": body}}}, "components": {"schemas": schemas}})
}

/// On a stack as small as any thread's that does this.
fn on_a_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap()
}

#[test]
fn choices_that_double_with_every_reference_are_refused() {
    let chain = |length: usize| {
        let mut document = chain(length, |next| json!({"anyOf": [next, next]}));
        document["components"]["schemas"][format!("S{length}")] =
            json!({"required": ["x"], "properties": {"more": {"$ref": "#/components/schemas/S0"}}});
        document
    };
    assert!(unusable(&chain(40)).contains("choices within choices"));
    assert_eq!(body(&api(&chain(5)), "/x", "application/json", br#"{"x": 1, "more": {"x": 1}}"#).unwrap(), [""; 0]);
}

#[test]
fn chains_of_references_are_taken_over_or_refused_however_long_they_are() {
    on_a_small_stack(|| {
        let properties = |length| compile("", chain(length, in_a_property).to_string().as_bytes(), &[]);
        let deep = properties(10_000).unwrap_or_else(|unusable| panic!("{unusable}"));
        assert_eq!(body(&deep, "/x", "application/json", br#"{"a": {"a": {}}}"#).unwrap(), [""; 0]);
        assert!(properties(30_000).is_err(), "more schemas than a document may have");
        for (length, of) in [
            (10_000, itself as fn(Value) -> Value),
            (30_000, itself),
            (10_000, in_all_of),
            (10_000, in_any_of),
            (10_000, |next| json!({"oneOf": [{"type": "null"}, {"not": next}]})),
            (300, |next| json!({"if": next, "then": true})),
            (300, |next| json!({"dependentSchemas": {"a": next}})),
        ] {
            let told = unusable(&chain(length, of));
            assert!(told.contains("lead through too many others"), "{told}");
        }
    });
}

fn itself(next: Value) -> Value {
    next
}

fn in_all_of(next: Value) -> Value {
    json!({"allOf": [next]})
}

fn in_any_of(next: Value) -> Value {
    json!({"anyOf": [{"type": "string"}, next]})
}

fn in_a_property(next: Value) -> Value {
    json!({"properties": {"a": next}})
}

/// What is within the bounds is compiled, used and given up on an ordinary stack, however deep it and the body are.
#[test]
fn the_deepest_schemas_that_are_taken_can_be_used() {
    on_a_small_stack(|| {
        let value = format!("{}{}", "[".repeat(110), "]".repeat(110));
        let judged = |document: &Value| body(&api(document), "/x", "application/json", value.as_bytes()).unwrap();
        let items = |next| (0..90).fold(next, |inner, _| json!({"items": inner}));
        assert_eq!(judged(&chain(100, items)), [""; 0]);
        for (length, of) in [(190, itself as fn(Value) -> Value), (90, in_all_of), (60, in_any_of)] {
            let mut document = chain(length, of);
            document["components"]["schemas"][format!("S{length}")] =
                json!({"items": {"$ref": "#/components/schemas/S0"}});
            assert_eq!(judged(&document), ["body  too_complex"]);
        }
    });
}

#[test]
fn schemas_that_nest_too_deep_are_refused() {
    on_a_small_stack(|| {
        for (head, tail) in [
            (r#"{"items":"#, "}"),
            (r#"{"allOf":["#, "]}"),
            (r#"{"anyOf":[true,"#, "]}"),
            (r#"{"properties":{"a":"#, "}}"),
        ] {
            for depth in [101, 10_000, 30_000] {
                let schema = format!("{}true{}", head.repeat(depth), tail.repeat(depth));
                let text = chain(0, itself).to_string().replace(r#"{"type":"object"}"#, &schema);
                assert!(compile("", text.as_bytes(), &[]).is_err(), "{depth} {head}");
            }
        }
    });
}

#[test]
fn choices_are_counted_in_what_is_in_a_value_too() {
    let twice = |next: Value| json!({"anyOf": [next, next]});
    let mut document = chain(40, twice);
    document["paths"]["/x"]["post"]["requestBody"]["content"]["application/json"]["schema"] =
        json!({"properties": {"a": {"items": {"$ref": "#/components/schemas/S0"}}}});
    assert!(unusable(&document).contains("choices within choices"));
}

#[tokio::test]
async fn what_is_too_deep_does_not_take_the_place_of_a_document_that_was_good() {
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    let published = Published::new("r", &At { value: "/openapi.json".to_owned(), span }, &Metrics::new(1));
    published.came(Bytes::from(chain(3, in_a_property).to_string()), None).await;
    let good = published.newest().expect("a document");
    for bad in [chain(5000, itself), chain(5000, in_any_of)] {
        published.came(Bytes::from(bad.to_string()), None).await;
        assert!(published.standing().failing.is_some_and(|why| why.contains("lead through too many others")));
        assert!(published.newest().is_some_and(|newest| Arc::ptr_eq(&newest, &good)));
    }
}

/// Looking into one takes a while, and any client can have it asked for again.
#[tokio::test(start_paused = true)]
async fn a_text_that_was_refused_is_not_looked_into_again_at_once() {
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    let published = Published::new("r", &At { value: "/openapi.json".to_owned(), span }, &Metrics::new(1));
    let bad = Bytes::from(chain(5000, itself).to_string());
    published.came(bad.clone(), None).await;
    let refused = published.standing().refused_at().expect("it cannot be used");
    published.came(bad.clone(), None).await;
    assert_eq!(published.standing().refused_at(), Some(refused));
    tokio::time::advance(Duration::from_secs(301)).await;
    published.came(bad, None).await;
    assert_ne!(published.standing().refused_at(), Some(refused), "in the end it is");
    published.came(Bytes::from(chain(3, in_a_property).to_string()), None).await;
    assert!(published.is_there() && published.standing().refused_at().is_none(), "another one at once");
}

/// Each alone is few enough.
#[test]
fn choices_in_the_properties_of_choices_are_not_all_looked_at() {
    let mut document = chain(4, |next| json!({"anyOf": vec![next; 8]}));
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    let again = json!({"$ref": "#/components/schemas/S0"});
    schemas.insert("S4".to_owned(), json!({"type": "object", "properties": {"a": again, "b": again, "c": again}}));
    let began = Instant::now();
    drop(api(&document));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
