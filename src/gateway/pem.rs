//! PEM files that the configuration names: certificates, keys, revocation lists.

use std::path::PathBuf;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::problem::Problem;
use crate::config::read_bounded;
use crate::config::settings::At;

/// Bytes of a file: some revocation lists have tens of megabytes.
pub const LARGEST: u64 = 64 * 1024 * 1024;

/// All that the file holds of one kind, which is called `what`. `None`: there is none, and `problems` says why.
pub fn read<T: PemObject>(file: &At<PathBuf>, what: &str, problems: &mut Vec<Problem>) -> Option<Vec<T>> {
    let text = read_file(file, what, problems)?;
    let path = file.value.display();
    let wrong = match T::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => format!("`{path}` holds no {what}"),
        Err(error) => format!("`{path}` is not valid PEM: {error}"),
    };
    problems.push(Problem::error(&file.span, wrong).help(format!("name a PEM file with at least one {what}")));
    None
}

/// The private key that the file holds. `None`: `problems` says why, but nothing that could be a part of the key.
pub fn read_key(file: &At<PathBuf>, problems: &mut Vec<Problem>) -> Option<PrivateKeyDer<'static>> {
    let text = read_file(file, "private key", problems)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&text) {
        return Some(key);
    }
    let help = if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
        "it is encrypted: take the passphrase off (openssl pkey -in ... -out ...) and guard the file by its mode"
    } else {
        "name a PEM file with one private key: PKCS#8, PKCS#1 (RSA) or SEC1 (EC)"
    };
    let wrong = format!("`{}` holds no private key that can be used", file.value.display());
    problems.push(Problem::error(&file.span, wrong).help(help));
    None
}

fn read_file(file: &At<PathBuf>, what: &str, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let why = match read_bounded(&file.value, LARGEST) {
        Ok(text) => return Some(text),
        Err(why) => why,
    };
    let help =
        "paths are relative to the configuration file, and the user that the gateway runs as must be able to read it";
    let message = format!("the {what} `{}` cannot be read: {why}", file.value.display());
    problems.push(Problem::error(&file.span, message).help(help));
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::config::source::{SourceFile, Span};

    #[test]
    fn what_is_no_file_of_a_sensible_size_is_refused_at_once() {
        let told = |path: &str| {
            let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
            let mut problems = Vec::new();
            let file = At { value: PathBuf::from(path), span };
            assert!(read::<CertificateDer<'_>>(&file, "certificate", &mut problems).is_none());
            problems.pop().expect("a problem").message
        };
        // Either would be read for ever.
        assert!(told("/dev/zero").ends_with("it is not a regular file"));
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(told(&pipe.to_string_lossy()).ends_with("it is not a regular file"));
        let large = directory.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(told(&large.to_string_lossy()).ends_with("it is larger than 64 MiB"));
    }
}
