//! Finding a file beneath a directory that nothing leads out of.
//!
//! The kernel walks the path and refuses to leave the directory (`openat2` with `RESOLVE_BENEATH`), so that no link
//! that is put there at the wrong moment can trick a check that was made before. Kernels and sandboxes without that
//! call are served by a walk of our own, name by name over descriptors.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, FsWord, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

use crate::disk;

/// Symbolic links on one path, as the kernel counts them.
const MOST_LINKS: u32 = 40;

/// How often a path is walked again that was renamed while the kernel walked it.
const RENAMED: u32 = 8;

/// A directory that files are served from, or one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Absolute. Looked up for each request, so that a deployment may swap a link on it.
    path: PathBuf,
}

/// Whether a look-up may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Fails with [`Failure::WouldBlock`] unless all that it needs is in memory.
    None,
    /// For threads that may block.
    Disk,
}

/// Why there is no file.
#[derive(Debug)]
pub enum Failure {
    /// There is none, or none that is served: the reason, for the log.
    NotFound(&'static str),
    /// The gateway may not read it.
    Forbidden,
    Io(io::Error),
    /// To be asked again with patience.
    WouldBlock,
}

/// What stands at a path.
#[derive(Debug)]
pub enum Node {
    File(OwnedFd, Box<Stat>),
    Directory,
}

/// A root that was looked up.
pub struct Within {
    place: OwnedFd,
    patience: Patience,
}

/// How paths are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Kernel,
    Own,
}

impl Walk {
    /// What this machine can: asked once. `EPERM` is how old sandboxes refuse calls that they do not know.
    fn of_this_machine() -> Walk {
        static KNOWN: OnceLock<Walk> = OnceLock::new();
        let ask = || match openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()) {
            Err(Errno::NOSYS | Errno::PERM) => Walk::Own,
            Ok(_) | Err(_) => Walk::Kernel,
        };
        *KNOWN.get_or_init(ask)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        match errno {
            Errno::NOENT => Failure::NotFound("no such file"),
            Errno::NOTDIR => Failure::NotFound("a part of it is no directory"),
            Errno::NAMETOOLONG => Failure::NotFound("a name in it is too long"),
            Errno::LOOP => Failure::NotFound("too many symbolic links"),
            Errno::XDEV => Failure::NotFound("a symbolic link leads out of the directory, or is absolute"),
            // A socket, or a device that is not there.
            Errno::NXIO | Errno::NODEV => Failure::NotFound("it is no regular file"),
            Errno::AGAIN => Failure::WouldBlock,
            Errno::ACCESS | Errno::PERM => Failure::Forbidden,
            other => Failure::Io(other.into()),
        }
    }
}

