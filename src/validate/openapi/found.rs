//! One parameter of a request: its text, read as a value and judged.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::parameters::{Kind, Parameter, Parameters, Source, Sources};
use super::schema::{Schema, SchemaId, Schemas};
use super::shape::{Reading, Shape, Types, scalar};
use super::style::{self, Miswritten, Raw, Style, Want};
use super::texts::{List, Query, cookies_are_in_one_field, lines};
use crate::request::violation::{Place, Violation, Violations, push_segment};
use crate::validate::json;
use crate::validate::memory::Held;

/// One parameter, and where it may be.
pub(super) struct Found<'a> {
    pub(super) parameter: &'a Parameter,
    pub(super) parameters: &'a Parameters,
    pub(super) schemas: &'a Schemas,
    pub(super) sources: &'a Sources<'a>,
    pub(super) query: &'a Query<'a>,
    pub(super) cookies: &'a List<'a>,
}

impl Found<'_> {
    pub(super) fn judge(&self, violations: &mut Violations) {
        let name = &*self.parameter.name;
        if self.parameter.source == Source::Path && !self.sources.captures.iter().any(|(key, _)| *key == name) {
            // The path has no place for it.
            return;
        }
        if self.parameter.source == Source::Query && self.query.malformed.iter().any(|key| self.is_written_as(key)) {
            return violations.push(self.violation("encoding", "must be UTF-8"));
        }
        if self.parameter.source == Source::Cookie && !cookies_are_in_one_field(self.sources.headers) {
            return violations.push(self.violation("style", "must be in the only Cookie field"));
        }
        match &self.parameter.kind {
            Kind::Styled { style, explode, empty, schema } => {
                let styled = Styled { style: *style, explode: *explode, empty: *empty };
                match schema.and_then(|id| self.schemas.get(id)) {
                    Some(schema) => self.judge_styled(styled, schema, violations),
                    None if self.texts().is_empty() => self.missing(violations),
                    None => {}
                }
            }
            Kind::Json(schema) => self.judge_content(*schema, violations, |text| {
                let mut held = Held::nothing();
                json::read(text.as_bytes(), json::DEEPEST, &mut held).ok()
            }),
            Kind::Text(schema) => self.judge_content(*schema, violations, |text| Some(Value::String(text.to_owned()))),
        }
    }

    fn violation(&self, rule: &'static str, message: impl Into<String>) -> Violation {
        Violation::new(self.place(), self.pointer(), rule, message)
    }

    fn place(&self) -> Place {
        self.parameter.source.place()
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        push_segment(&mut pointer, &self.parameter.name);
        pointer
    }

    fn missing(&self, violations: &mut Violations) {
        if self.parameter.source == Source::Path {
            violations.push(self.violation("encoding", "must be UTF-8"));
        } else if self.parameter.required {
            violations.push(self.violation("required", "is required"));
        }
    }

    /// Whether a pair of this name holds the value, or some of it.
    fn is_written_as(&self, key: &str) -> bool {
        let name = &*self.parameter.name;
        let property = || match &self.parameter.kind {
            Kind::Styled { style: Style::DeepObject, .. } => {
                key.strip_prefix(name).is_some_and(|rest| rest.starts_with('['))
            }
            Kind::Styled { style: Style::Form, explode: true, schema, .. } => {
                let shape = schema.and_then(|id| self.schemas.get(id)).map(|schema| &schema.shape);
                shape.is_some_and(|shape| shape.types.has(Types::OBJECT) && self.is_property(shape, key))
            }
            Kind::Styled { .. } | Kind::Json(_) | Kind::Text(_) => false,
        };
        key == name || property()
    }

    /// An object that names no properties takes what no other parameter does.
    fn is_property(&self, shape: &Shape, key: &str) -> bool {
        match shape.names().next() {
            None => !self.parameters.names(&self.parameter.source, key),
            Some(_) => shape.has(key),
        }
    }

    /// Every text that stands under the parameter's name. A path has one, or none where it is not UTF-8; a field that
    /// comes more than once has one more, of all its lines.
    fn texts(&self) -> Vec<Cow<'_, str>> {
        let name = &*self.parameter.name;
        let listed = |list: &'_ List<'_>| -> Vec<Cow<'_, str>> {
            list.iter().filter(|(key, _)| key == name).map(|(_, value)| Cow::Owned(value.to_string())).collect()
        };
        match &self.parameter.source {
            Source::Path => {
                let captured = self.sources.captures.iter().find(|(key, _)| *key == name);
                captured.and_then(|(_, value)| value.clone()).into_iter().collect()
            }
            Source::Query => listed(&self.query.list),
            Source::Cookie => listed(self.cookies),
            Source::Header(name) => lines(self.sources.headers, name),
        }
    }

    fn judge_content(
        &self,
        schema: Option<SchemaId>,
        violations: &mut Violations,
        read: impl Fn(&str) -> Option<Value>,
    ) {
        let texts = self.texts();
        if texts.is_empty() {
            return self.missing(violations);
        }
        let schema = schema.and_then(|id| self.schemas.get(id));
        for text in texts {
            match (read(&text), schema) {
                (Some(value), Some(schema)) => schema.rules.judge(&value, self.place(), &self.pointer(), violations),
                (Some(_), None) => {}
                (None, _) => violations.push(self.violation("json", "must be JSON")),
            }
        }
    }

    /// Reads the value in each way that the schema's types allow for. Where a name comes more than once, frameworks
    /// differ in which one they take: so each must be valid.
    fn judge_styled(&self, styled: Styled, schema: &Schema, violations: &mut Violations) {
        let texts = match self.parameter.source {
            Source::Query | Source::Cookie => Vec::new(),
            Source::Path | Source::Header(_) => self.texts(),
        };
        let (mut wrong, mut miswritten) = (None, false);
        for want in wants(schema.shape.types, styled.style) {
            let texts = match (&self.parameter.source, want) {
                // The lines of a list are one list.
                (Source::Header(_), Want::Array | Want::Object) => {
                    texts.get(texts.len().saturating_sub(1)..).unwrap_or_default()
                }
                (_, _) => &texts,
            };
            let raws = match self.read(styled, want, texts, &schema.shape) {
                Ok(raws) => raws,
                Err(Miswritten) => {
                    miswritten = true;
                    continue;
                }
            };
            if raws.is_empty() {
                // What has no properties leaves no trace when it is spread out.
                let spread = want == Want::Object && (styled.explode || styled.style == Style::DeepObject);
                if spread && schema.rules.accepts(&Value::Object(Map::new())) {
                    return;
                }
                continue;
            }
            let empty = |raw: &Raw<'_>| styled.empty && matches!(raw, Raw::Scalar(text) if text.is_empty());
            match raws.iter().filter(|raw| !empty(raw)).find_map(|raw| misfit(raw, schema)) {
                None => return,
                Some(value) => drop(wrong.get_or_insert(value)),
            }
        }
        match wrong {
            Some(value) => schema.rules.judge(&value, self.place(), &self.pointer(), violations),
            None if miswritten => {
                let message = format!("must be written in the style {:?}", styled.style);
                violations.push(self.violation("style", message));
            }
            None => self.missing(violations),
        }
    }

    fn read<'t>(
        &'t self,
        styled: Styled,
        want: Want,
        texts: &'t [Cow<'_, str>],
        shape: &Shape,
    ) -> Result<Vec<Raw<'t>>, Miswritten> {
        let Styled { style, explode, .. } = styled;
        let name = &self.parameter.name;
        let list = match self.parameter.source {
            Source::Query => &self.query.list,
            Source::Cookie => self.cookies,
            Source::Path | Source::Header(_) => {
                return texts.iter().map(|text| style::read(style, explode, name, text, want)).collect();
            }
        };
        style::read_listed(style, explode, name, list, want, |key| self.is_property(shape, key))
    }
}

