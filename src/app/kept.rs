//! What is kept of a release beside its code: all that it takes to run it again as it ran, whatever the configuration says
//! by then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::App;
use super::environment::Environment;
use crate::config::settings::{AppServer, AppSettings, At, EntryPoint, PackageFile, Packages};

/// A release that was made whole: code copied, environment built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: u64,
    /// Where the code was copied from.
    pub(super) directory: PathBuf,
    /// The key of its environment.
    pub(super) environment: String,
    pub(super) made: SystemTime,
    /// Whose the code is; `None`: the gateway's own user's.
    #[serde(default)]
    pub(super) uid: Option<u32>,
    /// What the configuration asked for then; `None`: a gateway made it that kept none of this.
    #[serde(default)]
    pub(super) asked: Option<Asked>,
    /// What runs it, likewise.
    #[serde(default)]
    pub(super) runs: Option<Environment>,
}

impl Record {
    /// `app` as this release knew it.
    pub(super) fn app(&self, app: &Arc<App>) -> Arc<App> {
        self.asked.as_ref().map_or_else(|| Arc::clone(app), |asked| asked.of_app(app))
    }
}

/// What of an app's settings belongs to a release: without it, its code would not run, or not in its environment. All
/// else is as the configuration has it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    entry: EntryPoint,
    server: Option<AppServer>,
    /// What the server is given. `None`: a secret is among it, and those are kept nowhere.
    args: Option<Vec<String>>,
    packages: AskedPackages,
}

/// As [`Packages`]. What a path is beside the configuration, that says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AskedPackages {
    Found,
    File(PathBuf),
    Interpreter(PathBuf),
}

impl Asked {
    pub(super) fn of(settings: &AppSettings) -> Asked {
        let args = settings.args.iter().map(|arg| (!arg.span.is_secret()).then(|| arg.value.clone()));
        Asked {
            entry: settings.entry.clone(),
            server: settings.server,
            args: args.collect(),
            packages: match &settings.packages {
                Packages::Found => AskedPackages::Found,
                Packages::File(file) => AskedPackages::File(file.value.written.clone()),
                Packages::Interpreter(file) => AskedPackages::Interpreter(file.value.written.clone()),
            },
        }
    }

    /// `app` as it would be if its settings asked for this still.
    pub(super) fn of_app(&self, app: &Arc<App>) -> Arc<App> {
        let now = Asked::of(&app.settings);
        if now == *self {
            return Arc::clone(app);
        }
        let mut app = App::clone(app);
        let settings = &mut app.settings;
        settings.entry = self.entry.clone();
        settings.server = self.server;
        let at = |value: &String| At { value: value.clone(), span: settings.span.clone() };
        if let Some(args) = &self.args
            && now.args != self.args
        {
            settings.args = args.iter().map(at).collect();
        }
        if now.packages != self.packages {
            let file = |written: &PathBuf| At {
                value: PackageFile { written: written.clone(), beside: written.clone() },
                span: settings.span.clone(),
            };
            settings.packages = match &self.packages {
                AskedPackages::Found => Packages::Found,
                AskedPackages::File(written) => Packages::File(file(written)),
                AskedPackages::Interpreter(written) => Packages::Interpreter(file(written)),
            };
        }
        Arc::new(app)
    }
}
