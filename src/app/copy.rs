//! A release's own copy of the code. What belongs to version control, caches, environments and whoever develops stays
//! behind; everything else comes along as it is, and is the app's user's.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, open, openat, readlinkat, statat};
use rustix::io::Errno;

use super::account::Account;
use super::place::named;

/// More is not code, but data that lies in the wrong place.
const MOST_FILES: u64 = 200_000;
const MOST_BYTES: u64 = 4 << 30;

/// So much of a file is copied before it is looked again whether it is to go on.
const PIECE: u64 = 16 << 20;

/// Directories that no service needs while it runs. Some hold the keys of whoever deploys: the copy would make a present
/// of them to the app.
const LEFT_BEHIND: [&str; 17] = [
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    "node_modules",
    ".ssh",
    ".aws",
    ".azure",
    ".gcloud",
    ".gnupg",
    ".kube",
    ".docker",
];

/// Likewise, files. `.env` is none of them: it is there for the service, which often reads it by itself.
const FILES_LEFT_BEHIND: [&str; 6] = [".git", ".netrc", ".pgpass", ".pypirc", ".git-credentials", ".bash_history"];

/// What marks the root of an environment of Python.
const ENVIRONMENT: &str = "pyvenv.cfg";

/// What is copied still.
struct Copying<'a> {
    account: &'a Account,
    root: &'a Path,
    /// Device and inode of where the gateway keeps releases: not to be copied into itself.
    state: Option<(u64, u64)>,
    /// Whose files alone are copied; `None`: everybody's.
    owner: Option<u32>,
    files: u64,
    bytes: u64,
    stop: &'a AtomicBool,
}

/// Whose hand the code is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Whoever deploys it.
    Operator,
    /// The app's own user can write to it: there may be links to what only the gateway can read, and what is a file may
    /// become one while it is copied. What is another user's stays behind.
    App {
        /// `None`: the gateway's own.
        uid: Option<u32>,
    },
}

/// Copies `from` to `to`, which must not be there, and makes it `account`'s. `state`: where the gateway keeps releases.
/// Everything is reached by way of descriptors, and no link is followed below `from`. Blocks, until `stop` is set.
///
/// # Errors
/// The system refuses, it is too much, or it was stopped.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    state: &Path,
    account: &Account,
    origin: Origin,
    stop: &AtomicBool,
) -> io::Result<()> {
    let state = fs::metadata(state).ok().map(|found| (found.dev(), found.ino()));
    let (owner, last) = match origin {
        Origin::Operator => (None, OFlags::empty()),
        Origin::App { uid } => (uid, OFlags::NOFOLLOW),
    };
    let mut copying = Copying { account, root: from, state, owner, files: 0, bytes: 0, stop };
    let opened = open(from, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | last, Mode::empty());
    let opened = opened.map_err(|error| named(from, &error.into()))?;
    copying.directory(&opened, from, to)?;
    // There is more in it than code, often enough, and it is nobody else's.
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(|error| named(to, &error))
}

