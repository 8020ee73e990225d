//! Server certificates: reading them, finding out what is wrong with them, and picking one by the name that the client
//! asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::config::problem::Problem;
use crate::config::settings::CertificateFiles;
use crate::gateway::pem;

/// A chain with its key, and the names that it is for.
#[derive(Debug)]
pub(super) struct Certificate {
    key: Arc<CertifiedKey>,
    /// Lower case; `*.` in front where it is a wildcard. Perhaps none.
    names: Vec<String>,
}

impl Certificate {
    /// Reads both files. `None`: an error was added to `problems`.
    pub(super) fn load(
        files: &CertificateFiles,
        provider: &CryptoProvider,
        problems: &mut Vec<Problem>,
    ) -> Option<Certificate> {
        let chain = pem::read(&files.chain, "certificate", problems);
        let key = pem::read_key(&files.key, problems);
        let (chain, key) = (chain?, key?);
        let certified = match CertifiedKey::from_der(chain, key, provider) {
            Ok(certified) => certified,
            Err(error) => {
                problems.push(unusable(files, &error));
                return None;
            }
        };
        let names = certified.cert.first().and_then(|leaf| examine(leaf, files, problems))?;
        Some(Certificate { key: Arc::new(certified), names })
    }
}

fn unusable(files: &CertificateFiles, error: &rustls::Error) -> Problem {
    let (chain, key) = (files.chain.value.display(), files.key.value.display());
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        let message = format!("the key `{key}` does not belong to the certificate `{chain}`");
        return Problem::error(&files.key.span, message).help(
            "the server's own certificate must come first in `chain`, and `key` must be the key it was made for",
        );
    }
    let message = format!("the certificate `{chain}` or its key cannot be used: {error}");
    Problem::error(&files.chain.span, message)
        .help("use an X.509 version 3 certificate with an RSA, ECDSA or Ed25519 key")
}

/// The certificate's names; warns of what clients will not accept. `None`: it cannot be read.
fn examine(leaf: &CertificateDer<'_>, files: &CertificateFiles, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
    let path = files.chain.value.display();
    let certificate = match EndEntityCert::try_from(leaf) {
        Ok(certificate) => certificate,
        Err(error) => {
            problems.push(
                Problem::error(&files.chain.span, format!("the certificate `{path}` cannot be read: {error}"))
                    .help("use an X.509 version 3 certificate"),
            );
            return None;
        }
    };
    // Validity is judged before the issuer is looked for, so without any trust anchor this tells of the dates.
    let verified = certificate.verify_for_usage(&[], &[], &[], UnixTime::now(), KeyUsage::server_auth(), None, None);
    if let Err(webpki::Error::CertExpired { .. }) = verified {
        problems.push(
            Problem::warning(&files.chain.span, format!("the certificate `{path}` has expired")).help("renew it"),
        );
    } else if let Err(webpki::Error::CertNotValidYet { .. }) = verified {
        problems.push(
            Problem::warning(&files.chain.span, format!("the certificate `{path}` is not valid yet"))
                .help("check the clock of this machine"),
        );
    }
    Some(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// Picks a certificate by the server name that the client sends.
#[derive(Debug)]
pub(super) struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`, which stands for one label.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that send no name or one that no certificate is for: the first certificate, and those of its first
    /// name with other keys.
    fallback: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    /// Earlier certificates come first where several are for a name.
    pub(super) fn new(certificates: Vec<Certificate>) -> ByName {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let first_name = certificates.first().and_then(|first| first.names.first()).cloned();
        let mut fallback = Vec::new();
        for (index, Certificate { key, names }) in certificates.into_iter().enumerate() {
            if index == 0 || first_name.as_ref().is_some_and(|name| names.contains(name)) {
                fallback.push(Arc::clone(&key));
            }
            for name in names {
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_default(),
                    None => exact.entry(name).or_default(),
                };
                keys.push(Arc::clone(&key));
            }
        }
        ByName { exact, wildcard, fallback }
    }

    fn candidates(&self, name: &str) -> &[Arc<CertifiedKey>] {
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1)).unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().map_or(&*self.fallback, |name| self.candidates(name));
        let schemes = hello.signature_schemes();
        let fits = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        fits.or(candidates.first()).cloned()
    }
}
