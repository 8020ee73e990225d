//! The entry, imported as its server will: whether it is there, and how it is called.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::command::{Commands, Question};
use super::server::Interface;
use crate::app::App;
use crate::app::failure::Failure;
use crate::app::{launch, place, remove};

const SCRIPT: &str = include_str!("entry.py");

/// How long an app may take to be imported: some load models.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
struct Said {
    interface: Option<Interface>,
    error: Option<Wrong>,
    missing: Option<String>,
    there: Option<There>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wrong {
    /// The module itself is not there.
    Module,
    Import,
    Attribute,
    Callable,
    Factory,
    Arguments,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum There {
    One(String),
    Many(Vec<String>),
}

/// Imports it with `python`, in `code`, with the variables that workers have.
///
/// # Errors
/// It cannot be imported, or is no application: the traceback, and what may be meant.
pub(super) async fn interface(
    commands: &Commands<'_>,
    release: u64,
    python: &Path,
    scripts: &Path,
    code: &Path,
) -> Result<Interface, Failure> {
    let app = commands.app();
    let entry = &app.settings.entry;
    let runtime = Runtime::make(app, release).await?;
    let environ = launch::environ(app, release, scripts, Some(&runtime.0));
    let question = Question {
        python,
        script: SCRIPT,
        arguments: vec![(&entry.module).into(), (&entry.attribute).into()],
        is_isolated: false,
        directory: code,
        environ: &environ,
        patience: PATIENCE,
    };
    let outcome = commands.ask(question).await?;
    let Some(said) = outcome.answer::<Said>() else {
        return Err(outcome.failed(&format!("the process that imported {entry} did not survive it")));
    };
    if let Some(interface) = said.interface {
        return Ok(interface);
    }
    let module = &entry.module;
    let there = match &said.there {
        Some(There::One(name)) => name.clone(),
        Some(There::Many(names)) => names.join(", "),
        None => String::new(),
    };
    let missing = said.missing.unwrap_or_default();
    let why = match said.error {
        Some(Wrong::Module) => not_found(module, code),
        Some(Wrong::Import) if !missing.is_empty() => format!(
            "{entry} cannot be imported: the module {missing} is not there; if a package brings it, it is missing in the \
             requirements"
        ),
        Some(Wrong::Import) | None => format!("{entry} cannot be imported"),
        Some(Wrong::Attribute) if there.is_empty() => format!("{module} has no {missing}"),
        Some(Wrong::Attribute) => format!("{module} has no {missing}; what could be meant: {there}"),
        Some(Wrong::Callable) => format!("{entry} is no application but of type {there}, which cannot be called"),
        Some(Wrong::Factory) => format!(
            "{entry} takes no arguments: it seems to make an application rather than to be one; add a line such as \
             `app = {}()` to {module} and name that",
            entry.attribute
        ),
        Some(Wrong::Arguments) => {
            format!("{entry} is neither a WSGI nor an ASGI application: it takes other arguments than theirs")
        }
    };
    Err(Failure::with_output(why, outcome.lines))
}

/// A private directory for as long as the import takes, as each worker has one.
struct Runtime(PathBuf);

impl Runtime {
    async fn make(app: &App, release: u64) -> Result<Runtime, Failure> {
        let path = app.place.sockets().join(format!("{release}-import"));
        let (made, account) = (path.clone(), app.account.clone());
        let make = move || remove::remove(&made).and_then(|()| place::private(&made, &account));
        let failed = |error| Failure::new(format!("a directory for the import could not be made: {error}"));
        super::blocking(make).await?.map_err(failed)?;
        Ok(Runtime(path))
    }
}

impl Drop for Runtime {
    /// Beside the runtime: the app's user decides how much there is. What cannot be removed, the next start removes.
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn_blocking(move || remove::remove(&path));
        }
    }
}

/// The module of the entry is not there. Where the code is beneath `src`, that is why.
fn not_found(module: &str, code: &Path) -> String {
    let top = module.split('.').next().unwrap_or(module);
    let within = code.join("src");
    let is_there = within.join(top).is_dir() || within.join(format!("{top}.py")).is_file();
    let help = if is_there { "; it is beneath `src`: add PYTHONPATH = \"src\" to `env`" } else { "" };
    format!("there is no module {module} in the app's directory{help}")
}
