//! The entry, imported as its server will: whether it is there, and how it is called.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::command::{Commands, Question};
use super::server::Interface;
use crate::app::environ::Environ;
use crate::app::failure::Failure;

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
    python: &Path,
    scripts: &Path,
    code: &Path,
) -> Result<Interface, Failure> {
    let app = commands.app();
    let entry = &app.settings.entry;
    let environ = Environ::for_app(&app.settings, &app.place.home(), scripts);
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

/// The module of the entry is not there. Where the code is beneath `src`, that is why.
fn not_found(module: &str, code: &Path) -> String {
    let top = module.split('.').next().unwrap_or(module);
    let within = code.join("src");
    let is_there = within.join(top).is_dir() || within.join(format!("{top}.py")).is_file();
    let help = if is_there { "; it is beneath `src`: add PYTHONPATH = \"src\" to `env`" } else { "" };
    format!("there is no module {module} in the app's directory{help}")
}
