//! PEM files that the configuration names: certificates, keys, revocation lists.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    let error = match read_regular(&file.value) {
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

/// Others than regular files are not opened: a pipe would block for ever.
pub fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::read(path)
    } else {
        Err(std::io::Error::other("it is not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let file = At { value: path, span: crate::upstream::testing::span() };
        let mut problems = Vec::new();
        assert!(read_key(&file, &mut problems).is_none());
        assert!(problems[0].message.ends_with("cannot be read: it is not a regular file"), "{problems:?}");
    }
}
