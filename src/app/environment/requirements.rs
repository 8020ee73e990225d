//! Requirements files as pip reads them, as far as an environment's identity depends on them: which files they are made
//! of, which packages they name, whether they demand hashes, and what of this machine they refer to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::digest::{Digester, Files};
use crate::app::failure::Failure;

/// Files that include each other end somewhere.
const MOST_FILES: usize = 256;

/// What a requirements file and everything that it includes comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// Names of packages, in their normal form.
    pub(super) named: BTreeSet<String>,
    /// A hash is given for something; the installers then demand one of everything.
    pub(super) hashed: bool,
    /// Something is installed as a link to where it is.
    pub(super) editable: bool,
}

/// Reads `file` with all that it includes into `digester`. `directory`: where the installer will run, which is what paths
/// of packages are relative to; paths of files are relative to the file that names them.
///
/// # Errors
/// A file cannot be read, or there are too many.
pub(super) fn read(file: &Path, directory: &Path, digester: &mut Digester) -> Result<Requirements, Failure> {
    let mut reading = Reading { directory, digester, seen: BTreeSet::new(), requirements: Requirements::default() };
    reading.file(file, None)?;
    Ok(reading.requirements)
}

struct Reading<'a> {
    directory: &'a Path,
    digester: &'a mut Digester,
    seen: BTreeSet<PathBuf>,
    requirements: Requirements,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, included_by: Option<&Path>) -> Result<(), Failure> {
        // The same file by another way is the same file.
        let known = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(known) {
            return Ok(());
        }
        if self.seen.len() > MOST_FILES {
            return Err(Failure::new(format!("{} includes more than {MOST_FILES} files", path.display())));
        }
        let bytes = super::digest::read(path).map_err(|reason| {
            let by = included_by.map(|by| format!(", which {} includes,", by.display())).unwrap_or_default();
            Failure::new(format!("{}{by} cannot be read: {reason}", path.display()))
        })?;
        self.digester.bytes("requirements", &bytes);
        let text = String::from_utf8_lossy(&bytes);
        let beside = path.parent().unwrap_or(Path::new("/")).to_owned();
        for line in logical_lines(text.trim_start_matches('\u{feff}')) {
            self.line(&line, path, &beside)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, file: &Path, beside: &Path) -> Result<(), Failure> {
        match Line::parse(line) {
            Line::Include(target) => {
                // What is fetched is known by its address alone.
                if !is_url(target) {
                    self.file(&beside.join(target), Some(file))?;
                }
            }
            Line::FindLinks(target) => self.find_links(target, beside)?,
            Line::RequireHashes => self.requirements.hashed = true,
            Line::Editable(target) => {
                self.requirements.editable = true;
                self.local(target)?;
            }
            Line::Package(text) => self.package(text)?,
            Line::Other => {}
        }
        Ok(())
    }

    fn package(&mut self, text: &str) -> Result<(), Failure> {
        if text.split_ascii_whitespace().any(|word| word.starts_with("--hash")) {
            self.requirements.hashed = true;
        }
        let what = text.split(" --").next().unwrap_or(text);
        let what = what.split(" ;").next().unwrap_or(what).trim();
        if let Some((name, target)) = what.split_once('@').filter(|(name, _)| is_name(name)) {
            self.requirements.named.extend(name_of(name));
            return self.local(target.trim());
        }
        let is_path = what.starts_with(['.', '/', '~']) || what.contains('/');
        if is_path || is_url(what) {
            return self.local(what);
        }
        if is_archive(what) && self.directory.join(what).exists() {
            return self.local(what);
        }
        self.requirements.named.extend(name_of(what));
        Ok(())
    }

    /// A package of this machine: a file, or a directory with a project.
    fn local(&mut self, target: &str) -> Result<(), Failure> {
        let target = target.strip_prefix("file://").unwrap_or(target);
        if is_url(target) {
            return Ok(());
        }
        // Behind it may stand what of it is wanted.
        let target = target.split(['[', '#']).next().unwrap_or(target).trim();
        let path = self.directory.join(target);
        self.digester.tree("package", &path, Files::Contents)
    }

    /// A directory of packages. pip looks beside the file first, and then where it runs; whatever is not there is passed
    /// over.
    fn find_links(&mut self, target: &str, beside: &Path) -> Result<(), Failure> {
        let target = target.strip_prefix("file://").unwrap_or(target);
        if is_url(target) {
            return Ok(());
        }
        let places = [beside.join(target), self.directory.join(target)];
        match places.iter().find(|place| place.exists()) {
            Some(place) => self.digester.tree("links", place, Files::Names),
            None => Ok(()),
        }
    }
}

