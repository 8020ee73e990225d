//! What `passerelle serve` is to serve: from the words on the command line to a directory and an entry.

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
    /// Absolute, without links: where Python imports the module from.
    pub(super) directory: PathBuf,
    pub(super) entry: EntryPoint,
    /// For `[app.NAME]`.
    pub(super) name: String,
    /// A path that says whether the service is well, where the sources show one.
    pub(super) health: Option<String>,
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
        let (place, callable) = split(target);
        let path = directory.join(place);
        let is_path = place.contains('/') || place.ends_with(".py") || place == "." || place == "..";
        if !is_path && let Some(file) = module_file(&directory, place).filter(|_| callable.is_some() || !path.is_dir())
        {
            return of_file(&directory, place.to_owned(), &file, callable);
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
        Err(absent(target, place, &directory, is_path))
    }
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
    Ok(Target { directory: directory.to_owned(), entry, name, health })
}

/// The folder's name, or the module's where that says more: `app` in `/srv/orders` is `orders`, `billing.wsgi` `billing`.
fn name_of(directory: &Path, module: &str) -> String {
    let package = module.split('.').next().unwrap_or_default();
    let told = module.contains('.') && !matches!(package, "app" | "src" | "config" | "api" | "project");
    let folder = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    plain(if told { package } else { &folder })
}

fn one_callable(file: &Path) -> Result<String, NoTarget> {
    let Callables { named, factories } = sources::callables(file);
    let shown = file.display();
    match named.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(match factories.first() {
            Some(factory) => NoTarget::new(
                format!("{shown} defines {factory}(), and nothing here calls it"),
                format!("add a line `app = {factory}()` to it, or to a file of its own"),
            ),
            None => NoTarget::new(
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

/// The service of a folder: Django's, or that of the one file by convention that has one.
fn of_folder(folder: &Path) -> Result<Target, NoTarget> {
    if folder.join("manage.py").is_file() {
        return django::find(folder);
    }
    let mut found = services(folder);
    if found.is_empty() {
        found = packages(folder).iter().flat_map(|package| services(package)).collect();
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
            let why = format!("no service was found in {}", folder.display());
            let help = "looked for a manage.py, and for app, application or the like in wsgi.py, asgi.py, app.py, \
                        main.py, api.py\nname it: passerelle serve FILE.py:CALLABLE";
            Err(NoTarget::new(why, help))
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

fn services(folder: &Path) -> Vec<(PathBuf, String)> {
    let files = CONVENTIONAL.iter().map(|name| folder.join(name)).filter(|file| file.is_file());
    files.flat_map(|file| sources::callables(&file).named.into_iter().map(move |name| (file.clone(), name))).collect()
}

/// Packages right beneath, in their order.
fn packages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut packages: Vec<PathBuf> = entries.filter(|path| path.join("__init__.py").is_file()).collect();
    packages.sort();
    packages
}
