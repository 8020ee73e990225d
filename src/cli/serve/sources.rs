//! What can be seen of a service in its sources, by looking at their text: nothing of it is run. What is not seen so is
//! for the user to say.

use std::path::{Path, PathBuf};

use super::target::NoTarget;
use crate::config::read_bounded;

/// No source that people write is larger.
const LARGEST: u64 = 1 << 20;

/// Files that are looked at for a health path, and folders that they lie within.
const MOST_FILES: usize = 500;
const DEEPEST: usize = 4;

/// What is called to make a service, by the frameworks' names.
const MAKERS: [&str; 13] = [
    "Flask",
    "FastAPI",
    "Starlette",
    "Quart",
    "Litestar",
    "Bottle",
    "Sanic",
    "Falcon",
    "App",
    "API",
    "BlackSheep",
    "get_wsgi_application",
    "get_asgi_application",
];

/// What services are called by convention.
const NAMES: [&str; 3] = ["app", "application", "api"];

/// Endings of what SQLite writes.
const DATABASES: [&str; 4] = [".sqlite3", ".sqlite", ".db", ".db3"];

/// Paths that tell whether a service is well, the likeliest first.
const HEALTH: [&str; 9] =
    ["/healthz", "/health", "/livez", "/live", "/readyz", "/ready", "/health/live", "/ping", "/-/health"];

/// The text of a file; `None` where it cannot be read as such.
pub(super) fn read(file: &Path) -> Option<String> {
    String::from_utf8(read_bounded(file, LARGEST).ok()?).ok()
}

/// Why a file or a folder cannot be looked into, where that is so; one that is not there is for others to tell.
pub(super) fn closed(path: &Path) -> Option<NoTarget> {
    let opened = if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) };
    let error = opened.err().filter(|error| error.kind() == std::io::ErrorKind::PermissionDenied)?;
    let help = "whoever serves it must be able to read it: `ls -ld` shows who may";
    Some(NoTarget::new(format!("{} cannot be read: {error}", path.display()), help))
}

/// The one service that a module makes, whatever it is called.
pub(super) fn one_made(file: &Path) -> Option<String> {
    let text = read(file)?;
    let mut made = text.lines().filter_map(assignment).filter(|(_, value)| makes(value)).map(|(name, _)| name);
    let one = made.next()?;
    made.all(|other| other == one).then(|| one.to_owned())
}

/// The first string that stands behind `word`, on its line or the next ones of the same statement.
pub(super) fn quoted_after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.match_indices(word).find_map(|(at, _)| {
        let line = text.get(..at)?.rsplit('\n').next().unwrap_or_default();
        let after = text.get(at.saturating_add(word.len())..)?;
        // Behind the closing quote of the word itself, where it is one.
        let after = after.strip_prefix(['"', '\'']).unwrap_or(after);
        let between = |c: char| c.is_whitespace() || matches!(c, '=' | ',' | '(' | ':');
        let after = after.trim_start_matches(between);
        let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let value = after.get(1..)?.split(quote).next()?;
        (!line.trim_start().starts_with('#')).then_some(value)
    })
}

/// What a module has at its top.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Callables {
    /// Names that are, or may be, services.
    pub(super) named: Vec<String>,
    /// Functions that would make one.
    pub(super) factories: Vec<String>,
}

pub(super) fn callables(file: &Path) -> Callables {
    read(file).map(|text| callables_in(&text)).unwrap_or_default()
}

fn callables_in(text: &str) -> Callables {
    let mut all = Callables::default();
    let (mut by_convention, mut by_making) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some((name, value)) = assignment(line) {
            if NAMES.contains(&name) {
                by_convention.push(name);
            } else if makes(value) {
                by_making.push(name);
            }
        } else if let Some(name) = definition(line) {
            if NAMES.contains(&name) {
                by_convention.push(name);
            } else if matches!(name, "create_app" | "make_app" | "build_app" | "get_app" | "create_application") {
                all.factories.push(name.to_owned());
            }
        } else if line.starts_with("from ")
            && let Some((_, names)) = line.split_once(" import ")
        {
            let names = names
                .split(',')
                .filter_map(|name| name.split(" as ").last())
                .map(|name| name.trim_matches([' ', '(', ')']));
            by_convention.extend(names.filter(|name| NAMES.contains(name)));
        }
    }
    let chosen = if by_convention.is_empty() { by_making } else { by_convention };
    for name in chosen {
        if !all.named.iter().any(|known| known == name) {
            all.named.push(name.to_owned());
        }
    }
    all
}

/// Whether this is a call that makes a service.
fn makes(value: &str) -> bool {
    let called = value.split('(').next().unwrap_or_default().trim();
    value.contains('(') && MAKERS.iter().any(|maker| called.rsplit('.').next() == Some(maker))
}

/// `name = value`, or `name: Type = value`, at the left margin.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (left, value) = line.split_once('=').filter(|(_, value)| !value.starts_with('='))?;
    let name = left.split(':').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.trim_end().chars().all(|c| c == '_' || c.is_alphanumeric());
    is_name.then(|| (name.trim_end(), value.trim()))
}

/// What is defined at the left margin.
fn definition(line: &str) -> Option<&str> {
    let rest = ["def ", "async def ", "class "].iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(['(', ':', '[']).next().map(str::trim)
}