impl Root {
    pub fn new(path: PathBuf) -> Root {
        Root { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What would keep the gateway from serving anything of it now, also a disk that does not answer.
    pub fn trouble(&self) -> Option<String> {
        let root = self.clone();
        disk::ask(&self.path, move || root.look()).unwrap_or_else(|silent| Some(silent.to_string()))
    }

    fn look(&self) -> Option<String> {
        let look = || -> Result<(), Failure> {
            match self.enter(Patience::Disk)? {
                // Asking for anything within takes the permission that serving it would.
                Entered::Directory(within) => match statat(&within.place, "x", AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno.into()),
                },
                Entered::File(..) => Ok(()),
            }
        };
        match look() {
            Ok(()) => None,
            Err(Failure::NotFound(why)) => Some(why.into()),
            Err(Failure::Forbidden) => Some("permission denied".into()),
            Err(Failure::Io(error)) => Some(error.to_string()),
            Err(Failure::WouldBlock) => None,
        }
    }

    /// Looks the root itself up. Links on the way to it are followed wherever they lead.
    pub fn enter(&self, patience: Patience) -> Result<Entered, Failure> {
        let open = |flags: OFlags| open_cached(CWD, self.path.as_os_str(), flags, ResolveFlags::empty(), patience);
        match open(OFlags::PATH | OFlags::DIRECTORY) {
            Ok(place) => Ok(Entered::Directory(Within { place, patience })),
            Err(Errno::NOTDIR) => match node(open(READ)?)? {
                Node::File(file, stat) => Ok(Entered::File(file, stat)),
                // It has become one in between.
                Node::Directory => Err(Failure::WouldBlock),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// What stands beside a root that is a file, under its name with `suffix` behind it. Links that lead away are not
    /// followed.
    ///
    /// # Errors
    /// Why there is nothing.
    pub fn beside(&self, suffix: &str, patience: Patience) -> Result<Node, Failure> {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(Failure::NotFound("no such file"));
        };
        let mut name = name.to_owned();
        name.push(suffix);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let place = open_cached(CWD, directory.as_os_str(), flags, ResolveFlags::empty(), patience)?;
        Within { place, patience }.find(name.as_bytes())
    }
}

/// What a root turned out to be.
pub enum Entered {
    Directory(Within),
    File(OwnedFd, Box<Stat>),
}

/// `NONBLOCK`, so that a FIFO without a writer and a file under a lease let nobody wait.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Within {
    /// What stands at `path`, which is relative and beneath.
    ///
    /// # Errors
    /// Why it is not there, or must not be.
    pub fn find(&self, path: &[u8]) -> Result<Node, Failure> {
        self.find_by(path, Walk::of_this_machine())
    }

    fn find_by(&self, path: &[u8], walk: Walk) -> Result<Node, Failure> {
        match (walk, self.patience) {
            (Walk::Kernel, patience) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match open_cached(&self.place, OsStr::from_bytes(path), READ, resolve, patience) {
                    Err(Errno::AGAIN) if patience == Patience::None => node(self.open_in_memory(path, resolve)?),
                    opened => node(opened?),
                }
            }
            (Walk::Own, Patience::Disk) => walk_down(self.place.as_fd(), path),
            (Walk::Own, Patience::None) => Err(Failure::WouldBlock),
        }
    }

    /// Where there is no disk to wait for: `tmpfs` remembers nothing of what is not there, so each look for a sibling that
    /// does not exist would seem to have to wait. Not across mounts, which may have a disk.
    fn open_in_memory(&self, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        /// As `statfs(2)` has it.
        const TMPFS: FsWord = 0x0102_1994;
        if fstatfs(&self.place)?.f_type != TMPFS {
            return Err(Errno::AGAIN);
        }
        let (flags, resolve) = (READ | OFlags::CLOEXEC, resolve | ResolveFlags::NO_XDEV);
        match openat2(&self.place, path, flags, Mode::empty(), resolve) {
            Err(Errno::XDEV) => Err(Errno::AGAIN),
            opened => opened,
        }
    }
}

/// Opens with `openat2`, or where there is none, for what is resolved in no special way, with `openat`. `AGAIN` is what
/// would have to wait.
fn open_cached(
    from: impl AsFd,
    path: &OsStr,
    flags: OFlags,
    resolve: ResolveFlags,
    patience: Patience,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    match (Walk::of_this_machine(), patience) {
        (Walk::Own, Patience::None) => Err(Errno::AGAIN),
        (Walk::Own, Patience::Disk) => openat(from, path, flags, Mode::empty()),
        (Walk::Kernel, Patience::None) => {
            match openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED) {
                // Linux before 5.12 does not know the flag.
                Err(Errno::INVAL) => Err(Errno::AGAIN),
                opened => opened,
            }
        }
        (Walk::Kernel, Patience::Disk) => {
            let mut left = RENAMED;
            loop {
                match openat2(from.as_fd(), path, flags, Mode::empty(), resolve) {
                    // Something on the path was renamed at that moment.
                    Err(Errno::AGAIN | Errno::INTR) if left > 0 => left = left.saturating_sub(1),
                    opened => return opened,
                }
            }
        }
    }
}

fn node(opened: OwnedFd) -> Result<Node, Failure> {
    let stat = fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Node::File(opened, Box::new(stat))),
        FileType::Directory => Ok(Node::Directory),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Failure::NotFound("it is no regular file")),
    }
}

