//! What `passerelle serve` is to serve: from the words on the command line to a directory and an entry.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::sources::{self, Callables};
use super::{django, plain};
use crate::config::settings::EntryPoint;

/// What a folder's service is looked for in, in the order in which they are told.
const CONVENTIONAL: [&str; 5] = ["wsgi.py", "asgi.py", "app.py", "main.py", "api.py"];

/// A service that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Absolute, without links: what a release is a copy of. It says what is to be installed, where anything does.
    pub(super) directory: PathBuf,
    /// Where Python imports the module from, from there: nothing, or the likes of `src`.
    pub(super) within: PathBuf,
    pub(super) entry: EntryPoint,
    /// For `[app.NAME]`.
    pub(super) name: String,
    /// A path that says whether the service is well, where the sources show one.
    pub(super) health: Option<String>,
    /// A path that answers, where the sources show some and `/` is none of them.
    pub(super) but_root: Option<String>,
}

/// Why nothing can be served: what is wrong, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoTarget {
    why: String,
    help: String,
}

impl NoTarget {
    pub(super) fn new(why: impl Into<String>, help: impl Into<String>) -> NoTarget {
        NoTarget { why: why.into(), help: help.into() }
    }
}

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.why, self.help)
    }
}

impl Target {
    /// Finds `target`, a path or a module with or without `:CALLABLE`, from `directory`. Files are read and nothing is
    /// run.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(super) fn find(target: &str, directory: &Path) -> Result<Target, NoTarget> {
        let directory = directory.canonicalize().map_err(|error| {
            NoTarget::new(format!("{}: {error}", directory.display()), "--directory takes a folder")
        })?;
        let found = Target::found_from(target, &directory)?;
        let root = root_of(&found.directory, &directory);
        let within = found.directory.strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
        Ok(Target { directory: root, within, ..found })
    }

    /// In the directory that its module is imported from.
    fn found_from(target: &str, directory: &Path) -> Result<Target, NoTarget> {
        let (place, callable) = split(target);
        let path = directory.join(place);
        let is_path = place.contains('/') || place.ends_with(".py") || place == "." || place == "..";
        if !is_path && (callable.is_some() || !path.is_dir()) {
            for from in [directory.to_owned(), directory.join(SRC)] {
                if let Some(file) = module_file(&from, place) {
                    return of_file(&from, place.to_owned(), &file, callable);
                }
            }
        }
        if std::fs::metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            let help = "whoever serves it must be able to enter the folders above it";
            return Err(NoTarget::new(format!("{} cannot be looked at: permission denied", path.display()), help));
        }
        if path.is_dir() {
            let path = path.canonicalize().unwrap_or(path);
            return match callable {
                None => of_folder(&path),
                Some(callable) => {
                    let help = format!("name the file in it: {place}/app.py:{callable}");
                    Err(NoTarget::new(format!("{place} is a folder, which Python does not import"), help))
                }
            };
        }
        if path.is_file() {
            let path = path.canonicalize().unwrap_or(path);
            let (directory, module) = importable(&path)?;
            return of_file(&directory, module, &path, callable);
        }
        Err(absent(target, place, directory, is_path))
    }
}

/// Where projects have their packages, if not beside what says what to install.
const SRC: &str = "src";

/// Folders above a module that are looked at.
const HIGHEST: usize = 4;

/// The folder that says what to install for the modules in `directory`: it, or one above. That one is not looked for beyond
/// the folder in which the command was given, `here`, but for the one that a `src` lies in: whatever it holds is copied.
fn root_of(directory: &Path, here: &Path) -> PathBuf {
    let may_lead_up = |from: &&Path| {
        let is_src = from.file_name().is_some_and(|name| name == SRC);
        let above = from.parent().filter(|above| is_src || above.starts_with(here));
        above.is_some_and(|above| super::account::too_wide(above).is_none())
    };
    let mut at = directory;
    for _ in 0..HIGHEST {
        if says_what_to_install(at) {
            return at.to_owned();
        }
        if !may_lead_up(&at) {
            break;
        }
        at = at.parent().unwrap_or(at);
    }
    directory.to_owned()
}

fn says_what_to_install(folder: &Path) -> bool {
    let project = sources::read(&folder.join("pyproject.toml")).unwrap_or_default();
    ["uv.lock", "requirements.txt"].iter().any(|name| folder.join(name).is_file())
        || project.contains("[project]") && project.contains("dependencies")
}

