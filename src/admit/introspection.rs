//! Opaque tokens, asked about at the server that issued them (RFC 7662).

use std::sync::Arc;

use super::auth::{Building, Failure, Judged};
use super::identity::Identity;
use crate::config::settings::IntrospectionSettings;
use crate::worker::Worker;

/// `kind = "introspection"`
pub struct Introspection {}

impl Introspection {
    pub fn build(
        _: &Arc<str>,
        _: &IntrospectionSettings,
        _: Option<&Introspection>,
        _: &mut Building<'_>,
    ) -> Option<Introspection> {
        Some(Introspection {})
    }

    /// Whoever showed this token not long ago.
    pub fn known(&self, _: &Worker, _: &[u8]) -> Option<Arc<Identity>> {
        None
    }

    pub async fn judge(&self, _: &Worker, _: &[u8]) -> Judged {
        Err(Failure::Unavailable("not available in this version yet".to_owned()))
    }
}
