//! Why a schema cannot be used, in words that say what to write instead.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ValidationError};
use serde_json::Value;

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Where in it: a JSON Pointer.
    pub pointer: String,
    /// What is wrong, as the end of a sentence.
    pub what: String,
    pub help: Option<&'static str>,
}

impl Unusable {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these need help; the enum is another crate's")]
    pub(super) fn of(error: &ValidationError<'_>, schema: &Value) -> Unusable {
        let pointer = error.instance_path().as_str().to_owned();
        let unusable = |what: String, help| Unusable { pointer: pointer.clone(), what, help };
        match error.kind() {
            ValidationErrorKind::Format { format } if format == "regex" && is_broken(error.instance()) => unusable(
                "the pattern is no regular expression".to_owned(),
                Some("close each bracket and parenthesis; one that stands for itself is written behind a backslash"),
            ),
            ValidationErrorKind::Format { format } if format == "regex" => unusable(
                "the pattern cannot be used".to_owned(),
                Some(
                    "patterns run in linear time: write it without look-around (?=…), (?!…), (?<…) and back-references \
                     \\1, and with small counts",
                ),
            ),
            ValidationErrorKind::Referencing(error) => match unknown_draft(schema, &error.to_string()) {
                Some(draft) => Unusable {
                    pointer: "/$schema".to_owned(),
                    what: format!("{draft:?} is no draft that is known"),
                    help: Some(
                        "draft 4 to 2020-12 are, such as \"https://json-schema.org/draft/2020-12/schema\"; without \
                         `$schema` it is 2020-12",
                    ),
                },
                None => unusable(
                    error.to_string(),
                    Some("`$ref` leads into the schema itself or into a file that `schemas` names; nothing is fetched"),
                ),
            },
            // The schema is the operator's own: its values may be shown.
            _ => unusable(error.to_string(), None),
        }
    }
}

/// Whether a pattern has nothing in it that is refused for the time that it takes.
fn is_broken(pattern: &Value) -> bool {
    let Some(pattern) = pattern.as_str() else { return false };
    let refers_back = || pattern.as_bytes().windows(2).any(|pair| matches!(pair, [b'\\', b'1'..=b'9' | b'k']));
    !["(?=", "(?!", "(?<=", "(?<!", "{"].iter().any(|costly| pattern.contains(costly)) && !refers_back()
}

/// What `$schema` names, where that is what could not be found.
fn unknown_draft<'s>(schema: &'s Value, error: &str) -> Option<&'s str> {
    let draft = schema.get("$schema")?.as_str()?;
    let known = !matches!(Draft::default().detect(schema), Draft::Unknown);
    (!known && error.contains(draft.trim_end_matches('#'))).then_some(draft)
}
