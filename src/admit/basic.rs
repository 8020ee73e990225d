//! User names and passwords (RFC 7617), against an htpasswd file.

use std::sync::Arc;

use super::auth::{Building, Failure, Judged};
use super::identity::Identity;
use crate::config::settings::BasicSettings;
use crate::worker::Worker;

/// `kind = "basic"`
pub struct Basic {}

impl Basic {
    pub fn build(_: &Arc<str>, _: &BasicSettings, _: Option<&Basic>, _: &mut Building<'_>) -> Option<Basic> {
        Some(Basic {})
    }

    /// Whoever showed this not long ago.
    pub fn known(&self, _: &Worker, _: &[u8]) -> Option<Arc<Identity>> {
        None
    }

    pub async fn judge(&self, _: &Worker, _: &[u8]) -> Judged {
        Err(Failure::Unavailable("not available in this version yet".to_owned()))
    }
}
