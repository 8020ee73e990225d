//! Bodies: read strictly as `serde_json` reads them, apart from what is refused beside; media types; and no schema
//! and value together take longer than they may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use passerelle::request::violation::{MOST_VIOLATIONS, Place, Violations};
use passerelle::validate::content::MediaType;
use passerelle::validate::json::{DEEPEST, Unreadable, read};
use passerelle::validate::memory::Held;
use passerelle::validate::schema::{Formats, Schema, Surroundings};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    if let Some(parsed) = std::str::from_utf8(input).ok().and_then(MediaType::parse) {
        let essence = parsed.essence();
        assert!(parsed.is(&essence) && MediaType::parse(&essence).is_some_and(|again| again.is(&essence)));
    }
    let (schema, value) = match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&b"true"[..], input),
    };
    let theirs = serde_json::from_slice::<Value>(value);
    let value = match (read(value, DEEPEST, &mut Held::nothing()), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs);
            ours
        }
        (Err(Unreadable::Wrong(violation)), Ok(_)) => {
            assert!(matches!(&*violation.rule, "duplicate_key" | "max_depth"), "{violation:?}");
            return;
        }
        (Err(_), _) => return,
        (Ok(ours), Err(error)) => panic!("{ours}: {error}"),
    };
    let Ok(schema) = read(schema, DEEPEST, &mut Held::nothing()) else { return };
    let Ok(schema) = Schema::compile(&schema, Surroundings::default(), Formats::Assert) else { return };
    let mut violations = Violations::default();
    schema.judge(&value, Place::Body, "", &mut violations);
    assert_eq!(schema.accepts(&value), violations.is_empty());
    let list = violations.into_vec();
    assert!(list.len() <= MOST_VIOLATIONS + 1);
    assert!(list.iter().all(|violation| violation.pointer.len() < 1024 && violation.message.len() < 1024));
});
