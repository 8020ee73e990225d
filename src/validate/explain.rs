//! From the errors of `jsonschema` to violations: where, which rule, and a sentence that quotes nothing of the value.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::{Number, Value};

use crate::request::violation::{JsonKind, Place, Violation, Violations, cut_at, push_segment};

/// Bytes of what a schema says that are quoted.
const QUOTED: usize = 200;

/// How many choices within choices are told apart; what is wrong further inside is told of the last of them.
const DEEPEST: usize = 32;

/// Adds what `error` says of `judged`. `within` is the pointer to it.
pub(super) fn explain(
    error: &ValidationError<'_>,
    judged: &Value,
    place: Place,
    within: &str,
    violations: &mut Violations,
) {
    explain_within(error, judged, place, within, 0, violations);
}

/// `depth`: the choices that it lies within.
#[expect(clippy::wildcard_enum_match_arm, reason = "`sentence` has them all")]
fn explain_within(
    error: &ValidationError<'_>,
    judged: &Value,
    place: Place,
    within: &str,
    depth: usize,
    violations: &mut Violations,
) {
    let pointer = format!("{within}{}", error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let message = "is required";
            violations.push(Violation::new(place, member(&pointer, property.as_str()), "required", message));
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unknown(place, &pointer, "additionalProperties", unexpected, violations);
        }
        ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unknown(place, &pointer, "unevaluatedProperties", unexpected, violations);
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match only_candidate(error, context) {
                Some(branch) if depth < DEEPEST => {
                    for error in branch {
                        explain_within(error, judged, place, within, depth.saturating_add(1), violations);
                    }
                }
                Some(_) | None => {
                    let message = "fits none of the forms that it may have";
                    violations.push(Violation::new(place, pointer, keyword(error), message));
                }
            }
        }
        ValidationErrorKind::Type { kind } => {
            let violation = Violation::new(place, pointer, "type", format!("must be {}", types(kind)));
            violations.push(match kind {
                TypeKind::Single(kind) => violation
                    .expecting(json_kind(*kind))
                    .finding(judged.pointer(error.instance_path().as_str()).map(kind_of)),
                TypeKind::Multiple(_) => violation,
            });
        }
        kind => {
            let violation = Violation::new(place, pointer, keyword(error), sentence(kind));
            violations.push(violation.bounded(bound(kind)));
        }
    }
}

/// The bound of a number.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are about something else")]
fn bound(kind: &ValidationErrorKind) -> Option<&Number> {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Minimum { limit }
        | Kind::Maximum { limit }
        | Kind::ExclusiveMinimum { limit }
        | Kind::ExclusiveMaximum { limit } => limit.as_number(),
        _ => None,
    }
}

fn keyword(error: &ValidationError<'_>) -> String {
    error.kind().keyword().to_owned()
}

fn member(pointer: &str, name: Option<&str>) -> String {
    let mut pointer = pointer.to_owned();
    push_segment(&mut pointer, name.unwrap_or_default());
    pointer
}

fn unknown(place: Place, pointer: &str, rule: &'static str, names: &[String], violations: &mut Violations) {
    for name in names {
        violations.push(Violation::new(place, member(pointer, Some(name)), rule, "is not known here"));
    }
}

/// The branch that the value was meant for: the only one that does not already expect another type, such as the one
/// beside `null`; or else the only one that is not `null`.
fn only_candidate<'c, 'e>(
    of: &ValidationError<'_>,
    branches: &'c [Vec<ValidationError<'e>>],
) -> Option<&'c [ValidationError<'e>]> {
    let misses = |error: &ValidationError<'_>| {
        matches!(error.kind(), ValidationErrorKind::Type { .. } | ValidationErrorKind::Constant { .. })
            && error.instance_path() == of.instance_path()
    };
    let is_null = |error: &ValidationError<'_>| {
        matches!(error.kind(), ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) })
            && error.instance_path() == of.instance_path()
    };
    let fits = only(branches.iter().filter(|branch| !branch.iter().any(misses)));
    let fits = fits.or_else(|| only(branches.iter().filter(|branch| !branch.iter().any(is_null))));
    fits.map(Vec::as_slice)
}

/// The only one that there is.
fn only<T>(mut several: impl Iterator<Item = T>) -> Option<T> {
    let first = several.next()?;
    several.next().is_none().then_some(first)
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => with_article(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(with_article).collect::<Vec<_>>().join(" or "),
    }
}

fn with_article(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    }
}

fn json_kind(kind: JsonType) -> JsonKind {
    match kind {
        JsonType::Null => JsonKind::Null,
        JsonType::Boolean => JsonKind::Boolean,
        JsonType::Integer => JsonKind::Integer,
        JsonType::Number => JsonKind::Number,
        JsonType::String => JsonKind::String,
        JsonType::Array => JsonKind::Array,
        JsonType::Object => JsonKind::Object,
    }
}

fn kind_of(value: &Value) -> JsonKind {
    match value {
        Value::Null => JsonKind::Null,
        Value::Bool(_) => JsonKind::Boolean,
        Value::Number(_) => JsonKind::Number,
        Value::String(_) => JsonKind::String,
        Value::Array(_) => JsonKind::Array,
        Value::Object(_) => JsonKind::Object,
    }
}

/// What of the schema is quoted.
fn quoted(value: &Value) -> String {
    cut_at(value.to_string(), QUOTED)
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn sentence(kind: &ValidationErrorKind) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Constant { expected_value } => format!("must be {}", quoted(expected_value)),
        Kind::Enum { options } => format!("must be one of {}", quoted(options)),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {}", counted(*limit, "character", "characters")),
        Kind::MaxLength { limit } => format!("must have at most {}", counted(*limit, "character", "characters")),
        Kind::MinItems { limit } => format!("must have at least {}", counted(*limit, "item", "items")),
        Kind::MaxItems { limit } => format!("must have at most {}", counted(*limit, "item", "items")),
        Kind::AdditionalItems { limit } => {
            let limit = u64::try_from(*limit).unwrap_or(u64::MAX);
            format!("must have at most {}", counted(limit, "item", "items"))
        }
        Kind::MinProperties { limit } => format!("must have at least {}", counted(*limit, "member", "members")),
        Kind::MaxProperties { limit } => format!("must have at most {}", counted(*limit, "member", "members")),
        Kind::Pattern { pattern } => format!("must match {}", cut_at(pattern.clone(), QUOTED)),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::UniqueItems => "must have no item twice".to_owned(),
        Kind::Contains => "lacks an item that it must have".to_owned(),
        Kind::OneOfMultipleValid { .. } => "fits more than one of the forms that it may have".to_owned(),
        Kind::Not { .. } => "has a form that it must not have".to_owned(),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::PropertyNames { .. } => "has a member whose name is not allowed".to_owned(),
        Kind::UnevaluatedItems { .. } => "has items that are not known here".to_owned(),
        Kind::ContentEncoding { content_encoding } => format!("must be encoded as {content_encoding}"),
        Kind::ContentMediaType { content_media_type } => format!("must hold {content_media_type}"),
        Kind::BacktrackLimitExceeded { .. }
        | Kind::RegexEngineFailure { .. }
        | Kind::FromUtf8 { .. }
        | Kind::Custom { .. }
        | Kind::Referencing(_)
        // These have a form of their own.
        | Kind::Required { .. }
        | Kind::AdditionalProperties { .. }
        | Kind::UnevaluatedProperties { .. }
        | Kind::AnyOf { .. }
        | Kind::OneOfNotValid { .. }
        | Kind::Type { .. } => "cannot be validated".to_owned(),
    }
}
