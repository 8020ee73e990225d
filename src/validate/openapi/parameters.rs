//! Parameters: in the path, the query, header fields and cookies.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Map, Value};

use super::document::{At, Unusable};
use super::schema::{Gathering, Schema, SchemaId, Schemas};
use super::shape::{Reading, Shape, Types, scalar};
use super::style::{self, Miswritten, Raw, Style, Want};
use crate::request::violation::{Place, Violation, Violations, push_segment};
use crate::validate::json;
use crate::validate::memory::Held;

/// The parameters of an operation.
#[derive(Default)]
pub(super) struct Parameters {
    list: Vec<Parameter>,
}

pub(super) struct Parameter {
    name: String,
    source: Source,
    required: bool,
    kind: Kind,
}

/// Where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Path,
    Query,
    Header(HeaderName),
    Cookie,
}

enum Kind {
    Styled {
        style: Style,
        explode: bool,
        /// `allowEmptyValue`
        empty: bool,
        schema: Option<SchemaId>,
    },
    /// `content` with a type of JSON.
    Json(Option<SchemaId>),
    /// `content` with another type: it is a string.
    Text(Option<SchemaId>),
}

/// Names and values, decoded.
pub(super) type List<'r> = Vec<(Cow<'r, str>, Cow<'r, str>)>;

/// What of a request holds parameters.
pub(super) struct Sources<'r> {
    /// What stands in the place of each name of the path's template, decoded; `None` where it is not UTF-8.
    pub(super) captures: &'r [(&'r str, Option<Cow<'r, str>>)],
    pub(super) query: Option<&'r [u8]>,
    pub(super) headers: &'r HeaderMap,
}

impl Parameters {
    /// Takes over the parameters of a path item, and those of its operation, which go before them.
    ///
    /// # Errors
    /// One is malformed.
    pub(super) fn take<'d>(
        gathering: &mut Gathering<'d>,
        lists: [Option<(At, &'d Value)>; 2],
    ) -> Result<Parameters, Unusable> {
        let mut parameters = Parameters::default();
        for (at, list) in lists.into_iter().flatten() {
            let document = gathering.document();
            let list = list.as_array().ok_or_else(|| document.trouble(&at, "this must be a list of parameters"))?;
            for (index, parameter) in list.iter().enumerate() {
                let (at, parameter) = document.follow(at.item(index), parameter)?;
                let Some(parameter) = Parameter::take(gathering, &at, parameter)? else { continue };
                parameters.list.retain(|known| !known.is_same(&parameter));
                parameters.list.push(parameter);
            }
        }
        Ok(parameters)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Judges what a request has of them.
    pub(super) fn judge(&self, schemas: &Schemas, sources: &Sources<'_>, violations: &mut Violations) {
        let is_in = |source: &Source| self.list.iter().any(|parameter| parameter.source == *source);
        let query: List<'_> = match sources.query {
            Some(query) if is_in(&Source::Query) => form_urlencoded::parse(query).collect(),
            Some(_) | None => List::new(),
        };
        let cookies = if is_in(&Source::Cookie) { cookies(sources.headers) } else { List::new() };
        for parameter in &self.list {
            let found = Found { parameter, parameters: self, schemas, sources, query: &query, cookies: &cookies };
            found.judge(violations);
        }
    }

    /// Whether a parameter of this name is found there.
    fn names(&self, source: &Source, name: &str) -> bool {
        self.list.iter().any(|parameter| parameter.source == *source && parameter.name == name)
    }
}

impl Parameter {
    /// `None`: one that the standard says to ignore.
    fn take<'d>(gathering: &mut Gathering<'d>, at: &At, parameter: &'d Value) -> Result<Option<Parameter>, Unusable> {
        let document = gathering.document();
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let trouble = |message: &str| document.trouble(at, message);
        let name = text("name").ok_or_else(|| trouble("a parameter needs a name"))?;
        let source = match text("in") {
            Some("path") => Source::Path,
            Some("query") => Source::Query,
            Some("cookie") => Source::Cookie,
            Some("header") => {
                let name =
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| trouble("this is no name of a field"))?;
                if [header::ACCEPT, header::CONTENT_TYPE, header::AUTHORIZATION].contains(&name) {
                    return Ok(None);
                }
                Source::Header(name)
            }
            Some(_) | None => return Err(trouble("`in` must be path, query, header or cookie")),
        };
        let required = parameter.get("required") == Some(&Value::Bool(true)) || source == Source::Path;
        let kind = match parameter.get("content").and_then(Value::as_object).and_then(|content| content.iter().next()) {
            Some((media_type, media)) => {
                let at = at.child("content").child(media_type).child("schema");
                let schema = media.get("schema").map(|schema| gathering.add(&at, schema)).transpose()?;
                if is_json(media_type) { Kind::Json(schema) } else { Kind::Text(schema) }
            }
            None => {
                let style = match text("style") {
                    Some(name) => Style::named(name).ok_or_else(|| trouble("there is no such style"))?,
                    None => source.usual_style(),
                };
                if !source.takes(style) {
                    return Err(trouble("this style is not one for parameters there"));
                }
                let explode = parameter.get("explode").and_then(Value::as_bool).unwrap_or(style == Style::Form);
                let empty = source == Source::Query && parameter.get("allowEmptyValue") == Some(&Value::Bool(true));
                let schema = parameter.get("schema");
                let schema = schema.map(|schema| gathering.add(&at.child("schema"), schema)).transpose()?;
                Kind::Styled { style, explode, empty, schema }
            }
        };
        Ok(Some(Parameter { name: name.to_owned(), source, required, kind }))
    }
}

