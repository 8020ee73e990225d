//! Violations in the words of each dialect of errors: as the framework behind the gateway would have told them, so
//! that clients need not know who refused.
//!
//! Pointers hold names that the client chose. Everything here is written by a serialiser or escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::violation::{JsonKind, Place, Violation};

/// The longest list that the Django REST framework's form of errors in lists is padded to; beyond it indexes are keys.
const PADDED: usize = 100;

/// What a violation is called whose rule is not one of pydantic's.
const VALUE_ERROR: &str = "value_error";

/// The member `violations` of a problem (RFC 9457): JSON.
pub(super) fn problem(violations: &[Violation]) -> Value {
    violations
        .iter()
        .map(|violation| {
            json!({
                "in": violation.place.as_str(),
                "pointer": violation.pointer,
                "rule": violation.rule,
                "message": violation.message,
            })
        })
        .collect()
}

/// The list that FastAPI puts into `detail`.
pub(super) fn fastapi(violations: &[Violation]) -> Value {
    violations
        .iter()
        .map(|violation| {
            // The first segment of what is not a body is the name of a parameter, whatever it looks like.
            let named = usize::from(violation.place != Place::Body);
            let segments = violation.segments().enumerate().map(|(at, segment)| match index(&segment) {
                Some(index) if at >= named => Value::from(index),
                Some(_) | None => Value::from(segment),
            });
            let loc: Value = std::iter::once(Value::from(violation.place.as_str())).chain(segments).collect();
            json!({ "loc": loc, "msg": fastapi_message(violation), "type": fastapi_type(violation) })
        })
        .collect()
}

fn fastapi_message(violation: &Violation) -> String {
    match (&*violation.rule, violation.message.strip_prefix("must ")) {
        ("required", _) => "Field required".to_owned(),
        ("additionalProperties" | "unevaluatedProperties", _) => "Extra inputs are not permitted".to_owned(),
        ("json", _) => format!("JSON decode error: input {}", violation.message),
        ("type", Some(rest)) => match fastapi_sentence(fastapi_type(violation)) {
            Some(sentence) => sentence.to_owned(),
            None => format!("Input should {rest}"),
        },
        ("minLength" | "maxLength", Some(rest)) => format!("String should {rest}"),
        (_, Some(rest)) => fastapi_bound(violation).unwrap_or_else(|| format!("Input should {rest}")),
        (_, None) => format!("Input {}", violation.message),
    }
}

/// What pydantic says where a type is not the one that is wanted.
fn fastapi_sentence(of: &str) -> Option<&'static str> {
    let sentence = match of {
        "none_required" => "Input should be None",
        "bool_type" => "Input should be a valid boolean",
        "bool_parsing" => "Input should be a valid boolean, unable to interpret input",
        "int_type" => "Input should be a valid integer",
        "int_parsing" => "Input should be a valid integer, unable to parse string as an integer",
        "int_from_float" => "Input should be a valid integer, got a number with a fractional part",
        "float_type" => "Input should be a valid number",
        "float_parsing" => "Input should be a valid number, unable to parse string as a number",
        "string_type" => "Input should be a valid string",
        "list_type" => "Input should be a valid list",
        "dict_type" => "Input should be a valid dictionary",
        "model_attributes_type" => "Input should be a valid dictionary or object to extract fields from",
        _ => return None,
    };
    Some(sentence)
}

/// The bounds of numbers in pydantic's words. FastAPI publishes those of whole numbers with a fraction of nothing.
fn fastapi_bound(violation: &Violation) -> Option<String> {
    let words = match &*violation.rule {
        "minimum" => "greater than or equal to",
        "maximum" => "less than or equal to",
        "exclusiveMinimum" => "greater than",
        "exclusiveMaximum" => "less than",
        _ => return None,
    };
    let bound = violation.bound.as_ref()?.to_string();
    Some(format!("Input should be {words} {}", bound.strip_suffix(".0").unwrap_or(&bound)))
}

/// What pydantic calls it (version 2).
fn fastapi_type(violation: &Violation) -> &'static str {
    match &*violation.rule {
        "required" => "missing",
        "type" => violation.expected.map_or(VALUE_ERROR, |kind| fastapi_mistype(kind, violation)),
        "minimum" => "greater_than_equal",
        "maximum" => "less_than_equal",
        "exclusiveMinimum" => "greater_than",
        "exclusiveMaximum" => "less_than",
        "multipleOf" => "multiple_of",
        "minLength" => "string_too_short",
        "maxLength" => "string_too_long",
        "pattern" => "string_pattern_mismatch",
        "minItems" | "minProperties" => "too_short",
        "maxItems" | "maxProperties" | "additionalItems" => "too_long",
        "enum" | "const" => "literal_error",
        "additionalProperties" | "unevaluatedProperties" => "extra_forbidden",
        "json" | "duplicate_key" | "max_depth" => "json_invalid",
        _ => VALUE_ERROR,
    }
}

