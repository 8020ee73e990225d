//! `openapi`: what an API's own document (OpenAPI 3.0 or 3.1) says of its requests.
//!
//! What a path, a parameter or a body may be is worked out when the document is read; a request is looked up in a tree
//! of paths and judged by validators that are ready.
//!
//! Where the standard leaves something open, it is read as the Python frameworks behind us would: values are decoded
//! before they are taken apart; `HEAD` is judged as `GET`; the path of a server in `servers` may stand before a path or
//! not, since a gateway in front may have cut it off; what a document does not name (a query parameter, a field, a body
//! where the operation has none) is let through.

mod alone;
mod api;
mod bodies;
mod document;
mod form;
mod found;
mod multipart;
mod operations;
mod parameters;
mod parts;
mod pattern;
pub mod published;
mod schema;
mod security;
mod shape;
mod style;
#[cfg(test)]
mod tests;
mod texts;

use std::path::Path;
use std::sync::Arc;

use http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN};
use http::{HeaderValue, Method};
use serde_json::Value;

pub use self::alone::Alone;
use self::api::{Api, BodyId, BodyRule, Missing, OperationId};
pub(super) use self::document::MAX_DOCUMENT;
use self::document::{Document, Unusable};
use self::published::Published;
use super::Judging;
use super::content::Stated;
use super::memory::Full;
use super::room::with_room;
use crate::admit::auth::Building;
use crate::config::problem::Problem;
use crate::config::read_bounded;
use crate::config::settings::{At, OpenApiSettings, OpenApiSource, ValidateSettings};
use crate::headers::Headers;
use crate::request::rejection::{Cause, Rejection};
use crate::request::violation::{Place, Violation, Violations};
use crate::upstream::Upstream;

/// The `openapi` of a route, compiled or yet to be fetched.
pub struct OpenApi {
    source: Source,
    /// Whether its `security` is demanded of callers.
    security: bool,
    max_depth: usize,
}

enum Source {
    File(Arc<Api>),
    Published { document: Arc<Published>, upstream: Arc<Upstream> },
}

/// What the document says of one request.
#[derive(Default)]
pub struct Operation {
    /// `None`: nothing; the request only asks whether another may be made.
    found: Option<(Arc<Api>, OperationId)>,
    max_depth: usize,
    /// What is wrong with its parameters.
    pub violations: Violations,
}

/// How an operation's body is judged; may be done on another thread.
pub enum BodyJudge {
    /// It is not; JSON is read strictly all the same.
    Any,
    /// As JSON, which was read strictly before.
    Json(JsonBody),
    /// As it came: a form, a multipart.
    Bytes(BytesBody),
}

/// A body of JSON in an operation.
pub struct JsonBody {
    api: Arc<Api>,
    id: BodyId,
}

/// A body that is no JSON in an operation.
pub struct BytesBody {
    api: Arc<Api>,
    id: BodyId,
    /// Of `multipart`.
    boundary: Option<String>,
    max_depth: usize,
}

impl JsonBody {
    /// Adds what is wrong.
    pub fn judge(&self, value: &Value, violations: &mut Violations) {
        self.api.judge_json(self.id, value, violations);
    }
}

impl BytesBody {
    /// Adds what is wrong.
    ///
    /// # Errors
    /// There is no memory to look into it.
    pub fn judge(&self, text: &[u8], violations: &mut Violations) -> Result<(), Full> {
        self.api.judge_bytes(self.id, self.boundary.as_deref(), text, self.max_depth, violations)
    }
}

impl OpenApi {
    /// Reads a document that is a file; contacts nothing.
    pub fn build(
        route: &str,
        validate: &ValidateSettings,
        settings: &OpenApiSettings,
        upstream: Option<&Arc<Upstream>>,
        before: Option<&OpenApi>,
        building: &mut Building<'_>,
    ) -> Option<OpenApi> {
        let source = match &settings.source {
            OpenApiSource::File(file) => {
                Source::File(read_files(file, &validate.schemas, settings.security, building.problems)?)
            }
            OpenApiSource::Upstream(path) => {
                // A route without an upstream was refused when the configuration was read.
                let upstream = upstream?;
                let before = before.and_then(|before| match &before.source {
                    Source::Published { document, upstream: before }
                        if document.is_of(&path.value, before, upstream) =>
                    {
                        Some(Arc::clone(document))
                    }
                    Source::Published { .. } | Source::File(_) => None,
                });
                let new = || Arc::new(Published::new(route, path, building.metrics));
                let document = before.unwrap_or_else(new);
                document.demand_scopes(settings.security);
                Source::Published { document, upstream: Arc::clone(upstream) }
            }
        };
        Some(OpenApi { source, security: settings.security, max_depth: validate.max_depth })
    }

