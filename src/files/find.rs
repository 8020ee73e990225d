//! From a path to the file that answers for it: the index of a directory, the sibling that was compressed beforehand.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use super::kind::Kind;
use super::path::Beneath;
use super::root::{Entered, Failure, Node, Patience, Root, Within};
use crate::coding::Coding;
use crate::coding::accept::Accepted;

/// What a directory is answered with.
const INDEX: &str = "index.html";

/// The siblings that are looked for, smallest first: nobody waits for them to be coded.
const SIBLINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// An open file, and what is told of it.
#[derive(Debug)]
pub struct Found {
    pub file: OwnedFd,
    pub length: u64,
    pub modified: Modified,
    pub inode: u64,
    pub kind: Kind,
    /// Of the bytes in the file.
    pub coding: Option<Coding>,
}

/// When a file was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Modified {
    /// Of the Unix epoch.
    pub seconds: i64,
    pub nanoseconds: u64,
}

/// What came of looking.
#[derive(Debug)]
pub enum Sought {
    File(Found),
    /// A directory that has an index, asked for without the slash that its index's relative links need.
    Slash,
}

/// Looks for what answers `path`. `slash`: whether the request's path ended with one.
///
/// # Errors
/// Why nothing does.
pub fn find(
    root: &Root,
    path: &Beneath,
    slash: bool,
    accepted: &Accepted,
    patience: Patience,
) -> Result<Sought, Failure> {
    let within = match root.enter(patience)? {
        Entered::Directory(within) => within,
        Entered::File(file, stat) => {
            let kind = Kind::of(root.path().as_os_str().as_encoded_bytes());
            return Ok(Sought::File(Found::new(file, &stat, kind, None)));
        }
    };
    if path.is_directory() {
        let index = path.join(INDEX);
        return match within.find(&index)? {
            Node::File(..) if !slash => Ok(Sought::Slash),
            Node::File(file, stat) => best(&within, &index, file, &stat, accepted).map(Sought::File),
            Node::Directory => Err(Failure::NotFound("its index.html is a directory")),
        };
    }
    match within.find(path.as_bytes())? {
        Node::File(file, stat) => best(&within, path.as_bytes(), file, &stat, accepted).map(Sought::File),
        Node::Directory => match within.find(&path.join(INDEX)) {
            Ok(Node::File(..)) => Ok(Sought::Slash),
            Ok(Node::Directory) | Err(Failure::NotFound(_)) => {
                Err(Failure::NotFound("it is a directory without index.html"))
            }
            Err(failure) => Err(failure),
        },
    }
}

/// The file itself, or the sibling that the client likes best. A sibling that is older than the file was made of
/// another.
fn best(within: &Within, path: &[u8], file: OwnedFd, stat: &Stat, accepted: &Accepted) -> Result<Found, Failure> {
    let kind = Kind::of(path);
    let plain = Found::new(file, stat, kind, None);
    if kind.coded {
        return Ok(plain);
    }
    for coding in accepted.choices(SIBLINGS) {
        match within.find(&[path, coding.suffix().as_bytes()].concat()) {
            Ok(Node::File(file, stat)) => {
                let sibling = Found::new(file, &stat, kind, Some(coding));
                // Whole seconds: not every tool keeps more.
                if sibling.modified.seconds >= plain.modified.seconds {
                    return Ok(sibling);
                }
            }
            Err(Failure::WouldBlock) => return Err(Failure::WouldBlock),
            // One that cannot be read is as good as none.
            Ok(Node::Directory) | Err(Failure::NotFound(_) | Failure::Forbidden | Failure::Io(_)) => {}
        }
    }
    Ok(plain)
}

impl Found {
    pub fn new(file: OwnedFd, stat: &Stat, kind: Kind, coding: Option<Coding>) -> Found {
        Found {
            file,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Modified { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec },
            inode: stat.st_ino,
            kind,
            coding,
        }
    }
}

impl Modified {
    /// As `Last-Modified` may tell it: to the second. `None` for the days that builds which want to be reproducible set:
    /// caches would take what is decades old for fresh for years.
    pub fn told(self) -> Option<SystemTime> {
        /// 1990.
        const MADE_UP_UNTIL: i64 = 631_152_000;
        let seconds = u64::try_from(self.seconds).ok().filter(|_| self.seconds >= MADE_UP_UNTIL)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}
