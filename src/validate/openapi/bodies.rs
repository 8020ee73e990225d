//! Request bodies: which of an operation's media types a body is of, and whether it is valid.

use serde_json::Value;

use super::document::{At, Unusable};
use super::form::{self, Form, MOST_FIELDS};
use super::multipart;
use super::parameters::is_json;
use super::schema::{Gathering, SchemaId, Schemas};
use super::texts::urlencoded;
use crate::request::violation::{Place, Violation, Violations};
use crate::validate::content::MediaType;
use crate::validate::memory::{Full, Held};

/// `requestBody` of an operation.
pub(super) struct Body {
    pub(super) required: bool,
    media: Vec<Media>,
}

struct Media {
    range: Range,
    content: Content,
}

/// `application/json`, `image/*`, `*/*`; lower case.
struct Range {
    kind: String,
    subtype: String,
}

enum Content {
    Json(SchemaId),
    /// Of a range: JSON is judged, of other types nothing is known.
    Ranged(SchemaId),
    UrlEncoded(Form),
    Multipart(Form),
    Text(SchemaId),
    /// Nothing is said of it, or nothing that could be judged.
    Opaque,
}

/// One of a body's media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaId(usize);

impl Body {
    /// # Errors
    /// It is malformed.
    pub(super) fn take<'d>(gathering: &mut Gathering<'d>, at: At, body: &'d Value) -> Result<Body, Unusable> {
        let document = gathering.document();
        let (at, body) = document.follow(at, body)?;
        let content = body.get("content").ok_or_else(|| document.trouble(&at, "a requestBody needs `content`"))?;
        let at = at.child("content");
        let mut media = Vec::new();
        for (name, value) in document.object(&at, content)? {
            let at = at.child(name);
            let range = Range::parse(name).ok_or_else(|| document.trouble(&at, "this is no media type"))?;
            let content = Content::take(gathering, &at, &range, value)?;
            media.push(Media { range, content });
        }
        media.sort_by_key(|media| media.range.breadth());
        Ok(Body { required: body.get("required") == Some(&Value::Bool(true)), media })
    }

    /// The narrowest media type that takes a body of this type; without one, what takes anything at all.
    pub(super) fn choose(&self, stated: Option<&MediaType<'_>>) -> Option<MediaId> {
        let essence = stated.map_or_else(|| "application/octet-stream".to_owned(), MediaType::essence);
        self.media.iter().position(|media| media.range.takes(&essence)).map(MediaId)
    }

    /// What is taken, for `Accept`.
    pub(super) fn accept(&self) -> String {
        let names: Vec<_> = self.media.iter().map(|media| media.range.to_string()).collect();
        names.join(", ")
    }

    /// What a body of this type is read as.
    pub(super) fn reading(&self, id: MediaId, stated: Option<&MediaType<'_>>) -> Reading {
        match self.media.get(id.0).map(|media| &media.content) {
            Some(Content::Json(_)) => Reading::Json,
            Some(Content::Ranged(_)) if stated.is_some_and(MediaType::is_json) => Reading::Json,
            Some(Content::UrlEncoded(_) | Content::Multipart(_) | Content::Text(_)) => Reading::Bytes,
            Some(Content::Ranged(_) | Content::Opaque) | None => Reading::Nothing,
        }
    }

    /// Adds what is wrong with a body of JSON.
    pub(super) fn judge_json(&self, id: MediaId, schemas: &Schemas, value: &Value, violations: &mut Violations) {
        match self.media.get(id.0).map(|media| &media.content) {
            Some(Content::Json(schema) | Content::Ranged(schema)) => judge(schemas, *schema, value, violations),
            Some(Content::UrlEncoded(_) | Content::Multipart(_) | Content::Text(_) | Content::Opaque) | None => {}
        }
    }

    /// Adds what is wrong with a body of another type.
    ///
    /// # Errors
    /// There is no memory to look into it.
    pub(super) fn judge_bytes(&self, judging: &Judging<'_>, violations: &mut Violations) -> Result<(), Full> {
        let Some(media) = self.media.get(judging.media.0) else { return Ok(()) };
        let (text, schemas) = (judging.text, judging.schemas);
        let mut held = Held::nothing();
        match &media.content {
            Content::Opaque | Content::Json(_) | Content::Ranged(_) => {}
            Content::UrlEncoded(form) => {
                // What is taken apart is held as often again.
                held.grow(text.len().saturating_mul(8))?;
                let fields = urlencoded(text).take(MOST_FIELDS.saturating_add(1));
                let fields: Vec<_> = fields.map(|(name, text)| form::Field::pair(name, text)).collect();
                if fields.len() > MOST_FIELDS {
                    let message = format!("has more than {MOST_FIELDS} fields");
                    violations.push(Violation::new(Place::Body, "", "form", message));
                } else {
                    form.judge(schemas, fields, judging.max_depth, &mut held, violations)?;
                }
            }
            Content::Multipart(form) => {
                held.grow(text.len().saturating_mul(4))?;
                match multipart::read(text, judging.boundary) {
                    Ok(parts) => {
                        let fields = parts.into_iter().map(form::Field::part).collect();
                        form.judge(schemas, fields, judging.max_depth, &mut held, violations)?;
                    }
                    Err(why) => violations.push(Violation::new(Place::Body, "", "multipart", why)),
                }
            }
            Content::Text(schema) => match std::str::from_utf8(text) {
                Ok(text) => {
                    held.grow(text.len())?;
                    judge(schemas, *schema, &Value::String(text.to_owned()), violations);
                }
                Err(_) => violations.push(Violation::new(Place::Body, "", "encoding", "must be UTF-8")),
            },
        }
        Ok(())
    }
}

