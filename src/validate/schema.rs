//! A JSON Schema, compiled, and what it finds wrong with a value.
//!
//! `jsonschema` does the work, held within bounds: nothing is fetched (a `$ref` leads into the document itself or into
//! one that was declared), patterns run in linear time, and work is metered (`metered.rs`). It is asked twice: first
//! whether the value is valid, which is fast; only for one that is not, what is wrong.

use std::sync::{Arc, LazyLock};

use jsonschema::{Draft, PatternOptions, Registry, RegistryBuilder, Retrieve, ValidationOptions, Validator};
use serde_json::Value;

use super::duration::is_duration;
use super::explain;
use super::extent::{Extents, TooFar};
use super::metered::{Meter, Metered, MeteredNode, is_genuine};
use super::room::with_room;
pub use super::unusable::Unusable;
use crate::request::violation::{Place, Violation, Violations};

/// What a schema without a name is called while it is measured.
const NAMELESS: &str = "urn:passerelle:schema";

/// Bytes that a compiled pattern may take, and its matching too.
const PATTERN: usize = 2 * 1024 * 1024;

/// Steps into a value that tell whether it is valid: for any, and for each value in it.
const STEPS: u64 = 200_000;
const STEPS_EACH: u64 = 500;

/// Errors that are made to tell what is wrong; those of each branch of a choice are among them.
const ERRORS: u32 = 2_000;

/// A schema, ready to judge.
#[derive(Debug)]
pub struct Schema {
    validator: Validator<Metered>,
}

/// How values are held to `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// It is a rule; formats that are not known are none.
    Assert,
    /// Likewise, but `date-time` and `time` may lack their offset, and a `duration` may have a sign and a fraction:
    /// Python writes such, and takes them.
    AssertLocal,
    /// It is a remark.
    Ignore,
}

/// Where a schema's references lead.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Of a schema that names no `$schema`; otherwise 2020-12.
    pub draft: Option<Draft>,
    /// What its references are relative to, where it has no `$id`.
    pub base: Option<&'a str>,
    /// The documents that they may lead to.
    pub registry: Option<&'a Registry<'a>>,
}

impl Schema {
    /// # Errors
    /// What is wrong with it and where.
    pub fn compile(schema: &Value, around: Surroundings<'_>, formats: Formats) -> Result<Schema, Unusable> {
        let compile = || {
            measure(schema, around)?;
            Schema::compile_measured(schema, around, formats)
        };
        let unusable = |what: &str| Unusable { pointer: String::new(), what: what.to_owned(), help: None };
        with_room(compile).map_err(unusable)?
    }

    /// The same of a schema of which it is known that it is not too deep, on a thread that has room for it.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub(super) fn compile_measured(
        schema: &Value,
        around: Surroundings<'_>,
        formats: Formats,
    ) -> Result<Schema, Unusable> {
        let mut options = options(formats);
        if let Some(draft) = around.draft.filter(|_| schema.get("$schema").is_none()) {
            options = options.with_draft(draft);
        }
        if let Some(base) = around.base {
            options = options.with_base_uri(base);
        }
        if let Some(registry) = around.registry {
            options = options.with_registry(registry);
        }
        let validator = options.build(schema).map_err(|error| Unusable::of(&error, schema))?;
        Ok(Schema { validator })
    }

    /// Adds what is wrong with `value`. `within` is the pointer to it.
    pub fn judge(&self, value: &Value, place: Place, within: &str, violations: &mut Violations) {
        let steps = STEPS.saturating_add(STEPS_EACH.saturating_mul(count(value)));
        let meter = Meter::new(steps, ERRORS);
        let valid = self.validator.is_valid(MeteredNode::new(value, &meter));
        if meter.is_spent() {
            violations.push(Violation::new(place, within, "too_complex", "takes too long to validate"));
            return;
        }
        if valid {
            return;
        }
        let meter = Meter::new(steps, ERRORS);
        let mut found = false;
        for error in self.validator.iter_errors(MeteredNode::new(value, &meter)).filter(is_genuine) {
            explain::explain(&error, value, place, within, violations);
            found = true;
            if violations.is_full() {
                break;
            }
        }
        if !found {
            let message = "does not fit the schema: too much is wrong with it to be listed";
            violations.push(Violation::new(place, within, "schema", message));
        }
    }

    /// Whether `value` is valid; `false` too when that takes too long to say.
    pub fn accepts(&self, value: &Value) -> bool {
        let meter = Meter::new(STEPS.saturating_add(STEPS_EACH.saturating_mul(count(value))), ERRORS);
        self.validator.is_valid(MeteredNode::new(value, &meter)) && !meter.is_spent()
    }
}

