//! What the tests of this module build settings from.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::parse_fetch_url;
use crate::config::settings::{ClaimPath, ClaimSettings, ClientProof, IntrospectionSettings, Secret};

/// The defaults.
pub(super) fn settings(url: &str, client_id: &str, secret: &str) -> IntrospectionSettings {
    let path = |text: &str| ClaimPath { whole: text.to_owned(), segments: vec![text.to_owned()] };
    IntrospectionSettings {
        url: parse_fetch_url(url).unwrap(),
        client_id: client_id.to_owned(),
        client: ClientProof::Secret(Secret::new(secret.to_owned())),
        cache: Duration::from_secs(30),
        max_in_flight: NonZeroUsize::new(64).unwrap(),
        timeout: Duration::from_secs(5),
        issuer: None,
        audience: None,
        claims: ClaimSettings { roles: path("roles"), scopes: path("scope"), roles_map: None },
        ca: None,
    }
}
