//! What the workers of one release are started from: code, environment, variables, and the command of each server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::App;
use super::environ::Environ;
use super::environment::{Environment, Interface};
use super::output::LastLines;
use super::process::Limits;
use super::shim::Plan;
use crate::config::settings::{AppServer, At, Protocol, SlotSettings};

/// Names the app, the release and the place to every process, and the place to whoever sweeps what was left behind.
pub(super) const APP: &str = "PASSERELLE_APP";
pub(super) const RELEASE: &str = "PASSERELLE_RELEASE";
pub(super) const PLACE: &str = "PASSERELLE_PLACE";

/// One release, ready to be started.
#[derive(Debug)]
pub(super) struct Launch {
    /// As the release knows it: see [`Record::app`](super::kept::Record::app).
    pub(super) app: Arc<App>,
    /// As the configuration had it when the release was started.
    pub(super) configured: Arc<App>,
    pub(super) release: u64,
    /// Its own copy of the code.
    pub(super) code: PathBuf,
    pub(super) environment: Environment,
    /// What the environment is known by.
    pub(super) key: String,
    /// What its workers said last, of whichever of them.
    pub(super) said: LastLines,
}

impl Launch {
    /// What becomes a worker that listens at `socket`.
    pub(super) fn worker(&self, socket: &Path) -> Plan {
        self.plan(self.command(socket))
    }

    /// What runs a command of `pre_release`. Its program is looked for in the environment first.
    pub(super) fn hook(&self, words: &[At<String>]) -> Plan {
        let mut command: Vec<String> = words.iter().map(|word| word.value.clone()).collect();
        if let Some(program) = command.first_mut()
            && !program.contains('/')
        {
            let within = self.environment.scripts.join(&program);
            if within.exists() {
                *program = within.to_string_lossy().into_owned();
            }
        }
        self.plan(command)
    }

    fn plan(&self, command: Vec<String>) -> Plan {
        Limits::of(&self.app).plan(command, &self.code)
    }

    /// `runtime`: a directory of the process's own; servers put there what else they listen at.
    pub(super) fn environ(&self, runtime: Option<&Path>) -> Environ {
        environ(&self.app, self.release, &self.environment.scripts, runtime)
    }

    /// What its workers speak.
    pub(super) fn protocol(&self) -> Protocol {
        match self.environment.server {
            AppServer::Gunicorn | AppServer::Uvicorn | AppServer::Granian => Protocol::Http1,
            AppServer::Uwsgi => Protocol::Uwsgi,
        }
    }

    /// A thread runs one request; an event loop as many as come.
    pub(super) fn slots(&self) -> SlotSettings {
        match self.environment.interface {
            Interface::Wsgi => {
                SlotSettings::Fixed(self.app.settings.threads.try_into().unwrap_or(std::num::NonZeroUsize::MIN))
            }
            Interface::Asgi => SlotSettings::Unlimited,
        }
    }

    /// One worker process: however many there are to be, the gateway starts. `args` of the app come last but for the
    /// entry, so that they win.
    fn command(&self, socket: &Path) -> Vec<String> {
        let settings = &self.app.settings;
        let environment = &self.environment;
        let (entry, threads) = (settings.entry.to_string(), settings.threads.to_string());
        let args: Vec<String> = settings.args.iter().map(|arg| arg.value.clone()).collect();
        let socket = socket.to_string_lossy();
        let mut command = Words(vec![environment.python.to_string_lossy().into_owned()]);
        match environment.server {
            AppServer::Gunicorn => {
                let bind = format!("unix:{socket}");
                command.add(&["-m", "gunicorn", "--bind", &bind, "--workers", "1"]);
                match environment.interface {
                    // One that keeps no connection is simplest; threads keep some.
                    Interface::Wsgi if settings.threads.get() > 1 => command.add(&["--threads", &threads]),
                    Interface::Wsgi => {}
                    Interface::Asgi => {}
                }
                if let Some(class) = environment.worker_class {
                    command.add(&["--worker-class", class.as_str()]);
                }
                command.add_all(&args);
                command.add(&[&entry]);
            }
            AppServer::Uvicorn => {
                command.add(&["-m", "uvicorn", "--uds", &socket, "--workers", "1", "--no-access-log"]);
                // Nobody but the gateway gets at the socket, which has no address that could be trusted.
                command.add(&["--proxy-headers", "--forwarded-allow-ips", "*"]);
                command.add_all(&args);
                command.add(&[&entry]);
            }
            AppServer::Granian => {
                command.add(&["-m", "granian", "--uds", &socket, "--workers", "1"]);
                match environment.interface {
                    Interface::Wsgi => command.add(&["--interface", "wsgi", "--blocking-threads", &threads]),
                    Interface::Asgi => command.add(&["--interface", "asgi"]),
                }
                command.add_all(&args);
                command.add(&[&entry]);
            }
            AppServer::Uwsgi => {
                let program = environment.scripts.join("uwsgi");
                command = Words(vec![program.to_string_lossy().into_owned()]);
                command.add(&["--socket", &socket, "--chmod-socket=600", "--master", "--processes", "1"]);
                command.add(&[
                    "--threads",
                    &threads,
                    "--enable-threads",
                    "--need-app",
                    "--die-on-term",
                    "--no-orphans",
                ]);
                command.add(&["--buffer-size", "65535", "--single-interpreter", "--disable-logging"]);
                if let Some(root) = environment.scripts.parent() {
                    command.add(&["--virtualenv", &root.to_string_lossy()]);
                }
                command.add(&["--pythonpath", &self.code.to_string_lossy(), "--wsgi", &entry]);
                command.add_all(&args);
            }
        }
        command.0
    }
}

/// The variables of whatever runs the app's code. `scripts`: where the environment has its commands; `runtime`: a directory
/// of the process's own.
pub(super) fn environ(app: &App, release: u64, scripts: &Path, runtime: Option<&Path>) -> Environ {
    let mut environ = Environ::for_app(&app.settings, &app.place.home(), scripts);
    environ.set(APP, &*app.name);
    environ.set(RELEASE, release.to_string());
    environ.set(PLACE, app.place.root());
    if let Some(runtime) = runtime {
        environ.set("XDG_RUNTIME_DIR", runtime);
    }
    environ
}

/// A command that is being put together.
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn add_all(&mut self, words: &[String]) {
        self.0.extend(words.iter().cloned());
    }
}