/// # Errors
/// It would take too long to judge by, or too much of the stack.
fn measure(schema: &Value, around: Surroundings<'_>) -> Result<(), Unusable> {
    let draft = around.draft.unwrap_or_default().detect(schema);
    let resource = draft.create_resource_ref(schema);
    let base = around.base.or(resource.id()).unwrap_or(NAMELESS);
    let empty;
    let registry = match around.registry {
        Some(registry) => registry.add(base, resource),
        None => {
            empty = Registry::new();
            empty.add(base, resource)
        }
    };
    // What is wrong with names and references is told, and better, when the schema is compiled.
    let Ok(registry) = registry.and_then(RegistryBuilder::prepare) else { return Ok(()) };
    let Ok(base) = jsonschema::uri::from_str(base) else { return Ok(()) };
    let unusable = |far: TooFar| Unusable { pointer: String::new(), what: far.0.to_owned(), help: None };
    Extents::new(&registry).measure(schema, &base, draft).map_err(unusable)
}

/// The values in a value, itself among them. They were read with a bounded depth.
fn count(value: &Value) -> u64 {
    let within = match value {
        Value::Array(members) => members.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0_u64,
    };
    within.saturating_add(1)
}

fn options<'i>(formats: Formats) -> ValidationOptions<'i, Arc<dyn Retrieve>, Metered> {
    let options = jsonschema::options_for::<Metered>()
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN).dfa_size_limit(PATTERN))
        .should_ignore_unknown_formats(true);
    match formats {
        Formats::Assert => options.should_validate_formats(true),
        Formats::AssertLocal => options
            .should_validate_formats(true)
            .with_format("duration", is_duration)
            .with_format("date-time", |text: &str| is_time(&DATE_TIME, text))
            .with_format("time", |text: &str| is_time(&TIME, text)),
        Formats::Ignore => options.should_validate_formats(false),
    }
}

type Format = LazyLock<Option<Validator>>;
static DATE_TIME: Format = LazyLock::new(|| format_alone("date-time"));
static TIME: Format = LazyLock::new(|| format_alone("time"));

fn format_alone(format: &str) -> Option<Validator> {
    let schema = serde_json::json!({"format": format});
    jsonschema::options().offline().should_validate_formats(true).build(&schema).ok()
}