/// What a line says, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// `-r FILE`, `-c FILE`
    Include(&'a str),
    FindLinks(&'a str),
    RequireHashes,
    Editable(&'a str),
    Package(&'a str),
    /// Another option: the file's bytes tell of it.
    Other,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Line<'a> {
        let value = |short: &str, long: &str| option(line, short, long);
        if let Some(target) = value("-r", "--requirement").or_else(|| value("-c", "--constraint")) {
            return Line::Include(target);
        }
        if let Some(target) = value("-f", "--find-links") {
            return Line::FindLinks(target);
        }
        if let Some(target) = value("-e", "--editable") {
            return Line::Editable(target);
        }
        if line.starts_with("--require-hashes") {
            return Line::RequireHashes;
        }
        if line.starts_with('-') { Line::Other } else { Line::Package(line) }
    }
}

/// `-r FILE`, `-rFILE`, `--requirement FILE`, `--requirement=FILE`
fn option<'a>(line: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let rest = match line.strip_prefix(long) {
        Some(rest) if rest.starts_with(['=', ' ', '\t']) => rest.trim_start_matches('='),
        Some(_) => return None,
        None if line.starts_with("--") => return None,
        None => line.strip_prefix(short)?,
    };
    let rest = rest.trim();
    let unquoted = |quote: char| rest.strip_prefix(quote)?.strip_suffix(quote);
    let rest = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(rest);
    (!rest.is_empty()).then_some(rest)
}

/// Lines without comments, with those that a backslash joins put together.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut joined = String::new();
    for line in text.lines() {
        if let Some(part) = line.strip_suffix('\\').filter(|_| !line.trim_start().starts_with('#')) {
            joined.push_str(part);
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        let whole = without_comment(&joined).trim();
        if !whole.is_empty() {
            lines.push(whole.to_owned());
        }
        joined.clear();
    }
    let whole = without_comment(&joined).trim();
    if !whole.is_empty() {
        lines.push(whole.to_owned());
    }
    lines
}

/// A comment begins with a `#` at the beginning or behind a space: others belong to addresses.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (index, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return line.get(..index).unwrap_or(line);
        }
        before = c;
    }
    line
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

fn is_archive(text: &str) -> bool {
    [".whl", ".tar.gz", ".zip"].iter().any(|ending| text.ends_with(ending))
}

/// Whether this is a name, maybe with extras, and nothing more.
fn is_name(text: &str) -> bool {
    let bare = text.split('[').next().unwrap_or(text).trim();
    !bare.is_empty() && bare.chars().all(is_of_name)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The name that a requirement begins with, in its normal form (PEP 503): `Flask_SQLAlchemy>=3` is `flask-sqlalchemy`.
pub(super) fn name_of(requirement: &str) -> Option<String> {
    let requirement = requirement.trim_start();
    let end = requirement.find(|c| !is_of_name(c)).unwrap_or(requirement.len());
    let mut name = String::new();
    for c in requirement.get(..end)?.chars() {
        match c {
            '-' | '_' | '.' if name.ends_with('-') => {}
            '-' | '_' | '.' => name.push('-'),
            c => name.push(c.to_ascii_lowercase()),
        }
    }
    (!name.is_empty()).then_some(name)
}