impl Copying<'_> {
    /// It is made the app's own last: until then nobody else can write to it.
    fn directory(&mut self, opened: &OwnedFd, from: &Path, to: &Path) -> io::Result<()> {
        let (told, made) = (|error: Errno| named(from, &error.into()), |error: io::Error| named(to, &error));
        fs::DirBuilder::new().mode(0o700).create(to).map_err(made)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(opened).map_err(told)? {
            let name = OsStr::from_bytes(entry.map_err(told)?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            self.entry(opened, &name, &from.join(&name), &to.join(&name))?;
        }
        let mode = fstat(opened).map_err(told)?.st_mode;
        fs::set_permissions(to, fs::Permissions::from_mode(mode & 0o777 | 0o700)).map_err(made)?;
        self.account.own(to).map_err(made)
    }

    fn entry(&mut self, above: &OwnedFd, name: &OsStr, from: &Path, to: &Path) -> io::Result<()> {
        self.goes_on()?;
        let told = |error: io::Error| named(from, &error);
        let found = match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // Editors and builds remove what they have just made.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(told(error.into())),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = openat(above, name, flags, Mode::empty()).map_err(|error| told(error.into()))?;
                if self.stays(&opened, name).map_err(told)? { Ok(()) } else { self.directory(&opened, from, to) }
            }
            FileType::Symlink => {
                self.count(0)?;
                let target = readlinkat(above, name, Vec::new()).map_err(|error| told(error.into()))?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                // What leads out of the code leads to the same place from the copy, which is elsewhere.
                let leads_out = self.owner.is_none() && leads_out(from, target, self.root);
                let kept = from.parent().filter(|_| leads_out).map(|parent| parent.join(target));
                symlink(kept.as_deref().unwrap_or(target), to).map_err(told)?;
                self.account.own(to).map_err(told)
            }
            FileType::RegularFile if is_among(name, &FILES_LEFT_BEHIND) => Ok(()),
            FileType::RegularFile => self.file(above, name, from, to),
            // Nothing that code is made of.
            FileType::Fifo
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Socket
            | FileType::Unknown => Ok(()),
        }
    }

    fn file(&mut self, above: &OwnedFd, name: &OsStr, from: &Path, to: &Path) -> io::Result<()> {
        let told = |error: io::Error| named(from, &error);
        // Something else may have taken its place: nobody waits for the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = match openat(above, name, flags, Mode::empty()) {
            Ok(opened) => fs::File::from(opened),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(told(error.into())),
        };
        let found = opened.metadata().map_err(told)?;
        if !found.is_file() || self.owner.is_some_and(|owner| owner != found.uid()) {
            return Ok(());
        }
        self.count(found.len())?;
        let mut made = fs::File::create_new(to).map_err(told)?;
        let mut left = found.len();
        while left > 0 {
            self.goes_on()?;
            let copied = io::copy(&mut (&mut opened).take(left.min(PIECE)), &mut made).map_err(told)?;
            // It has become shorter.
            left = if copied == 0 { 0 } else { left.saturating_sub(copied) };
        }
        // Python compares the times of modules with those of what it compiled of them.
        if let Ok(modified) = found.modified() {
            let _ = made.set_modified(modified);
        }
        made.set_permissions(fs::Permissions::from_mode(found.mode() & 0o777 | 0o400)).map_err(told)?;
        self.account.own(to).map_err(told)
    }

    fn stays(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        let found = fstat(directory)?;
        let is_state = self.state == Some((found.st_dev, found.st_ino));
        let is_environment = statat(directory, ENVIRONMENT, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Ok(is_state || is_environment || is_among(name, &LEFT_BEHIND))
    }

    fn goes_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::Error::other("it was called off")) } else { Ok(()) }
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

fn is_among(name: &OsStr, names: &[&str]) -> bool {
    name.to_str().is_some_and(|name| names.contains(&name))
}

