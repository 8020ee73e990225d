//! What a request must look like before a backend is bothered with it.
//!
//! The order: the body's coding and type, its stated length, then (read whole, within the memory budget) what is in
//! it. Whatever is read is given on as it came. `mode = "report"` goes the same way and lets through what it finds.

pub mod background;
pub mod content;
mod duration;
mod explain;
mod extent;
mod files;
pub mod json;
mod judge;
pub mod memory;
mod metered;
pub mod openapi;
mod reading;
mod room;
pub mod schema;
mod tally;
mod unusable;

use std::sync::Arc;

use http::{HeaderName, Method};

use self::content::Types;
use self::openapi::OpenApi;
use self::schema::Schema;
use self::tally::Tally;
use crate::admit::Caller;
use crate::admit::auth::Building;
use crate::admit::gate::Gate;
use crate::config::settings::{RouteSettings, ValidateMode};
use crate::headers::Headers;
use crate::upstream::Upstream;
use crate::worker::Worker;

pub use self::judge::Found;
pub use self::tally::Rule;

/// What a schema is a schema of, where the route does not say: JSON under any of its names.
const JSON_TYPES: [&str; 2] = ["application/json", "application/*+json"];

/// `[route.NAME.validate]`, compiled.
pub struct Validation {
    mode: ValidateMode,
    /// `None`: any.
    types: Option<Types>,
    /// Bytes of a body; over the route's.
    max_body: Option<u64>,
    /// Of the route.
    route_max_body: u64,
    max_depth: usize,
    schema: Option<Arc<Schema>>,
    openapi: Option<OpenApi>,
    tally: Tally,
}

/// What of a request is judged.
pub struct Judging<'a> {
    pub method: &'a Method,
    /// As the upstream sees it, without `strip_prefix`.
    pub path: &'a str,
    pub query: Option<&'a [u8]>,
    pub headers: &'a Headers,
    pub reserved: &'a Reserved<'a>,
    pub caller: &'a Caller,
    /// The route's.
    pub gate: &'a Gate,
}

/// What the upstream never gets as the client sent it: the gateway writes it, or takes it away.
pub struct Reserved<'a> {
    /// Whether a field is.
    pub field: &'a dyn Fn(&HeaderName) -> bool,
    /// The cookie that is.
    pub cookie: Option<&'a str>,
}

impl Validation {
    /// Reads the files that the settings name; contacts nothing. What `before` has fetched lives on where its settings
    /// are the same. `None`: there is nothing to validate, or the problems are told.
    pub fn build(
        route: &str,
        settings: &RouteSettings,
        upstream: Option<&Arc<Upstream>>,
        before: Option<&Validation>,
        building: &mut Building<'_>,
    ) -> Option<Validation> {
        let validate = settings.validate.as_ref()?;
        let schema =
            validate.body_schema.as_ref().map(|file| files::compile(file, &validate.schemas, building.problems));
        let openapi = validate.openapi.as_ref().map(|openapi| {
            let before = before.and_then(|before| before.openapi.as_ref());
            OpenApi::build(route, validate, openapi, upstream, before, building)
        });
        let listed = validate.content_types.iter().map(String::as_str);
        let types = match (validate.content_types.is_empty(), &schema) {
            (false, _) => Some(Types::new(listed)),
            (true, Some(_)) => Some(Types::new(JSON_TYPES)),
            (true, None) => None,
        };
        Some(Validation {
            mode: validate.mode,
            types,
            max_body: validate.max_body,
            route_max_body: settings.max_body,
            max_depth: validate.max_depth,
            // Of what could not be built the problems are told; nothing is served then.
            schema: match schema {
                Some(schema) => Some(schema?),
                None => None,
            },
            openapi: match openapi {
                Some(openapi) => Some(openapi?),
                None => None,
            },
            tally: Tally::build(route, validate.mode, building.metrics),
        })
    }

    /// The bytes that a body may have in any case: only what is enforced can cut it off.
    pub fn hard_limit(&self) -> u64 {
        match self.mode {
            ValidateMode::Enforce => self.max_body.unwrap_or(self.route_max_body),
            ValidateMode::Report => self.max_body.unwrap_or_default().max(self.route_max_body),
        }
    }

    /// A body was refused for being longer than [`hard_limit`](Self::hard_limit); counted where that is ours.
    pub fn refused_length(&self, worker: &Worker) {
        match self.mode {
            ValidateMode::Enforce if self.max_body.is_some() => self.tally.refused(Rule::MaxBody, worker.id),
            ValidateMode::Enforce | ValidateMode::Report => {}
        }
    }

    pub fn openapi(&self) -> Option<&OpenApi> {
        self.openapi.as_ref()
    }
}
