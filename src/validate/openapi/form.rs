//! Forms, URL-encoded and multipart: fields to one object, by the types and the `encoding` that the document gives.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{At, Unusable};
use super::found::typed;
use super::multipart::Part;
use super::parameters::is_json;
use super::schema::{Gathering, SchemaId, Schemas};
use super::shape::{Reading, Shape, Types, scalar};
use super::style::{self, Miswritten, Raw, Style, Want};
use crate::request::violation::{Place, Violation, Violations, push_segment};
use crate::validate::content::MediaType;
use crate::validate::json::{self, Unreadable};
use crate::validate::memory::{Full, Held};

/// Fields of a form, parts of one that is multipart; Starlette ends at a thousand fields and a thousand files.
pub(super) const MOST_FIELDS: usize = 2000;

/// Bytes that an item takes which shares its text with others: where it stands, and as a value.
const ITEM: usize = 128;

/// What a document says of a form.
pub(super) struct Form {
    schema: Option<SchemaId>,
    /// By the name of a field.
    encodings: BTreeMap<String, Encoding>,
}

/// How one field is written.
#[derive(Default)]
struct Encoding {
    /// Types that its part may have; none: any.
    content_types: Vec<String>,
    /// Where the document names one: the style, and whether items have fields of their own.
    style: Option<(Style, bool)>,
}

/// A field as it came.
pub(super) struct Field<'t> {
    name: Cow<'t, str>,
    content: Content<'t>,
    content_type: Option<Cow<'t, str>>,
    carrier: Carrier,
}

/// What a field came as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// `name=value`
    Pair,
    /// A part without a file's name.
    Part,
    File,
}

enum Content<'t> {
    Text(Cow<'t, str>),
    /// It is not UTF-8: no text that could be judged.
    Binary,
}

impl<'t> Field<'t> {
    /// `text`: `None` where it is not UTF-8.
    pub(super) fn pair(name: Cow<'t, str>, text: Option<Cow<'t, str>>) -> Field<'t> {
        let content = text.map_or(Content::Binary, Content::Text);
        Field { name, content, content_type: None, carrier: Carrier::Pair }
    }

    pub(super) fn part(part: Part<'t>) -> Field<'t> {
        let content = std::str::from_utf8(part.content).map_or(Content::Binary, |text| Content::Text(text.into()));
        let carrier = if part.is_file { Carrier::File } else { Carrier::Part };
        Field { name: Cow::Owned(part.name), content, content_type: part.content_type.map(Cow::Owned), carrier }
    }

    /// What is wrong with how it came, where the form knows such a field.
    fn misfit(&self, shape: &Shape) -> Option<(&'static str, &'static str)> {
        match self.carrier {
            Carrier::File if shape.may_be_binary() => return None,
            // Scripts in browsers can give a part a type only with a file's name.
            Carrier::File if shape.types.has_scalar() => return Some(("file", "must be sent without a filename")),
            Carrier::Part if shape.must_be_file() => return Some(("file", "must be a file, with a filename")),
            Carrier::Pair | Carrier::Part | Carrier::File => {}
        }
        // Some frameworks heed the charset of a part.
        let stated = self.content_type.as_deref()?;
        let is_utf8 = MediaType::parse(stated).is_some_and(|stated| stated.is_utf8());
        (!is_utf8).then_some(("encoding", "must be UTF-8"))
    }
}

/// Why a field cannot be read.
enum Wrong {
    Violation(Violation),
    Full(Full),
}

