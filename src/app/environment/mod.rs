//! Isolated environments: what an app's packages are, and the virtual environment with them, made before anything is
//! stopped.
//!
//! An environment is known by its key, a digest of all that it is made of. It is made in its place, since virtual
//! environments cannot be moved; a note that is written last says that it is whole, and whatever lacks it is made again.
//! From then on it never changes: what another release with the same packages needs beside, another server, it gets in an
//! environment of its own.

mod command;
mod digest;
mod entry;
mod index;
mod installer;
mod interpreter;
mod made;
mod project;
mod requirements;
mod server;
mod source;
mod survey;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::command::Commands;
use self::digest::Digester;
use self::index::Index;
use self::installer::Installer;
use self::interpreter::{Python, Search, Uv};
pub(super) use self::made::Environment;
pub(super) use self::server::Interface;
use self::server::{Choice, choose};
use self::source::Source;
use self::survey::{Made, Note, Survey, survey};
use super::App;
use super::environ::Environ;
use super::failure::Failure;
use super::progress::Progress;
use crate::config::settings::{AppServer, AppSettings, Packages};

/// Changes whenever environments come about in another way than those that are there.
const VERSION: &str = "1";

/// What an environment is to be made of: found, read and digested. Nothing is built yet.
pub(super) struct Recipe {
    key: String,
    code: PathBuf,
    kind: Kind,
}

enum Kind {
    /// One that is there: its interpreter.
    There(PathBuf),
    Made(Box<Making>),
}

struct Making {
    source: Source,
    named: BTreeSet<String>,
    hashed: bool,
    python: Python,
    uv: Option<Uv>,
    index: Index,
    environ: Environ,
    /// What is worth knowing about the choice of the interpreter.
    note: Option<String>,
}

impl Recipe {
    /// Looks for what the environment of a release is to be made of. `code`: the release's own copy, which is the app's
    /// user's; `directory`: what it was copied from. The app's place must be prepared.
    ///
    /// # Errors
    /// Nothing fits, or what is named is not there.
    pub(super) async fn find(app: &App, code: &Path, directory: &Path) -> Result<Recipe, Failure> {
        Recipe::find_among(app, code, directory, &Search::of_gateway()).await
    }

    async fn find_among(app: &App, code: &Path, directory: &Path, search: &Search) -> Result<Recipe, Failure> {
        let commands = Commands::new(app, None);
        let environ = installer::environ(app);
        match &app.settings.packages {
            Packages::Interpreter(file) => {
                let file = &file.value;
                let within = [directory, &app.settings.directory.value].map(|directory| directory.join(&file.written));
                let beside = file.beside.clone();
                let found = move || within.into_iter().find(|python| python.exists()).unwrap_or(beside);
                let python = blocking(found).await?;
                let interpreter = interpreter::ask(&commands, &python, &environ).await?;
                let mut digester = Digester::new(VERSION);
                digester.bytes("interpreter", python.as_os_str().as_encoded_bytes());
                digester.bytes("version", interpreter.version.to_string().as_bytes());
                Ok(Recipe { key: digester.key(), code: code.to_owned(), kind: Kind::There(python) })
            }
            Packages::Found | Packages::File(_) => Recipe::made(&commands, code, search, environ).await,
        }
    }

    async fn made(commands: &Commands<'_>, code: &Path, search: &Search, environ: Environ) -> Result<Recipe, Failure> {
        let settings = &commands.app().settings;
        let (found, mut digester, index) = read(settings, code, &environ).await?;
        let hashed = found.hashed || index.demands_hashes();
        let uv = Uv::find(commands, search, &environ).await;
        let may_fetch = !index.is_offline() && environ.get("UV_OFFLINE").is_none();
        let (python, note) =
            interpreter::find(commands, search, &found.wanted, uv.as_ref(), may_fetch, &environ).await?;
        match &python {
            Python::Here(interpreter) => {
                digester.bytes("python", interpreter.version.to_string().as_bytes());
                digester.bytes("platform", interpreter.kind.as_bytes());
                digester.bytes("path", interpreter.path.as_os_str().as_encoded_bytes());
            }
            Python::Fetched(request) => digester.bytes("fetched", request.as_bytes()),
        }
        let making = Making { source: found.source, named: found.named, hashed, python, uv, index, environ, note };
        if let (true, Some(server)) = (hashed, settings.server)
            && !server::packages(server).iter().any(|name| making.named.contains(*name))
        {
            // The least that it takes.
            return Err(unhashed(&making.source, server, Interface::Wsgi));
        }
        Ok(Recipe { key: digester.key(), code: code.to_owned(), kind: Kind::Made(Box::new(making)) })
    }

