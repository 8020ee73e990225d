//! A certificate of the gateway's own making, for a service that nobody has given one: made once, and again, with the
//! same key, when it is about to end or is asked for names that it lacks. Browsers do not trust it until they are told to.

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

/// More names than this are not taken over from the one before.
const MOST_NAMES: usize = 64;

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Where the pair in `directory` is, whether or not it is there.
pub(super) fn pair(directory: &Path) -> Pair {
    Pair { chain: directory.join("localhost.pem"), key: directory.join("localhost.key") }
}

/// Makes sure that the pair in `directory` is good for this machine and for `names` too. One that is there may be trusted
/// somewhere, so it is touched only where it must be: its key stays, and so do its names. Returns whether it was made
/// anew.
///
/// # Errors
/// It can neither be used nor made; the path is named.
pub(super) fn ensure(directory: &Path, names: &[String], now: SystemTime) -> Result<bool, String> {
    let Pair { chain, key } = pair(directory);
    let mut wanted: BTreeSet<String> =
        LOCAL.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
    let old = read(&chain);
    let old_key = std::fs::read_to_string(&key).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    if let Some(old) = &old {
        let lasts = old.until > now.checked_add(LEFT).unwrap_or(now);
        if old_key.is_some() && lasts && wanted.is_subset(&old.names) {
            return Ok(false);
        }
        wanted.extend(old.names.iter().take(MOST_NAMES).cloned());
    }
    let made = make(&wanted, old_key, now).map_err(|error| format!("no certificate can be made: {error}"))?;
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
    if let Some(key_pem) = &made.key {
        write(&key, key_pem, 0o600).map_err(failed(&key))?;
    }
    write(&chain, &made.chain, 0o644).map_err(failed(&chain))?;
    Ok(true)
}

/// As they are written.
struct Made {
    chain: String,
    /// `None`: the one that is there.
    key: Option<String>,
}

fn make(names: &BTreeSet<String>, key: Option<KeyPair>, now: SystemTime) -> Result<Made, rcgen::Error> {
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
    if let Some(key) = key {
        return Ok(Made { chain: params.self_signed(&key)?.pem(), key: None });
    }
    let key = KeyPair::generate()?;
    Ok(Made { chain: params.self_signed(&key)?.pem(), key: Some(key.serialize_pem()) })
}

/// Year, month and day.
fn date(time: SystemTime) -> (i32, u8, u8) {
    let text = rfc3339(time);
    let mut parts = text.split(['-', 'T']);
    let year = parts.next().and_then(|year| year.parse().ok()).unwrap_or(1970);
    let mut part = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
    (year, part(), part())
}

/// What a certificate says of itself.
struct Old {
    names: BTreeSet<String>,
    until: SystemTime,
}

fn read(chain: &Path) -> Option<Old> {
    let der = CertificateDer::from_pem_file(chain).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let tbs = certificate.tbs_certificate();
    let (_, SubjectAltName(names)) = tbs.get_extension::<SubjectAltName>().ok()??;
    Some(Old { names: names.iter().filter_map(text_of).collect(), until: tbs.validity().not_after.to_system_time() })
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
    fn a_pair_is_made_once_and_keeps_its_key_and_its_names() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("state/tls");
        let now = SystemTime::now();
        assert!(ensure(&directory, &[], now).unwrap());
        let Pair { chain, key } = pair(&directory);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&key), mode(&chain)), (0o700, 0o600, 0o644));
        assert_eq!(mode(directory.parent().unwrap()), 0o711);
        let both = || (std::fs::read(&key).unwrap(), std::fs::read(&chain).unwrap());
        let first = both();
        assert!(!ensure(&directory, &[], now).unwrap());
        assert_eq!(both(), first);

        // Names that it lacks want another one of the same key, which has the others still.
        let two = names(&["192.0.2.7", "shop.example.com"]);
        assert!(ensure(&directory, &two, now).unwrap());
        assert_eq!(both().0, first.0);
        let second = both();
        assert!(!ensure(&directory, &[], now).unwrap() && !ensure(&directory, &two, now + 300 * DAY).unwrap());
        assert!(ensure(&directory, &names(&["other.example.com"]), now).unwrap());
        assert!(!ensure(&directory, &two, now).unwrap());
        assert_ne!(both(), second);
        // So does the time at which it is about to end.
        assert!(ensure(&directory, &[], now + 365 * DAY).unwrap());
        assert_eq!(both().0, first.0);
        assert!(!ensure(&directory, &two, now + 365 * DAY).unwrap());
        // What is no certificate is replaced, and so is one whose key is gone.
        std::fs::write(&chain, "nothing").unwrap();
        assert!(ensure(&directory, &[], now).unwrap());
        std::fs::remove_file(&key).unwrap();
        assert!(ensure(&directory, &[], now).unwrap());
        assert_ne!(both().0, first.0);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn it_is_good_for_no_more_than_clients_take() {
        let home = tempfile::tempdir().unwrap();
        ensure(home.path(), &[], SystemTime::now()).unwrap();
        let der = CertificateDer::from_pem_file(pair(home.path()).chain).unwrap();
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