/// The place, and the callable behind its last colon.
fn split(target: &str) -> (&str, Option<&str>) {
    match target.rsplit_once(':') {
        Some((place, callable)) if !callable.contains('/') => (place, Some(callable)),
        Some(_) | None => (target, None),
    }
}

fn absent(target: &str, place: &str, directory: &Path, is_path: bool) -> NoTarget {
    let help = "write FILE.py:CALLABLE, MODULE:CALLABLE, or a folder: passerelle serve shop/app.py:app";
    if Path::new(place).is_absolute() {
        return NoTarget::new(format!("there is no {place}"), help);
    }
    if is_path {
        return NoTarget::new(format!("there is no {place} in {}", directory.display()), help);
    }
    let why = format!("{target}: there is no module {place} in {}", directory.display());
    NoTarget::new(why, "--directory DIRECTORY says where modules are imported from")
}

/// The file of a module with dots in its name.
fn module_file(directory: &Path, module: &str) -> Option<PathBuf> {
    let path = directory.join(module.replace('.', "/"));
    [path.with_extension("py"), path.join("__init__.py")].into_iter().find(|file| file.is_file())
}

/// The directory that a file's module is imported from, and its name from there: what lies in packages has the names of
/// all of them.
fn importable(file: &Path) -> Result<(PathBuf, String), NoTarget> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut names = vec![stem(file)];
    let mut directory = file.parent().unwrap_or(Path::new("/"));
    if names.first().is_some_and(|name| name == "__init__") {
        names.clear();
    }
    while directory.join("__init__.py").is_file() {
        names.insert(0, directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        directory = directory.parent().unwrap_or(Path::new("/"));
    }
    let module = names.join(".");
    if file.extension().is_none_or(|extension| extension != "py") {
        return Err(NoTarget::new(format!("{} is no Python file", file.display()), "name one that ends in .py"));
    }
    match format!("{module}:app").parse::<EntryPoint>() {
        Ok(_) => Ok((directory.to_owned(), module)),
        Err(_) => {
            let why = format!("{} cannot be imported: `{module}` is no name of a module", file.display());
            Err(NoTarget::new(why, "rename it: letters, digits and `_`, with no digit first"))
        }
    }
}

/// The service of a file, whose module is imported from `directory`.
fn of_file(directory: &Path, module: String, file: &Path, callable: Option<&str>) -> Result<Target, NoTarget> {
    let attribute = match callable {
        Some(callable) => callable.to_owned(),
        None => one_callable(file)?,
    };
    let entry: EntryPoint =
        format!("{module}:{attribute}").parse().map_err(|help: crate::config::settings::NoEntry| {
            NoTarget::new(format!("{module}:{attribute} is no MODULE:CALLABLE"), help.to_string())
        })?;
    let name = name_of(directory, &module);
    let health = sources::health_path(directory, file, &attribute);
    let but_root = sources::path_but_root(directory, file, &attribute);
    Ok(Target { directory: directory.to_owned(), within: PathBuf::new(), entry, name, health, but_root })
}

/// The folder's name, or the module's where that says more: `app` in `/srv/orders` is `orders`, `billing.wsgi` `billing`.
fn name_of(directory: &Path, module: &str) -> String {
    let package = module.split('.').next().unwrap_or_default();
    let told = module.contains('.') && !matches!(package, "app" | "src" | "config" | "api" | "project");
    let folder = folder_name(directory);
    plain(if told { package } else { &folder })
}

/// What a project's folder is called.
pub(super) fn folder_name(directory: &Path) -> Cow<'_, str> {
    let is_src = directory.file_name().is_some_and(|name| name == SRC);
    let directory = if is_src { directory.parent().unwrap_or(directory) } else { directory };
    directory.file_name().unwrap_or_default().to_string_lossy()
}

fn one_callable(file: &Path) -> Result<String, NoTarget> {
    let Callables { named, factories } = sources::callables(file);
    let shown = file.display();
    match named.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(match (sources::closed(file), factories.first()) {
            (Some(closed), _) => closed,
            (None, Some(factory)) => of_factory(file, factory),
            (None, None) => NoTarget::new(
                format!("no service was found in {shown}"),
                format!("name its callable: passerelle serve {shown}:NAME"),
            ),
        }),
        many => {
            let all: Vec<String> = many.iter().map(|name| format!("  passerelle serve {shown}:{name}")).collect();
            Err(NoTarget::new(format!("{shown} may be several services; say which"), all.join("\n")))
        }
    }
}