impl Form {
    /// # Errors
    /// It is malformed.
    pub(super) fn take<'d>(
        gathering: &mut Gathering<'d>,
        at: &At,
        media: &'d Value,
        schema: Option<SchemaId>,
    ) -> Result<Form, Unusable> {
        let document = gathering.document();
        let mut encodings = BTreeMap::new();
        if let Some(encoding) = media.get("encoding") {
            let at = at.child("encoding");
            for (name, encoding) in document.object(&at, encoding)? {
                let text = |key: &str| encoding.get(key).and_then(Value::as_str);
                let explode = encoding.get("explode").and_then(Value::as_bool);
                let trouble = || document.trouble(&at.child(name), "there is no such style for forms");
                let style = match text("style").map(|name| Style::named(name).ok_or_else(trouble)).transpose()? {
                    Some(Style::Simple | Style::Label | Style::Matrix) => return Err(trouble()),
                    style => style.or(explode.map(|_| Style::Form)),
                };
                let content_types = text("contentType").into_iter().flat_map(|types| types.split(','));
                let encoding = Encoding {
                    content_types: content_types.map(|one| one.trim().to_ascii_lowercase()).collect(),
                    style: style.map(|style| (style, explode.unwrap_or(style == Style::Form))),
                };
                encodings.insert(name.clone(), encoding);
            }
        }
        Ok(Form { schema, encodings })
    }

    /// Adds what is wrong with a form.
    ///
    /// # Errors
    /// There is no memory to look into it.
    pub(super) fn judge(
        &self,
        schemas: &Schemas,
        fields: Vec<Field<'_>>,
        max_depth: usize,
        held: &mut Held,
        violations: &mut Violations,
    ) -> Result<(), Full> {
        let Some(schema) = self.schema.and_then(|id| schemas.get(id)) else { return Ok(()) };
        let mut read = |reading| Assembly { form: self, max_depth, held, reading }.object(&schema.shape, &fields);
        let typed = match read(Reading::Typed) {
            Ok(typed) => typed,
            Err(Wrong::Full(full)) => return Err(full),
            Err(Wrong::Violation(violation)) => {
                violations.push(violation);
                return Ok(());
            }
        };
        if schema.rules.accepts(&typed) || read(Reading::Plain).is_ok_and(|plain| schema.rules.accepts(&plain)) {
            return Ok(());
        }
        schema.rules.judge(&typed, Place::Body, "", violations);
        Ok(())
    }
}

/// Fields on their way to an object.
struct Assembly<'a> {
    form: &'a Form,
    max_depth: usize,
    held: &'a mut Held,
    reading: Reading,
}

