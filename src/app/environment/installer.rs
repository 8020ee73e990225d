//! Makes environments: with uv where it is there, else with `python -m venv` and pip.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::command::{Commands, Outcome};
use super::index::Index;
use super::interpreter::{Interpreter, Python, Uv};
use super::source::Source;
use super::survey::{Note, survey};
use crate::app::App;
use crate::app::environ::Environ;
use crate::app::failure::Failure;
use crate::app::launch::PLACE;

/// What whoever installs must not do: ask, colour, look for news of itself.
const QUIETLY: [(&str, &str); 7] = [
    ("PIP_NO_INPUT", "1"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_PROGRESS_BAR", "off"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
    ("UV_NO_PROGRESS", "1"),
    ("NO_COLOR", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// What pip installs for itself would be no environment of ours.
const NOT_FOR_PIP: [&str; 4] = ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"];

/// The variables that environments are made with.
pub(super) fn environ(app: &App) -> Environ {
    let mut environ = Environ::for_builds(&app.settings, &app.place.home());
    for name in NOT_FOR_PIP {
        environ.remove(name);
    }
    for (name, value) in QUIETLY {
        environ.set(name, value);
    }
    // The gateway's own would be another user's.
    for (name, directory) in [("PIP_CACHE_DIR", "pip"), ("UV_CACHE_DIR", "uv")] {
        if !app.settings.env.contains_key(name) {
            environ.set(name, app.place.cache().join(directory));
        }
    }
    // So that it is found should the gateway and the keeper be killed at once.
    environ.set(PLACE, app.place.root());
    environ
}

/// One environment in the making.
pub(super) struct Installer<'a> {
    pub(super) commands: &'a Commands<'a>,
    pub(super) environ: &'a Environ,
    pub(super) index: &'a Index,
    pub(super) uv: Option<&'a Uv>,
    /// Where it is made: it cannot be moved.
    pub(super) environment: &'a Path,
}

impl Installer<'_> {
    /// Who installs, as it is told.
    pub(super) fn shown(&self) -> String {
        match self.uv {
            Some(uv) => format!("uv {}", uv.version),
            None => "pip".to_owned(),
        }
    }

    pub(super) fn python(&self) -> PathBuf {
        self.environment.join("bin/python")
    }

    /// An environment with nothing in it.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) async fn make(&self, python: &Python) -> Result<(), Failure> {
        let (mut command, failed) = match (self.uv, python) {
            (Some(uv), python) => {
                let mut command = words(&uv.program, &["venv", "--no-project", "--python"]);
                let (python, failed) = match python {
                    Python::Here(interpreter) => {
                        (interpreter.path.clone().into(), "`uv venv` could not make an environment".to_owned())
                    }
                    Python::Fetched(request) => {
                        (request.into(), format!("Python {request} is not here, and uv could not fetch it"))
                    }
                };
                command.push(python);
                (command, failed)
            }
            (None, Python::Here(Interpreter { path, .. })) => {
                (words(path, &["-m", "venv"]), "`python -m venv` could not make an environment".to_owned())
            }
            // Only uv, which was there a moment ago, was to fetch it.
            (None, Python::Fetched(request)) => {
                return Err(Failure::new(format!("Python {request} is not here, and uv neither")));
            }
        };
        command.push(self.environment.into());
        let home = self.commands.app().place.home();
        let outcome = self.commands.run(command, &home, self.environ).await?;
        fine(outcome, &failed)
    }

    /// Everything that `source` says. `hashed`: everything must have a hash.
    ///
    /// # Errors
    /// The installer's own words.
    pub(super) async fn install(&self, source: &Source, hashed: bool) -> Result<(), Failure> {
        let failed = format!("{} could not be installed", source.shown());
        match source {
            Source::Nothing { .. } => Ok(()),
            Source::Project { dependencies, .. } if dependencies.is_empty() => Ok(()),
            Source::Lock { directory } => self.sync(directory, &failed).await,
            Source::Requirements { .. } | Source::Project { .. } => {
                let mut arguments = asked_for(source);
                if hashed {
                    arguments.insert(0, "--require-hashes".into());
                }
                let outcome = self.run_install(arguments, source.directory()).await?;
                fine(outcome, &failed)
            }
        }
    }

    /// A server beside what `source` says, with all that the latter says about where packages come from and which versions
    /// are wanted: what is there already stays as it is.
    ///
    /// # Errors
    /// The installer's own words.
    pub(super) async fn add(&self, source: &Source, packages: &[&str]) -> Result<Outcome, Failure> {
        let mut arguments: Vec<OsString> = packages.iter().map(OsString::from).collect();
        match source {
            Source::Lock { .. } => {
                let file = self.environment.join("passerelle-installed.txt");
                survey(self.commands, self.environment, Note::Constraints, self.environ).await?;
                arguments.extend(["-c".into(), file.into()]);
            }
            Source::Requirements { .. } | Source::Project { .. } | Source::Nothing { .. } => {
                arguments.extend(asked_for(source));
            }
        }
        self.run_install(arguments, source.directory()).await
    }

    async fn run_install(&self, arguments: Vec<OsString>, directory: &Path) -> Result<Outcome, Failure> {
        let Some(uv) = self.uv else {
            let mut command = words(&self.python(), &["-m", "pip", "install"]);
            command.extend(arguments);
            return self.commands.run(command, directory, self.environ).await;
        };
        self.uv_install(uv, arguments, directory).await
    }

    async fn uv_install(&self, uv: &Uv, arguments: Vec<OsString>, directory: &Path) -> Result<Outcome, Failure> {
        let mut command = words(&uv.program, &["pip", "install", "--compile-bytecode"]);
        if self.index.is_offline() {
            command.push("--no-index".into());
        }
        command.push("--python".into());
        command.push(self.python().into());
        command.extend(arguments);
        self.commands.run(command, directory, &self.for_uv(directory)).await
    }

    fn for_uv(&self, directory: &Path) -> Environ {
        let mut environ = self.environ.clone();
        self.index.tell_uv(&mut environ, directory);
        environ
    }

    /// What a `uv.lock` says, without the project itself, which is the code, and without what developing takes. A lock
    /// names the address of each file; where no index is to be asked, what it says is looked for by name and hash.
    async fn sync(&self, directory: &Path, failed: &str) -> Result<(), Failure> {
        let fetched;
        let uv = match self.uv {
            Some(uv) => uv,
            None => {
                fetched = self.fetch_uv(directory).await?;
                &fetched
            }
        };
        let wanted = ["--frozen", "--no-dev", "--no-editable"];
        let mut environ = self.for_uv(directory);
        environ.set("UV_PROJECT_ENVIRONMENT", self.environment);
        if self.index.is_offline() {
            let file = self.environment.join("passerelle-lock.txt");
            let mut command = words(&uv.program, &["export", "--quiet", "--no-emit-project", "--output-file"]);
            command.push((&file).into());
            command.extend(wanted.map(OsString::from));
            fine(self.commands.run(command, directory, &environ).await?, failed)?;
            let outcome = self.uv_install(uv, vec!["--no-deps".into(), "-r".into(), file.into()], directory).await?;
            return fine(outcome, failed);
        }
        let mut command = words(&uv.program, &["sync", "--no-install-project", "--compile-bytecode", "--python"]);
        command.push(self.python().into());
        command.extend(wanted.map(OsString::from));
        fine(self.commands.run(command, directory, &environ).await?, failed)
    }

    /// Only uv reads its locks. What it is fetched into is no part of any environment. `directory`: the lock's, which what is
    /// said about where packages come from may be relative to.
    async fn fetch_uv(&self, directory: &Path) -> Result<Uv, Failure> {
        let app = self.commands.app();
        let place = app.place.cache().join("uv-program");
        let program = place.join("bin/uv");
        if let Some(uv) = Uv::at(self.commands, program.clone(), self.environ).await {
            return Ok(uv);
        }
        self.commands.step("fetching uv, which uv.lock needs");
        super::remove(&place).await?;
        let helper = Installer { environment: &place, uv: None, ..*self };
        let mut command = words(&self.python(), &["-m", "venv"]);
        command.push((&place).into());
        let failed = "uv.lock needs uv, which is not here and could not be fetched";
        fine(self.commands.run(command, &app.place.home(), self.environ).await?, failed)?;
        let outcome = helper.run_install(vec!["uv".into()], directory).await?;
        fine(outcome, failed)?;
        match Uv::at(self.commands, program, self.environ).await {
            Some(uv) => Ok(uv),
            None => Err(Failure::new("uv.lock needs uv, and the one that was fetched is too old or cannot be run")),
        }
    }
}

/// What an installer is asked for.
fn asked_for(source: &Source) -> Vec<OsString> {
    match source {
        Source::Requirements { file, .. } => vec!["-r".into(), file.into()],
        Source::Project { dependencies, .. } => dependencies.iter().map(OsString::from).collect(),
        Source::Lock { .. } | Source::Nothing { .. } => Vec::new(),
    }
}

fn words(program: &Path, arguments: &[&str]) -> Vec<OsString> {
    std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect()
}

pub(super) fn fine(outcome: Outcome, failed: &str) -> Result<(), Failure> {
    if outcome.is_fine() { Ok(()) } else { Err(outcome.failed(failed)) }
}