/// What the kernel does under `RESOLVE_BENEATH`, with a descriptor for each directory on the way: `..` goes back to the
/// one before, so nothing that is renamed meanwhile can lead out.
fn walk_down(root: BorrowedFd<'_>, path: &[u8]) -> Result<Node, Failure> {
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut links = 0u32;
    // In reverse: the next name is the last.
    let mut names: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect();
    while let Some(name) = names.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                way.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let here = way.last().map_or(root, |place| place.as_fd());
        let name = OsStr::from_bytes(&name);
        let place = openat(here, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&place)?.st_mode) {
            FileType::Directory => way.push(place),
            FileType::Symlink => {
                links = links.saturating_add(1);
                let target = readlinkat(&place, "", Vec::new())?;
                if links > MOST_LINKS || target.as_bytes().starts_with(b"/") {
                    return Err(if links > MOST_LINKS { Errno::LOOP } else { Errno::XDEV }.into());
                }
                names.extend(target.as_bytes().split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
            }
            FileType::RegularFile if names.is_empty() => {
                return node(openat(here, name, READ | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
            }
            FileType::RegularFile => return Err(Errno::NOTDIR.into()),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Failure::NotFound("it is no regular file")),
        }
    }
    Ok(Node::Directory)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn within(path: &Path) -> Within {
        match Root::new(path.to_owned()).enter(Patience::Disk).map_err(|failure| format!("{failure:?}")) {
            Ok(Entered::Directory(within)) => within,
            Ok(Entered::File(..)) => panic!("a file"),
            Err(failure) => panic!("{failure}"),
        }
    }

    /// What was found, in words; of a file, where it really lies.
    fn shown(found: Result<Node, Failure>) -> String {
        match found {
            Ok(Node::File(file, _)) => {
                std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap().display().to_string()
            }
            Ok(Node::Directory) => "a directory".into(),
            Err(Failure::NotFound(why)) => format!("not found: {why}"),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "x").unwrap();
        assert_eq!(Root::new(home.path().to_owned()).trouble(), None);
        assert_eq!(Root::new(home.path().join("file")).trouble(), None);
        assert_eq!(Root::new(home.path().join("none")).trouble().as_deref(), Some("no such file"));
        assert_eq!(Root::new("/dev/null".into()).trouble().as_deref(), Some("it is no regular file"));
    }

    #[test]
    fn what_is_in_memory_is_found_without_waiting() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "x").unwrap();
        let root = Root::new(home.path().to_owned());
        within(home.path()).find(b"file").map_err(|failure| format!("{failure:?}")).unwrap();
        let Ok(Entered::Directory(now)) = root.enter(Patience::None) else { panic!("not in memory") };
        assert!(matches!(now.find(b"file"), Ok(Node::File(..))));
    }

    #[test]
    fn what_is_not_there_is_not_waited_for_where_there_is_no_disk() {
        // Every Linux has it, though perhaps not every sandbox.
        let Ok(home) = tempfile::tempdir_in("/dev/shm") else { return };
        std::fs::write(home.path().join("outside"), "secret").unwrap();
        std::fs::create_dir(home.path().join("root")).unwrap();
        symlink("../outside", home.path().join("root/out")).unwrap();
        let root = Root::new(home.path().join("root"));
        let Ok(Entered::Directory(now)) = root.enter(Patience::None) else { panic!("not in memory") };
        assert_eq!(shown(now.find(b"none.gz")), "not found: no such file");
        assert!(!matches!(now.find(b"out"), Ok(Node::File(..))));
        assert!(matches!(within(root.path()).find(b"out"), Err(Failure::NotFound(_))));
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
    }

    /// Links that go everywhere: down, up, out, round, nowhere.
    fn target() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "outside", "root"]);
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_leads_out_and_both_walks_agree(
            files in prop::collection::vec(path(), 0..6),
            links in prop::collection::vec((path(), target()), 0..8),
            asked in prop::collection::vec(target(), 1..8),
        ) {
            let home = tempfile::tempdir().unwrap();
            let home = home.path().canonicalize().unwrap();
            let root = home.join("root");
            std::fs::create_dir(&root).unwrap();
            for outside in ["outside", "a"] {
                std::fs::write(home.join(outside), "secret").unwrap();
            }
            for (path, target) in &links {
                let path = root.join(path);
                if path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) && !target.is_empty() {
                    // What is there already stays.
                    let _ = symlink(target, path);
                }
            }
            for path in &files {
                let path = root.join(path);
                let real = path.parent().and_then(|parent| parent.canonicalize().ok());
                // Not through a link that leads out.
                if real.is_none_or(|real| real.starts_with(&root)) && !path.is_symlink() {
                    let _ = path.parent().map(std::fs::create_dir_all);
                    let _ = std::fs::write(path, "x");
                }
            }
            let within = within(&root);
            for path in asked.iter().chain(&files).chain(links.iter().map(|(path, _)| path)) {
                let path = path.trim_start_matches('/').as_bytes();
                if path.is_empty() || path.ends_with(b"/") {
                    continue;
                }
                let kernel = shown(within.find_by(path, Walk::Kernel));
                let own = shown(within.find_by(path, Walk::Own));
                prop_assert!(!kernel.starts_with('/') || Path::new(&kernel).starts_with(&root), "{} leads to {kernel}", String::from_utf8_lossy(path));
                prop_assert_eq!(kernel, own, "{}", String::from_utf8_lossy(path));
            }
        }
    }
}
