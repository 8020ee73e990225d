//! What `${…}` draws from outside the file: the environment, files, credentials of systemd.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// No secret is longer than this, and nothing else belongs into a value.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// The world outside a file, given as a function so that tests need not change the real environment.
pub struct Outside<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Outside<'a> {
    pub fn new(env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Outside { env }
    }
}

/// A string with its references replaced.
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether it held any reference at all.
    pub(super) drawn: bool,
    /// Whether a file or a credential is part of it.
    pub(super) secret: bool,
    /// What those held.
    pub(super) parts: Vec<SecretString>,
}

impl Expanded {
    fn push_secret(&mut self, part: String) {
        self.secret = true;
        self.text.push_str(&part);
        self.parts.push(SecretString::from(part));
    }
}

/// Why a reference could not be replaced. Never quotes what was read.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Refusal {
    fn new(message: String) -> Self {
        Refusal { message, help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Refusal { help: Some(help.into()), ..self }
    }
}

/// Replaces every `${source:name}` of `literal`; `$${` yields a literal `${`. Relative paths are relative to `base`.
/// Each file that was looked at is added to `files`, whether or not it could be read.
pub(super) fn expand(
    literal: &str,
    outside: &Outside<'_>,
    base: &Path,
    files: &mut BTreeSet<PathBuf>,
) -> Result<Expanded, Refusal> {
    let mut expanded = Expanded { text: String::new(), drawn: false, secret: false, parts: Vec::new() };
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.text.push_str(before);
            expanded.text.push_str("${");
            rest = after;
            continue;
        }
        expanded.text.push_str(before);
        let Some((reference, after)) = after.split_once('}') else {
            return Err(Refusal::new("`${` without its `}`".into()).help("a literal `${` is written `$${`"));
        };
        expanded.drawn = true;
        if reference.contains("${") {
            return Err(Refusal::new("references cannot be nested".into()));
        }
        let (source, name) = reference.split_once(':').unwrap_or((reference, ""));
        match source {
            "env" => expanded.text.push_str(&variable(name, outside)?),
            "file" => {
                let path = base.join(name);
                expanded.push_secret(contents(name, &path, files)?);
            }
            "credential" => {
                let path = credential(name, outside)?;
                expanded.push_secret(contents(name, &path, files)?);
            }
            _ => {
                return Err(Refusal::new(format!("`${{{}}}` names no known source", reference.escape_debug()))
                    .help("write ${env:NAME}, ${env:NAME:-default}, ${file:PATH} or ${credential:NAME}"));
            }
        }
        rest = after;
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// `NAME` or `NAME:-default`; as in a shell the default also stands in for an empty variable.
fn variable(reference: &str, outside: &Outside<'_>) -> Result<String, Refusal> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let shown = name.escape_debug();
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Refusal::new(format!("`{shown}` is not the name of an environment variable")));
    }
    match ((outside.env)(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (None, Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => value
            .into_string()
            .map_err(|_| Refusal::new(format!("the environment variable `{shown}` is not valid UTF-8"))),
        (None, None) => Err(Refusal::new(format!("the environment variable `{shown}` is not set"))
            .help(format!("set it, or give a default: ${{env:{shown}:-default}}"))),
    }
}

fn credential(name: &str, outside: &Outside<'_>) -> Result<PathBuf, Refusal> {
    let shown = name.escape_debug();
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Refusal::new(format!("`{shown}` is not the name of a credential")));
    }
    match (outside.env)("CREDENTIALS_DIRECTORY") {
        Some(directory) if !directory.is_empty() => Ok(Path::new(&directory).join(name)),
        Some(_) | None => Err(Refusal::new(format!(
            "credential `{shown}`: systemd has passed none (CREDENTIALS_DIRECTORY is not set)"
        ))
        .help(format!("add LoadCredential={shown}:/path to the unit"))),
    }
}