#[derive(Clone, Copy)]
struct Styled {
    style: Style,
    explode: bool,
    /// `allowEmptyValue`
    empty: bool,
}

/// The ways to read a value of these types, the plainest first.
fn wants(types: Types, style: Style) -> impl Iterator<Item = Want> {
    let (array, object) = (types.has(Types::ARRAY), types.has(Types::OBJECT));
    let scalar = style != Style::DeepObject && (types.has_scalar() || !(array || object));
    let anything = scalar && array && object;
    [
        (scalar, Want::Scalar),
        (array && !anything && style != Style::DeepObject, Want::Array),
        (object && !anything, Want::Object),
    ]
    .into_iter()
    .filter_map(|(wanted, want)| wanted.then_some(want))
}

/// The value of `raw`, unless it is valid.
fn misfit(raw: &Raw<'_>, schema: &Schema) -> Option<Value> {
    let typed = typed(raw, &schema.shape, Reading::Typed);
    if schema.rules.accepts(&typed) {
        return None;
    }
    let plain = self::typed(raw, &schema.shape, Reading::Plain);
    (plain == typed || !schema.rules.accepts(&plain)).then_some(typed)
}

/// `raw` with types.
pub(super) fn typed(raw: &Raw<'_>, shape: &Shape, reading: Reading) -> Value {
    match raw {
        Raw::Scalar(text) => scalar(text, shape, reading),
        Raw::Array(items) => items.iter().map(|item| scalar(item, shape.item(), reading)).collect(),
        Raw::Object(fields) => {
            let mut object = Map::new();
            for (name, text) in fields {
                let property = shape.property(name);
                let value = match property.types.has_scalar() || !property.types.has(Types::ARRAY) {
                    true => scalar(text, property, reading),
                    false => Value::Array(vec![scalar(text, property.item(), reading)]),
                };
                match object.get_mut(&**name) {
                    None => drop(object.insert(name.to_string(), value)),
                    Some(Value::Array(items)) => items.push(scalar(text, property.item(), reading)),
                    // What comes twice is a list, which no scalar is.
                    Some(first) => *first = Value::Array(vec![first.take(), value]),
                }
            }
            Value::Object(object)
        }
    }
}
