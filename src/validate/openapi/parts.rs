//! Schemas of multipart forms. They are those of other uses but for files, whose bytes are no text that could be judged: a
//! file is the empty string here, and what is said of its length does not hold.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// The `format` of a file that may be text as well, before it is known whether there are files.
pub(super) const TEXT_OR_FILE: &str = "passerelle-text-or-file";
/// The `format` of what is a file in a part.
pub(super) const FILE: &str = "passerelle-file";

/// What a schema says that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Text,
    /// Bytes, as `format: binary` and the type of anything that is no text say it.
    Binary,
    /// `text/csv` and the like: as it is sent.
    Either,
}

impl Medium {
    pub(super) fn of(schema: &Map<String, Value>) -> Medium {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        if text("format") == Some("binary") {
            return Medium::Binary;
        }
        match text("contentMediaType") {
            // What is encoded is text, and pydantic says of a field that holds JSON that it is JSON.
            Some(_) if schema.contains_key("contentEncoding") => Medium::Text,
            Some(media_type) if super::parameters::is_json(media_type) => Medium::Text,
            Some(media_type) if media_type.starts_with("text/") => Medium::Either,
            Some(_) => Medium::Binary,
            None => Medium::Text,
        }
    }
}

/// How far inside a form a schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Level {
    Form,
    Part,
}

/// Definitions as they are in forms, by what they are elsewhere.
#[derive(Default)]
pub(super) struct Parts {
    known: HashMap<(usize, Level), usize>,
}

/// Definitions that are not adapted yet: which, how far inside, and where it goes.
type Waiting = Vec<(usize, Level, usize)>;

impl Parts {
    /// The definition for a form of the one at `index`. References are followed from a list: they may make a chain as
    /// long as the document.
    pub(super) fn form(&mut self, index: usize, definitions: &mut Vec<Value>) -> usize {
        let mut waiting = Waiting::new();
        let form = self.define(index, Level::Form, definitions, &mut waiting);
        while let Some((index, level, to)) = waiting.pop() {
            let Some(mut schema) = definitions.get(index).cloned() else { continue };
            self.adapt(&mut schema, level, definitions, &mut waiting);
            if let Some(definition) = definitions.get_mut(to) {
                *definition = schema;
            }
        }
        form
    }

    fn define(&mut self, index: usize, level: Level, definitions: &mut Vec<Value>, waiting: &mut Waiting) -> usize {
        *self.known.entry((index, level)).or_insert_with(|| {
            let to = definitions.len();
            definitions.push(Value::Bool(true));
            waiting.push((index, level, to));
            to
        })
    }

    fn adapt(&mut self, schema: &mut Value, level: Level, definitions: &mut Vec<Value>, waiting: &mut Waiting) {
        let Some(object) = schema.as_object_mut() else { return };
        for (key, value) in object.iter_mut() {
            let within = match (key.as_str(), level) {
                ("allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" | "dependentSchemas", _) => level,
                (
                    "properties" | "patternProperties" | "additionalProperties" | "unevaluatedProperties",
                    Level::Form,
                )
                | ("items" | "prefixItems" | "contains" | "unevaluatedItems", Level::Part) => Level::Part,
                ("$ref", _) => {
                    let index = value.as_str().and_then(|to| to.strip_prefix("#/$defs/")?.parse().ok());
                    if let Some(index) = index {
                        *value = json!(format!("#/$defs/{}", self.define(index, level, definitions, waiting)));
                    }
                    continue;
                }
                (_, _) => continue,
            };
            let by_name = matches!(key.as_str(), "properties" | "patternProperties" | "dependentSchemas");
            match value {
                Value::Object(schemas) if by_name => {
                    schemas.values_mut().for_each(|schema| self.adapt(schema, within, definitions, waiting));
                }
                Value::Array(schemas) => {
                    schemas.iter_mut().for_each(|schema| self.adapt(schema, within, definitions, waiting));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                    self.adapt(value, within, definitions, waiting);
                }
            }
        }
        let format = object.get("format").and_then(Value::as_str);
        match format.filter(|_| level == Level::Part) {
            Some("binary") => be_file(object),
            Some(TEXT_OR_FILE) => {
                let mut file = object.clone();
                be_file(&mut file);
                *schema = json!({"anyOf": [file, schema.take()]});
            }
            Some(_) | None => {}
        }
    }
}

fn be_file(schema: &mut Map<String, Value>) {
    for bound in ["pattern", "minLength"] {
        schema.remove(bound);
    }
    schema.insert("format".to_owned(), json!(FILE));
    // So that no text is taken for one.
    schema.insert("maxLength".to_owned(), json!(0));
}
