//! The schemas of a document, gathered into one JSON Schema of draft 2020-12 and compiled once.
//!
//! A schema is taken over keyword by keyword, by the rules of the document's version, and as far as it says something
//! of requests: what is `readOnly` is not demanded, annotations are left out. Each target of a `$ref` becomes a
//! definition of its own, so that the result refers to nothing but itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jsonschema::{Draft, Registry, RegistryBuilder};
use serde_json::{Map, Value, json};

use super::document::{At, Document, Unusable, Version};
use super::parts::{Medium, Parts, TEXT_OR_FILE};
use super::pattern::{self, Pattern};
use super::shape::Shape;
use crate::validate::extent::Extents;
use crate::validate::schema::{Formats, Schema as Rules, Surroundings};

/// Schemas that a document may have, `$ref`s counted once.
const MAX_SCHEMAS: usize = 50_000;

/// How deep a schema may nest without a `$ref`.
const MAX_DEPTH: usize = 100;

/// How many references may lead from a property to the schema that says whether it is `readOnly`.
const MAX_CHAIN: usize = 8;

/// How long compiling may take. Services' documents take some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the one schema that holds all.
const URI: &str = "urn:passerelle:openapi";

/// One of the schemas that requests are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SchemaId(usize);

/// Gathers schemas while a document is compiled.
pub(super) struct Gathering<'d> {
    document: &'d Document,
    definitions: Vec<Value>,
    known: HashMap<At, usize>,
    /// Definitions that are not taken over yet.
    waiting: Vec<(usize, At, &'d Value)>,
    parts: Parts,
    /// The definitions that requests are judged by.
    roots: Vec<(At, usize)>,
    root_ids: HashMap<usize, SchemaId>,
    /// How many schemas were taken over.
    count: usize,
    /// Where patterns stand that cannot be used.
    left_out: Vec<String>,
    began: Instant,
}

/// The schemas of a document, compiled.
pub(super) struct Schemas {
    schemas: Vec<Schema>,
}

/// One schema that requests are judged by.
pub(super) struct Schema {
    pub(super) rules: Rules,
    pub(super) shape: Shape,
}

impl Schemas {
    pub(super) fn get(&self, id: SchemaId) -> Option<&Schema> {
        self.schemas.get(id.0)
    }
}

impl<'d> Gathering<'d> {
    pub(super) fn new(document: &'d Document) -> Gathering<'d> {
        Gathering {
            document,
            definitions: Vec::new(),
            known: HashMap::new(),
            waiting: Vec::new(),
            parts: Parts::default(),
            roots: Vec::new(),
            root_ids: HashMap::new(),
            count: 0,
            left_out: Vec::new(),
            began: Instant::now(),
        }
    }

    pub(super) fn document(&self) -> &'d Document {
        self.document
    }

    /// Takes over the schema at `at`, by which requests are to be judged.
    ///
    /// # Errors
    /// It is no schema, or refers to something that is not there.
    pub(super) fn add(&mut self, at: &At, schema: &'d Value) -> Result<SchemaId, Unusable> {
        let definition = self.define(at, schema);
        self.take_what_waits()?;
        Ok(self.root(at, definition))
    }

