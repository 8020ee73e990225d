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

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a directory, read from the first one on.
    fn read_all(files: &[(&str, &str)]) -> Result<(Requirements, String), Failure> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut digester = Digester::new("test");
        let requirements = read(&directory.path().join(files[0].0), directory.path(), &mut digester)?;
        Ok((requirements, digester.key()))
    }

    fn requirements(files: &[(&str, &str)]) -> Requirements {
        read_all(files).unwrap().0
    }

    fn names(text: &str) -> Vec<String> {
        requirements(&[("requirements.txt", text)]).named.into_iter().collect()
    }

    #[test]
    fn packages_are_known_by_their_names() {
        let text = "\u{feff}Flask==3.1 ; python_version > '3.8'\n# not this\nDjango_REST.framework[all]>=3 # but this\n\
                    -i https://example.com/simple#fragment\n--pre\n  gunicorn \\\n  ==23.0\nmy-lib @ https://example.com/x.whl\n\
                    https://example.com/other.whl\ngit+https://example.com/repo@main#egg=named\n";
        assert_eq!(names(text), ["django-rest-framework", "flask", "gunicorn", "my-lib"]);
    }

    #[test]
    fn files_are_included_relative_to_whoever_names_them() {
        let files = [
            (
                "requirements/prod.txt",
                "-r base.txt\n--requirement=../more.txt\n-c'constraints.txt'\n-r https://example.com/x.txt\n",
            ),
            ("requirements/base.txt", "flask\n-r prod.txt\n-rbase.txt\n"),
            ("more.txt", "--constraint requirements/constraints.txt\nredis\n"),
            ("requirements/constraints.txt", "celery<6\n"),
        ];
        assert_eq!(requirements(&files).named.into_iter().collect::<Vec<_>>(), ["celery", "flask", "redis"]);
        // Each of them is part of the whole.
        let key = read_all(&files).unwrap().1;
        assert_eq!(key, read_all(&files).unwrap().1);
        for index in 0..files.len() {
            let mut changed = files;
            let text = format!("{}# changed\n", files[index].1);
            changed[index].1 = &text;
            assert_ne!(key, read_all(&changed).unwrap().1, "{}", files[index].0);
        }
        let failure = read_all(&files[..3]).unwrap_err();
        assert!(failure.why.contains("constraints.txt, which"), "{failure}");
        assert!(failure.why.ends_with("includes, cannot be read: there is no such file"), "{failure}");
    }

    #[test]
    fn hashes_and_links_are_noticed() {
        let hashed = |text: &str| requirements(&[("requirements.txt", text)]).hashed;
        assert!(hashed("flask==3.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"));
        assert!(hashed("--require-hashes\nflask==3.1\n"));
        assert!(!hashed("flask==3.1 # --hash=sha256:00\n"));
        let editable = |text: &str| requirements(&[("requirements.txt", text)]).editable;
        assert!(editable("-e .\n") && editable("--editable=./x\n"));
        assert!(!editable("--extra-index-url https://example.com\n./x\n"));
    }

    #[test]
    fn files_without_an_end_are_refused() {
        let mut files: Vec<(String, String)> =
            (0..300).map(|number| (format!("{number}.txt"), format!("-r {}.txt\n", number + 1))).collect();
        files.push(("300.txt".to_owned(), String::new()));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let failure = read_all(&files).unwrap_err();
        assert!(failure.why.contains("more than 256 files"), "{failure}");
        // A pipe has no end, and nobody may ever write to it.
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("requirements.txt");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let failure = read(&pipe, directory.path(), &mut Digester::new("test")).unwrap_err();
        assert!(failure.why.contains("it is not a file"), "{failure}");
    }
}
