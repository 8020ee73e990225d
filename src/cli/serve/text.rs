//! The configuration that `passerelle serve` amounts to, as text: what it serves by, and what it prints to be kept.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::target::Target;
use crate::config::settings::AppServer;

/// Everything that was asked for or found.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What stood on the command line, without what does not belong to what is kept.
    pub(super) asked: String,
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    /// `None`: without TLS.
    pub(super) tls: Option<Tls>,
    pub(super) admin: SocketAddr,
    pub(super) workers: Option<super::Workers>,
    pub(super) threads: Option<u32>,
    pub(super) server: Option<AppServer>,
    pub(super) packages: Option<PackagesFrom>,
    pub(super) env: Vec<(String, String)>,
    pub(super) env_file: Option<PathBuf>,
    pub(super) health: Option<Health>,
    pub(super) user: Option<String>,
    /// Where the gateway keeps what outlives it.
    pub(super) state: PathBuf,
}

/// Where packages are from, if that is not found.
#[derive(Clone, Debug)]
pub(super) enum PackagesFrom {
    Requirements(PathBuf),
    Interpreter(PathBuf),
}

/// A path that tells whether the service is well.
#[derive(Clone, Debug)]
pub(super) enum Health {
    Asked(String),
    /// In its sources. It may want a Host that is not known, or somebody who has logged in.
    Found(String),
}

impl Health {
    pub(super) fn path(&self) -> &str {
        match self {
            Health::Asked(path) | Health::Found(path) => path,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Whether it is of the gateway's own making.
    pub(super) own: bool,
}

/// Where comments begin.
const COLUMN: usize = 39;

impl Plan {
    /// Where the service is.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// As the file `passerelle.toml` in the app's directory.
    pub(super) fn text(&self) -> String {
        let Plan { asked, target, tls, .. } = self;
        let (name, directory) = (&target.name, &target.directory);
        let mut text = Text(String::new());
        let serve = if asked.is_empty() { String::new() } else { format!(" {asked}") };
        text.comment(&format!("What `passerelle serve{serve}` amounts to. Kept as passerelle.toml in"));
        text.comment(&format!("{}, `passerelle run` there serves it, beginning with what served", directory.display()));
        text.comment(&format!("last; `passerelle release {name}` puts newer code in place."));

        text.section("admin");
        text.key("address", &quoted(&self.admin.to_string()), "/status /metrics /live /ready");

        let listener = if tls.is_some() { "https" } else { "http" };
        text.section(&format!("listener.{listener}"));
        let beyond = format!("\"0.0.0.0:{}\" serves other machines too", self.address.port());
        let beyond = if self.address.ip().is_loopback() { beyond.as_str() } else { "" };
        text.key("address", &quoted(&self.address.to_string()), beyond);
        if let Some(Tls { chain, key, own }) = tls {
            text.section(&format!("listener.{listener}.tls"));
            if *own {
                text.comment("Made by `passerelle serve`, and good for a year; browsers trust one of an authority.");
            }
            let pair = format!("[{{ chain = {}, key = {} }}]", self.path(chain), self.path(key));
            text.key("certificates", &pair, "");
        }

        text.section(&format!("app.{name}"));
        text.key("directory", "\".\"", "each release runs from its own copy of it");
        text.key("entry", &quoted(&target.entry.to_string()), "");
        if let Some(server) = self.server {
            text.key("server", &quoted(server.as_str()), "");
        }
        match self.workers {
            Some(workers) => text.key("workers", &workers.to_string(), "processes"),
            None => text.comment("workers = { min = 2, max = 8 }        # default: twice the cores plus one"),
        }
        if let Some(threads) = self.threads {
            text.key("threads", &threads.to_string(), "requests that each worker runs at once");
        }
        match &self.packages {
            Some(PackagesFrom::Requirements(file)) => text.key("requirements", &self.path(file), ""),
            Some(PackagesFrom::Interpreter(file)) => {
                text.key("python", &self.path(file), "nothing is installed for it")
            }
            None => {}
        }
        if let Some(variables) = self.variables() {
            text.key("env", &variables, "");
        }
        if let Some(file) = &self.env_file {
            text.key("env_file", &self.path(file), "");
        }
        if let Some(user) = &self.user {
            let is_number = user.bytes().all(|byte| byte.is_ascii_digit());
            let whom =
                if is_number { "one without a name, which nothing else runs as" } else { "whom the processes run as" };
            text.key("user", &quoted(user), whom);
        }
        if let Some(health) = &self.health {
            text.section(&format!("app.{name}.health"));
            text.key("path", &quoted(health.path()), "a release takes over once this answers well");
            match health {
                Health::Asked(_) => {}
                Health::Found(_) => text.key("status", "\"200-499\"", "found, not asked for: all but a 5xx will do"),
            }
        }

        text.section(&format!("route.{name}"));
        text.key("path", "\"/{*rest}\"", "");
        text.key("auth", "\"public\"", "everybody; [auth.NAME] and its name here ask who calls");
        text.key("upstream", &quoted(name), "");
        text.0
    }

    /// Those that were asked for, and the way to modules that do not lie at the top.
    fn variables(&self) -> Option<String> {
        const PATH: &str = "PYTHONPATH";
        let mut all = self.env.clone();
        let within = self.target.within.to_string_lossy();
        if !within.is_empty() && !all.iter().any(|(name, _)| name == PATH) {
            all.insert(0, (PATH.to_owned(), within.into_owned()));
        }
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let key = |name: &str| if is_plain(name) { name.to_owned() } else { quoted(name) };
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{} = {}", key(name), quoted(value))).collect();
        (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
    }

    /// A path, relative where it lies beneath the directory that the file is in.
    fn path(&self, path: &Path) -> String {
        quoted(&path.strip_prefix(&self.target.directory).unwrap_or(path).to_string_lossy())
    }
}

struct Text(String);

impl Text {
    // Writing to a string does not fail.

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.0, "# {}", text.replace(char::is_control, "?"));
    }

    fn section(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn key(&mut self, key: &str, value: &str, comment: &str) {
        let line = format!("{key} = {value}");
        let _ = match comment {
            "" => writeln!(self.0, "{line}"),
            comment => writeln!(self.0, "{line:<COLUMN$} # {comment}"),
        };
    }
}

/// A string of TOML, in which nothing is drawn from anywhere.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