/// Whether the file is there for servers to import, and not for people to read.
pub(super) fn is_for_servers(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "wsgi.py" || name == "asgi.py")
}

/// A path that the service answers when it is well: declared on the callable itself in one of its sources, so that no
/// prefix is in front of it.
pub(super) fn health_path(directory: &Path, file: &Path, callable: &str) -> Option<String> {
    let texts = texts(directory, file);
    let declared: Vec<&str> = texts.iter().flat_map(|text| declared(text, callable)).collect();
    HEALTH
        .iter()
        .find_map(|path| declared.iter().find(|found| found.trim_end_matches('/') == *path))
        .map(|path| (*path).to_owned())
}

/// A path that the service is likely to answer, where its sources show some and `/` is none of them.
pub(super) fn path_but_root(directory: &Path, file: &Path, callable: &str) -> Option<String> {
    let texts = texts(directory, file);
    but_root(texts.iter().flat_map(|text| declared(text, callable)))
}

/// The first without placeholders, if none is `/`.
fn but_root<'p>(paths: impl Iterator<Item = &'p str> + Clone) -> Option<String> {
    let is_root = paths.clone().any(|path| path == "/");
    let mut whole = paths.filter(|path| !path.contains(['<', '{', '(', '*', '^', ':']));
    whole.next().filter(|_| !is_root).map(str::to_owned)
}

fn texts(directory: &Path, file: &Path) -> Vec<String> {
    let mut files = vec![file.to_owned()];
    collect(directory, 0, &mut files);
    files.iter().filter_map(|file| read(file)).collect()
}

/// Databases that are files of the folder, from there.
pub(super) fn databases(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![(directory.to_owned(), 0_usize)];
    let mut seen = 0_usize;
    while let Some((within, depth)) = left.pop() {
        for entry in std::fs::read_dir(&within).into_iter().flatten().flatten() {
            seen = seen.saturating_add(1);
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(kind) = entry.file_type() else { continue };
            if seen > MOST_FILES {
                break;
            }
            if kind.is_dir() && depth < 2 && !is_beside(&path, &name) {
                left.push((path, depth.saturating_add(1)));
            } else if kind.is_file() && DATABASES.iter().any(|ending| name.ends_with(ending)) {
                found.extend(path.strip_prefix(directory).ok().map(Path::to_owned));
            }
        }
    }
    found.sort();
    found
}

/// The paths of `@app.get("/path")` and its like, of `Route("/path", …)`, and of comparisons with the path asked for.
fn declared<'t>(text: &'t str, callable: &str) -> Vec<&'t str> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let decorated = line.strip_prefix('@').and_then(|line| line.split_once('.'));
        let on_service = decorated.is_some_and(|(object, _)| object == callable || NAMES.contains(&object))
            || line.starts_with("Route(")
            || (line.contains(".add_url_rule(") && !line.contains("blueprint"))
            || (line.contains("PATH_INFO") || line.contains("\"path\"")) && line.contains("==");
        if on_service {
            paths.extend(strings(line).filter(|string| string.starts_with('/')));
        }
    }
    paths
}

/// Likewise of the `path("…", …)` lines of Django's topmost URLs, which have no slash in front.
pub(super) fn django_health_path(urls: &Path) -> Option<String> {
    let text = read(urls)?;
    let lines =
        text.lines().map(str::trim_start).filter(|line| line.starts_with("path(") && !line.contains("include("));
    let declared: Vec<String> = lines.filter_map(|line| strings(line).next()).map(|path| format!("/{path}")).collect();
    HEALTH.iter().find_map(|path| declared.iter().find(|found| found.trim_end_matches('/') == *path)).cloned()
}

/// As [`path_but_root`].
pub(super) fn django_path_but_root(urls: &Path) -> Option<String> {
    let text = read(urls)?;
    let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("path("));
    let firsts = lines.filter_map(|line| strings(line).next().map(|path| (line, format!("/{path}"))));
    let all: Vec<(&str, String)> = firsts.collect();
    // What is behind an included prefix is said elsewhere; the prefix alone answers nothing, as a rule.
    let whole = all.iter().filter(|(line, path)| path == "/" || !line.contains("include("));
    but_root(whole.map(|(_, path)| path.as_str()))
}

/// What stands in quotes.
fn strings(line: &str) -> impl Iterator<Item = &str> {
    let quote = if line.contains('"') { '"' } else { '\'' };
    line.split(quote).skip(1).step_by(2)
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if files.len() >= MOST_FILES {
            return;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_beside(&path, &name) || name.starts_with("test") || path.is_symlink() {
            continue;
        }
        if path.is_dir() && depth < DEEPEST {
            collect(&path, depth.saturating_add(1), files);
        } else if name.ends_with(".py") && !files.contains(&path) {
            files.push(path);
        }
    }
}

/// What lies within a project and is no source of it: environments, caches, modules of others.
pub(super) fn is_beside(path: &Path, name: &str) -> bool {
    name.starts_with('.')
        || matches!(name, "__pycache__" | "node_modules" | "site-packages" | "build" | "dist" | "htmlcov")
        || path.join("pyvenv.cfg").exists()
}
