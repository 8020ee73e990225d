//! The interpreter that an environment is made with: the first one that the app's user can run and that the project takes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::command::{Commands, Question};
use super::version::{Demand, Version};
use crate::app::environ::Environ;
use crate::app::failure::Failure;

const SCRIPT: &str = include_str!("interpreter.py");

/// The oldest that servers, and the scripts of this module, still run with.
const OLDEST: [u32; 2] = [3, 8];

/// The oldest uv whose options are those that are used here.
const OLDEST_UV: [u32; 2] = [0, 5];

/// How long an interpreter may take to say who it is: the first time, it comes from a slow disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where programs are looked for beside the gateway's own PATH, which a service manager may have made short.
const SYSTEM: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// Directories with programs.
#[derive(Clone, Debug)]
pub(super) struct Search(Vec<PathBuf>);

impl Search {
    /// In the gateway's PATH, and where systems have their programs.
    pub(super) fn of_gateway() -> Search {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Search::of(std::env::split_paths(&path))
    }

    pub(super) fn of(path: impl Iterator<Item = PathBuf>) -> Search {
        let mut directories: Vec<PathBuf> = Vec::new();
        for directory in path.chain(SYSTEM.iter().map(PathBuf::from)) {
            if directory.is_absolute() && !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        Search(directories)
    }

    fn all(&self, name: &str) -> Vec<PathBuf> {
        self.0.iter().map(|directory| directory.join(name)).filter(|program| program.is_file()).collect()
    }

    /// Interpreters, the likeliest first: those of the version that is hoped for, what `python3` is, others from the newest
    /// on.
    fn pythons(&self, hint: Option<&Version>) -> Vec<PathBuf> {
        let mut found = hint.map(|hint| self.all(&format!("python{}", hint.minor()))).unwrap_or_default();
        found.extend(self.all("python3"));
        let mut named: Vec<(u32, PathBuf)> = Vec::new();
        for directory in &self.0 {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            named.extend(entries.filter_map(|entry| Some((minor_of(&entry.file_name())?, entry.path()))));
        }
        named.sort_by_key(|(minor, _)| std::cmp::Reverse(*minor));
        found.extend(named.into_iter().map(|(_, path)| path));
        // One program has many names.
        let mut seen = BTreeSet::new();
        found.retain(|path| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
        found
    }
}

/// `python3.12` is 12.
fn minor_of(name: &OsString) -> Option<u32> {
    let digits = name.as_bytes().strip_prefix(b"python3.")?;
    std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// What a project says about the Python that it wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Of `.python-version`.
    pub(super) hint: Option<Version>,
    /// `requires-python`
    pub(super) demand: Option<Demand>,
}

impl Wanted {
    fn is_met_by(&self, version: &Version) -> bool {
        version.is_at_least(&Version::new(&OLDEST))
            && self.demand.as_ref().is_none_or(|demand| demand.is_met_by(version))
    }

    fn is_hoped_for(&self, version: &Version) -> bool {
        self.hint.as_ref().is_none_or(|hint| version.is_of_series(&hint.minor()))
    }

    /// As uv is asked for it.
    fn request(&self) -> String {
        match (&self.hint, &self.demand) {
            (Some(hint), _) => hint.to_string(),
            (None, Some(demand)) => demand.to_string(),
            (None, None) => format!(">={}", Version::new(&OLDEST)),
        }
    }
}

/// What environments are made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Python {
    Here(Interpreter),
    /// uv is to fetch what this asks for.
    Fetched(String),
}

/// An interpreter that has said who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    /// What else packages that are made for one do not work with another for.
    pub(super) kind: String,
    /// It has what `python -m venv` needs.
    makes_environments: bool,
}

#[derive(Deserialize)]
struct Said {
    path: PathBuf,
    version: [u32; 3],
    implementation: String,
    platform: String,
    makes_environments: bool,
}