impl<'a> Assembly<'a> {
    fn object(&mut self, shape: &Shape, fields: &[Field<'_>]) -> Result<Value, Wrong> {
        for field in fields.iter().filter(|field| shape.has(&field.name)) {
            if let Some((rule, message)) = field.misfit(one(shape.property(&field.name))) {
                return Err(Wrong::Violation(violation(&field.name, rule, message)));
            }
        }
        let mut object = Map::new();
        let styled = self.styled(shape, fields, &mut object)?;
        let mut named: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for field in fields.iter().filter(|field| !styled.iter().any(|style| style.covers(&field.name))) {
            let property = shape.property(&field.name);
            self.check_type(field)?;
            let value = self.value(field, one(property))?;
            // A form sends every field, filled in or not.
            if let Some(value) = value {
                named.entry(&field.name).or_default().push(value);
            }
        }
        for (name, mut values) in named {
            // What comes twice is a list, which no scalar is.
            let value = match values.pop() {
                Some(only) if values.is_empty() && !is_list(shape.property(name)) => only,
                last => {
                    values.extend(last);
                    Value::Array(values)
                }
            };
            object.insert(name.to_owned(), value);
        }
        Ok(Value::Object(object))
    }

    /// Reads the fields for which the document names a style, as parameters of a query are.
    fn styled(
        &mut self,
        shape: &Shape,
        fields: &[Field<'_>],
        object: &mut Map<String, Value>,
    ) -> Result<Vec<Styled<'a>>, Wrong> {
        let form: &'a Form = self.form;
        let mut read = Vec::new();
        for (name, encoding) in &form.encodings {
            let Some((style, explode)) = encoding.style else { continue };
            let property = shape.property(name);
            let want = match property.types {
                types if types.has_scalar() => continue,
                types if types.has(Types::ARRAY) => Want::Array,
                types if types.has(Types::OBJECT) => Want::Object,
                _ => continue,
            };
            let list: Vec<(Cow<'_, str>, Cow<'_, str>)> = fields
                .iter()
                .filter_map(|field| match &field.content {
                    Content::Text(text) => Some((Cow::Borrowed(&*field.name), Cow::Borrowed(&**text))),
                    Content::Binary => None,
                })
                .collect();
            let own = list.iter().filter(|(key, _)| key == name && !explode);
            let items: usize = own.map(|(_, text)| text.matches(style.delimiter()).count()).sum();
            self.held.grow(items.saturating_mul(ITEM)).map_err(Wrong::Full)?;
            let names = property.names().map(str::to_owned).collect::<Vec<_>>();
            let mine = |key: &str| property.has(key);
            let raws = style::read_listed(style, explode, name, &list, want, mine).map_err(|Miswritten| {
                Wrong::Violation(violation(name, "style", format!("must be written in the style {style:?}")))
            })?;
            match raws.as_slice() {
                [] => {}
                [raw] => drop(object.insert(name.clone(), typed(raw, property, self.reading))),
                several => {
                    let each = several.iter().map(|raw: &Raw<'_>| typed(raw, property, self.reading));
                    object.insert(name.clone(), each.collect());
                }
            }
            let spread = if want == Want::Object && explode && style == Style::Form { names } else { Vec::new() };
            read.push(Styled { name, deep: style == Style::DeepObject, spread });
        }
        Ok(read)
    }

    /// `None`: it is empty, where nothing that is empty is taken.
    fn value(&mut self, field: &Field<'_>, shape: &Shape) -> Result<Option<Value>, Wrong> {
        let text = match &field.content {
            _ if field.carrier == Carrier::File && shape.binary => return Ok(Some(Value::String(String::new()))),
            Content::Text(text) => text,
            Content::Binary if field.carrier != Carrier::Pair && shape.may_be_anything() => {
                return Ok(Some(Value::String(String::new())));
            }
            // Whoever takes it for a string reads it by some other code, as what was never judged.
            Content::Binary => return Err(Wrong::Violation(violation(&field.name, "encoding", "must be UTF-8"))),
        };
        let is_structure = shape.types.has(Types::OBJECT) || shape.types.has(Types::ARRAY);
        let says_json = field.content_type.as_deref().is_some_and(is_json);
        let encoding = self.form.encodings.get(&*field.name);
        let is_encoded = encoding.is_some_and(|encoding| encoding.content_types.iter().any(|one| is_json(one)));
        // Of what is to be text frameworks read the text, whatever type it says that it is of.
        let json = (is_structure && !shape.types.has_scalar())
            || (says_json && (is_encoded || shape.types.has(Types::OBJECT)));
        if json {
            return match json::read(text.as_bytes(), self.max_depth, self.held) {
                Ok(value) => Ok(Some(value)),
                Err(Unreadable::Wrong(_)) => Err(Wrong::Violation(violation(&field.name, "json", "must be JSON"))),
                Err(Unreadable::Full(full)) => Err(Wrong::Full(full)),
            };
        }
        if text.is_empty() && !shape.types.has(Types::STRING) && !shape.types.has(Types::NULL) {
            return Ok(None);
        }
        Ok(Some(scalar(text, shape, self.reading)))
    }

    /// Whether a part is of a type that the document wants; one that states none is taken to be.
    fn check_type(&self, field: &Field<'_>) -> Result<(), Wrong> {
        let Some(encoding) = self.form.encodings.get(&*field.name) else { return Ok(()) };
        let Some(stated) = &field.content_type else { return Ok(()) };
        let essence = MediaType::parse(stated).map(|stated| stated.essence()).unwrap_or_default();
        let takes = |wanted: &String| match wanted.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => essence.starts_with(kind),
            None => *wanted == essence,
        };
        if encoding.content_types.is_empty() || encoding.content_types.iter().any(takes) {
            return Ok(());
        }
        let message = format!("must be of the type {}", encoding.content_types.join(" or "));
        Err(Wrong::Violation(violation(&field.name, "contentType", message)))
    }
}

/// What one field of a property is.
fn one(property: &Shape) -> &Shape {
    if is_list(property) { property.item() } else { property }
}

/// Whether each field of this name is an item.
fn is_list(property: &Shape) -> bool {
    property.types.has(Types::ARRAY) && !property.types.has_scalar()
}

/// A property whose fields were read by its style.
struct Styled<'a> {
    name: &'a str,
    /// Its fields are `name[property]`.
    deep: bool,
    /// Its fields are these.
    spread: Vec<String>,
}

impl Styled<'_> {
    fn covers(&self, field: &str) -> bool {
        field == self.name
            || self.spread.iter().any(|name| name == field)
            || (self.deep && field.strip_prefix(self.name).is_some_and(|rest| rest.starts_with('[')))
    }
}

fn violation(name: &str, rule: &'static str, message: impl Into<String>) -> Violation {
    let mut pointer = String::new();
    push_segment(&mut pointer, name);
    Violation::new(Place::Body, pointer, rule, message)
}
