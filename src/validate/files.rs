//! The files of `body_schema` and `schemas`: read, and known to each other under their own names.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use jsonschema::{Draft, Registry};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;

use super::json::{self, DEEPEST};
use super::memory::Held;
use super::schema::{Formats, Schema, Surroundings};
use crate::config::problem::Problem;
use crate::config::read_bounded;
use crate::config::settings::At;

/// Bytes of one file; no schema that people write is larger.
const LARGEST: u64 = 4 * 1024 * 1024;

/// What may stand in the path of a URI as it is (RFC 3986 section 3.3).
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Compiles `body_schema`. `None`: `problems` says why.
pub(super) fn compile(main: &At<PathBuf>, others: &[At<PathBuf>], problems: &mut Vec<Problem>) -> Option<Arc<Schema>> {
    let schema = read(main, problems);
    let others: Vec<_> = others.iter().map(|file| (file, read(file, problems))).collect();
    let schema = schema?;
    let mut registry = Registry::new();
    for (file, document) in &others {
        let document = document.as_ref()?;
        let own_name = own_name(document);
        let names = own_name.into_iter().chain([uri(&file.value)]);
        for name in names {
            // A name that is not absolute says nothing to others.
            if !name.contains(':') {
                continue;
            }
            registry = match registry.add(&name, document) {
                Ok(registry) => registry,
                Err(error) => {
                    let message = format!("`{}` has a name that cannot be used: {error}", file.value.display());
                    problems.push(Problem::error(&file.span, message));
                    return None;
                }
            };
        }
    }
    let registry = match registry.prepare() {
        Ok(registry) => registry,
        Err(error) => {
            let span = others.first().map_or(&main.span, |(file, _)| &file.span);
            let help = "`$ref` leads into the schema itself or into a file that `schemas` names; nothing is fetched";
            problems.push(Problem::error(span, format!("the schemas do not fit together: {error}")).help(help));
            return None;
        }
    };
    let base = uri(&main.value);
    let base = Some(base.as_str()).filter(|_| own_name(&schema).is_none());
    match Schema::compile(&schema, Surroundings { draft: None, base, registry: Some(&registry) }, Formats::Assert) {
        Ok(schema) => Some(Arc::new(schema)),
        Err(unusable) => {
            let at = if unusable.pointer.is_empty() { String::new() } else { format!(" at {}", unusable.pointer) };
            let message = format!("the schema `{}` cannot be used{at}: {}", main.value.display(), unusable.what);
            let problem = Problem::error(&main.span, message);
            problems.push(match unusable.help {
                Some(help) => problem.help(help),
                None => problem,
            });
            None
        }
    }
}

/// What a schema calls itself: `$id`, or `id` in draft 4.
fn own_name(schema: &Value) -> Option<String> {
    Draft::default().detect(schema).create_resource_ref(schema).id().map(str::to_owned)
}

/// A file of JSON. `None`: `problems` says why.
pub(super) fn read(file: &At<PathBuf>, problems: &mut Vec<Problem>) -> Option<Value> {
    let path = file.value.display();
    let text = match read_bounded(&file.value, LARGEST) {
        Ok(text) => text,
        Err(why) => {
            let problem = Problem::error(&file.span, format!("the schema `{path}` cannot be read: {why}"));
            problems.push(problem.help("paths are relative to the configuration file"));
            return None;
        }
    };
    match json::read(&text, DEEPEST, &mut Held::nothing()) {
        Ok(value) => Some(value),
        Err(why) => {
            let message = format!("the schema `{path}` is not JSON as it must be: {}", why.told());
            problems.push(Problem::error(&file.span, message));
            None
        }
    }
}

/// The file's URI, `.` and `..` taken out, so that relative references between files meet.
fn uri(path: &Path) -> String {
    let mut whole = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => whole.push(component),
        }
    }
    format!("file://{}", percent_encode(whole.as_os_str().as_encoded_bytes(), IN_PATH))
}
