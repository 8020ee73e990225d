//! Parameters: in the path, the query, header fields and cookies.

use std::borrow::Cow;

use http::{HeaderName, header};
use serde_json::Value;

use super::document::{At, Unusable};
use super::found::Found;
use super::schema::{Gathering, SchemaId, Schemas};
use super::style::Style;
use super::texts::{List, Query, cookies};
use crate::headers::Headers;
use crate::request::violation::{Place, Violations};
use crate::validate::Reserved;

/// The parameters of an operation.
#[derive(Default)]
pub(super) struct Parameters {
    list: Vec<Parameter>,
}

pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) required: bool,
    pub(super) kind: Kind,
}

/// Where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Path,
    Query,
    Header(HeaderName),
    Cookie,
}

pub(super) enum Kind {
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

/// What of a request holds parameters.
pub(super) struct Sources<'r> {
    /// What stands in the place of each name of the path's template, decoded; `None` where it is not UTF-8.
    pub(super) captures: &'r [(&'r str, Option<Cow<'r, str>>)],
    pub(super) query: Option<&'r [u8]>,
    pub(super) headers: &'r Headers,
    pub(super) reserved: &'r Reserved<'r>,
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
        let query = match sources.query {
            Some(query) if is_in(&Source::Query) => Query::read(query),
            Some(_) | None => Query::default(),
        };
        let cookies = if is_in(&Source::Cookie) { cookies(sources.headers) } else { List::new() };
        for parameter in self.list.iter().filter(|parameter| !parameter.is_reserved(sources.reserved)) {
            let found = Found { parameter, parameters: self, schemas, sources, query: &query, cookies: &cookies };
            found.judge(violations);
        }
    }

    /// Whether a parameter of this name is found there.
    pub(super) fn names(&self, source: &Source, name: &str) -> bool {
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
    /// Whether the service gets it from the gateway, if at all: what the client sends under its name says nothing.
    fn is_reserved(&self, reserved: &Reserved<'_>) -> bool {
        match &self.source {
            Source::Path | Source::Query => false,
            Source::Header(name) => (reserved.field)(name),
            Source::Cookie => reserved.cookie == Some(&self.name),
        }
    }

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

    pub(super) fn place(&self) -> Place {
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
