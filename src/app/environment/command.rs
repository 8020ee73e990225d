//! Commands that make environments: run as the app's user, in a clean environment of variables, for a bounded time.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::app::environ::Environ;
use crate::app::failure::Failure;
use crate::app::output::{self, LastLines};
use crate::app::process::{self, Ended, Limits};
use crate::app::progress::Progress;

/// How long an environment may take to be made. Whoever compiles scientific packages needs a while.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Who runs commands for an app, and who hears of them.
pub(super) struct Commands<'a> {
    app: &'a App,
    progress: Option<&'a Progress>,
    deadline: Instant,
}

/// What a command came to.
pub(super) struct Outcome {
    pub(super) ended: Ended,
    /// Its last lines, without secrets.
    pub(super) lines: Vec<String>,
    /// The line that it was to say: what stands behind the word that it was given.
    pub(super) answer: Option<String>,
}

impl<'a> Commands<'a> {
    /// `progress`: who hears the commands' own words.
    pub(super) fn new(app: &'a App, progress: Option<&'a Progress>) -> Commands<'a> {
        Commands { app, progress, deadline: Instant::now() + PATIENCE }
    }

    pub(super) fn app(&self) -> &'a App {
        self.app
    }

    /// Tells what comes next.
    pub(super) fn step(&self, line: &str) {
        if let Some(progress) = self.progress {
            progress.step(line);
        }
    }

    /// Runs something to its end; that it failed is for the caller to see.
    ///
    /// # Errors
    /// It could not be started, or time is up.
    pub(super) async fn run(
        &self,
        command: Vec<OsString>,
        directory: &Path,
        environ: &Environ,
    ) -> Result<Outcome, Failure> {
        let patience = self.deadline.saturating_duration_since(Instant::now());
        self.heard(command, directory, environ, patience, self.progress, None).await
    }

    /// The same for what is no news to anybody, with a patience of its own.
    ///
    /// # Errors
    /// It could not be started, or `patience` is over.
    pub(super) async fn run_quietly(
        &self,
        command: Vec<OsString>,
        directory: &Path,
        environ: &Environ,
        patience: Duration,
    ) -> Result<Outcome, Failure> {
        self.heard(command, directory, environ, patience, None, None).await
    }

    /// Runs a script of ours by `python`, which answers with one line of JSON.
    ///
    /// # Errors
    /// It could not be started, or `patience` is over.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Outcome, Failure> {
        let Question { python, script, arguments, is_isolated, directory, environ, patience } = question;
        // Whatever else is printed, nothing begins like this by accident.
        let nonce = format!("passerelle-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut command = vec![python.as_os_str().to_owned()];
        command.extend(is_isolated.then(|| "-I".into()));
        command.extend(["-c".into(), script.into(), (&nonce).into()]);
        command.extend(arguments);
        self.heard(command, directory, environ, patience, None, Some(&nonce)).await
    }

    async fn heard(
        &self,
        command: Vec<OsString>,
        directory: &Path,
        environ: &Environ,
        patience: Duration,
        progress: Option<&Progress>,
        nonce: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let program = command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        let command = command.into_iter().map(OsString::into_string).collect::<Result<Vec<_>, _>>();
        let Ok(command) = command else {
            return Err(Failure::new(format!("a path to run {program} with is not UTF-8")));
        };
        let plan = Limits::of(self.app).plan(command, directory);
        let last = LastLines::default();
        let mut answer = None;
        let tell = |line: &str| {
            if let Some(said) = nonce.and_then(|nonce| line.strip_prefix(nonce)) {
                answer = Some(said.trim().to_owned());
                return;
            }
            let line = output::shown(self.app, line);
            if let Some(progress) = progress {
                progress.line(&line);
            }
            last.push(line);
        };
        let ended = process::run(&plan, environ, patience, tell).await;
        let mut lines = last.to_vec();
        // Answers begin with an empty line, so that they stand alone.
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        match ended {
            Ok(ended) => Ok(Outcome { ended, lines, answer }),
            Err(error) => Err(Failure::with_output(format!("{program}: {error}"), lines)),
        }
    }
}

/// A script of ours, and who is to run it where.
pub(super) struct Question<'a> {
    pub(super) python: &'a Path,
    pub(super) script: &'a str,
    pub(super) arguments: Vec<OsString>,
    /// Without the directory it runs in, and without what variables say.
    pub(super) is_isolated: bool,
    pub(super) directory: &'a Path,
    pub(super) environ: &'a Environ,
    pub(super) patience: Duration,
}

impl Outcome {
    pub(super) fn is_fine(&self) -> bool {
        self.ended == Ended::Exited(0)
    }

    /// The answer, read.
    pub(super) fn answer<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.answer.as_deref()?).ok()
    }

    /// As a failure with what it had to say.
    pub(super) fn failed(self, what: &str) -> Failure {
        Failure::with_output(format!("{what}: {}", self.ended), self.lines)
    }
}
