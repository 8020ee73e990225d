//! A certificate of the gateway's own making, for a service that nobody has given one: made once, and again when it is
//! about to end or is asked for other names. Browsers do not trust it until they are told to.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::observe::timestamp::rfc3339;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Clients refuse what is good for more than 398 days.
const GOOD_FOR: Duration = Duration::from_secs(390 * 24 * 60 * 60);

/// One that has less than this left is made anew.
const LEFT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is always among the names.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Whether it was made just now.
    pub(super) new: bool,
}

/// The pair in `directory` that is good for this machine and for `names` too, made if need be.
///
/// # Errors
/// It can neither be used nor made; the path is named.
pub(super) fn ensure(directory: &Path, names: &[String], now: SystemTime) -> Result<Pair, String> {
    let (chain, key) = (directory.join("localhost.pem"), directory.join("localhost.key"));
    let wanted: BTreeSet<String> = LOCAL.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
    if is_good(&chain, &wanted, now) && key.is_file() {
        return Ok(Pair { chain, key, new: false });
    }
    let (chain_pem, key_pem) = make(&wanted, now).map_err(|error| format!("no certificate can be made: {error}"))?;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    // What lies above leads to the app's own too, which others run.
    let above = directory.parent().unwrap_or(directory);
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(above).map_err(failed(above))?;
    if !directory.is_dir() {
        std::fs::DirBuilder::new().mode(0o700).create(directory).map_err(failed(directory))?;
    }
    // The key first: a chain that is there says that both are.
    write(&key, &key_pem, 0o600).map_err(failed(&key))?;
    write(&chain, &chain_pem, 0o644).map_err(failed(&chain))?;
    Ok(Pair { chain, key, new: true })
}

fn make(names: &BTreeSet<String>, now: SystemTime) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    let (year, month, day) = date(now.checked_sub(DAY).unwrap_or(now));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(now.checked_add(GOOD_FOR).unwrap_or(now));
    params.not_after = date_time_ymd(year, month, day);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "passerelle serve");
    params.distinguished_name = name;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Year, month and day.
fn date(time: SystemTime) -> (i32, u8, u8) {
    let text = rfc3339(time);
    let mut parts = text.split(['-', 'T']);
    let year = parts.next().and_then(|year| year.parse().ok()).unwrap_or(1970);
    let mut part = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
    (year, part(), part())
}

fn is_good(chain: &Path, wanted: &BTreeSet<String>, now: SystemTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(chain) else { return false };
    let Ok(certificate) = Certificate::from_der(&der) else { return false };
    let tbs = certificate.tbs_certificate();
    let until = tbs.validity().not_after.to_system_time();
    let Ok(Some((_, SubjectAltName(names)))) = tbs.get_extension::<SubjectAltName>() else { return false };
    let names: BTreeSet<String> = names.iter().filter_map(text_of).collect();
    names == *wanted && until > now.checked_add(LEFT).unwrap_or(now)
}

fn text_of(name: &GeneralName) -> Option<String> {
    if let GeneralName::DnsName(name) = name {
        return Some(name.as_str().to_owned());
    }
    let GeneralName::IpAddress(address) = name else { return None };
    let bytes = address.as_bytes();
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
}

/// Whole or not at all, and never readable for others in between.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_pair_is_made_once() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("state/tls");
        let now = SystemTime::now();
        let first = ensure(&directory, &[], now).unwrap();
        assert!(first.new);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&first.key), mode(&first.chain)), (0o700, 0o600, 0o644));
        assert_eq!(mode(directory.parent().unwrap()), 0o711);
        let key = std::fs::read(&first.key).unwrap();
        assert_eq!(ensure(&directory, &[], now).unwrap(), Pair { new: false, ..first.clone() });
        assert_eq!(std::fs::read(&first.key).unwrap(), key);

        // Other names, or a time at which it is about to end, want another one.
        assert!(ensure(&directory, &names(&["192.0.2.7", "shop.example.com"]), now).unwrap().new);
        assert_ne!(std::fs::read(&first.key).unwrap(), key);
        assert!(!ensure(&directory, &names(&["shop.example.com", "192.0.2.7"]), now).unwrap().new);
        assert!(!ensure(&directory, &names(&["shop.example.com", "192.0.2.7"]), now + 300 * DAY).unwrap().new);
        assert!(ensure(&directory, &names(&["shop.example.com", "192.0.2.7"]), now + 365 * DAY).unwrap().new);
        // What is no certificate is replaced, and so is one whose key is gone.
        std::fs::write(&first.chain, "nothing").unwrap();
        assert!(ensure(&directory, &[], now).unwrap().new);
        std::fs::remove_file(&first.key).unwrap();
        assert!(ensure(&directory, &[], now).unwrap().new);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn it_is_good_for_no_more_than_clients_take() {
        let home = tempfile::tempdir().unwrap();
        let pair = ensure(home.path(), &[], SystemTime::now()).unwrap();
        let der = CertificateDer::from_pem_file(&pair.chain).unwrap();
        let certificate = Certificate::from_der(&der).unwrap();
        let validity = certificate.tbs_certificate().validity();
        let (from, until) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
        assert!(until.duration_since(from).unwrap() < 398 * DAY);
        assert!(from <= SystemTime::now());
        assert!(!certificate.tbs_certificate().issuer().is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = ensure(&file.join("tls"), &[], SystemTime::now()).unwrap_err();
        assert!(error.contains("file: "), "{error}");
    }
}
