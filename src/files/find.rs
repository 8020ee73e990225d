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

/// Looks for what answers `path`: one that can name nothing beneath a directory still asks for a root that is a file.
/// `slash`: whether the request's path ended with one.
///
/// # Errors
/// Why nothing does.
pub fn find(
    root: &Root,
    path: &Result<Beneath, &'static str>,
    slash: bool,
    accepted: &Accepted,
    patience: Patience,
) -> Result<Sought, Failure> {
    let within = match root.enter(patience)? {
        Entered::Directory(within) => within,
        Entered::File(file, stat) => {
            let kind = Kind::of(root.path().as_os_str().as_encoded_bytes());
            let sibling = |coding: Coding| root.beside(coding.suffix(), patience);
            return best(sibling, Found::new(file, &stat, kind, None), accepted).map(Sought::File);
        }
    };
    let path = path.as_ref().map_err(|why| Failure::NotFound(why))?;
    if path.is_directory() {
        let index = path.join(INDEX);
        return match within.find(&index)? {
            Node::File(..) if !slash => Ok(Sought::Slash),
            Node::File(file, stat) => best_within(&within, &index, file, &stat, accepted).map(Sought::File),
            Node::Directory => Err(Failure::NotFound("its index.html is a directory")),
        };
    }
    match within.find(path.as_bytes())? {
        Node::File(file, stat) => best_within(&within, path.as_bytes(), file, &stat, accepted).map(Sought::File),
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
fn best(
    sibling: impl Fn(Coding) -> Result<Node, Failure>,
    plain: Found,
    accepted: &Accepted,
) -> Result<Found, Failure> {
    if plain.kind.coded {
        return Ok(plain);
    }
    for coding in accepted.choices(SIBLINGS) {
        match sibling(coding) {
            Ok(Node::File(file, stat)) => {
                let sibling = Found::new(file, &stat, plain.kind, Some(coding));
                if !sibling.modified.is_before(plain.modified) {
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

fn best_within(
    within: &Within,
    path: &[u8],
    file: OwnedFd,
    stat: &Stat,
    accepted: &Accepted,
) -> Result<Found, Failure> {
    let sibling = |coding: Coding| within.find(&[path, coding.suffix().as_bytes()].concat());
    best(sibling, Found::new(file, stat, Kind::of(path), None), accepted)
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
    /// Whether a sibling of this time was made of something before `file`. What copies times from the file may keep whole
    /// seconds alone, or lose what lies below a millisecond.
    fn is_before(self, file: Modified) -> bool {
        const LOST: i128 = 1_000_000;
        let since_epoch = |time: Modified| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
        if self.nanoseconds == 0 {
            return self.seconds < file.seconds;
        }
        since_epoch(self) + LOST <= since_epoch(file)
    }

    /// As `Last-Modified` may tell it: to the second. `None` for the days that builds which want to be reproducible set:
    /// caches would take what is decades old for fresh for years.
    pub fn told(self) -> Option<SystemTime> {
        /// 1990.
        const MADE_UP_UNTIL: i64 = 631_152_000;
        let seconds = u64::try_from(self.seconds).ok().filter(|_| self.seconds >= MADE_UP_UNTIL)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_its_file_is_stale() {
        let at = |seconds, nanoseconds| Modified { seconds, nanoseconds };
        let file = at(1_700_000_000, 500_000_300);
        for fresh in [file, at(1_700_000_000, 500_000_100), at(1_700_000_000, 0), at(1_700_000_001, 1)] {
            assert!(!fresh.is_before(file), "{fresh:?}");
        }
        for stale in [at(1_700_000_000, 400_000_000), at(1_699_999_999, 0), at(1_699_999_999, 900_000_000)] {
            assert!(stale.is_before(file), "{stale:?}");
        }
    }
}
