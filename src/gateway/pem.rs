//! PEM files that the configuration names: certificates, keys, revocation lists.

use std::io::ErrorKind;
use std::path::PathBuf;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::problem::Problem;
use crate::config::settings::At;

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
    let error = match std::fs::read(&file.value) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let help = if error.kind() == ErrorKind::PermissionDenied {
        "let the user that the gateway runs as read it"
    } else {
        "paths are relative to the configuration file"
    };
    let message = format!("the {what} `{}` cannot be read: {error}", file.value.display());
    problems.push(Problem::error(&file.span, message).help(help));
    None
}
