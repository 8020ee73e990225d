//! `openapi`: what an API's own document says of its requests.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::Judging;
use super::content::Stated;
use crate::admit::auth::Building;
use crate::config::settings::OpenApiSettings;
use crate::request::rejection::Rejection;
use crate::request::violation::Violations;
use crate::upstream::Upstream;

/// The `openapi` of a route, compiled or yet to be fetched.
pub struct OpenApi {}

/// What the document says of one request.
#[derive(Default)]
pub struct Operation {
    /// What is wrong with its parameters.
    pub violations: Violations,
}

/// How an operation's body is judged.
pub enum BodyJudge {
    /// It is not; JSON is read strictly all the same.
    Any,
    /// As JSON, which was read strictly before.
    Json(Box<dyn FnOnce(&Value, &mut Violations) + Send>),
    /// As it came: a form, a multipart.
    Bytes(Box<dyn FnOnce(&Bytes, &mut Violations) + Send>),
}

impl OpenApi {
    /// Reads a document that is a file; contacts nothing.
    pub fn build(
        _route: &str,
        _settings: &OpenApiSettings,
        _upstream: Option<&Arc<Upstream>>,
        _before: Option<&OpenApi>,
        _building: &mut Building<'_>,
    ) -> Option<OpenApi> {
        Some(OpenApi {})
    }

    /// Finds the operation and judges everything but the body, before any of that is read.
    ///
    /// # Errors
    /// No such operation, no document yet, a scope is missing.
    pub fn operation(&self, _judging: &Judging<'_>) -> Result<Operation, Rejection> {
        Ok(Operation::default())
    }
}

impl Operation {
    /// How the body is judged. `stated`: what the request says of it; `None` without one, which may be a violation.
    ///
    /// # Errors
    /// A type that the operation does not take.
    pub fn body(&mut self, _stated: Option<Stated<'_>>) -> Result<BodyJudge, Rejection> {
        Ok(BodyJudge::Any)
    }
}
