//! `[app.NAME]`: Python services that the gateway runs itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::source::Span;
use super::{At, Secret};

/// `[app.NAME]`, less what it has as an upstream.
#[derive(Clone)]
pub struct AppSettings {
    pub span: Span,
    /// Where the code is; releases run from their own copies of it.
    pub directory: At<PathBuf>,
    pub entry: EntryPoint,
    /// `None`: what fits the entry.
    pub server: Option<AppServer>,
    pub workers: WorkerSettings,
    /// Requests that a worker of a WSGI service runs at once.
    pub threads: NonZeroU32,
    pub packages: Packages,
    /// What the server itself is given beside.
    pub args: Vec<At<String>>,
    /// `env_file` and `env` together; the latter wins.
    pub env: BTreeMap<String, Secret>,
    /// Those of `env` whose whole value is a secret: by where it is from, or by its name.
    pub secret_env: BTreeSet<String>,
    /// What files and credentials held that any of this was drawn from.
    pub drawn: Vec<Secret>,
    /// What of the gateway's own environment goes along.
    pub pass_env: Vec<String>,
    /// `None`: the gateway's own, which is not root.
    pub user: Option<At<String>>,
    pub umask: u32,
    /// `None`: as many as the gateway itself.
    pub open_files: Option<NonZeroU64>,
    /// Bytes of resident memory past which a worker is replaced.
    pub memory_limit: Option<NonZeroU64>,
    /// How long a worker may take from its start until it answers.
    pub start_timeout: Duration,
    /// Paths that are asked for before a release takes over.
    pub warm_up: Vec<At<String>>,
    /// Commands that run once, in a release's environment, before its workers start.
    pub pre_release: Vec<Vec<At<String>>>,
    pub watch: Option<WatchSettings>,
    /// Releases that are kept for `rollback`, the serving one among them.
    pub keep: NonZeroU32,
}

/// Leaves out what may have been drawn from a secret source.
impl fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AppSettings { directory, server, workers, threads, packages, env, user, .. } = self;
        let mut shown = f.debug_struct("AppSettings");
        shown.field("directory", directory).field("server", server).field("workers", workers);
        shown.field("threads", threads).field("packages", packages).field("env", env).field("user", user);
        shown.finish_non_exhaustive()
    }
}

/// What a reload compares: a line that moved, or the name that the gateway gives to secrets, changes nothing.
impl PartialEq for AppSettings {
    fn eq(&self, other: &AppSettings) -> bool {
        let AppSettings {
            span: _,
            directory,
            entry,
            server,
            workers,
            threads,
            packages,
            args,
            env,
            secret_env: _,
            drawn: _,
            pass_env,
            user,
            umask,
            open_files,
            memory_limit,
            start_timeout,
            warm_up,
            pre_release,
            watch,
            keep,
        } = self;
        *directory == other.directory
            && *entry == other.entry
            && *server == other.server
            && *workers == other.workers
            && *threads == other.threads
            && *packages == other.packages
            && *args == other.args
            && *env == other.env
            && *pass_env == other.pass_env
            && *user == other.user
            && *umask == other.umask
            && *open_files == other.open_files
            && *memory_limit == other.memory_limit
            && *start_timeout == other.start_timeout
            && *warm_up == other.warm_up
            && *pre_release == other.pre_release
            && *watch == other.watch
            && *keep == other.keep
    }
}

/// What is shorter is left where it is: it would hide half of what an app says, and tells next to nothing.
const SHORTEST_SECRET: usize = 8;

impl AppSettings {
    /// What must not be repeated wherever the app's own words are: what was drawn from secret sources, values of secret
    /// variables, and passwords in URLs. The longest first: one may be the beginning of another.
    pub fn secret_values(&self) -> Vec<&str> {
        let whole =
            self.env.iter().filter(|(name, _)| self.secret_env.contains(*name)).map(|(_, value)| value.expose());
        let passwords = self.env.values().filter_map(|value| password(value.expose()));
        let values = self.drawn.iter().map(Secret::expose).chain(whole).chain(passwords);
        // What is said is looked through line by line, and keys are of several.
        let lines = values.flat_map(str::lines).map(str::trim).filter(|line| line.len() >= SHORTEST_SECRET);
        let mut lines: Vec<&str> = lines.collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        lines.dedup();
        lines
    }
}

/// Of a URL with `USER:PASSWORD@`.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    userinfo.split_once(':').map(|(_, password)| password)
}

impl AppSettings {
    /// Whether what runs under `before` has to be started anew to run under these: what the gateway alone heeds takes
    /// effect by itself.
    pub fn needs_release(&self, before: &AppSettings) -> bool {
        let AppSettings { keep, watch, warm_up, pre_release, start_timeout, .. } = self.clone();
        *self != AppSettings { keep, watch, warm_up, pre_release, start_timeout, ..before.clone() }
    }
}

/// `package.module:attribute`: what a server imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPoint {
    /// Names joined by dots.
    pub module: String,
    /// A name, or names joined by dots.
    pub attribute: String,
}

impl fmt::Display for EntryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.module, self.attribute)
    }
}

/// Why a text is no entry: what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    NoColon,
    Names,
    IsPath,
    IsCall,
}

impl fmt::Display for NoEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoEntry::NoColon => "name the callable too: \"billing.wsgi:application\"",
            NoEntry::Names => "module and callable are Python names, joined by dots: \"billing.wsgi:application\"",
            NoEntry::IsCall => "nothing is called: a line such as `app = create_app()` gives what is made a name",
            NoEntry::IsPath => "write the module as Python imports it from the directory: \"app:app\" for app.py",
        })
    }
}

