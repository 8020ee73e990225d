//! API keys, of which only digests are known here.

use std::sync::Arc;

use super::auth::{Building, Failure, Judged};
use crate::config::settings::{ApiKeyPlace, ApiKeySettings};

/// `kind = "api_key"`
pub struct ApiKeys {
    place: ApiKeyPlace,
}

impl ApiKeys {
    pub fn build(_: &Arc<str>, settings: &ApiKeySettings, _: &mut Building<'_>) -> Option<ApiKeys> {
        Some(ApiKeys { place: settings.place.clone() })
    }

    pub fn place(&self) -> &ApiKeyPlace {
        &self.place
    }

    pub fn judge(&self, _: &[u8]) -> Judged {
        Err(Failure::Unavailable("not available in this version yet".to_owned()))
    }
}
