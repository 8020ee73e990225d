//! What is in an environment, as its own interpreter says. All that lies in it is the app's user's, and is looked at and
//! written by a process of that user alone: whatever links it may have come to hold lead no further than they could.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::Deserialize;

use super::command::{Commands, Question};
use super::server::{Installed, WorkerClass};
use crate::app::environ::Environ;
use crate::app::failure::Failure;
use crate::config::settings::AppServer;

const SCRIPT: &str = include_str!("survey.py");

const PATIENCE: Duration = Duration::from_secs(60);

/// How far the making of an environment came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Made {
    /// The packages are there, and nobody has used it yet.
    Packages,
    /// A server too: processes may run in it, nothing changes it any more.
    Whole,
}

/// What is to be noted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Nothing,
    /// It is about to change: should that be cut short, it is worth nothing.
    Unmade,
    Made(Made),
    /// The versions of all that is installed, as constraints.
    Constraints,
}

/// What it says.
pub(super) struct Survey {
    pub(super) python_version: String,
    pub(super) installed: Installed,
    /// `None`: it was cut short.
    pub(super) made: Option<Made>,
}

#[derive(Deserialize)]
struct Said {
    version: String,
    made: Option<String>,
    servers: Vec<String>,
    worker: Option<WorkerClass>,
}

/// Whether the environment in `directory` is noted to be whole. Reads files.
pub(super) fn is_whole(directory: &Path) -> bool {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let opened = File::options().read(true).custom_flags(flags).open(directory.join("passerelle-made"));
    let Some(file) = opened.ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file())) else {
        return false;
    };
    let mut noted = String::new();
    file.take(64).read_to_string(&mut noted).is_ok() && noted == "whole"
}

/// Asks the environment in `directory`.
///
/// # Errors
/// Its interpreter does not run.
pub(super) async fn survey(
    commands: &Commands<'_>,
    directory: &Path,
    note: Note,
    environ: &Environ,
) -> Result<Survey, Failure> {
    of_interpreter(commands, &directory.join("bin/python"), directory, note, environ).await
}

/// The same of an interpreter wherever it is.
///
/// # Errors
/// It does not run.
pub(super) async fn of_interpreter(
    commands: &Commands<'_>,
    python: &Path,
    directory: &Path,
    note: Note,
    environ: &Environ,
) -> Result<Survey, Failure> {
    let home = commands.app().place.home();
    let word = match note {
        Note::Nothing => "look",
        Note::Unmade => "forget",
        Note::Made(Made::Packages) => "packages",
        Note::Made(Made::Whole) => "whole",
        Note::Constraints => "constraints",
    };
    let question = Question {
        python,
        script: SCRIPT,
        arguments: vec![directory.into(), word.into()],
        is_isolated: true,
        directory: &home,
        environ,
        patience: PATIENCE,
    };
    let outcome = commands.ask(question).await?;
    let Some(said) = outcome.answer::<Said>() else {
        return Err(outcome.failed(&format!("{} does not run", python.display())));
    };
    let servers = AppServer::ALL.into_iter().filter(|(name, _)| said.servers.iter().any(|server| server == name));
    Ok(Survey {
        python_version: said.version,
        installed: Installed { servers: servers.map(|(_, server)| server).collect(), worker: said.worker },
        made: match said.made.as_deref() {
            Some("whole") => Some(Made::Whole),
            Some("packages") => Some(Made::Packages),
            Some(_) | None => None,
        },
    })
}