    /// The same of one that the fields of a multipart form are judged by: there may be files among them.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn add_multipart(&mut self, at: &At, schema: &'d Value) -> Result<SchemaId, Unusable> {
        let definition = self.define(at, schema);
        self.take_what_waits()?;
        let definition = self.parts.form(definition, &mut self.definitions);
        Ok(self.root(at, definition))
    }

    fn root(&mut self, at: &At, definition: usize) -> SchemaId {
        if let Some(id) = self.root_ids.get(&definition) {
            return *id;
        }
        let id = SchemaId(self.roots.len());
        self.roots.push((at.clone(), definition));
        self.root_ids.insert(definition, id);
        id
    }

    /// Where patterns stand that cannot be used.
    pub(super) fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }

    /// Compiles everything that was added.
    ///
    /// # Errors
    /// A schema is invalid, or has a pattern that cannot be matched in linear time.
    pub(super) fn compile(self) -> Result<Schemas, Unusable> {
        let definitions: Map<String, Value> =
            self.definitions.iter().cloned().enumerate().map(|(index, schema)| (index.to_string(), schema)).collect();
        let all = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions});
        let registry = Registry::new().add(URI, &all).and_then(RegistryBuilder::prepare);
        let unusable = |error| Unusable::whole(format!("a schema is unusable: {error}"));
        let (registry, name) = (registry.map_err(unusable)?, jsonschema::uri::from_str(URI).map_err(unusable)?);
        let around = Surroundings { draft: Some(Draft::Draft202012), base: None, registry: Some(&registry) };
        let definitions = all.get("$defs").and_then(Value::as_object);
        let mut schemas = Vec::with_capacity(self.roots.len());
        let mut extents = Extents::new(&registry);
        for (at, root) in &self.roots {
            let trouble = |what: &str| self.document.trouble(at, format!("this schema, or what it refers to: {what}"));
            if let Some(definition) = definitions.and_then(|all| all.get(&root.to_string())) {
                extents.measure(definition, &name, Draft::Draft202012).map_err(|far| trouble(far.0))?;
            }
            if self.began.elapsed() > PATIENCE {
                return Err(Unusable::whole(format!("its schemas take longer than {PATIENCE:?} to compile")));
            }
            let reference = json!({"$ref": format!("{URI}#/$defs/{root}")});
            let rules = Rules::compile_measured(&reference, around, Formats::AssertLocal).map_err(|unusable| {
                let help = unusable.help.map(|help| format!("; {help}")).unwrap_or_default();
                trouble(&format!("{}{help}", unusable.what))
            })?;
            schemas.push(Schema { rules, shape: Shape::of(definitions, *root) });
        }
        Ok(Schemas { schemas })
    }

    /// The definition for the schema at `at`, which is taken over later: schemas that refer to one another may make a
    /// chain as long as the document.
    fn define(&mut self, at: &At, schema: &'d Value) -> usize {
        if let Some(known) = self.known.get(at) {
            return *known;
        }
        let index = self.definitions.len();
        self.known.insert(at.clone(), index);
        self.definitions.push(Value::Bool(true));
        self.waiting.push((index, at.clone(), schema));
        index
    }

    fn take_what_waits(&mut self) -> Result<(), Unusable> {
        while let Some((index, at, schema)) = self.waiting.pop() {
            let taken = self.take(&at, schema, 0)?;
            if let Some(definition) = self.definitions.get_mut(index) {
                *definition = taken;
            }
        }
        Ok(())
    }

    fn take(&mut self, at: &At, schema: &'d Value, depth: usize) -> Result<Value, Unusable> {
        self.count += 1;
        if depth > MAX_DEPTH || self.count > MAX_SCHEMAS {
            return Err(self.document.trouble(at, "the schemas are nested too deep, or are too many"));
        }
        if schema.is_boolean() {
            return Ok(schema.clone());
        }
        let object = self.document.object(at, schema)?;
        let mut taken = Map::new();
        if let Some(reference) = object.get("$ref") {
            let trouble = || self.document.trouble(at, "$ref is no string");
            let (target, schema) = self.document.resolve(at, reference.as_str().ok_or_else(trouble)?)?;
            let index = self.define(&target, schema);
            taken.insert("$ref".to_owned(), Value::String(format!("#/$defs/{index}")));
            if self.document.version == Version::V30 {
                // What stands beside it is ignored.
                return Ok(Value::Object(taken));
            }
        }
        for (key, value) in object {
            self.keyword(&mut taken, &at.child(key), key, value, depth + 1)?;
        }
        self.demand_only_what_clients_send(at, object, &mut taken);
        match Medium::of(object) {
            Medium::Text => {}
            Medium::Binary => drop(taken.insert("format".to_owned(), json!("binary"))),
            Medium::Either if taken.contains_key("format") => {}
            Medium::Either => drop(taken.insert("format".to_owned(), json!(TEXT_OR_FILE))),
        }
        match self.document.version {
            Version::V30 => {
                bounds_of_draft_4(object, &mut taken);
                Ok(if object.get("nullable") == Some(&Value::Bool(true)) { nullable(taken) } else { taken.into() })
            }
            Version::V31 => Ok(taken.into()),
        }
    }

    /// Takes over one keyword; annotations and what is no keyword are left out.
    fn keyword(
        &mut self,
        taken: &mut Map<String, Value>,
        at: &At,
        key: &str,
        value: &'d Value,
        depth: usize,
    ) -> Result<(), Unusable> {
        let v31 = self.document.version == Version::V31;
        let value = match key {
            "not" | "items" | "additionalProperties" => self.take(at, value, depth)?,
            "contains" | "propertyNames" | "if" | "then" | "else" | "unevaluatedItems" | "unevaluatedProperties"
                if v31 =>
            {
                self.take(at, value, depth)?
            }
            "allOf" | "anyOf" | "oneOf" => self.list(at, value, depth)?,
            "prefixItems" if v31 => self.list(at, value, depth)?,
            "properties" => self.by_name(at, value, depth)?,
            "patternProperties" | "dependentSchemas" if v31 => self.by_name(at, value, depth)?,
            "pattern" => {
                self.pattern(taken, at, value);
                return Ok(());
            }
            "type" | "enum" | "required" | "format" | "multipleOf" | "minimum" | "maximum" | "minLength"
            | "maxLength" | "minItems" | "maxItems" | "uniqueItems" | "minProperties" | "maxProperties" => {
                value.clone()
            }
            "const" | "exclusiveMinimum" | "exclusiveMaximum" | "dependentRequired" | "minContains" | "maxContains"
                if v31 =>
            {
                value.clone()
            }
            "$id" | "$dynamicRef" | "$recursiveRef" if v31 => {
                return Err(self
                    .document
                    .trouble(at, "this keyword is not supported: refer by $ref within the document"));
            }
            "$schema" if v31 && value != "https://json-schema.org/draft/2020-12/schema" => {
                return Err(self.document.trouble(at, "schemas must be of JSON Schema 2020-12"));
            }
            _ => return Ok(()),
        };
        taken.insert(key.to_owned(), value);
        Ok(())
    }

    /// The rest of the schema holds where its pattern cannot be used.
    fn pattern(&mut self, taken: &mut Map<String, Value>, at: &At, value: &Value) {
        match value.as_str().map(pattern::read) {
            Some(Pattern::Plain) | None => drop(taken.insert("pattern".to_owned(), value.clone())),
            // Keywords come in the order of their names, so `allOf` is there already if there is one.
            Some(Pattern::Split(parts)) => match taken.get_mut("allOf") {
                Some(Value::Array(all)) => all.extend(parts),
                Some(_) | None => drop(taken.insert("allOf".to_owned(), Value::Array(parts))),
            },
            Some(Pattern::Unusable) => self.left_out.push(self.document.place(at)),
        }
    }

    fn list(&mut self, at: &At, value: &'d Value, depth: usize) -> Result<Value, Unusable> {
        let list = value.as_array().ok_or_else(|| self.document.trouble(at, "this must be a list of schemas"))?;
        let taken = list.iter().enumerate().map(|(index, schema)| self.take(&at.item(index), schema, depth));
        taken.collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn by_name(&mut self, at: &At, value: &'d Value, depth: usize) -> Result<Value, Unusable> {
        let object = self.document.object(at, value)?;
        let mut taken = Map::new();
        for (name, schema) in object {
            taken.insert(name.clone(), self.take(&at.child(name), schema, depth)?);
        }
        Ok(Value::Object(taken))
    }

    /// A client that reads a thing and sends it back may leave out what only the server says: `readOnly` properties
    /// are not demanded of requests, and not refused either.
    fn demand_only_what_clients_send(&self, at: &At, object: &Map<String, Value>, taken: &mut Map<String, Value>) {
        let Some(properties) = object.get("properties").and_then(Value::as_object) else { return };
        let Some(Value::Array(required)) = taken.get_mut("required") else { return };
        let read_only = |name: &Value| {
            let property = name.as_str().and_then(|name| properties.get(name));
            property.is_some_and(|schema| self.is_read_only(at, schema))
        };
        required.retain(|name| !read_only(name));
    }

    fn is_read_only(&self, at: &At, schema: &Value) -> bool {
        let mut found = (at.clone(), schema);
        for _ in 0..MAX_CHAIN {
            let (at, schema) = &found;
            if schema.get("readOnly") == Some(&Value::Bool(true)) {
                return true;
            }
            let reference = schema.get("$ref").and_then(Value::as_str);
            match reference.map(|reference| self.document.resolve(at, reference)) {
                Some(Ok(next)) => found = next,
                Some(Err(_)) | None => return false,
            }
        }
        false
    }
}

/// `exclusiveMinimum: true` as OpenAPI 3.0 has it from draft 4.
fn bounds_of_draft_4(schema: &Map<String, Value>, taken: &mut Map<String, Value>) {
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match schema.get(exclusive) {
            Some(Value::Bool(true)) => {
                if let Some(limit) = taken.remove(bound) {
                    taken.insert(exclusive.to_owned(), limit);
                }
            }
            // Not of 3.0, but there is only one way to mean it.
            Some(limit @ Value::Number(_)) => drop(taken.insert(exclusive.to_owned(), limit.clone())),
            Some(_) | None => {}
        }
    }
}

/// `nullable: true`: what the schema says, or null, whatever its `enum` and `allOf` are.
fn nullable(taken: Map<String, Value>) -> Value {
    json!({"anyOf": [taken, {"type": "null"}]})
}