impl Parameter {
    /// Names of fields are alike in any case.
    fn is_same(&self, other: &Parameter) -> bool {
        self.source == other.source && (self.name == other.name || matches!(self.source, Source::Header(_)))
    }
}

impl Source {
    fn usual_style(&self) -> Style {
        match self {
            Source::Path | Source::Header(_) => Style::Simple,
            Source::Query | Source::Cookie => Style::Form,
        }
    }

    fn takes(&self, style: Style) -> bool {
        match self {
            Source::Path => matches!(style, Style::Simple | Style::Label | Style::Matrix),
            Source::Query => {
                matches!(style, Style::Form | Style::SpaceDelimited | Style::PipeDelimited | Style::DeepObject)
            }
            Source::Header(_) => style == Style::Simple,
            Source::Cookie => style == Style::Form,
        }
    }

    fn place(&self) -> Place {
        match self {
            Source::Path => Place::Path,
            Source::Query => Place::Query,
            Source::Header(_) => Place::Header,
            Source::Cookie => Place::Cookie,
        }
    }
}

/// `application/json` and what is built on it.
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    ["application/json", "text/json"].iter().any(|json| essence.eq_ignore_ascii_case(json))
        || essence.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"))
}

/// One parameter, and where it may be.
struct Found<'a> {
    parameter: &'a Parameter,
    parameters: &'a Parameters,
    schemas: &'a Schemas,
    sources: &'a Sources<'a>,
    query: &'a List<'a>,
    cookies: &'a List<'a>,
}

impl Found<'_> {
    fn judge(&self, violations: &mut Violations) {
        let name = &*self.parameter.name;
        if self.parameter.source == Source::Path && !self.sources.captures.iter().any(|(key, _)| *key == name) {
            // The path has no place for it.
            return;
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

    /// Every text that stands under the parameter's name. A path has one, or none where it is not UTF-8.
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
            Source::Query => listed(self.query),
            Source::Cookie => listed(self.cookies),
            Source::Header(name) => field(self.sources.headers, name).into_iter().collect(),
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
            let raws = match self.read(styled, want, &texts, &schema.shape) {
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
            Source::Query => self.query,
            Source::Cookie => self.cookies,
            Source::Path | Source::Header(_) => {
                return texts.iter().map(|text| style::read(style, explode, name, text, want)).collect();
            }
        };
        // An object that names no properties takes what no other parameter does.
        let open = shape.names().next().is_none();
        let mine = |key: &str| if open { !self.parameters.names(&self.parameter.source, key) } else { shape.has(key) };
        style::read_listed(style, explode, name, list, want, mine)
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

/// The lines of a field, as one. Bytes are read as Latin-1, as the frameworks behind us do.
fn field<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<Cow<'r, str>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    match (first.to_str(), lines.next()) {
        (Ok(text), None) => Some(Cow::Borrowed(text)),
        (Ok(_) | Err(_), _) => {
            let lines: Vec<String> = headers.get_all(name).iter().map(latin_1).collect();
            Some(Cow::Owned(lines.join(",")))
        }
    }
}

fn latin_1(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// Every cookie; values as Python's `http.cookies` reads them: not percent-decoded, quotes taken off.
fn cookies(headers: &HeaderMap) -> List<'_> {
    let mut cookies = List::new();
    for line in headers.get_all(header::COOKIE) {
        for pair in latin_1(line).split(';') {
            let (name, value) = pair.split_once('=').unwrap_or(("", pair));
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            cookies.push((Cow::Owned(name.trim().to_owned()), Cow::Owned(value.to_owned())));
        }
    }
    cookies
}
