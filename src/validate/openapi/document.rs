//! An OpenAPI document as text, read into values, and the places that its `$ref`s lead to.
//!
//! Nothing is ever fetched: a reference leads to a place in the document, or in a file that the configuration names.
//! One that leads elsewhere makes the document unusable.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::request::violation::push_segment;
use crate::validate::json;
use crate::validate::memory::Budget;

/// Bytes of a document; the largest that are published have some 12 MB, those of Python services some 100 KB.
pub(in crate::validate) const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// How deep a document may nest.
const MAX_DEPTH: usize = 120;

/// The memory that documents may take while they are read, apart from that of bodies: requests must not keep the
/// gateway from a new document.
static BUDGET: Budget = Budget::new(1024 * 1024 * 1024, 512 * 1024 * 1024);

/// How many references may lead from one to the next before something is there.
const MAX_CHAIN: usize = 32;

/// Which rules the document follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V30,
    V31,
}

/// One text, and those that it may refer to.
pub(super) struct Document {
    pub(super) version: Version,
    /// The document itself comes first.
    files: Vec<(String, Value)>,
}

/// Where in a document something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct At {
    file: usize,
    /// A JSON Pointer (RFC 6901).
    pointer: String,
}

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// The file and the JSON Pointer; empty for the document as a whole.
    place: String,
    message: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

impl Unusable {
    pub(super) fn whole(message: impl Into<String>) -> Unusable {
        Unusable { place: String::new(), message: message.into() }
    }
}

/// A value and where it stands.
pub(super) type Found<'d> = (At, &'d Value);

impl At {
    /// The place below this one.
    pub(super) fn child(&self, key: &str) -> At {
        let mut pointer = self.pointer.clone();
        push_segment(&mut pointer, key);
        At { file: self.file, pointer }
    }

    pub(super) fn item(&self, index: usize) -> At {
        At { file: self.file, pointer: format!("{}/{index}", self.pointer) }
    }
}

impl Document {
    /// Reads a document, and `others`, which its references may lead to: names and texts. Names are paths with slashes;
    /// references are relative to the name of the file that they stand in.
    ///
    /// # Errors
    /// What cannot be read, or is no OpenAPI 3.0 or 3.1.
    pub(super) fn read(name: &str, text: &[u8], others: &[(String, Vec<u8>)]) -> Result<Document, Unusable> {
        let of = |name: &str, message: String| Unusable { place: name.to_owned(), message };
        let root = parse(text).map_err(|message| of(name, message))?;
        let version = version(&root).map_err(|message| of(name, message))?;
        let mut files = vec![(normal(name), root)];
        for (name, text) in others {
            files.push((normal(name), parse(text).map_err(|message| of(name, message))?));
        }
        Ok(Document { version, files })
    }

    /// The document's own root.
    pub(super) fn root(&self) -> Found<'_> {
        const NOTHING: &Value = &Value::Null;
        (At::default(), self.files.first().map_or(NOTHING, |(_, value)| value))
    }

    /// The file and the JSON Pointer.
    pub(super) fn place(&self, at: &At) -> String {
        let name = self.files.get(at.file).map_or("", |(name, _)| name);
        format!("{name}#{}", at.pointer)
    }

    pub(super) fn trouble(&self, at: &At, message: impl Into<String>) -> Unusable {
        Unusable { place: self.place(at), message: message.into() }
    }

    /// What `reference`, which stands at `at`, leads to.
    ///
    /// # Errors
    /// It leads out of the document, or nowhere.
    pub(super) fn resolve(&self, at: &At, reference: &str) -> Result<Found<'_>, Unusable> {
        let trouble = |message: &str| self.trouble(at, format!("$ref {reference:?} {message}"));
        let (file, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let file = if file.is_empty() {
            at.file
        } else {
            let base = self.files.get(at.file).map_or("", |(name, _)| name);
            let wanted = beside(base, file).ok_or_else(|| trouble("leads out of the document"))?;
            self.files
                .iter()
                .position(|(name, _)| *name == wanted)
                .ok_or_else(|| trouble("leads to a file that the configuration does not name"))?
        };
        let pointer = percent_decode_str(fragment).decode_utf8().map_err(|_| trouble("is not UTF-8"))?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(trouble("names an anchor, which is not supported: refer by JSON Pointer"));
        }
        let root = self.files.get(file).map(|(_, root)| root);
        let value = root.and_then(|root| root.pointer(&pointer)).ok_or_else(|| trouble("leads nowhere"))?;
        Ok((At { file, pointer: pointer.into_owned() }, value))
    }

    /// Follows `$ref` where the value at `at` is one: parameters, bodies, headers, path items.
    ///
    /// # Errors
    /// A reference leads nowhere, out of the document, or in a circle.
    pub(super) fn follow<'d>(&'d self, at: At, value: &'d Value) -> Result<Found<'d>, Unusable> {
        let (mut at, mut value) = (at, value);
        for _ in 0..MAX_CHAIN {
            let Some(reference) = value.get("$ref") else { return Ok((at, value)) };
            let reference = reference.as_str().ok_or_else(|| self.trouble(&at, "$ref is no string"))?;
            (at, value) = self.resolve(&at, reference)?;
        }
        Err(self.trouble(&at, "$ref leads in a circle"))
    }

    /// The object at `at`.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn object<'d>(&self, at: &At, value: &'d Value) -> Result<&'d Map<String, Value>, Unusable> {
        value.as_object().ok_or_else(|| self.trouble(at, "this must be an object"))
    }
}