fn of_factory(file: &Path, factory: &str) -> NoTarget {
    NoTarget::new(
        format!("{} defines {factory}(), and nothing here calls it", file.display()),
        format!("add a line `app = {factory}()` to it, or to a file of its own"),
    )
}

/// The service of a folder: Django's, or that of the one file by convention that has one.
fn of_folder(folder: &Path) -> Result<Target, NoTarget> {
    let with_src = [folder.to_owned(), folder.join(SRC)];
    if let Some(django) = with_src.iter().find(|folder| folder.join("manage.py").is_file()) {
        return django::find(django);
    }
    // What is looked at next is looked at only where there is nothing yet.
    let files: [fn(&Path) -> Vec<PathBuf>; 4] = [
        conventional,
        package_itself,
        |folder| packages(folder).iter().flat_map(|package| conventional(package)).collect(),
        |folder| packages(folder).iter().flat_map(|package| package_itself(package)).collect(),
    ];
    let mut found = Vec::new();
    for (folder, files) in with_src.iter().flat_map(|folder| files.map(|files| (folder, files))) {
        if found.is_empty() {
            found = services(&files(folder));
        }
    }
    let lone: [fn(&Path) -> Vec<PathBuf>; 2] =
        [lone_modules, |folder| packages(folder).iter().flat_map(|package| lone_modules(package)).collect()];
    for (folder, files) in with_src.iter().flat_map(|folder| lone.map(|files| (folder, files))) {
        if found.is_empty() {
            let modules = files(folder).into_iter();
            found = modules.filter_map(|file| sources::one_made(&file).map(|name| (file, name))).collect();
        }
    }
    // What was made for servers is what they are meant to run, whatever else defines the same.
    if found.len() > 1 {
        let for_servers: Vec<_> = found.iter().filter(|(file, _)| sources::is_for_servers(file)).cloned().collect();
        if !for_servers.is_empty() {
            found = for_servers;
        }
    }
    match found.as_slice() {
        [(file, callable)] => {
            let (directory, module) = importable(file)?;
            of_file(&directory, module, file, Some(callable))
        }
        [] => {
            let all: Vec<PathBuf> =
                with_src.iter().flat_map(|folder| files.map(|files| files(folder))).flatten().collect();
            Err(nothing_in(folder, &all))
        }
        many => {
            let line =
                |(file, callable): &(PathBuf, String)| format!("  passerelle serve {}:{callable}", file.display());
            let all: Vec<String> = many.iter().map(line).collect();
            let why = format!("{} holds several services; say which", folder.display());
            Err(NoTarget::new(why, all.join("\n")))
        }
    }
}

/// Why there is no service among `files` of a folder.
fn nothing_in(folder: &Path, files: &[PathBuf]) -> NoTarget {
    let closed = || std::iter::once(folder).chain(files.iter().map(PathBuf::as_path)).find_map(sources::closed);
    let factory = || {
        files
            .iter()
            .find_map(|file| sources::callables(file).factories.first().map(|factory| of_factory(file, factory)))
    };
    closed().or_else(factory).unwrap_or_else(|| {
        let why = format!("no service was found in {}", folder.display());
        let help = "looked for a manage.py, for app, application or the like in wsgi.py, asgi.py, app.py, main.py, api.py, \
                    here, in packages and in src, and for a module that makes one\nname it: passerelle serve \
                    FILE.py:CALLABLE";
        NoTarget::new(why, help)
    })
}

fn services(files: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let of_file = |file: &PathBuf| {
        let file = file.clone();
        sources::callables(&file).named.into_iter().map(move |name| (file.clone(), name))
    };
    files.iter().flat_map(of_file).collect()
}

/// Files that services are in by convention.
fn conventional(folder: &Path) -> Vec<PathBuf> {
    CONVENTIONAL.iter().map(|name| folder.join(name)).filter(|file| file.is_file()).collect()
}

/// A package may be one itself.
fn package_itself(folder: &Path) -> Vec<PathBuf> {
    Some(folder.join("__init__.py")).filter(|file| file.is_file()).into_iter().collect()
}

/// Modules of other names, but for those that are there for tests and tools.
fn lone_modules(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_code = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|kind| kind == "py")
            && !stem.starts_with("test")
            && !matches!(&*stem, "conftest" | "setup" | "noxfile" | "tasks")
    };
    let mut modules: Vec<PathBuf> = entries.filter(is_code).collect();
    modules.sort();
    modules
}

/// Packages right beneath, in their order.
fn packages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut packages: Vec<PathBuf> = entries.filter(|path| path.join("__init__.py").is_file()).collect();
    packages.sort();
    packages
}