/// Whether a relative link at `link` leads to somewhere that is not beneath `root`.
fn leads_out(link: &Path, target: &Path, root: &Path) -> bool {
    let Some(within) = link.parent().and_then(|parent| parent.strip_prefix(root).ok()) else { return false };
    let mut depth = within.components().count();
    for component in target.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return false,
            Component::CurDir => {}
            Component::Normal(_) => depth = depth.saturating_add(1),
            Component::ParentDir => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::shim::Ids;
    use super::*;

    fn copy(from: &Path, to: &Path, state: &Path, account: &Account, origin: Origin) -> io::Result<()> {
        super::copy(from, to, state, account, origin, &AtomicBool::new(false))
    }

    #[test]
    fn code_comes_along_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        let stays =
            [".git/HEAD", "venv/pyvenv.cfg", "state/x", ".ssh/id_ed25519", ".aws/credentials", ".netrc", ".pgpass"];
        let stays =
            [&stays[..], &["pkg/node_modules/a/b.js", "pkg/__pycache__/mod.pyc", "sub/.git", ".kube/config"]].concat();
        let comes = ["app.py", "pkg/mod.py", "pkg/static/a.css", ".env", "netrc", "pkg/.well-known/x"];
        for path in [&stays[..], &comes].concat() {
            fs::create_dir_all(from.join(path).parent().unwrap()).unwrap();
            fs::write(from.join(path), path).unwrap();
        }
        fs::set_permissions(from.join("app.py"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("app.py", from.join("link.py")).unwrap();
        symlink("../app.py", from.join("pkg/within.py")).unwrap();
        fs::write(directory.path().join("shared"), "").unwrap();
        symlink("../../shared", from.join("pkg/shared")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        let to = directory.path().join("to");
        copy(&from, &to, &from.join("state"), &Account { ids: None }, Origin::Operator).unwrap();
        for path in comes.iter().chain(&["link.py"]) {
            assert!(to.join(path).exists(), "{path}");
        }
        let gone = [".git", "pkg/__pycache__", "venv", "state", "socket", "pkg/node_modules", ".ssh"];
        for path in stays.iter().chain(&gone) {
            assert!(fs::symlink_metadata(to.join(path)).is_err(), "{path}");
        }
        let (old, new) = (fs::metadata(from.join("app.py")).unwrap(), fs::metadata(to.join("app.py")).unwrap());
        assert_eq!(new.permissions().mode() & 0o777, 0o640);
        assert_eq!(old.modified().unwrap(), new.modified().unwrap());
        assert_eq!(fs::read_link(to.join("link.py")).unwrap(), Path::new("app.py"));
        assert_eq!(fs::read_link(to.join("pkg/within.py")).unwrap(), Path::new("../app.py"));
        assert_eq!(fs::read_link(to.join("pkg/shared")).unwrap(), from.join("pkg/../../shared"));
    }

    #[test]
    fn an_app_cannot_have_others_files_copied_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (from, secret) = (directory.path().join("from"), directory.path().join("secret"));
        fs::create_dir(&from).unwrap();
        fs::write(&secret, "of root").unwrap();
        fs::write(from.join("own.py"), "own").unwrap();
        symlink(&secret, from.join("link.py")).unwrap();
        symlink(directory.path(), from.join("above")).unwrap();
        let own = fs::metadata(&from).unwrap();
        let ids = Ids { uid: own.uid(), gid: own.gid(), groups: Vec::new() };
        // Only root can give files away.
        let given = std::os::unix::fs::lchown(&secret, Some(own.uid().saturating_add(1)), None).is_ok();
        fs::hard_link(&secret, from.join("hard.py")).unwrap();
        let to = directory.path().join("to");
        copy(&from, &to, Path::new("/nowhere"), &Account { ids: Some(ids) }, Origin::App { uid: Some(own.uid()) })
            .unwrap();
        assert_eq!(fs::read_to_string(to.join("own.py")).unwrap(), "own");
        for link in ["link.py", "above"] {
            assert!(fs::symlink_metadata(to.join(link)).unwrap().is_symlink(), "{link}");
        }
        assert_eq!(to.join("hard.py").exists(), !given);
        // A directory that is a link by now.
        let linked = directory.path().join("linked");
        symlink(&from, &linked).unwrap();
        let again = directory.path().join("again");
        assert!(
            copy(&linked, &again, Path::new("/nowhere"), &Account { ids: None }, Origin::App { uid: None }).is_err()
        );
    }

    #[test]
    fn what_is_called_off_goes_no_further() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("app.py"), "").unwrap();
        let account = Account { ids: None };
        let stop = AtomicBool::new(true);
        assert!(super::copy(&from, &to, Path::new("/nowhere"), &account, Origin::Operator, &stop).is_err());
        assert!(!to.join("app.py").exists());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let account = Account { ids: None };
        let error = copy(&missing, &directory.path().join("to"), directory.path(), &account, Origin::App { uid: None })
            .unwrap_err();
        assert!(error.to_string().starts_with(&missing.display().to_string()), "{error}");
    }
}
