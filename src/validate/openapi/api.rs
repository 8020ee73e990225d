//! A document, compiled: what a request is looked up in and judged by.

use std::borrow::Cow;

use http::{HeaderValue, Method};
use serde_json::Value;

use super::bodies::{Body, Judging, MediaId, Reading};
use super::document::{At, Document, Unusable};
use super::operations::{self, Paths};
use super::parameters::{Parameters, Sources};
use super::schema::{Gathering, Schemas};
use super::security::Security;
use crate::admit::identity::Identity;
use crate::headers::Headers;
use crate::request::violation::Violations;
use crate::validate::Reserved;
use crate::validate::content::MediaType;
use crate::validate::memory::Full;

/// Operations that a document may have.
const MAX_OPERATIONS: usize = 10_000;

/// A document, compiled.
pub(super) struct Api {
    paths: Paths,
    /// By the order of the paths.
    items: Vec<Item>,
    operations: Vec<Operation>,
    schemas: Schemas,
    /// Places of patterns that cannot be used.
    pub(super) left_out: Vec<String>,
    /// Places of `security` that demands scopes only of some: another way in needs none.
    pub(super) unscoped: Vec<String>,
    /// What may stand before a path, without a last slash; the longest first.
    bases: Vec<String>,
}

/// A path: its methods, and the operation of each.
struct Item {
    methods: Vec<(Method, OperationId)>,
}

/// One operation of an [`Api`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OperationId(usize);

struct Operation {
    parameters: Parameters,
    body: Option<Body>,
    security: Security,
}

/// Why a request is for no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Path,
    /// The path is there, with other methods.
    Method {
        allow: HeaderValue,
    },
}

/// The operation that a request is for.
pub(super) struct Found<'a> {
    api: &'a Api,
    pub(super) id: OperationId,
    operation: &'a Operation,
    path: &'a [u8],
    template: usize,
}

/// What an operation says of a body of some type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyRule {
    /// It is not judged: the operation has none, or says nothing of it that could be.
    Free,
    Json(BodyId),
    Bytes(BodyId),
    /// None of the operation's types takes it. What it would take.
    Refused {
        accept: String,
    },
}

/// A body's media type in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyId {
    operation: OperationId,
    media: MediaId,
}

impl Api {
    /// # Errors
    /// The first thing that makes the document unusable.
    pub(super) fn compile(document: &Document) -> Result<Api, Unusable> {
        let mut gathering = Gathering::new(document);
        let (at, root) = document.root();
        let mut compiling = Compiling::default();
        if let Some(security) = root.get("security") {
            compiling.security = Some(compiling.security(document, &at.child("security"), security)?);
        }
        if let Some(paths) = root.get("paths") {
            let at = at.child("paths");
            for (template, item) in document.object(&at, paths)? {
                if !template.starts_with("x-") {
                    compiling.path(&mut gathering, &at.child(template), template, item)?;
                }
            }
        }
        let Compiling { paths, items, operations, unscoped, .. } = compiling;
        let left_out = gathering.left_out();
        Ok(Api { paths, items, operations, schemas: gathering.compile()?, left_out, unscoped, bases: bases(root) })
    }

    /// How many operations there are.
    pub(super) fn operations(&self) -> usize {
        self.operations.len()
    }

    /// The path of a request, decoded, for [`Api::find`].
    pub(super) fn decoded(path: &str) -> Cow<'_, [u8]> {
        operations::decoded(path)
    }

    /// The operation that a request is for.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find<'a>(&'a self, method: &Method, path: &'a [u8]) -> Result<Found<'a>, Missing> {
        let mut allow = Vec::new();
        let found = self.ways(path).find_map(|(path, only_literal)| {
            let found = self.paths.find(path, |template| {
                let item = self.items.get(template).filter(|_| !only_literal || self.paths.is_literal(template))?;
                let id = item.operation(method);
                if id.is_none() {
                    allow.extend(item.methods.iter().map(|(method, _)| method.as_str()));
                }
                id.map(|id| (template, id))
            });
            found.map(|(template, id)| (path, template, id))
        });
        if let Some((path, template, id)) = found
            && let Some(operation) = self.operations.get(id.0)
        {
            return Ok(Found { api: self, id, operation, path, template });
        }
        if allow.is_empty() {
            return Err(Missing::Path);
        }
        if allow.contains(&"GET") {
            allow.push("HEAD");
        }
        allow.sort_unstable();
        allow.dedup();
        Err(Missing::Method { allow: HeaderValue::try_from(allow.join(", ")).unwrap_or(HeaderValue::from_static("")) })
    }

    /// Whether there must be a body.
    pub(super) fn demands_body(&self, id: OperationId) -> bool {
        self.body_of(id).is_some_and(|body| body.required)
    }

    /// What becomes of a body of this type.
    pub(super) fn body(&self, id: OperationId, media_type: Option<&MediaType<'_>>) -> BodyRule {
        let Some(body) = self.body_of(id) else { return BodyRule::Free };
        let Some(media) = body.choose(media_type) else { return BodyRule::Refused { accept: body.accept() } };
        let id = BodyId { operation: id, media };
        match body.reading(media, media_type) {
            Reading::Json => BodyRule::Json(id),
            Reading::Bytes => BodyRule::Bytes(id),
            Reading::Nothing => BodyRule::Free,
        }
    }

    /// Adds what is wrong with a body of JSON.
    pub(super) fn judge_json(&self, id: BodyId, value: &Value, violations: &mut Violations) {
        if let Some(body) = self.body_of(id.operation) {
            body.judge_json(id.media, &self.schemas, value, violations);
        }
    }

    /// Adds what is wrong with a body that is no JSON. `boundary` is that of its type.
    ///
    /// # Errors
    /// There is no memory to look into it.
    pub(super) fn judge_bytes(
        &self,
        id: BodyId,
        boundary: Option<&str>,
        text: &[u8],
        max_depth: usize,
        violations: &mut Violations,
    ) -> Result<(), Full> {
        let Some(body) = self.body_of(id.operation) else { return Ok(()) };
        body.judge_bytes(&Judging { schemas: &self.schemas, media: id.media, boundary, text, max_depth }, violations)
    }

    fn body_of(&self, id: OperationId) -> Option<&Body> {
        self.operations.get(id.0).and_then(|operation| operation.body.as_ref())
    }

    /// The ways to read a path: as one that the document has just so (`true`), without what `servers` puts before it,
    /// and as it is.
    fn ways<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (&'a [u8], bool)> {
        let stripped = self.bases.iter().filter_map(move |base| {
            let rest = path.strip_prefix(base.as_bytes())?;
            match rest.first() {
                Some(b'/') => Some(rest),
                None => Some(&b"/"[..]),
                Some(_) => None,
            }
        });
        let literal = (!self.bases.is_empty()).then_some((path, true));
        literal.into_iter().chain(stripped.chain(std::iter::once(path)).map(|path| (path, false)))
    }
}