fn version(root: &Value) -> Result<Version, String> {
    match (root.get("openapi").and_then(Value::as_str), root.get("swagger")) {
        (Some(version), _) if version.starts_with("3.0") => Ok(Version::V30),
        (Some(version), _) if version.starts_with("3.1") => match root.get("jsonSchemaDialect").map(Value::as_str) {
            None
            | Some(Some(
                "https://spec.openapis.org/oas/3.1/dialect/base" | "https://json-schema.org/draft/2020-12/schema",
            )) => Ok(Version::V31),
            Some(_) => Err("jsonSchemaDialect must be that of JSON Schema 2020-12".to_owned()),
        },
        (Some(version), _) => Err(format!("this is OpenAPI {version:?}; 3.0 and 3.1 are understood")),
        (None, Some(_)) => Err("this is Swagger 2.0; OpenAPI 3.0 and 3.1 are understood".to_owned()),
        (None, None) => Err("this is no OpenAPI document: it has no `openapi`".to_owned()),
    }
}

/// JSON, or else YAML.
fn parse(text: &[u8]) -> Result<Value, String> {
    if text.len() > MAX_DOCUMENT {
        return Err(format!("this is larger than {} MiB", MAX_DOCUMENT / 1024 / 1024));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        // Of members that are named twice nobody could say which one the service meant.
        let read = json::read(text, MAX_DEPTH, &mut BUDGET.hold_nothing());
        return read.map_err(|why| format!("this is not JSON as it must be: {}", why.told()));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 1_000_000,
            max_nodes: 250_000,
            max_aliases: 1000,
        },
    };
    serde_saphyr::from_slice_with_options(text, options)
        .map_err(|error| format!("this is neither JSON nor YAML: {}", error.to_string().lines().next().unwrap_or("")))
}

/// `file`, which stands in `base`, without dots. `None`: it is no relative path, or leads above the root.
fn beside(base: &str, file: &str) -> Option<String> {
    if file.contains(':') || file.starts_with("//") || file.contains('?') {
        return None;
    }
    let file = percent_decode_str(file).decode_utf8().ok()?;
    let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
    let joined = if file.starts_with('/') { file.into_owned() } else { format!("{directory}/{file}") };
    Some(normal(&joined))
}

/// Without `.`, `..` and doubled slashes.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document, String> {
        Document::read("api.json", text.as_bytes(), &[]).map_err(|unusable| unusable.to_string())
    }

    #[test]
    fn json_and_yaml_are_read_alike() {
        let json = read(r#"{"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": {"200": {}}}}}}"#).unwrap();
        let yaml = "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      responses:\n        200: {}\n";
        let yaml = read(yaml).unwrap();
        assert_eq!(json.root(), yaml.root());
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (text, why) in [
            (r#"{"openapi": "2.0"}"#, "understood"),
            (r#"{"swagger": "2.0"}"#, "Swagger"),
            ("{}", "no `openapi`"),
            ("{", "not JSON"),
            ("a: [", "neither JSON nor YAML"),
            ("just text", "no `openapi`"),
            (r#"{"openapi": "3.1.0", "paths": {"/a": {"get": {}, "get": {}}}}"#, "/paths/~1a/get comes twice"),
            ("openapi: 3.1.0\npaths: {}\npaths: {}\n", "neither JSON nor YAML"),
            (r#"{"openapi": "3.1.0", "jsonSchemaDialect": "http://json-schema.org/draft-07/schema#"}"#, "dialect"),
        ] {
            let error = read(text).err().unwrap_or_default();
            assert!(error.to_lowercase().contains(&why.to_lowercase()), "{text}: {error}");
        }
        let bomb = "openapi: 3.0.0\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                    c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                    e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(read(bomb).is_err());
        assert!(read(&format!("{{\"openapi\": \"3.1.0\", \"a\": {}{}}}", "[".repeat(500), "]".repeat(500))).is_err());
    }

    #[test]
    fn references_stay_within_the_declared_files() {
        let root = br##"{"openapi": "3.0.3", "a": {"$ref": "#/b~1c"}, "b/c": {"$ref": "common/x.yaml#/k"}}"##;
        let other = ("/etc/api/common/x.yaml".to_owned(), b"k: {$ref: '../api.json#/d'}".to_vec());
        let document = Document::read("/etc/api/api.json", root, &[other]).unwrap();
        let (at, value) = document.root();
        let (at, value) = (at.child("a"), value.get("a").unwrap());
        let error = document.follow(at, value).unwrap_err().to_string();
        assert!(error.contains("etc/api/common/x.yaml#/k") && error.contains("leads nowhere"), "{error}");
        let (at, _) = document.root();
        for outside in
            ["http://example.com/x.json#/k", "//example.com/x", "other.json", "../../../etc/passwd", "x.json?a"]
        {
            assert!(document.resolve(&at, outside).is_err(), "{outside}");
        }
        assert_eq!(document.resolve(&at, "#/b~1c").unwrap().0.pointer, "/b~1c");
    }

    #[test]
    fn a_circle_is_no_endless_loop() {
        let document = read(r##"{"openapi": "3.0.3", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}"##).unwrap();
        let (at, root) = document.root();
        assert!(document.follow(at.child("a"), root.get("a").unwrap()).unwrap_err().to_string().contains("circle"));
    }
}
