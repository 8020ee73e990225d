//! Removing what an app's user has written, however it is made: no link is followed, no depth is too great, and a few
//! descriptors are enough.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory by what it is, wherever it is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(directory: &OwnedFd) -> io::Result<Identity> {
        let found = fstat(directory)?;
        Ok(Identity(found.st_dev, found.st_ino))
    }
}

/// Removes `path` with everything beneath it. What is not there is removed. Blocks, for as long as there is something.
///
/// # Errors
/// The system refuses, or somebody moves directories about meanwhile.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut here = openat(CWD, path, DIRECTORY, Mode::empty())?;
    // The way down: the name of each directory, and which one it is in.
    let mut above: Vec<(OsString, Identity)> = Vec::new();
    loop {
        if let Some(name) = empty(&here)? {
            let below = openat(&here, &name, DIRECTORY, Mode::empty())?;
            above.push((name, Identity::of(&here)?));
            here = below;
            continue;
        }
        let Some((name, identity)) = above.pop() else { break };
        let parent = openat(&here, "..", DIRECTORY, Mode::empty())?;
        if Identity::of(&parent)? != identity {
            return Err(io::Error::other("a directory was moved while it was removed"));
        }
        unlinkat(&parent, &name, AtFlags::REMOVEDIR)?;
        here = parent;
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what can be removed of a directory's entries; the first that is a directory with something in it is returned.
fn empty(directory: &OwnedFd) -> io::Result<Option<OsString>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn nothing_is_left_and_nothing_else_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, kept) = (directory.path().join("tree"), directory.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir_all(tree.join("c")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
        let link = directory.path().join("link");
        symlink(&kept, &link).unwrap();
        remove(&link).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
    }

    #[test]
    fn no_depth_is_too_great() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut here = openat(CWD, &tree, DIRECTORY, Mode::empty()).unwrap();
        // Past the longest path and the usual number of descriptors. The system takes squarely longer for more.
        for _ in 0..3_000 {
            mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = openat(&here, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
