//! Client certificates as identities. Who is trusted the handshake has decided, by the listener's `client_ca`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::auth::{Failure, Judged};
use super::identity::{Identity, Method};
use super::verified::Prover;
use crate::clock;
use crate::config::settings::{CertificateSubject, ClientCertificateSettings};
use crate::request::peer::ClientCertificate;

/// `kind = "client_certificate"`
pub struct ClientCertificates {
    auth: Arc<str>,
    subject: CertificateSubject,
    roles: BTreeMap<String, Vec<String>>,
    prover: Prover,
}

impl ClientCertificates {
    pub fn build(auth: &Arc<str>, settings: &ClientCertificateSettings) -> ClientCertificates {
        let ClientCertificateSettings { roles, subject } = settings.clone();
        ClientCertificates { auth: Arc::clone(auth), subject, roles, prover: Prover::new() }
    }

    /// Whom the certificate names.
    ///
    /// # Errors
    /// It has ended, or has no such name.
    pub fn judge(&self, certificate: &ClientCertificate) -> Judged {
        if certificate.not_after() < clock::recent_wall() {
            return Err(Failure::Invalid("the certificate has expired"));
        }
        if let Some(identity) = certificate.known(self.prover) {
            return Ok(identity);
        }
        let subject = match self.subject {
            CertificateSubject::Subject if !certificate.subject().is_empty() => certificate.subject(),
            CertificateSubject::Subject | CertificateSubject::San => match certificate.alternative() {
                Some(name) => name,
                None => return Err(Failure::Invalid("the certificate has no name that counts here")),
            },
        };
        let names = certificate.names().iter().map(String::as_str).chain([certificate.subject()]);
        let roles = names.filter_map(|name| self.roles.get(name)).flatten().cloned();
        let identity = Arc::new(Identity::new(&self.auth, Method::ClientCertificate, subject, roles, []));
        certificate.remember(self.prover, &identity);
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn auth(subject: CertificateSubject, roles: &[(&str, &str)]) -> ClientCertificates {
        let roles = roles.iter().map(|(name, role)| ((*name).to_owned(), vec![(*role).to_owned()])).collect();
        ClientCertificates::build(&Arc::from("machines"), &ClientCertificateSettings { roles, subject })
    }

    fn certificate(subject: &[&str], alternatives: &[&str], lasts: Duration) -> ClientCertificate {
        let names = subject.iter().chain(alternatives).map(|name| (*name).to_owned()).collect();
        ClientCertificate::new(subject.join(","), names, subject.len(), SystemTime::now() + lasts)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn who_a_certificate_names() {
        use CertificateSubject::{San, Subject};
        let subject = |of, parts: &[&str], alternatives: &[&str]| {
            let judged = auth(of, &[]).judge(&certificate(parts, alternatives, HOUR));
            judged.map(|identity| identity.subject().to_owned()).ok()
        };
        assert_eq!(subject(Subject, &["CN=a", "O=b"], &["DNS:c"]).as_deref(), Some("CN=a,O=b"));
        assert_eq!(subject(Subject, &[], &["DNS:c", "DNS:d"]).as_deref(), Some("DNS:c"));
        assert_eq!(subject(Subject, &[], &[]), None);
        assert_eq!(subject(San, &["CN=a"], &["DNS:c"]).as_deref(), Some("DNS:c"));
        assert_eq!(subject(San, &["CN=a"], &[]), None);
    }

    #[test]
    fn roles_by_any_name() {
        let auth = auth(
            CertificateSubject::Subject,
            &[("CN=a", "part"), ("CN=a,O=b", "whole"), ("DNS:c", "alternative"), ("O=a", "none"), ("CN=a,O", "none")],
        );
        let identity = auth.judge(&certificate(&["CN=a", "O=b"], &["DNS:c"], HOUR)).unwrap();
        assert!(["part", "whole", "alternative"].iter().all(|role| identity.has_role(role)));
        assert!(!identity.has_role("none"));
    }

    #[test]
    fn an_identity_is_made_once_for_a_connection_and_an_auth() {
        let (one, other) = (auth(CertificateSubject::Subject, &[]), auth(CertificateSubject::San, &[]));
        let certificate = certificate(&["CN=a"], &["DNS:c"], HOUR);
        let first = one.judge(&certificate).unwrap();
        assert!(Arc::ptr_eq(&first, &one.judge(&certificate).unwrap()));
        assert_eq!(other.judge(&certificate).unwrap().subject(), "DNS:c");
        assert_eq!(one.judge(&certificate).unwrap().subject(), "CN=a");
    }

    #[test]
    fn a_connection_does_not_outlive_its_certificate() {
        let auth = auth(CertificateSubject::Subject, &[]);
        let expired = ClientCertificate::new("CN=a".into(), Vec::new(), 0, SystemTime::now() - HOUR);
        assert_eq!(auth.judge(&expired).unwrap_err(), Failure::Invalid("the certificate has expired"));
    }
}
