//! What the packages of an environment are: which of the app's files says so, and what it comes to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::digest::Digester;
use super::interpreter::Wanted;
use super::project::Said;
use super::{project, requirements, version};
use crate::app::failure::Failure;
use crate::config::settings::{AppSettings, PackageFile, Packages};

/// What is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `directory`: where the installer runs; paths of packages are relative to it.
    Requirements {
        file: PathBuf,
        directory: PathBuf,
    },
    Project {
        file: PathBuf,
        dependencies: Vec<String>,
        directory: PathBuf,
    },
    /// The directory of a `uv.lock`, with the `pyproject.toml` that it belongs to.
    Lock {
        directory: PathBuf,
    },
    /// The server alone.
    Nothing {
        directory: PathBuf,
    },
}

/// A source, read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    /// The packages that it names, not those that come along.
    pub(super) named: BTreeSet<String>,
    /// Everything must have a hash.
    pub(super) hashed: bool,
    pub(super) wanted: Wanted,
}

/// What is looked for in the code where nothing is named. A project that does not say what to install, since it only
/// configures tools, say, or leaves that to a build that reads another file, gives way to the file that does.
fn looked_for(code: &Path) -> Option<PathBuf> {
    let is_there = |name: &str| Some(code.join(name)).filter(|file| file.is_file());
    if let Some(lock) = is_there("uv.lock") {
        return Some(lock);
    }
    let requirements = is_there("requirements.txt");
    let Some(project) = is_there("pyproject.toml") else { return requirements };
    match project::said(&project) {
        Said::Dependencies => Some(project),
        Said::ElsewhereIn(file) => is_there(&file).or(requirements).or(Some(project)),
        // Alone, it is asked all the same, for what is wrong with it to be told.
        Said::Nothing => requirements.or(Some(project)),
    }
}

/// Finds it and reads it into `digester`. Reads files.
///
/// # Errors
/// It is not there, or cannot be read.
pub(super) fn find(settings: &AppSettings, code: &Path, digester: &mut Digester) -> Result<Found, Failure> {
    let file = match &settings.packages {
        Packages::File(file) => Some(named_file(&file.value, &settings.directory.value, code)?),
        Packages::Found => looked_for(code),
        Packages::Interpreter(_) => None,
    };
    let Some(file) = file else {
        digester.bytes("nothing", b"");
        let source = Source::Nothing { directory: code.to_owned() };
        return Ok(Found { source, named: BTreeSet::new(), hashed: false, wanted: wanted(code) });
    };
    let beside = file.parent().unwrap_or(Path::new("/")).to_owned();
    let directory = if file.starts_with(code) { code.to_owned() } else { beside.clone() };
    if file.file_name().is_some_and(|name| name == "uv.lock") {
        return lock(&file, beside, code, digester);
    }
    if file.extension().is_some_and(|kind| kind == "toml") {
        let project = project::project(&file)?;
        for dependency in &project.dependencies {
            digester.bytes("dependency", dependency.as_bytes());
        }
        let named = project.named();
        let wanted = Wanted { demand: project.demand, ..wanted(code) };
        let source = Source::Project { file, dependencies: project.dependencies, directory };
        return Ok(Found { source, named, hashed: false, wanted });
    }
    let requirements = requirements::read(&file, &directory, digester)?;
    if requirements.editable {
        // A link leads into this very copy of the code: no other release may use it.
        digester.bytes("editable", code.as_os_str().as_encoded_bytes());
    }
    let source = Source::Requirements { file, directory };
    Ok(Found { source, named: requirements.named, hashed: requirements.hashed, wanted: wanted(code) })
}

fn lock(file: &Path, beside: PathBuf, code: &Path, digester: &mut Digester) -> Result<Found, Failure> {
    let project = beside.join("pyproject.toml");
    let bytes = super::digest::read(&project).map_err(|reason| {
        let why = format!("{} belongs to {}, which cannot be read: {reason}", file.display(), project.display());
        Failure::new(why)
    })?;
    digester.bytes("pyproject.toml", &bytes);
    let demand = project::lock(file, digester)?;
    // The names are a preference only.
    let named = project::project(&project).map(|project| project.named()).unwrap_or_default();
    let wanted = Wanted { demand, ..wanted(code) };
    Ok(Found { source: Source::Lock { directory: beside }, named, hashed: false, wanted })
}

/// In the release's code, where a path into the app's directory leads too; else beside the configuration file.
fn named_file(file: &PackageFile, directory: &Path, code: &Path) -> Result<PathBuf, Failure> {
    let within = file.written.strip_prefix(directory).unwrap_or(&file.written);
    let in_code = code.join(within);
    if in_code.is_file() {
        return Ok(in_code);
    }
    if file.beside.is_file() {
        return Ok(file.beside.clone());
    }
    let why = format!(
        "`requirements` names {}, which is neither in the app's directory nor beside the configuration ({})",
        file.written.display(),
        file.beside.display()
    );
    Err(Failure::new(why))
}

/// What the code says of its Python, whatever says what to install.
fn wanted(code: &Path) -> Wanted {
    let hint = super::digest::read(&code.join(".python-version")).ok();
    let hint = hint.and_then(|bytes| version::of_hint(&String::from_utf8_lossy(&bytes)));
    Wanted { hint, demand: project::demand_alone(&code.join("pyproject.toml")) }
}

impl Source {
    /// As it is spoken of.
    pub(super) fn shown(&self) -> String {
        let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Source::Requirements { file, .. } | Source::Project { file, .. } => name(file),
            Source::Lock { .. } => "uv.lock".to_owned(),
            Source::Nothing { .. } => "no requirements".to_owned(),
        }
    }

    /// What makes an environment what it is, behind that word.
    pub(super) fn of(&self) -> String {
        match self {
            Source::Nothing { .. } => String::new(),
            Source::Requirements { .. } | Source::Project { .. } | Source::Lock { .. } => {
                format!(" of {}", self.shown())
            }
        }
    }

    /// Whether there is anything to install.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Source::Nothing { .. } => true,
            Source::Project { dependencies, .. } => dependencies.is_empty(),
            Source::Requirements { .. } | Source::Lock { .. } => false,
        }
    }

    /// Where its installer runs.
    pub(super) fn directory(&self) -> &Path {
        match self {
            Source::Requirements { directory, .. }
            | Source::Project { directory, .. }
            | Source::Lock { directory }
            | Source::Nothing { directory } => directory,
        }
    }
}
