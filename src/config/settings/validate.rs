//! `[route.NAME.validate]`: what a request must look like.

use std::path::PathBuf;

use super::{At, Span};

/// `[route.NAME.validate]`
#[derive(Clone, Debug)]
pub struct ValidateSettings {
    pub span: Span,
    /// Media types, lower case, without parameters: `application/json`, `image/*`. Empty: any.
    pub content_types: Vec<String>,
    /// Bytes; over the route's.
    pub max_body: Option<u64>,
    /// A JSON Schema.
    pub body_schema: Option<At<PathBuf>>,
    /// Further files that `$ref` may lead to.
    pub schemas: Vec<At<PathBuf>>,
    pub max_depth: usize,
    pub openapi: Option<OpenApiSettings>,
    pub mode: ValidateMode,
}

/// The document that says what an API takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenApiSettings {
    pub source: OpenApiSource,
    /// Whether its `security` is demanded of callers.
    pub security: bool,
    /// Where that is said.
    pub security_span: Option<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenApiSource {
    /// JSON or YAML.
    File(At<PathBuf>),
    /// `upstream:/openapi.json`: what the route's upstream publishes at this path.
    Upstream(At<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidateMode {
    Enforce,
    /// Lets through and counts.
    Report,
}
