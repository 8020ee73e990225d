//! Which types a schema takes: what the text of a parameter or of a form's field is read as.
//!
//! Text has no types. `5` is a number where a number is expected, a string where a string is, and where both are it
//! is tried as each.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::parts::FILE;

/// Types of JSON, as a set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const NULL: Types = Types(1);
    pub(super) const BOOLEAN: Types = Types(2);
    pub(super) const NUMBER: Types = Types(4);
    pub(super) const STRING: Types = Types(8);
    pub(super) const ARRAY: Types = Types(16);
    pub(super) const OBJECT: Types = Types(32);
    const NONE: Types = Types(0);
    const ALL: Types = Types(63);

    pub(super) fn has(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    fn and(self, other: Types) -> Types {
        Types(self.0 & other.0)
    }

    fn or(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    /// One of the types that are written as they are, without items or names.
    pub(super) fn has_scalar(self) -> bool {
        self.has(Types(Types::BOOLEAN.0 | Types::NUMBER.0 | Types::STRING.0))
    }

    fn of_name(name: &Value) -> Types {
        match name.as_str() {
            Some("null") => Types::NULL,
            Some("boolean") => Types::BOOLEAN,
            Some("integer" | "number") => Types::NUMBER,
            Some("string") => Types::STRING,
            Some("array") => Types::ARRAY,
            Some("object") => Types::OBJECT,
            Some(_) | None => Types::NONE,
        }
    }

    fn of_value(value: &Value) -> Types {
        match value {
            Value::Null => Types::NULL,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(_) => Types::NUMBER,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        }
    }
}

/// The types that a schema takes, and those of its items and properties.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) types: Types,
    /// It may be a file; only schemas of multipart forms know such.
    pub(super) binary: bool,
    /// It may be something other than a file.
    text: bool,
    /// Of an array's items.
    items: Option<Box<Shape>>,
    properties: BTreeMap<String, Shape>,
    /// Of an object's other properties.
    others: Option<Box<Shape>>,
}

/// How far types are looked for: a parameter has items and properties, and those have none that matter.
const MAX_DEPTH: usize = 12;
/// How deep items and properties are looked at.
const MAX_LEVEL: usize = 2;

/// How many schemas are looked at for one shape: choices in the properties of choices multiply. Beyond them, anything fits.
const MOST_LOOKS: u32 = 100_000;

static ANY: Shape =
    Shape { types: Types::ALL, binary: false, text: true, items: None, properties: BTreeMap::new(), others: None };

impl Shape {
    /// The shape of a definition.
    pub(super) fn of(definitions: Option<&Map<String, Value>>, index: usize) -> Shape {
        let look = Look { definitions, left: Cell::new(MOST_LOOKS) };
        look.definition(&index.to_string()).map_or_else(|| ANY.clone(), |schema| look.at(schema, 0, 0))
    }

    /// Whether bytes that are no text fit: of a file, or where nothing is said of the type.
    pub(super) fn may_be_binary(&self) -> bool {
        self.binary || self.may_be_anything()
    }

    pub(super) fn may_be_anything(&self) -> bool {
        self.types == Types::ALL
    }

    /// Whether it can be nothing but a file.
    pub(super) fn must_be_file(&self) -> bool {
        self.binary && !self.text
    }

    /// Of each item of an array.
    pub(super) fn item(&self) -> &Shape {
        self.items.as_deref().unwrap_or(&ANY)
    }

    pub(super) fn property(&self, name: &str) -> &Shape {
        self.properties.get(name).or(self.others.as_deref()).unwrap_or(&ANY)
    }

    /// The names that the schema knows.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.properties.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// Takes `other` in, which holds as well: both `allOf` and alternatives tell of items and properties.
    fn learn(&mut self, other: Shape) {
        self.binary |= other.binary;
        match (&mut self.items, other.items) {
            (Some(items), Some(other)) => items.widen(*other),
            (items @ None, other) => *items = other,
            (Some(_), None) => {}
        }
        for (name, shape) in other.properties {
            match self.properties.get_mut(&name) {
                Some(known) => known.widen(shape),
                None => drop(self.properties.insert(name, shape)),
            }
        }
        match (&mut self.others, other.others) {
            (Some(others), Some(other)) => others.widen(*other),
            (others @ None, other) => *others = other,
            (Some(_), None) => {}
        }
    }