impl Item {
    /// Whoever serves `GET` may be asked for the head alone (RFC 9110 section 9.3.2).
    fn operation(&self, method: &Method) -> Option<OperationId> {
        let of = |wanted: &Method| self.methods.iter().find(|(method, _)| method == wanted).map(|(_, id)| *id);
        of(method).or_else(|| if *method == Method::HEAD { of(&Method::GET) } else { None })
    }
}

impl Found<'_> {
    /// # Errors
    /// The scopes that the operation demands.
    pub(super) fn admits(&self, identity: Option<&Identity>) -> Result<(), &[String]> {
        self.operation.security.allows(|scope| identity.is_some_and(|identity| identity.has_scope(scope)))
    }

    /// Adds what is wrong with the parameters.
    pub(super) fn judge_parameters(
        &self,
        query: Option<&[u8]>,
        headers: &Headers,
        reserved: &Reserved<'_>,
        violations: &mut Violations,
    ) {
        if self.operation.parameters.is_empty() {
            return;
        }
        let captures = self.api.paths.captures(self.template, self.path);
        let sources = Sources { captures: &captures, query, headers, reserved };
        self.operation.parameters.judge(&self.api.schemas, &sources, violations);
    }
}

/// A document on its way to an [`Api`].
#[derive(Default)]
struct Compiling {
    paths: Paths,
    items: Vec<Item>,
    operations: Vec<Operation>,
    /// The document's own.
    security: Option<Security>,
    unscoped: Vec<String>,
}

impl Compiling {
    fn security(&mut self, document: &Document, at: &At, security: &Value) -> Result<Security, Unusable> {
        let security = Security::read(document, at, security)?;
        if security.demands_scopes_of_some() {
            self.unscoped.push(document.place(at));
        }
        Ok(security)
    }

    fn path<'d>(
        &mut self,
        gathering: &mut Gathering<'d>,
        at: &At,
        template: &str,
        item: &'d Value,
    ) -> Result<(), Unusable> {
        const METHODS: [(&str, Method); 8] = [
            ("get", Method::GET),
            ("put", Method::PUT),
            ("post", Method::POST),
            ("delete", Method::DELETE),
            ("options", Method::OPTIONS),
            ("head", Method::HEAD),
            ("patch", Method::PATCH),
            ("trace", Method::TRACE),
        ];
        let document = gathering.document();
        self.paths.add(template).map_err(|message| document.trouble(at, message))?;
        let (at, item) = document.follow(at.clone(), item)?;
        let mut methods = Vec::new();
        for (key, method) in METHODS {
            let Some(operation) = item.get(key) else { continue };
            let id = OperationId(self.operations.len());
            if id.0 >= MAX_OPERATIONS {
                return Err(document.trouble(&at, "the document has too many operations"));
            }
            let shared = item.get("parameters").map(|list| (at.child("parameters"), list));
            let operation = self.operation(gathering, &at.child(key), operation, shared)?;
            self.operations.push(operation);
            methods.push((method, id));
        }
        self.items.push(Item { methods });
        Ok(())
    }

    fn operation<'d>(
        &mut self,
        gathering: &mut Gathering<'d>,
        at: &At,
        operation: &'d Value,
        shared: Option<(At, &'d Value)>,
    ) -> Result<Operation, Unusable> {
        let document = gathering.document();
        document.object(at, operation)?;
        let own = operation.get("parameters").map(|list| (at.child("parameters"), list));
        let parameters = Parameters::take(gathering, [shared, own])?;
        let body = operation.get("requestBody").map(|body| Body::take(gathering, at.child("requestBody"), body));
        let security = match operation.get("security") {
            Some(security) => self.security(document, &at.child("security"), security)?,
            None => self.security.clone().unwrap_or_default(),
        };
        Ok(Operation { parameters, body: body.transpose()?, security })
    }
}

/// The paths of the document's servers, their variables at their defaults.
fn bases(root: &Value) -> Vec<String> {
    let servers = root.get("servers").and_then(Value::as_array);
    let mut bases: Vec<String> = servers.into_iter().flatten().filter_map(base).collect();
    bases.sort_unstable_by_key(|base| std::cmp::Reverse(base.len()));
    bases.dedup();
    bases
}

fn base(server: &Value) -> Option<String> {
    let mut url = server.get("url")?.as_str()?.to_owned();
    for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
        let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), default);
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => &url,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    (path.starts_with('/')).then(|| path.into_owned())
}
