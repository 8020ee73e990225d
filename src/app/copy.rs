//! A release's own copy of the code. What belongs to version control, caches and environments stays behind; everything
//! else comes along as it is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::place::named;

/// More is not code, but data that lies in the wrong place.
const MOST_FILES: u64 = 200_000;
const MOST_BYTES: u64 = 4 << 30;

/// Directories that no service needs while it runs.
const LEFT_BEHIND: [&str; 9] =
    [".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox"];

/// What marks the root of an environment of Python.
const ENVIRONMENT: &str = "pyvenv.cfg";

/// What is copied still.
struct Copying<'a> {
    account: &'a Account,
    /// Not to be copied into itself.
    state: &'a Path,
    files: u64,
    bytes: u64,
}

/// Copies `from` to `to`, which must not be there, and makes it `account`'s. `state`: where the gateway keeps releases.
/// Blocks.
///
/// # Errors
/// The system refuses, or it is too much.
pub(super) fn copy(from: &Path, to: &Path, state: &Path, account: &Account) -> io::Result<()> {
    let from = from.canonicalize().map_err(|error| named(from, &error))?;
    let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let mut copying = Copying { account, state: &state, files: 0, bytes: 0 };
    copying.directory(&from, to)?;
    // There is more in it than code, often enough, and it is nobody else's.
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(|error| named(to, &error))
}

impl Copying<'_> {
    /// It is made the app's own last: until then nobody else can write to it.
    fn directory(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(to).map_err(|error| named(to, &error))?;
        let mut entries: Vec<PathBuf> = fs::read_dir(from)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(|error| named(from, &error))?;
        entries.sort();
        for path in entries {
            let target = to.join(path.file_name().unwrap_or_default());
            self.entry(&path, &target)?;
        }
        let mode = fs::metadata(from).map_err(|error| named(from, &error))?.permissions().mode();
        fs::set_permissions(to, fs::Permissions::from_mode(mode & 0o777 | 0o700)).map_err(|error| named(to, &error))?;
        self.account.own(to).map_err(|error| named(to, &error))
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let told = |error: io::Error| named(from, &error);
        let found = match fs::symlink_metadata(from) {
            Ok(found) => found,
            // Editors and builds remove what they have just made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(told(error)),
        };
        let kind = found.file_type();
        if kind.is_dir() {
            return if self.stays(from) { Ok(()) } else { self.directory(from, to) };
        }
        if !kind.is_file() && !kind.is_symlink() {
            return Ok(());
        }
        self.count(found.len())?;
        if kind.is_symlink() {
            symlink(fs::read_link(from).map_err(told)?, to).map_err(told)?;
        } else {
            fs::copy(from, to).map_err(told)?;
            // Python compares the times of modules with those of what it compiled of them.
            if let (Ok(modified), Ok(file)) = (found.modified(), fs::File::options().write(true).open(to)) {
                let _ = file.set_modified(modified);
            }
            let mode = found.permissions().mode() & 0o777 | 0o400;
            fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(told)?;
        }
        self.account.own(to).map_err(told)
    }

    fn stays(&self, directory: &Path) -> bool {
        let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
        LEFT_BEHIND.contains(&name) || directory.join(ENVIRONMENT).exists() || self.state.starts_with(directory)
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files <= MOST_FILES && self.bytes <= MOST_BYTES {
            return Ok(());
        }
        Err(io::Error::other(
            "it holds more than 200000 files or 4 GiB: keep data elsewhere, since every release has its own copy of the code",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn code_comes_along_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        for path in [".git", "pkg/__pycache__", "venv/bin", "pkg/static", "state"] {
            fs::create_dir_all(from.join(path)).unwrap();
        }
        for path in ["app.py", "pkg/mod.py", "pkg/static/a.css", "venv/pyvenv.cfg", ".git/HEAD", "state/x"] {
            fs::write(from.join(path), path).unwrap();
        }
        fs::set_permissions(from.join("app.py"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("app.py", from.join("link.py")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        let to = directory.path().join("to");
        copy(&from, &to, &from.join("state"), &Account { ids: None }).unwrap();
        for path in ["app.py", "pkg/mod.py", "pkg/static/a.css", "link.py"] {
            assert!(to.join(path).exists(), "{path}");
        }
        for path in [".git", "pkg/__pycache__", "venv", "state", "socket"] {
            assert!(fs::symlink_metadata(to.join(path)).is_err(), "{path}");
        }
        let (old, new) = (fs::metadata(from.join("app.py")).unwrap(), fs::metadata(to.join("app.py")).unwrap());
        assert_eq!(new.permissions().mode() & 0o777, 0o640);
        assert_eq!(old.modified().unwrap(), new.modified().unwrap());
        assert_eq!(fs::read_link(to.join("link.py")).unwrap(), Path::new("app.py"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = copy(&missing, &directory.path().join("to"), directory.path(), &Account { ids: None }).unwrap_err();
        assert!(error.to_string().starts_with(&missing.display().to_string()), "{error}");
    }
}