    /// Digest of all that the environment is made of; short enough for the name of a directory.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The environment, made unless it is there whole already, with the server that runs the entry. The entry is imported
    /// in it for that.
    ///
    /// # Errors
    /// It cannot be made, or the entry not be run in it: why, with the last words of whoever tried.
    pub(super) async fn build(&self, app: &App, release: u64, progress: &Progress) -> Result<Environment, Failure> {
        let commands = Commands::new(app, Some(progress));
        match &self.kind {
            Kind::There(python) => self.there(&commands, release, python).await,
            Kind::Made(making) => Build { recipe: self, release, making, commands: &commands, progress }.run().await,
        }
    }

    async fn there(&self, commands: &Commands<'_>, release: u64, python: &Path) -> Result<Environment, Failure> {
        let environ = installer::environ(commands.app());
        let scripts = python.parent().unwrap_or(Path::new("/")).to_owned();
        let survey = survey::of_interpreter(commands, python, &scripts, Note::Nothing, &environ).await?;
        let interface = entry::interface(commands, release, python, &scripts, &self.code).await?;
        let wanted = commands.app().settings.server;
        match choose(wanted, interface, &survey.installed, &BTreeSet::new()).map_err(Failure::new)? {
            Choice::Installed(server) => {
                Ok(environment(python.to_owned(), scripts, server, interface, survey, Duration::ZERO))
            }
            Choice::Missing(server) => Err(Failure::new(format!(
                "{} is not installed for {}, and nothing is added to an environment that is named with `python`: run \
                 {} -m pip install {}",
                server::added(server, interface).packages.join(" with "),
                python.display(),
                python.display(),
                server::added(server, interface).packages.join(" ")
            ))),
        }
    }
}

/// Finds and reads the source, away from the runtime.
async fn read(
    settings: &AppSettings,
    code: &Path,
    environ: &Environ,
) -> Result<(source::Found, Digester, Index), Failure> {
    let (settings, code, environ) = (settings.clone(), code.to_owned(), environ.clone());
    let reading = move || {
        let mut digester = Digester::new(VERSION);
        let found = source::find(&settings, &code, &mut digester)?;
        Ok((found, digester, Index::of(&environ)))
    };
    blocking(reading).await?
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(what).await.map_err(|error| Failure::new(format!("files could not be read: {error}")))
}

/// Removes what is at `path`, whatever it is, without following links.
async fn remove(path: &Path) -> Result<(), Failure> {
    let gone = path.to_owned();
    let removed = blocking(move || super::remove::remove(&gone)).await?;
    removed.map_err(|error| Failure::new(format!("{} cannot be removed: {error}", path.display())))
}

fn environment(
    python: PathBuf,
    scripts: PathBuf,
    server: AppServer,
    interface: Interface,
    survey: Survey,
    took: Duration,
) -> Environment {
    let worker_class = match (server, interface) {
        (AppServer::Gunicorn, Interface::Asgi) => survey.installed.worker,
        (AppServer::Gunicorn | AppServer::Uvicorn | AppServer::Granian | AppServer::Uwsgi, _) => None,
    };
    Environment { python, scripts, server, interface, worker_class, python_version: survey.python_version, took }
}

fn unhashed(source: &Source, server: AppServer, interface: Interface) -> Failure {
    let shown = source.shown();
    let packages = server::added(server, interface).packages.join(" and ");
    Failure::new(format!(
        "{shown} demands hashes, and {} is not in it: add {packages} to it, with its hash (pip-compile --generate-hashes, \
         or uv pip compile --generate-hashes, write them)",
        server.as_str()
    ))
}

/// An environment being made.
struct Build<'a> {
    recipe: &'a Recipe,
    release: u64,
    making: &'a Making,
    commands: &'a Commands<'a>,
    progress: &'a Progress,
}

