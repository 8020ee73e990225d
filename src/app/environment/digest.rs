//! The identity of what an environment is made of: a digest of files and directories, read with care: the code is the
//! app's, and what its names lead to may be anything.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::OFlags;

use crate::app::failure::Failure;

/// What people, or their tools, write by hand: a lock of thousands of packages is some megabytes long.
const LARGEST_TEXT: u64 = 64 << 20;

/// Of what a requirement refers to on this machine.
const MOST_ENTRIES: usize = 100_000;
const MOST_BYTES: u64 = 4 << 30;

/// A key names a directory: 128 bits are enough, nobody gains anything by two that are the same.
const KEY_BYTES: usize = 16;

/// What is not the code's own: it changes without the code.
const NOT_DIGESTED: [&str; 3] = [".git", "__pycache__", ".venv"];

/// Takes parts, each with what it is; gives the key.
pub(super) struct Digester {
    context: Context,
    entries: usize,
    bytes: u64,
}

/// What counts of the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Contents,
    /// Their names and sizes: packages of one name are the same.
    Names,
}

impl Digester {
    /// `version` changes whenever environments come about in another way.
    pub(super) fn new(version: &str) -> Digester {
        let mut digester = Digester { context: Context::new(&SHA256), entries: 0, bytes: 0 };
        digester.bytes("version", version.as_bytes());
        digester
    }

    /// The lengths keep parts apart.
    pub(super) fn bytes(&mut self, what: &str, bytes: &[u8]) {
        for part in [what.as_bytes(), bytes] {
            self.context.update(&part.len().to_le_bytes());
            self.context.update(part);
        }
    }

    /// A file, or a directory with everything in it. Nothing is followed; what is not there, the installer will complain of.
    ///
    /// # Errors
    /// It cannot be read, or is too much.
    pub(super) fn tree(&mut self, what: &str, path: &Path, files: Files) -> Result<(), Failure> {
        self.bytes(what, b"");
        self.entry(path, files)
    }

    fn entry(&mut self, path: &Path, files: Files) -> Result<(), Failure> {
        let told = |reason: std::io::Error| Failure::new(format!("{} cannot be read: {reason}", path.display()));
        self.entries = self.entries.saturating_add(1);
        if self.entries > MOST_ENTRIES {
            let why =
                format!("{}: there are more than {MOST_ENTRIES} files in what is to be installed", path.display());
            return Err(Failure::new(why));
        }
        let Ok(metadata) = std::fs::symlink_metadata(path) else {
            self.bytes("missing", b"");
            return Ok(());
        };
        if metadata.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path).map_err(told)? {
                names.push(entry.map_err(told)?.file_name());
            }
            names.sort();
            names.retain(|name| !NOT_DIGESTED.iter().any(|not| name == not));
            self.bytes("directory", &names.len().to_le_bytes());
            for name in names {
                self.bytes("name", name.as_bytes());
                self.entry(&path.join(name), files)?;
            }
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(path).map_err(told)?;
            self.bytes("link", target.as_os_str().as_bytes());
        } else if metadata.is_file() {
            match files {
                Files::Contents => self.contents(path)?,
                Files::Names => self.bytes("size", &metadata.len().to_le_bytes()),
            }
        }
        Ok(())
    }

    fn contents(&mut self, path: &Path) -> Result<(), Failure> {
        let told = |reason: std::io::Error| Failure::new(format!("{} cannot be read: {reason}", path.display()));
        let mut file = open(path).map_err(told)?;
        let mut of_file = Context::new(&SHA256);
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = file.read(&mut piece).map_err(told)?;
            if length == 0 {
                break;
            }
            self.bytes = self.bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            if self.bytes > MOST_BYTES {
                return Err(Failure::new(format!("{}: what is to be installed is too large", path.display())));
            }
            of_file.update(piece.get(..length).unwrap_or_default());
        }
        self.bytes("file", of_file.finish().as_ref());
        Ok(())
    }

    /// In hexadecimal digits.
    pub(super) fn key(self) -> String {
        let digest = self.context.finish();
        digest.as_ref().iter().take(KEY_BYTES).fold(String::new(), |mut key, byte| {
            let _ = write!(key, "{byte:02x}");
            key
        })
    }
}

/// Reads a text that people wrote.
///
/// # Errors
/// A few words: it is not there, no file, or too long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            "there is no such file".to_owned()
        } else {
            error.to_string()
        }
    };
    let mut bytes = Vec::new();
    open(path).map_err(told)?.take(LARGEST_TEXT.saturating_add(1)).read_to_end(&mut bytes).map_err(told)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > LARGEST_TEXT) {
        return Err(format!("it is larger than {} MiB", LARGEST_TEXT >> 20));
    }
    Ok(bytes)
}

/// Opens a regular file, without waiting for whoever writes to a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    Ok(file)
}