/// The whole of a file without its last line break.
fn contents(name: &str, path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<String, Refusal> {
    let shown = name.escape_debug();
    if name.is_empty() {
        return Err(Refusal::new("the reference names no file".into()));
    }
    if name.contains('\0') {
        return Err(Refusal::new(format!("`{shown}` is not a path")));
    }
    files.insert(path.to_owned());
    let bytes =
        read_bounded(path, MAX_FILE).map_err(|reason| Refusal::new(format!("cannot read `{shown}`: {reason}")))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Refusal::new(format!("`{shown}` is not valid UTF-8")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Reads a regular file of at most `bound` bytes. Others are refused before they are opened: a pipe would block.
///
/// # Errors
/// A few words for the operator.
pub(crate) fn read_bounded(path: &Path, bound: u64) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            "no such file".to_owned()
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            "permission denied".to_owned()
        } else {
            error.to_string()
        }
    };
    let metadata = std::fs::metadata(path).map_err(describe)?;
    if metadata.is_dir() {
        return Err("it is a directory".into());
    }
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(describe)?;
    file.take(bound.saturating_add(1)).read_to_end(&mut bytes).map_err(describe)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > bound) {
        return Err(format!("it is larger than {} MiB", bound / (1024 * 1024)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand_with(literal: &str, base: &Path) -> Result<(String, bool, bool), String> {
        let env = |name: &str| match name {
            "PORT" => Some("8080".into()),
            "EMPTY" => Some("".into()),
            "CREDENTIALS_DIRECTORY" => Some(base.as_os_str().to_owned()),
            _ => None,
        };
        expand(literal, &Outside::new(&env), base, &mut BTreeSet::new())
            .map(|e| (e.text, e.drawn, e.secret))
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn variables() {
        let base = Path::new("/");
        assert_eq!(expand_with("a${env:PORT}b${env:PORT}", base), Ok(("a8080b8080".into(), true, false)));
        assert_eq!(expand_with("${env:NONE:-x:-y}", base), Ok(("x:-y".into(), true, false)));
        assert_eq!(expand_with("${env:EMPTY:-x}", base), Ok(("x".into(), true, false)));
        assert_eq!(expand_with("${env:EMPTY}", base), Ok((String::new(), true, false)));
        assert_eq!(expand_with("${env:NONE}", base), Err("the environment variable `NONE` is not set".into()));
    }

    #[test]
    fn literals() {
        let base = Path::new("/");
        assert_eq!(expand_with("$${env:PORT} $5 {x}", base), Ok(("${env:PORT} $5 {x}".into(), false, false)));
        assert!(expand_with("${env:PORT", base).is_err());
        assert!(expand_with("${evn:PORT}", base).is_err());
        assert!(expand_with("${}", base).is_err());
        assert!(expand_with("${env:A:-${env:B}}", base).is_err());
    }

    #[test]
    fn files_lose_one_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        std::fs::write(base.join("one"), "secret\r\n").unwrap();
        std::fs::write(base.join("two"), "secret\n\n").unwrap();
        assert_eq!(expand_with("x${file:one}", base), Ok(("xsecret".into(), true, true)));
        assert_eq!(expand_with("${credential:two}", base), Ok(("secret\n".into(), true, true)));
        assert_eq!(expand_with("${file:three}", base), Err("cannot read `three`: no such file".into()));
        assert_eq!(expand_with("${file:.}", base), Err("cannot read `.`: it is a directory".into()));
        assert!(expand_with("${credential:../one}", base).is_err());
    }

    #[test]
    fn large_and_binary_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        std::fs::write(base.join("large"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
        std::fs::write(base.join("binary"), [0xff, 0xfe]).unwrap();
        assert_eq!(expand_with("${file:large}", base), Err("cannot read `large`: it is larger than 1 MiB".into()));
        assert_eq!(expand_with("${file:binary}", base), Err("`binary` is not valid UTF-8".into()));
    }
}