/// Text is something to be parsed, that of a parameter as that in JSON; and what is a body as a whole is a model.
fn fastapi_mistype(expected: JsonKind, violation: &Violation) -> &'static str {
    match (expected, violation.found) {
        (JsonKind::Null, _) => "none_required",
        (JsonKind::Boolean, Some(JsonKind::String)) => "bool_parsing",
        (JsonKind::Boolean, _) => "bool_type",
        (JsonKind::Integer, Some(JsonKind::String)) => "int_parsing",
        (JsonKind::Integer, Some(JsonKind::Integer | JsonKind::Number)) => "int_from_float",
        (JsonKind::Integer, _) => "int_type",
        (JsonKind::Number, Some(JsonKind::String)) => "float_parsing",
        (JsonKind::Number, _) => "float_type",
        (JsonKind::String, _) => "string_type",
        (JsonKind::Array, _) => "list_type",
        (JsonKind::Object, _) if violation.place == Place::Body && violation.pointer.is_empty() => {
            "model_attributes_type"
        }
        (JsonKind::Object, _) => "dict_type",
    }
}

/// An array's index, as it stands in a pointer (RFC 6901 section 4).
fn index(segment: &str) -> Option<u64> {
    let canonical = segment == "0" || !segment.starts_with('0');
    if canonical && segment.bytes().all(|byte| byte.is_ascii_digit()) { segment.parse().ok() } else { None }
}

/// The map of fields that the Django REST framework answers.
pub(super) fn drf(violations: &[Violation]) -> Value {
    // A body that cannot be read has no fields.
    if let Some(broken) = violations.iter().find(|violation| violation.rule == "json") {
        return json!({ "detail": format!("JSON parse error - {}", broken.message) });
    }
    let mut tree = Tree::default();
    for violation in violations {
        let mut node = &mut tree;
        for segment in violation.segments() {
            node = node.fields.entry(segment.into_owned()).or_default();
        }
        node.messages.push(format!("This field {}.", violation.message));
    }
    if tree.fields.is_empty() { json!({ "non_field_errors": tree.messages }) } else { tree.into_json() }
}

/// What is wrong with a value and with what is in it.
#[derive(Default)]
struct Tree {
    messages: Vec<String>,
    fields: BTreeMap<String, Tree>,
}

impl Tree {
    fn into_json(self) -> Value {
        if self.fields.is_empty() {
            return Value::from(self.messages);
        }
        if let Some(length) = self.length_as_list() {
            let mut list = vec![Value::Object(Map::new()); length];
            for (segment, field) in self.fields {
                let place = index(&segment).and_then(|index| list.get_mut(usize::try_from(index).ok()?));
                if let Some(place) = place {
                    *place = field.into_json();
                }
            }
            return Value::Array(list);
        }
        let mut map: Map<String, Value> =
            self.fields.into_iter().map(|(name, field)| (name, field.into_json())).collect();
        if !self.messages.is_empty() {
            map.insert("non_field_errors".to_owned(), Value::from(self.messages));
        }
        Value::Object(map)
    }

    /// A list of objects is answered as a list, an empty object for each that is fine.
    fn length_as_list(&self) -> Option<usize> {
        let mut length = 0;
        for (segment, field) in &self.fields {
            let index = usize::try_from(index(segment)?).ok().filter(|index| *index < PADDED)?;
            if field.fields.is_empty() {
                return None;
            }
            length = length.max(index.saturating_add(1));
        }
        self.messages.is_empty().then_some(length)
    }
}

/// One line each.
pub(super) fn plain(violations: &[Violation], out: &mut String) {
    for Violation { place, pointer, rule, message, .. } in violations {
        let (pointer, message) = (on_one_line(pointer), on_one_line(message));
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}{pointer} {message} ({rule})", place.as_str());
    }
}

fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// A list for a page.
pub(super) fn html(violations: &[Violation], out: &mut String) {
    out.push_str("<ul>\n");
    for Violation { place, pointer, message, .. } in violations {
        let _ = write!(out, "<li><code>{}", place.as_str());
        escape(pointer, out);
        out.push_str("</code> ");
        escape(message, out);
        out.push_str("</li>\n");
    }
    out.push_str("</ul>\n");
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(place: Place, pointer: &str, rule: &'static str, message: &str) -> Violation {
        Violation::new(place, pointer, rule, message)
    }

    fn some() -> Vec<Violation> {
        vec![
            violation(Place::Body, "/items/1/price", "minimum", "must be at least 0").bounded(Some(&0.into())),
            violation(Place::Body, "/items/2/name", "required", "is required"),
            violation(Place::Body, "/tags/0", "type", "must be a string").expecting(JsonKind::String),
            violation(Place::Query, "/limit", "maximum", "must be at most 9").bounded(Some(&9.into())),
        ]
    }

    #[test]
    fn fastapi_s_list() {
        assert_eq!(
            fastapi(&some()),
            json!([
                {"loc": ["body", "items", 1, "price"], "msg": "Input should be greater than or equal to 0", "type": "greater_than_equal"},
                {"loc": ["body", "items", 2, "name"], "msg": "Field required", "type": "missing"},
                {"loc": ["body", "tags", 0], "msg": "Input should be a valid string", "type": "string_type"},
                {"loc": ["query", "limit"], "msg": "Input should be less than or equal to 9", "type": "less_than_equal"},
            ])
        );
        let odd = violation(Place::Body, "/01/99999999999999999999/a~1b/", "x", "is odd");
        assert_eq!(fastapi(&[odd])[0]["loc"], json!(["body", "01", "99999999999999999999", "a/b", ""]));
    }

    #[test]
    fn mistaken_types_are_called_what_pydantic_calls_them() {
        let told = |place, pointer, expected, found| {
            let violation = violation(place, pointer, "type", "must be x").expecting(expected).finding(Some(found));
            let told = fastapi(&[violation]);
            (told[0]["loc"].clone(), told[0]["type"].as_str().map(str::to_owned), told[0]["msg"].clone())
        };
        for (place, pointer, expected, found, loc, kind, message) in [
            (
                Place::Path,
                "/id",
                JsonKind::Integer,
                JsonKind::String,
                json!(["path", "id"]),
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            ),
            (
                Place::Query,
                "/7/1",
                JsonKind::Boolean,
                JsonKind::String,
                json!(["query", "7", 1]),
                "bool_parsing",
                "Input should be a valid boolean, unable to interpret input",
            ),
            (
                Place::Body,
                "/n",
                JsonKind::Integer,
                JsonKind::Number,
                json!(["body", "n"]),
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            (
                Place::Body,
                "/n",
                JsonKind::Integer,
                JsonKind::Null,
                json!(["body", "n"]),
                "int_type",
                "Input should be a valid integer",
            ),
            (
                Place::Body,
                "",
                JsonKind::Object,
                JsonKind::Array,
                json!(["body"]),
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            ),
        ] {
            assert_eq!(told(place, pointer, expected, found), (loc, Some(kind.to_owned()), json!(message)));
        }
        let bound = serde_json::Number::from_f64(0.0);
        let whole = violation(Place::Query, "/n", "exclusiveMinimum", "must exceed it").bounded(bound.as_ref());
        assert_eq!(fastapi(&[whole])[0]["msg"], "Input should be greater than 0");
    }

    #[test]
    fn drf_s_map() {
        assert_eq!(
            drf(&some()),
            json!({
                "items": [{}, {"price": ["This field must be at least 0."]}, {"name": ["This field is required."]}],
                "tags": {"0": ["This field must be a string."]},
                "limit": ["This field must be at most 9."],
            })
        );
        let whole = violation(Place::Body, "", "type", "must be an object");
        assert_eq!(drf(std::slice::from_ref(&whole)), json!({"non_field_errors": ["This field must be an object."]}));
        let both = [whole, violation(Place::Body, "/a", "required", "is required")];
        assert_eq!(
            drf(&both),
            json!({"a": ["This field is required."], "non_field_errors": ["This field must be an object."]})
        );
        let far = violation(Place::Body, "/9999999/a", "required", "is required");
        assert_eq!(drf(&[far]), json!({"9999999": {"a": ["This field is required."]}}));
        let list = violation(Place::Body, "/1/a", "required", "is required");
        assert_eq!(drf(&[list]), json!([{}, {"a": ["This field is required."]}]));
        let broken = violation(Place::Body, "", "json", "is not valid JSON: EOF");
        assert_eq!(drf(&[broken]), json!({"detail": "JSON parse error - is not valid JSON: EOF"}));
    }

    #[test]
    fn names_that_a_client_chose_break_nothing() {
        let hostile = violation(Place::Body, "/<script>\r\nX: \"'&", "type", "must be <b>");
        let (mut line, mut page) = (String::new(), String::new());
        plain(std::slice::from_ref(&hostile), &mut line);
        html(std::slice::from_ref(&hostile), &mut page);
        assert_eq!(line, "body/<script>\\r\\nX: \"'& must be <b> (type)\n");
        assert!(page.contains("body/&lt;script&gt;\r\nX: &quot;&#39;&amp;</code> must be &lt;b&gt;</li>"), "{page}");
        let text = problem(&[hostile]).to_string();
        assert!(text.contains(r#""pointer":"/<script>\r\nX: \"'&""#), "{text}");
    }
}
