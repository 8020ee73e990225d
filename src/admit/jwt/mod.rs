//! JSON Web Tokens as access tokens.

pub mod json;
pub mod keys;
pub mod keyset;

use std::sync::Arc;

use super::auth::{Building, Failure, Judged};
use super::identity::Identity;
use crate::config::settings::{JwtSettings, TokenFrom};
use crate::worker::Worker;

/// `kind = "jwt"`
pub struct Jwt {
    settings: JwtSettings,
}

impl Jwt {
    pub fn build(_: &Arc<str>, settings: &JwtSettings, _: Option<&Jwt>, _: &mut Building<'_>) -> Option<Jwt> {
        Some(Jwt { settings: settings.clone() })
    }

    pub fn token_from(&self) -> &TokenFrom {
        &self.settings.token_from
    }

    /// Whoever showed this token not long ago.
    pub fn known(&self, _: &Worker, _: &[u8]) -> Option<Arc<Identity>> {
        None
    }

    pub async fn judge(&self, _: &Worker, _: &[u8]) -> Judged {
        Err(Failure::Unavailable("not available in this version yet".to_owned()))
    }
}
