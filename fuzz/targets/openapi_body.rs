//! Bodies that an OpenAPI document tells of: JSON, forms and multipart are judged in the same way twice, and what is told
//! is bounded.
#![no_main]

use std::sync::LazyLock;

use http::Method;
use libfuzzer_sys::fuzz_target;
use passerelle::request::violation::MOST_VIOLATIONS;
use passerelle::validate::content::MediaType;
use passerelle::validate::openapi::Alone;

const DOCUMENT: &str = r##"{"openapi": "3.1.0",
    "paths": {"/x": {"post": {"requestBody": {"required": true, "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/A"}},
        "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/A"},
            "encoding": {"d": {"style": "deepObject"}, "p": {"style": "pipeDelimited"}, "e": {"explode": false}}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/A"},
            "encoding": {"f": {"contentType": "image/png, image/*"}}}}}}}},
    "components": {"schemas": {
        "A": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "maxLength": 3}, "b": {"type": "integer", "minimum": 0}, "c": {"type": "boolean"},
            "d": {"type": "object", "properties": {"x": {"type": "integer"}}},
            "e": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
            "f": {"type": "string", "format": "binary"},
            "g": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "p": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
            "r": {"$ref": "#/components/schemas/B"}}},
        "B": {"anyOf": [{"$ref": "#/components/schemas/A"}, {"type": "array", "items": {"$ref": "#/components/schemas/B"}},
            {"type": "null"}]}}}}"##;

static API: LazyLock<Alone> = LazyLock::new(|| match Alone::compile(DOCUMENT.as_bytes()) {
    Ok(api) => api,
    Err(why) => panic!("{why}"),
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, body)) = input.split_first() else { return };
    let media_type = match kind % 3 {
        0 => "application/json",
        1 => "application/x-www-form-urlencoded",
        _ => "multipart/form-data; boundary=X",
    };
    let Some(media_type) = MediaType::parse(media_type) else { panic!("{media_type}") };
    let Some(told) = API.judge(&Method::POST, "/x", &media_type, body) else { return };
    assert!(told.len() <= MOST_VIOLATIONS + 1);
    assert!(told.iter().all(|violation| violation.pointer.len() < 1024 && violation.message.len() < 1024));
    assert_eq!(API.judge(&Method::POST, "/x", &media_type, body), Some(told));
});
