//! An environment that was made, and whether it still is what it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::server::{Interface, WorkerClass};
use super::{blocking, survey};
use crate::app::App;
use crate::config::settings::{AppServer, Packages};

/// An environment that can be run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::app) struct Environment {
    pub(in crate::app) python: PathBuf,
    /// Where it has its commands.
    pub(in crate::app) scripts: PathBuf,
    pub(in crate::app) server: AppServer,
    pub(in crate::app) interface: Interface,
    /// What gunicorn needs to serve ASGI; `None` wherever nothing is needed.
    pub(in crate::app) worker_class: Option<WorkerClass>,
    pub(in crate::app) python_version: String,
    /// How long it took to make; nothing when it was there.
    #[serde(skip)]
    pub(in crate::app) took: Duration,
}

impl Environment {
    /// Whether it is there as it was made. What lies in it is the app's user's: links lead nobody further than to see
    /// whether something is there.
    pub(in crate::app) async fn is_there(&self, app: &App) -> bool {
        let (place, environment) = (app.place.environments(), self.clone());
        let is_given = matches!(app.settings.packages, Packages::Interpreter(_));
        let is_there = move || {
            let root = environment.scripts.parent().filter(|root| root.parent() == Some(&place));
            let is_directory = |root: &Path| root.symlink_metadata().is_ok_and(|found| found.is_dir());
            let is_whole = is_given || root.is_some_and(|root| is_directory(root) && survey::is_whole(root));
            is_whole && (is_given || environment.is_of_its_python())
        };
        blocking(is_there).await.unwrap_or(false)
    }

    /// Whether the interpreter is one of the version that the packages were installed for: its link stays when the system
    /// gets another. Blocks.
    pub(super) fn is_of_its_python(&self) -> bool {
        let version = self.python_version.splitn(3, '.').take(2).collect::<Vec<&str>>().join(".");
        let Ok(python) = self.python.canonicalize() else { return false };
        let name = python.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let says = name.strip_prefix("python").filter(|version| version.contains('.'));
        let library = self.scripts.parent().unwrap_or(&self.scripts).join("lib").join(format!("python{version}"));
        says.is_none_or(|says| says == version) && library.is_dir()
    }
}