/// Asks the interpreter at `path` who it is.
///
/// # Errors
/// It cannot be run by the app's user; its own words.
pub(super) async fn ask(commands: &Commands<'_>, path: &Path, environ: &Environ) -> Result<Interpreter, Failure> {
    let home = commands.app().place.home();
    let question = Question {
        python: path,
        script: SCRIPT,
        arguments: Vec::new(),
        is_isolated: true,
        directory: &home,
        environ,
        patience: PATIENCE,
    };
    let outcome = commands.ask(question).await?;
    let Some(said) = outcome.answer::<Said>() else {
        return Err(outcome.failed(&format!("{} cannot be run by the app's user", path.display())));
    };
    Ok(Interpreter {
        path: said.path,
        version: Version::new(&said.version),
        kind: format!("{} {}", said.implementation, said.platform),
        makes_environments: said.makes_environments,
    })
}

/// Finds one. `uv`: it is there, and could fetch one. Tells beside it what is worth knowing about the choice.
///
/// # Errors
/// None fits: everything that was tried.
pub(super) async fn find(
    commands: &Commands<'_>,
    search: &Search,
    wanted: &Wanted,
    uv: Option<&Uv>,
    may_fetch: bool,
    environ: &Environ,
) -> Result<(Python, Option<String>), Failure> {
    let (searched, hint) = (search.clone(), wanted.hint.clone());
    let candidates = tokio::task::spawn_blocking(move || searched.pythons(hint.as_ref())).await.unwrap_or_default();
    let mut tried = Vec::new();
    let mut second_best = None;
    for path in candidates {
        let interpreter = match ask(commands, &path, environ).await {
            Ok(interpreter) => interpreter,
            Err(failure) => {
                let words = failure.output.last().map(|line| format!(" ({line})")).unwrap_or_default();
                tried.push(format!("{}{words}", failure.why));
                continue;
            }
        };
        let version = &interpreter.version;
        if !wanted.is_met_by(version) {
            tried.push(format!("{} is Python {version}", path.display()));
        } else if !interpreter.makes_environments && uv.is_none() {
            let lacks =
                "cannot make virtual environments: it lacks venv or ensurepip (Debian: apt install python3-venv)";
            tried.push(format!("{} is Python {version}, and {lacks}", path.display()));
        } else if wanted.is_hoped_for(version) {
            return Ok((Python::Here(interpreter), None));
        } else {
            second_best = second_best.or(Some(interpreter));
        }
    }
    let request = wanted.request();
    if uv.is_some() && may_fetch {
        let note = format!("there is no Python {request} here that the app's user can run: uv is to fetch it");
        return Ok((Python::Fetched(request), Some(note)));
    }
    if let Some(interpreter) = second_best {
        let note = format!("`.python-version` asks for {request}, which is not here: {} is taken", interpreter.version);
        return Ok((Python::Here(interpreter), Some(note)));
    }
    let demanded =
        wanted.demand.as_ref().map(|demand| format!(", {demand} as the project demands")).unwrap_or_default();
    let why = format!(
        "no Python was found that fits (at least {}{demanded}): install one that the app's user can run, or uv, which \
         fetches one; these were tried",
        Version::new(&OLDEST)
    );
    Err(Failure::with_output(why, if tried.is_empty() { vec!["nothing is named python3".to_owned()] } else { tried }))
}

/// uv, as the app's user can run it.
#[derive(Clone, Debug)]
pub(super) struct Uv {
    pub(super) program: PathBuf,
    pub(super) version: Version,
}

impl Uv {
    pub(super) async fn find(commands: &Commands<'_>, search: &Search, environ: &Environ) -> Option<Uv> {
        let searched = search.clone();
        let programs = tokio::task::spawn_blocking(move || searched.all("uv")).await.unwrap_or_default();
        for program in programs {
            if let Some(uv) = Uv::at(commands, program, environ).await {
                return Some(uv);
            }
        }
        None
    }

    /// `None`: it cannot be run, or is too old.
    pub(super) async fn at(commands: &Commands<'_>, program: PathBuf, environ: &Environ) -> Option<Uv> {
        let home = commands.app().place.home();
        let command = vec![program.clone().into_os_string(), "--version".into()];
        let outcome = commands.run_quietly(command, &home, environ, PATIENCE).await.ok()?;
        let said = outcome.lines.iter().find_map(|line| line.strip_prefix("uv "))?;
        let version = Version::parse(said)?;
        let is_new_enough = outcome.is_fine() && version.is_at_least(&Version::new(&OLDEST_UV));
        is_new_enough.then_some(Uv { program, version })
    }
}