impl Build<'_> {
    async fn run(&self) -> Result<Environment, Failure> {
        let started = Instant::now();
        let directory = self.directory("");
        let (made, is_new) = self.packages(&directory).await?;
        let python = directory.join("bin/python");
        let scripts = directory.join("bin");
        let interface = entry::interface(self.commands, self.release, &python, &scripts, &self.recipe.code).await?;
        let wanted = self.commands.app().settings.server;
        let there = self.survey(&directory, Note::Nothing).await?;
        match choose(wanted, interface, &there.installed, &self.making.named).map_err(Failure::new)? {
            Choice::Installed(server) => {
                if made != Made::Whole {
                    self.survey(&directory, Note::Made(Made::Whole)).await?;
                }
                Ok(self.done(&directory, server, interface, there, is_new, started))
            }
            Choice::Missing(server) if self.making.hashed => Err(unhashed(&self.making.source, server, interface)),
            Choice::Missing(server) => match made {
                Made::Packages => {
                    let survey = self.add(&directory, server, interface).await?;
                    Ok(self.done(&directory, server, interface, survey, true, started))
                }
                // Somebody runs in it, with another server.
                Made::Whole => {
                    let name = match (server, interface) {
                        (AppServer::Gunicorn, Interface::Asgi) => "gunicorn-asgi",
                        (AppServer::Gunicorn | AppServer::Uvicorn | AppServer::Granian | AppServer::Uwsgi, _) => {
                            server.as_str()
                        }
                    };
                    let directory = self.directory(name);
                    let (made, _) = self.packages(&directory).await?;
                    let (survey, is_new) = match made {
                        Made::Whole => (self.survey(&directory, Note::Nothing).await?, false),
                        Made::Packages => (self.add(&directory, server, interface).await?, true),
                    };
                    Ok(self.done(&directory, server, interface, survey, is_new, started))
                }
            },
        }
    }

    fn directory(&self, server: &str) -> PathBuf {
        let key = self.recipe.key();
        let name = if server.is_empty() { key.to_owned() } else { format!("{key}-{server}") };
        self.commands.app().place.environments().join(name)
    }

    async fn survey(&self, directory: &Path, note: Note) -> Result<Survey, Failure> {
        survey(self.commands, directory, note, &self.making.environ).await
    }

    fn installer<'s>(&'s self, directory: &'s Path) -> Installer<'s> {
        let Making { uv, index, environ, .. } = self.making;
        Installer { commands: self.commands, environ, index, uv: uv.as_ref(), environment: directory }
    }

    /// Makes sure of the packages, and says how far it has come and whether anything was made.
    async fn packages(&self, directory: &Path) -> Result<(Made, bool), Failure> {
        let Making { source, hashed, python, note, .. } = self.making;
        let found = self.survey(directory, Note::Nothing).await.ok();
        if let Some(made) = found.and_then(|survey| survey.made) {
            self.progress.step(format!("the environment{} is there already", source.of()));
            return Ok((made, false));
        }
        remove(directory).await?;
        let installer = self.installer(directory);
        if let Some(note) = note {
            self.progress.step(note);
        }
        let version = match python {
            Python::Here(interpreter) => interpreter.version.to_string(),
            Python::Fetched(request) => request.clone(),
        };
        let (of, by) = (source.of(), installer.shown());
        self.progress.step(format!("making an environment{of} with Python {version} and {by}"));
        installer.make(python).await?;
        if !source.is_nothing() {
            self.progress.step(format!("installing {}", source.shown()));
        }
        installer.install(source, *hashed).await?;
        self.survey(directory, Note::Made(Made::Packages)).await?;
        Ok((Made::Packages, true))
    }

    /// Adds a server that nobody asked for.
    async fn add(&self, directory: &Path, server: AppServer, interface: Interface) -> Result<Survey, Failure> {
        let Making { source, .. } = self.making;
        let server::Added { packages, beside } = server::added(server, interface);
        let package = packages.join(" ");
        let why = match source {
            Source::Nothing { .. } => String::new(),
            Source::Lock { .. } => format!(", which uv.lock does not have (`uv add {package}` pins it)"),
            Source::Requirements { .. } | Source::Project { .. } => {
                format!(", which {} does not name", source.shown())
            }
        };
        self.progress.step(format!("adding {package}{why}"));
        self.survey(directory, Note::Unmade).await?;
        let installer = self.installer(directory);
        let all: Vec<&str> = packages.iter().chain(beside).copied().collect();
        let mut outcome = installer.add(source, &all).await?;
        if !outcome.is_fine() && !beside.is_empty() {
            self.progress.step(format!("{} cannot be had: trying {package} alone", beside.join(", ")));
            outcome = installer.add(source, packages).await?;
        }
        installer::fine(outcome, &format!("{package} could not be installed"))?;
        let survey = self.survey(directory, Note::Made(Made::Whole)).await?;
        let lacks_worker =
            server == AppServer::Gunicorn && interface == Interface::Asgi && survey.installed.worker.is_none();
        if lacks_worker || !survey.installed.servers.contains(&server) {
            return Err(Failure::new(format!("{package} was installed, and is not there")));
        }
        Ok(survey)
    }

    fn done(
        &self,
        directory: &Path,
        server: AppServer,
        interface: Interface,
        survey: Survey,
        is_new: bool,
        started: Instant,
    ) -> Environment {
        let took = if is_new { started.elapsed() } else { Duration::ZERO };
        if is_new {
            self.progress.step(format!("the environment was made in {:.1} s", took.as_secs_f64()));
        }
        self.progress.step(format!("the entry is {interface}: {} runs it", server.as_str()));
        environment(directory.join("bin/python"), directory.join("bin"), server, interface, survey, took)
    }
}

/// Removes the environments of recipes that are not among `keep`.
///
/// # Errors
/// The last one that could not be removed; the others are.
pub(super) async fn prune(app: &App, keep: &BTreeSet<String>) -> Result<(), Failure> {
    let (environments, keep) = (app.place.environments(), keep.clone());
    let listing = environments.clone();
    let names = blocking(move || std::fs::read_dir(listing).map(|entries| entries.flatten().collect::<Vec<_>>()));
    let entries = match names.await? {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::new(format!("{} cannot be read: {error}", environments.display()))),
    };
    let mut result = Ok(());
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let key = name.split('-').next().unwrap_or(&name);
        if !keep.contains(key) {
            result = remove(&entry.path()).await.and(result);
        }
    }
    result
}
