//! Client certificates as identities.

use std::sync::Arc;

use super::auth::{Failure, Judged};
use crate::config::settings::ClientCertificateSettings;
use crate::request::peer::ClientCertificate;

/// `kind = "client_certificate"`
pub struct ClientCertificates {}

impl ClientCertificates {
    pub fn build(_: &Arc<str>, _: &ClientCertificateSettings) -> ClientCertificates {
        ClientCertificates {}
    }

    pub fn judge(&self, _: &ClientCertificate) -> Judged {
        Err(Failure::Unavailable("not available in this version yet".to_owned()))
    }
}