    /// The document that is to be fetched, and from where.
    pub fn published(&self) -> Option<(&Arc<Published>, &Arc<Upstream>)> {
        match &self.source {
            Source::File(_) => None,
            Source::Published { document, upstream } => Some((document, upstream)),
        }
    }

    /// A request was refused for `cause`: if that is an operation that the document does not have, the service may have
    /// been released anew since the document was fetched.
    pub fn may_have_changed(&self, cause: Cause) {
        match &self.source {
            Source::Published { document, .. } if matches!(cause, Cause::UnknownOperation | Cause::UnknownMethod) => {
                document.may_have_changed();
            }
            Source::Published { .. } | Source::File(_) => {}
        }
    }

    /// Finds the operation and judges everything but the body, before any of that is read.
    ///
    /// # Errors
    /// No such operation, no document yet, a scope is missing.
    pub fn operation(&self, judging: &Judging<'_>) -> Result<Operation, Rejection> {
        let api = match &self.source {
            Source::File(api) => Arc::clone(api),
            Source::Published { document, .. } => document
                .newest()
                .ok_or_else(|| Rejection::from(Cause::DocumentUnavailable).with_detail(document.why_there_is_none()))?,
        };
        let path = Api::decoded(judging.path);
        let (method, preflight) = asked_for(&api, judging.method, &path, judging.headers);
        let found = match api.find(method, &path) {
            Ok(found) => found,
            Err(Missing::Path) => return Err(Cause::UnknownOperation.into()),
            Err(Missing::Method { allow }) => {
                return Err(Rejection::from(Cause::UnknownMethod).with_fields([(ALLOW, allow)]));
            }
        };
        if preflight {
            return Ok(Operation::default());
        }
        let identity = judging.caller.identity();
        if self.security
            && let Err(scopes) = found.admits(identity)
        {
            return Err(match identity {
                Some(identity) => judging.gate.forbidden(identity, Cause::ScopeMissing, "a scope is missing", scopes),
                None => Cause::ScopeMissing.into(),
            });
        }
        let mut violations = Violations::default();
        found.judge_parameters(judging.query, judging.headers, judging.reserved, &mut violations);
        let id = found.id;
        Ok(Operation { found: Some((api, id)), max_depth: self.max_depth, violations })
    }
}

/// A browser that asks whether it may make a request (the Fetch standard's CORS preflight) asks for that request's
/// operation. Documents do not list what answers it; where one does, the service answers by its own code what anybody
/// could dress up as a preflight.
fn asked_for<'a>(api: &Api, method: &'a Method, path: &[u8], headers: &Headers) -> (&'a Method, bool) {
    static KNOWN: [Method; 7] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| headers.contains_key(ORIGIN));
    let asked = asked.filter(|_| *method == Method::OPTIONS && api.find(method, path).is_err());
    match asked.and_then(|asked| KNOWN.iter().find(|method| method.as_str().as_bytes() == asked.as_bytes())) {
        Some(method) => (method, true),
        None => (method, false),
    }
}