    fn widen(&mut self, other: Shape) {
        self.types = self.types.or(other.types);
        self.text |= other.text;
        self.learn(other);
    }
}

struct Look<'a> {
    definitions: Option<&'a Map<String, Value>>,
    left: Cell<u32>,
}

impl<'a> Look<'a> {
    fn definition(&self, index: &str) -> Option<&'a Value> {
        self.definitions?.get(index)
    }

    /// `depth` counts what is followed at one place, `level` how far inside that place is.
    fn at(&self, schema: &Value, depth: usize, level: usize) -> Shape {
        let mut shape = ANY.clone();
        let Some(object) = schema.as_object() else { return shape };
        let Some(left) = self.left.get().checked_sub(1).filter(|_| depth <= MAX_DEPTH) else { return shape };
        self.left.set(left);
        shape.types = own_types(object);
        shape.binary = object.get("format").is_some_and(|format| format == FILE);
        shape.text = !shape.binary && shape.types != Types::NULL;
        if level < MAX_LEVEL {
            self.inside(object, &mut shape, level + 1);
        }
        if let Some(index) = object.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"))
            && let Some(target) = self.definition(index)
        {
            let target = self.at(target, depth + 1, level);
            shape.types = shape.types.and(target.types);
            shape.text &= target.text;
            shape.learn(target);
        }
        for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            let part = self.at(part, depth + 1, level);
            shape.types = shape.types.and(part.types);
            shape.text &= part.text;
            shape.learn(part);
        }
        for alternatives in ["anyOf", "oneOf"] {
            let Some(alternatives) = object.get(alternatives).and_then(Value::as_array) else { continue };
            let (mut either, mut text) = (Types::NONE, false);
            for alternative in alternatives {
                let alternative = self.at(alternative, depth + 1, level);
                either = either.or(alternative.types);
                text |= alternative.text;
                shape.learn(alternative);
            }
            shape.types = shape.types.and(either);
            shape.text &= text;
        }
        shape
    }

    fn inside(&self, object: &Map<String, Value>, shape: &mut Shape, level: usize) {
        if let Some(items) = object.get("items") {
            shape.items = Some(Box::new(self.at(items, 0, level)));
        }
        for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            shape.properties.insert(name.clone(), self.at(property, 0, level));
        }
        if let Some(others) = object.get("additionalProperties").filter(|others| others.is_object()) {
            shape.others = Some(Box::new(self.at(others, 0, level)));
        }
    }
}

fn own_types(object: &Map<String, Value>) -> Types {
    let any_of = |types: &mut dyn Iterator<Item = Types>| types.fold(Types::NONE, Types::or);
    let mut types = match object.get("type") {
        Some(Value::Array(names)) => any_of(&mut names.iter().map(Types::of_name)),
        Some(name) => Types::of_name(name),
        None => Types::ALL,
    };
    if let Some(values) = object.get("enum").and_then(Value::as_array) {
        types = types.and(any_of(&mut values.iter().map(Types::of_value)));
    }
    if let Some(value) = object.get("const") {
        types = types.and(Types::of_value(value));
    }
    types
}

/// How text is read where it may be more than one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As the type that demands most of it.
    Typed,
    /// As a string.
    Plain,
}

/// Reads `text` as one of the types of `shape`; as a string where it is none of them.
pub(super) fn scalar(text: &str, shape: &Shape, reading: Reading) -> Value {
    let types = shape.types;
    let string = || Value::String(text.to_owned());
    match reading {
        Reading::Plain if types.has(Types::STRING) => return string(),
        Reading::Plain | Reading::Typed => {}
    }
    if types.has(Types::NUMBER)
        && let Some(number) = number(text)
    {
        return Value::Number(number);
    }
    if types.has(Types::BOOLEAN) {
        // Python writes its own as True and False.
        if text.eq_ignore_ascii_case("true") {
            return Value::Bool(true);
        }
        if text.eq_ignore_ascii_case("false") {
            return Value::Bool(false);
        }
    }
    // RFC 6570 and forms have no other way to write none.
    if text.is_empty() && types.has(Types::NULL) && !types.has(Types::STRING) {
        return Value::Null;
    }
    string()
}

/// As JSON writes numbers, and nothing around it.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    serde_json::from_str(text).ok().filter(|_| !text.ends_with(|last: char| last.is_ascii_whitespace()))
}