impl std::str::FromStr for EntryPoint {
    type Err = NoEntry;

    fn from_str(text: &str) -> Result<EntryPoint, NoEntry> {
        let (module, attribute) = text.split_once(':').ok_or(NoEntry::NoColon)?;
        if module.contains('/') || module.ends_with(".py") {
            return Err(NoEntry::IsPath);
        }
        if attribute.contains('(') {
            return Err(NoEntry::IsCall);
        }
        if !is_dotted(module) || !is_dotted(attribute) {
            return Err(NoEntry::Names);
        }
        Ok(EntryPoint { module: module.to_owned(), attribute: attribute.to_owned() })
    }
}

/// Python names, joined by dots. What is not ASCII may be one too; whether it is, the interpreter says.
fn is_dotted(text: &str) -> bool {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    text.len() <= 256
        && text
            .split('.')
            .all(|name| name.chars().all(is_word) && name.chars().next().is_some_and(|first| !first.is_numeric()))
}

/// What runs Python code and speaks HTTP, or uwsgi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppServer {
    Gunicorn,
    Uvicorn,
    Granian,
    Uwsgi,
}

impl AppServer {
    /// Each by its name: of the key's values, of the package, and of the command.
    pub const ALL: [(&'static str, AppServer); 4] = [
        ("gunicorn", AppServer::Gunicorn),
        ("uvicorn", AppServer::Uvicorn),
        ("granian", AppServer::Granian),
        ("uwsgi", AppServer::Uwsgi),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            AppServer::Gunicorn => "gunicorn",
            AppServer::Uvicorn => "uvicorn",
            AppServer::Granian => "granian",
            AppServer::Uwsgi => "uwsgi",
        }
    }

    /// Whether it runs the app in a process that it starts itself, and starts another when that ends.
    pub fn has_own_worker(self) -> bool {
        match self {
            AppServer::Gunicorn | AppServer::Granian | AppServer::Uwsgi => true,
            AppServer::Uvicorn => false,
        }
    }
}

/// How many workers an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    pub min: NonZeroU32,
    /// The same where the number is fixed.
    pub max: NonZeroU32,
    /// How long a worker more than needed is kept.
    pub idle: Duration,
}

/// Where the packages of an app are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packages {
    /// An environment is made of `uv.lock`, `pyproject.toml` or `requirements.txt`, whichever of them, in this order, is
    /// in the directory.
    Found,
    /// An environment is made of this file: in the app's directory, or else beside the configuration file.
    File(At<PackageFile>),
    /// An environment that is there: its interpreter.
    Interpreter(At<PackageFile>),
}

/// A path as it was written, and what it is beside the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    pub written: PathBuf,
    pub beside: PathBuf,
}

/// `watch`: what takes a release back after the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    pub period: Duration,
    /// Answers that it takes for a verdict.
    pub requests: NonZeroU32,
    /// Share of 5xx that is too much, in percent.
    pub errors_percent: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_several_lines_are_hidden_line_by_line() {
        let text = "[app.shop]\ndirectory = \"/\"\nentry = \"app:app\"\n\
                    env = { SECRET_KEY = \"\"\"\n-----BEGIN KEY-----\nMIIEvQIBADANBg\nkq\n-----END KEY-----\"\"\" }\n";
        let outside = crate::config::Outside::new(&|_| None);
        let loaded = crate::config::load_text("app.toml", text, std::path::Path::new("/"), &outside);
        let (settings, _) = loaded.build(|settings, problems| {
            problems.clear();
            Some(settings)
        });
        let settings = settings.unwrap();
        let hidden = settings.apps["shop"].secret_values();
        assert_eq!(hidden, ["-----BEGIN KEY-----", "-----END KEY-----", "MIIEvQIBADANBg"]);
    }

    #[test]
    fn parts_that_are_secret_are_hidden_too() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pw"), "correct-horse\n").unwrap();
        std::fs::write(directory.path().join("other"), "of-another-app").unwrap();
        std::fs::write(directory.path().join("env"), "DATABASE_URL=postgres://shop:hunter22@db/shop\n").unwrap();
        let text = "[app.other]\ndirectory = \"/\"\nentry = \"app:app\"\nargs = [\"${file:other}\"]\n\
                    [app.shop]\ndirectory = \"/\"\nentry = \"app:app\"\nenv_file = \"env\"\n\
                    env = { DSN = \"password=${file:pw}\" }\n";
        let outside = crate::config::Outside::new(&|_| None);
        let loaded = crate::config::load_text("app.toml", text, directory.path(), &outside);
        let (settings, _) = loaded.build(|settings, problems| {
            problems.clear();
            Some(settings)
        });
        let settings = settings.unwrap();
        let hidden = settings.apps["shop"].secret_values();
        let expected = ["postgres://shop:hunter22@db/shop", "password=correct-horse", "correct-horse", "hunter22"];
        assert_eq!(hidden, expected);
    }

    #[test]
    fn passwords_are_found_in_urls() {
        assert_eq!(password("postgres://shop:hunter22@db:5432/shop"), Some("hunter22"));
        assert_eq!(password("redis://:p@ss:word@cache"), Some("p@ss:word"));
        for none in ["postgres://shop@db/shop", "https://db/a:b@c", "shop:hunter22@db", ""] {
            assert_eq!(password(none), None, "{none}");
        }
    }
}