/// With an offset, or with one added.
fn is_time(format: &Format, text: &str) -> bool {
    let takes = |text: String| format.as_ref().is_none_or(|format| format.is_valid(&Value::String(text)));
    takes(text.to_owned()) || takes(format!("{text}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema(schema: &Value) -> Schema {
        Schema::compile(schema, Surroundings::default(), Formats::Assert).expect("a schema")
    }

    fn unusable(schema: &Value) -> Unusable {
        Schema::compile(schema, Surroundings::default(), Formats::Assert).expect_err("no schema")
    }

    /// Pointer and rule of each violation.
    fn found(schema: &Schema, value: &Value) -> Vec<(String, String)> {
        let mut violations = Violations::default();
        schema.judge(value, Place::Body, "", &mut violations);
        violations.into_vec().into_iter().map(|found| (found.pointer, found.rule.into_owned())).collect()
    }

    fn is(pointer: &str, rule: &str) -> (String, String) {
        (pointer.to_owned(), rule.to_owned())
    }

    #[test]
    fn every_violation_is_listed_with_its_place() {
        let order = schema(&json!({
            "type": "object",
            "required": ["customer", "items"],
            "additionalProperties": false,
            "properties": {
                "customer": {"type": "string", "format": "email"},
                "items": {"type": "array", "items": {"properties": {"price": {"type": "number", "minimum": 0}}}},
            },
        }));
        assert_eq!(found(&order, &json!({"customer": "a@example.com", "items": [{"price": 1}]})), []);
        let mut violations =
            found(&order, &json!({"items": [{"price": 1}, {"price": -1}, {"price": "x"}], "a/b": 1, "customer": "?"}));
        violations.sort();
        assert_eq!(
            violations,
            [
                is("/a~1b", "additionalProperties"),
                is("/customer", "format"),
                is("/items/1/price", "minimum"),
                is("/items/2/price", "type")
            ]
        );
        assert_eq!(found(&order, &json!({})), [is("/customer", "required"), is("/items", "required")]);
    }

    #[test]
    fn drafts_are_told_apart() {
        let old = schema(&json!({
            "$schema": "http://json-schema.org/draft-04/schema#", "maximum": 5, "exclusiveMaximum": true,
        }));
        assert_eq!(found(&old, &json!(5)).len(), 1);
        for draft in ["draft-06/schema#", "draft-07/schema#", "draft/2019-09/schema", "draft/2020-12/schema"] {
            let scheme = if draft.starts_with("draft-") { "http" } else { "https" };
            let new = schema(&json!({"$schema": format!("{scheme}://json-schema.org/{draft}"), "exclusiveMaximum": 5}));
            assert_eq!(found(&new, &json!(5)), [is("", "exclusiveMaximum")], "{draft}");
        }
        let newest = schema(&json!({"prefixItems": [{"type": "string"}], "items": false}));
        assert_eq!(found(&newest, &json!(["a"])), []);
        assert_ne!(found(&newest, &json!(["a", 1])), []);
    }

    #[test]
    fn nothing_is_fetched() {
        for target in ["https://example.com/a.json", "file:///etc/passwd", "other.json"] {
            let unusable = unusable(&json!({"properties": {"a": {"$ref": target}}}));
            assert!(unusable.help.is_some_and(|help| help.contains("nothing is fetched")), "{unusable:?}");
        }
    }

    #[test]
    fn patterns_run_in_linear_time_or_not_at_all() {
        for pattern in ["(?=a)b", "(?!a)b", "(?<=a)b", r"(a)\1", "(a{1000}){1000}"] {
            let unusable = unusable(&json!({"properties": {"a": {"pattern": pattern}}}));
            assert!(unusable.help.is_some_and(|help| help.contains("linear time")), "{pattern}: {unusable:?}");
            assert!(unusable.pointer.starts_with("/properties/a"), "{pattern}: {unusable:?}");
        }
        let unusable = unusable(&json!({"properties": {"a": {"pattern": "[a"}}}));
        assert_eq!(unusable.what, "the pattern is no regular expression");
        // What backtracks for ages elsewhere.
        let slow = schema(&json!({"pattern": "^(a+)+$"}));
        assert_eq!(found(&slow, &json!(format!("{}!", "a".repeat(100_000)))), [is("", "pattern")]);
    }

    #[test]
    fn a_draft_that_is_not_known_is_named() {
        for draft in ["http://json-schema.org/draft-03/schema#", "http://example.com/d"] {
            let unusable = unusable(&json!({"$schema": draft, "type": "object"}));
            assert!(unusable.what.contains(draft) && unusable.pointer == "/$schema", "{unusable:?}");
            assert!(unusable.help.is_some_and(|help| help.contains("2020-12")), "{unusable:?}");
        }
    }

    #[test]
    fn a_schema_that_is_none_is_told_where() {
        let unusable = unusable(&json!({"properties": {"a": {"type": "strin"}}}));
        assert_eq!(unusable.pointer, "/properties/a/type");
    }

    #[test]
    fn branches_that_lead_back_do_not_take_for_ever() {
        let kind = json!({"properties": {"children": {"items": {"$ref": "#/$defs/node"}}, "name": {"type": "string"}}});
        let tree = schema(&json!({
            "$defs": {"node": {"anyOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/other"}]}, "one": kind, "other": kind},
            "$ref": "#/$defs/node",
        }));
        let mut value = json!({"name": 1});
        for _ in 0..60 {
            value = json!({"children": [value]});
        }
        let began = std::time::Instant::now();
        assert!(!found(&tree, &value).is_empty());
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }

    /// A choice of many within a choice of many, as unions of models make them, is no reason to refuse a body.
    #[test]
    fn honest_choices_are_not_too_complex() {
        let branch = |index: usize| {
            json!({"type": "object", "required": ["kind", "a", "b"],
                "properties": {"kind": {"enum": [format!("k{index}")]}, "a": {"type": "integer"}, "b": {"type": "string"}}})
        };
        let inner: Vec<Value> = (0..40).map(branch).collect();
        let outer: Vec<Value> = (0..10).map(|_| json!({"anyOf": inner})).collect();
        let events = schema(&json!({"items": {"anyOf": outer}}));
        let last = json!({"kind": "k39", "a": 1, "b": "x"});
        assert_eq!(found(&events, &Value::Array(vec![last; 300])), []);
        let wrong = json!({"kind": "none", "a": 1, "b": "x"});
        assert_eq!(found(&events, &Value::Array(vec![wrong; 20])).first(), Some(&is("/0", "anyOf")));
    }

    #[test]
    fn a_million_errors_are_not_collected() {
        let strings = schema(&json!({"items": {"type": "string"}}));
        let found = found(&strings, &Value::Array(vec![json!(1); 1_000_000]));
        assert_eq!(found.len(), 101);
        assert_eq!((&found[0], &found[99]), (&is("/0", "type"), &is("/99", "type")));
    }

    #[test]
    fn one_error_in_a_large_value_is_found() {
        let strings = schema(&json!({"items": {"type": "string"}}));
        let mut members = vec![json!("x"); 100_000];
        members[99_999] = json!(1);
        assert_eq!(found(&strings, &Value::Array(members)), [is("/99999", "type")]);
    }

    #[test]
    fn of_a_choice_that_only_one_branch_was_meant_for_that_branch_is_told() {
        let optional =
            schema(&json!({"properties": {"a": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}}}));
        assert_eq!(found(&optional, &json!({"a": "long"})), [is("/a", "maxLength")]);
        assert_eq!(found(&optional, &json!({"a": 1})), [is("/a", "type")]);
        assert_eq!(found(&optional, &json!({"a": null})), []);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!(-2.5)), Just(json!("a")), Just(json!("bb"))];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    fn any_schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            Just(json!({"$ref": "#"})),
            Just(json!({"type": "string", "maxLength": 1})),
            Just(json!({"minimum": 0})),
            Just(json!({"required": ["a"]})),
            Just(json!({"uniqueItems": true})),
            Just(json!({"type": ["null", "object"], "maxProperties": 1})),
            Just(json!({"enum": ["a", null, [1]]})),
        ];
        leaf.prop_recursive(4, 20, 3, |inner| {
            let some = prop::collection::vec(inner.clone(), 1..3);
            prop_oneof![
                some.clone().prop_map(|some| json!({"anyOf": some})),
                some.clone().prop_map(|some| json!({"oneOf": some})),
                some.clone().prop_map(|some| json!({"allOf": some})),
                some.prop_map(|some| json!({"prefixItems": some, "unevaluatedItems": false})),
                inner.clone().prop_map(|inner| json!({"not": inner})),
                inner.clone().prop_map(|inner| json!({"items": inner, "minItems": 1})),
                inner.clone().prop_map(|inner| json!({"contains": inner})),
                inner.clone().prop_map(|inner| json!({"propertyNames": inner})),
                inner.clone().prop_map(|inner| json!({"properties": {"a": inner}, "unevaluatedProperties": false})),
                inner.prop_map(|inner| json!({"patternProperties": {"^b": inner}, "additionalProperties": false})),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Our way of showing values to the validator changes no verdict, and what is not valid has a reason.
        #[test]
        fn verdicts_are_those_of_the_plain_validator(schema in any_schema(), value in any_value()) {
            let ours = Schema::compile(&schema, Surroundings::default(), Formats::Assert).expect("a schema");
            let theirs = jsonschema::options().offline().build(&schema).expect("a schema");
            prop_assert_eq!(ours.accepts(&value), theirs.is_valid(&value));
            prop_assert_eq!(found(&ours, &value).is_empty(), theirs.is_valid(&value));
        }
    }
}