impl Operation {
    /// How the body is judged. `stated`: what the request says of it; `None` without one, which may be a violation.
    ///
    /// # Errors
    /// A type that the operation does not take.
    pub fn body(&mut self, stated: Option<Stated<'_>>) -> Result<BodyJudge, Rejection> {
        let Some((api, id)) = self.found.take() else { return Ok(BodyJudge::Any) };
        let media_type = match &stated {
            None => {
                if api.demands_body(id) {
                    self.violations.push(Violation::new(Place::Body, "", "required", "is required"));
                }
                return Ok(BodyJudge::Any);
            }
            Some(Stated::Type(media_type)) => Some(media_type),
            Some(Stated::Nothing | Stated::Unclear) => None,
        };
        match api.body(id, media_type) {
            BodyRule::Free => Ok(BodyJudge::Any),
            BodyRule::Json(id) => Ok(BodyJudge::Json(JsonBody { api, id })),
            // Some frameworks heed its charset, and would read another text than was judged.
            BodyRule::Bytes(_) if media_type.is_some_and(|stated| !stated.is_utf8()) => {
                let why = "text is taken in UTF-8 only";
                Err(Rejection::from(Cause::UnsupportedMediaType).with_detail(why.to_owned()))
            }
            BodyRule::Bytes(id) => {
                let boundary = media_type.and_then(|stated| stated.parameter("boundary")).map(|text| text.into_owned());
                Ok(BodyJudge::Bytes(BytesBody { api, id, boundary, max_depth: self.max_depth }))
            }
            BodyRule::Refused { accept } => {
                let accept = HeaderValue::try_from(accept).ok().map(|accept| (ACCEPT, accept));
                let why = match media_type {
                    Some(_) => "the operation takes no body of this type",
                    None => "it has no Content-Type",
                };
                Err(Rejection::from(Cause::UnsupportedMediaType).with_fields(accept).with_detail(why.to_owned()))
            }
        }
    }
}

/// Reads a document that is a file, and those that it may refer to. `None`: `problems` says why.
fn read_files(
    main: &At<std::path::PathBuf>,
    others: &[At<std::path::PathBuf>],
    demands_scopes: bool,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Api>> {
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let mut read = |file: &At<std::path::PathBuf>| match read_bounded(&file.value, MAX_DOCUMENT as u64) {
        Ok(text) => Some((name(&file.value), text)),
        Err(why) => {
            let message = format!("the document `{}` cannot be read: {why}", file.value.display());
            problems.push(Problem::error(&file.span, message).help("paths are relative to the configuration file"));
            None
        }
    };
    let text = read(main);
    let others: Vec<_> = others.iter().map(&mut read).collect();
    let ((main_name, text), others) = (text?, others.into_iter().collect::<Option<Vec<_>>>()?);
    match compile(&main_name, &text, &others) {
        Ok(api) => {
            if !api.left_out.is_empty() {
                let message = format!("patterns of `{}` are left out: {}", main.value.display(), told(&api.left_out));
                let help = "they cannot be matched in linear time, for they look ahead, look back or refer back";
                problems.push(Problem::warning(&main.span, message).help(help));
            }
            if demands_scopes && !api.unscoped.is_empty() {
                let message = format!(
                    "`{}` has ways in that demand no scopes beside those that do: {}",
                    main.value.display(),
                    told(&api.unscoped)
                );
                let help = "of the alternatives in `security` any one is enough: write them as one, or name `scopes` in the route";
                problems.push(Problem::warning(&main.span, message).help(help));
            }
            Some(Arc::new(api))
        }
        Err(unusable) => {
            let said = unusable.to_string();
            let message =
                format!("the document `{}` cannot be used{}", main.value.display(), at_place(&main_name, &said));
            let problem = Problem::error(&main.span, message);
            problems.push(if said.contains("$ref") {
                problem.help(
                    "`$ref` leads into the document itself or into a file that `schemas` names; nothing is fetched",
                )
            } else {
                problem.help("name an OpenAPI document, 3.0 or 3.1, in JSON or YAML")
            });
            None
        }
    }
}

/// What is wrong, as it goes on behind the document's name, which it repeats.
fn at_place(document: &str, said: &str) -> String {
    // Places begin without the slash.
    let rest = said.strip_prefix(document).or_else(|| said.strip_prefix(document.trim_start_matches('/')));
    match rest.map(|rest| rest.strip_prefix('#').ok_or(rest)) {
        Some(Ok(pointer)) => format!(" at {pointer}"),
        Some(Err(rest)) => rest.to_owned(),
        None => format!(": {said}"),
    }
}

/// The first of them.
fn told(places: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = places.iter().take(SHOWN).map(String::as_str).collect();
    match places.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn compile(name: &str, text: &[u8], others: &[(String, Vec<u8>)]) -> Result<Api, Unusable> {
    with_room(|| Api::compile(&Document::read(name, text, others)?)).map_err(Unusable::whole)?
}
