//! Client certificates: which authorities a listener asks them of, and which certificates it refuses.
//!
//! A client may have none; one that shows a certificate must show one that an authority of `client_ca` has issued and
//! that `client_crl` does not revoke. Whether a certificate is demanded is for routes to say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use crate::config::problem::Problem;
use crate::config::settings::{At, ClientAuthSettings};
use crate::gateway::pem;

/// Reads the files. `None`: errors were added to `problems`.
pub(super) fn compile(
    settings: &ClientAuthSettings,
    provider: &Arc<CryptoProvider>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let authorities: Option<Vec<CertificateDer<'static>>> = pem::read(&settings.ca, "certificate", problems);
    let revoked: Option<Vec<CertificateRevocationListDer<'static>>> = match &settings.crl {
        Some(file) => pem::read(file, "revocation list", problems),
        None => Some(Vec::new()),
    };
    let (authorities, revoked) = (authorities?, revoked?);
    if let Some(file) = &settings.crl {
        warn_of_lists(file, &authorities, &revoked, problems);
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        if let Err(error) = roots.add(authority) {
            let message = format!("a certificate in `{}` cannot be used: {error}", settings.ca.value.display());
            problems.push(Problem::error(&settings.ca.span, message));
            return None;
        }
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .with_crls(revoked)
        // An authority without a list has revoked nothing.
        .allow_unknown_revocation_status()
        .allow_unauthenticated()
        .build();
    match built {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            let span = settings.crl.as_ref().map_or(&settings.ca.span, |crl| &crl.span);
            problems.push(Problem::error(span, format!("client certificates cannot be verified: {error}")));
            None
        }
    }
}

/// A list that says nothing of anybody's certificate, and one that was to be replaced by now: it is honoured still.
fn warn_of_lists(
    file: &At<PathBuf>,
    authorities: &[CertificateDer<'static>],
    lists: &[CertificateRevocationListDer<'static>],
    problems: &mut Vec<Problem>,
) {
    let path = file.value.display();
    let authorities: Vec<Certificate> =
        authorities.iter().filter_map(|authority| Certificate::from_der(authority).ok()).collect();
    for list in lists.iter().filter_map(|list| CertificateList::<Rfc5280>::from_der(list).ok()) {
        let list = list.tbs_cert_list;
        if !authorities.iter().any(|authority| *authority.tbs_certificate().subject() == list.issuer) {
            let message = format!("a list in `{path}` is of no authority of client_ca: it revokes nothing");
            problems.push(Problem::warning(&file.span, message).help("name the list that the authority publishes"));
        }
        if list.next_update.is_some_and(|next| next.to_system_time() < SystemTime::now()) {
            let message = format!("a list in `{path}` is out of date: what was revoked since is not in it");
            problems.push(Problem::warning(&file.span, message).help("fetch the authority's newest list"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    use rustls::crypto::aws_lc_rs;
    use rustls_pki_types::UnixTime;

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        named("ours")
    }

    fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(authority: &Authority, serial: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["batch.internal".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.signed_by(&KeyPair::generate().unwrap(), authority).unwrap().der().clone()
    }

    fn revoking(authority: &Authority, serial: u64) -> String {
        revoking_until(authority, serial, 2124)
    }

    fn revoking_until(authority: &Authority, serial: u64, year: i32) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(authority).unwrap().pem().unwrap()
    }

    fn at(path: &Path) -> At<PathBuf> {
        At { value: path.to_owned(), span: crate::upstream::testing::span() }
    }

    #[test]
    fn who_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, crl) = (directory.path().join("ca.pem"), directory.path().join("crl.pem"));
        let (ours, other) = (authority(), authority());
        std::fs::write(&ca, ours.pem()).unwrap();
        std::fs::write(&crl, revoking(&ours, 7)).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut problems = Vec::new();
        let settings = ClientAuthSettings { ca: at(&ca), crl: Some(at(&crl)) };
        let verifier = compile(&settings, &provider, &mut problems).unwrap();
        assert!(verifier.offer_client_auth() && !verifier.client_auth_mandatory());
        let accepts =
            |certificate: CertificateDer<'_>| verifier.verify_client_cert(&certificate, &[], UnixTime::now()).is_ok();
        assert!(accepts(client(&ours, 8)));
        assert!(!accepts(client(&ours, 7)));
        assert!(!accepts(client(&other, 8)));
    }

    #[test]
    fn lists_that_are_of_no_use() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, crl) = (directory.path().join("ca.pem"), directory.path().join("crl.pem"));
        let ours = authority();
        std::fs::write(&ca, ours.pem()).unwrap();
        let told = |list: String| {
            std::fs::write(&crl, list).unwrap();
            let mut problems = Vec::new();
            let settings = ClientAuthSettings { ca: at(&ca), crl: Some(at(&crl)) };
            compile(&settings, &Arc::new(aws_lc_rs::default_provider()), &mut problems).unwrap();
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(revoking(&ours, 7)), "");
        assert!(told(revoking(&named("other"), 7)).contains("of no authority of client_ca"));
        assert!(told(revoking_until(&ours, 7, 2025)).contains("out of date"));
    }

    #[test]
    fn files_that_hold_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let told = |crl: Option<&Path>| {
            let mut problems = Vec::new();
            let settings = ClientAuthSettings { ca: at(&path), crl: crl.map(at) };
            let provider = Arc::new(aws_lc_rs::default_provider());
            assert!(compile(&settings, &provider, &mut problems).is_none());
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        };
        assert!(told(None).contains("cannot be read"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(told(None).contains("holds no certificate"));
        std::fs::write(&path, authority().pem()).unwrap();
        assert!(told(Some(&path)).contains("holds no revocation list"));
    }
}
