//! What a request must look like before a backend is bothered with it.

pub mod background;

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::admit::Caller;
use crate::admit::auth::Building;
use crate::body::RequestBody;
use crate::config::settings::RouteSettings;
use crate::request::rejection::Rejection;
use crate::request::target::NormalPath;
use crate::upstream::Upstream;
use crate::worker::Worker;

/// `[route.NAME.validate]`, compiled.
pub struct Validation {}

/// What of a request is judged.
pub struct Judging<'a> {
    pub worker: &'a Worker,
    pub method: &'a Method,
    /// As the upstream sees it, without `strip_prefix`.
    pub path: &'a str,
    pub query: Option<&'a [u8]>,
    pub headers: &'a HeaderMap,
    pub caller: &'a Caller,
}

impl Validation {
    /// Reads the files that the settings name; contacts nothing. What `before` has fetched lives on where its settings
    /// are the same. `None`: there is nothing to validate, or the problems are told.
    pub fn build(
        _route: &str,
        settings: &RouteSettings,
        _upstream: Option<&Arc<Upstream>>,
        _before: Option<&Validation>,
        _building: &mut Building<'_>,
    ) -> Option<Validation> {
        settings.validate.as_ref()?;
        Some(Validation {})
    }

    /// Judges a request, and gives its body on, read as far as judging it needed.
    ///
    /// # Errors
    /// Why it is refused; with every violation.
    pub async fn judge(&self, _judging: &Judging<'_>, body: RequestBody) -> Result<RequestBody, Rejection> {
        Ok(body)
    }
}

/// The path that an upstream sees.
pub fn upstream_path<'a>(path: &'a NormalPath, strip_prefix: Option<&str>) -> &'a str {
    let path = path.as_str();
    let rest = path.strip_prefix(strip_prefix.unwrap_or_default()).unwrap_or(path);
    if rest.is_empty() { "/" } else { rest }
}