/// What a body is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Json,
    Bytes,
    /// Nothing is said of it.
    Nothing,
}

/// A body that is to be judged.
pub(super) struct Judging<'a> {
    pub(super) schemas: &'a Schemas,
    pub(super) media: MediaId,
    /// Of `multipart`, as its type states it.
    pub(super) boundary: Option<&'a str>,
    pub(super) text: &'a [u8],
    pub(super) max_depth: usize,
}

fn judge(schemas: &Schemas, schema: SchemaId, value: &Value, violations: &mut Violations) {
    if let Some(schema) = schemas.get(schema) {
        schema.rules.judge(value, Place::Body, "", violations);
    }
}

impl Content {
    fn take<'d>(gathering: &mut Gathering<'d>, at: &At, range: &Range, media: &'d Value) -> Result<Content, Unusable> {
        let name = range.to_string();
        let add = |schema| match name.as_str() {
            "multipart/form-data" => gathering.add_multipart(&at.child("schema"), schema),
            _ => gathering.add(&at.child("schema"), schema),
        };
        let schema = media.get("schema").map(add).transpose()?;
        Ok(match name.as_str() {
            "application/x-www-form-urlencoded" => Content::UrlEncoded(Form::take(gathering, at, media, schema)?),
            "multipart/form-data" => Content::Multipart(Form::take(gathering, at, media, schema)?),
            name => match schema {
                Some(schema) if is_json(name) => Content::Json(schema),
                Some(schema) if range.breadth() > 0 => Content::Ranged(schema),
                Some(schema) if range.kind == "text" && range.subtype == "plain" => Content::Text(schema),
                Some(_) | None => Content::Opaque,
            },
        })
    }
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let essence = text.split(';').next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        (plain(kind) && plain(subtype)).then(|| Range { kind: kind.to_owned(), subtype: subtype.to_owned() })
    }

    /// The narrowest first.
    fn breadth(&self) -> u8 {
        match (self.kind.as_str(), self.subtype.as_str()) {
            ("*", _) => 2,
            (_, "*") => 1,
            (_, _) => 0,
        }
    }

    fn takes(&self, essence: &str) -> bool {
        let Some((kind, subtype)) = essence.split_once('/') else { return false };
        (self.kind == "*" || self.kind == kind) && (self.subtype == "*" || self.subtype == subtype)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.subtype)
    }
}
