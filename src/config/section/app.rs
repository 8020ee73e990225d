//! `[app.NAME]`: what the gateway runs, and the upstream that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::super::env_file;
use super::super::mask;
use super::super::node::Node;
use super::super::outside::read_bounded;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{
    AppServer, AppSettings, At, EntryPoint, PackageFile, Packages, Protocol, Secret, UpstreamSettings, WatchSettings,
    WorkerSettings,
};
use super::super::value::{self, choice, number};
use super::upstream;

/// Far more than any machine runs.
const MOST_WORKERS: u32 = 1024;
const MOST_THREADS: u32 = 1024;

/// How long a worker more than needed is kept by default.
const IDLE: Duration = Duration::from_secs(60);

/// Services that load models take their time.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Of a file that people write by hand.
const LARGEST_ENV_FILE: u64 = 1 << 20;

/// As nobody means more memory than this.
const MOST_MEMORY: u64 = 1 << 50;

/// An app, and the upstream of its name.
pub(super) struct App {
    pub(super) settings: AppSettings,
    pub(super) upstream: UpstreamSettings,
}

pub(super) fn read(table: Table<'_>) -> Option<App> {
    let file = table.span().file;
    let before = file.drawn();
    let directory = table.require("directory", "\"/srv/billing\"", |node| {
        // Without the dot of `directory = "."`, since it is told.
        value::path(node).map(|path| node.at(path.components().collect()))
    });
    let entry = table.require("entry", "\"billing.wsgi:application\"", entry);
    let server = table.get("server", |node| choice::choice(node, &AppServer::ALL));
    let threads = table.or("threads", NonZeroU32::MIN, |node| number::count(node, MOST_THREADS));
    let of_file = table.get("env_file", |node| env_of_file(node, directory.as_ref())).unwrap_or_default();
    let (env, secret_env) = table.get("env", variables).unwrap_or_default().over(of_file);
    let mut settings = AppSettings {
        span: table.span(),
        directory: directory.clone().unwrap_or_else(|| At { value: PathBuf::new(), span: table.span() }),
        entry: entry.clone().unwrap_or(EntryPoint { module: String::new(), attribute: String::new() }),
        server,
        workers: table.or("workers", fixed(default_workers()), workers),
        threads,
        packages: packages(&table),
        args: table.or("args", Vec::new(), |node| node.list_of("a list of arguments", argument_of_server)),
        env,
        secret_env,
        drawn: Vec::new(),
        pass_env: table.or("pass_env", Vec::new(), |node| node.list_of("a list of names of variables", variable_name)),
        user: table.get("user", user),
        umask: table.or("umask", 0o027, umask),
        open_files: table.get("open_files", |node| number::count(node, 1 << 30)).map(Into::into),
        memory_limit: table
            .get("memory_limit", |node| number::size(node, 1..=MOST_MEMORY))
            .and_then(|size| size.try_into().ok()),
        start_timeout: table.or("start_timeout", START_TIMEOUT, number::timeout),
        warm_up: table.or("warm_up", Vec::new(), |node| node.list_of("a list of paths", warm_path)),
        pre_release: table.or("pre_release", Vec::new(), pre_release),
        watch: table.get("watch", watch),
        keep: table.or("keep", NonZeroU32::MIN.saturating_add(2), |node| number::count(node, 100)),
    };
    let protocol = match server {
        Some(AppServer::Uwsgi) => Protocol::Uwsgi,
        Some(AppServer::Gunicorn | AppServer::Uvicorn | AppServer::Granian) | None => Protocol::Http1,
    };
    let upstream = upstream::of_app(&table, protocol);
    threads_have_an_effect(&table, &settings);
    table.finish();
    settings.drawn = file.drawn_since(before).into_iter().map(Secret::new).collect();
    directory.and(entry).and(Some(App { settings, upstream }))
}

fn fixed(count: NonZeroU32) -> WorkerSettings {
    WorkerSettings { min: count, max: count, idle: IDLE }
}

/// Twice the cores plus one, as gunicorn's documentation has it.
fn default_workers() -> NonZeroU32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = cores.saturating_mul(2).saturating_add(1).min(MOST_WORKERS as usize);
    u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

fn workers(node: &Node<'_>) -> Option<WorkerSettings> {
    if !node.is_table() {
        if !node.is_string() && !node.is_integer() {
            return node.wrong_type("a number of workers, or { min = 2, max = 8 }");
        }
        return number::count(node, MOST_WORKERS).map(fixed);
    }
    let table = node.table()?;
    let count = |node: &Node<'_>| number::count(node, MOST_WORKERS);
    let min = table.or("min", NonZeroU32::MIN, count);
    let max = table.require("max", "8", count);
    let idle = table.or("idle", IDLE, number::timeout);
    table.finish();
    let max = max?;
    if max < min {
        return node.refuse(format!("`max` of {} is below `min`", node.key));
    }
    Some(WorkerSettings { min, max, idle })
}

/// `module:attribute`, both names joined by dots.
fn entry(node: &Node<'_>) -> Option<EntryPoint> {
    let text = node.text("an entry such as \"billing.wsgi:application\"")?;
    match text.text.parse::<EntryPoint>() {
        Ok(entry) => Some(entry),
        Err(help) => {
            node.refuse_with(format!("{} takes MODULE:ATTRIBUTE, not {}", node.key, text.quoted()), help.to_string())
        }
    }
}

fn packages(table: &Table<'_>) -> Packages {
    let requirements = table.node("requirements");
    let python = table.node("python");
    if let (Some(requirements), Some(python)) = (&requirements, &python) {
        let problem = Problem::error(&python.span(), "`python` and `requirements` exclude each other");
        let problem = problem.also(&requirements.span(), "an environment is made of this");
        python.cx.report(problem.help("python names an environment that is there; leave one of them out"));
    }
    match (requirements, python) {
        (Some(requirements), _) => requirements_file(&requirements).map(Packages::File),
        (None, Some(python)) => package_file(&python).map(Packages::Interpreter),
        (None, None) => Some(Packages::Found),
    }
    .unwrap_or(Packages::Found)
}

fn requirements_file(node: &Node<'_>) -> Option<At<PackageFile>> {
    let file = package_file(node)?;
    let name = file.value.written.file_name().unwrap_or_default();
    if name != "uv.lock"
        && file.value.written.extension().is_none_or(|kind| kind != "txt" && kind != "in" && kind != "toml")
    {
        let message = format!("{} takes a requirements file, pyproject.toml or uv.lock", node.key);
        return node.refuse_with(message, "requirements files end in .txt");
    }
    Some(file)
}

fn package_file(node: &Node<'_>) -> Option<At<PackageFile>> {
    let beside = value::path(node)?;
    let written = PathBuf::from(node.text("a path")?.text);
    Some(node.at(PackageFile { written, beside }))
}

/// What is no argument of a command could not be passed on.
fn argument(node: &Node<'_>) -> Option<At<String>> {
    let text = node.text("a string")?;
    if text.text.contains('\0') {
        return node.refuse(format!("{} holds a NUL byte", node.key));
    }
    if node.span().is_secret() {
        let problem =
            Problem::warning(&node.span(), format!("{} is a secret that every user of the machine can see", node.key));
        let help = "the list of processes shows arguments; put what is secret into `env`, which it does not show";
        node.cx.report(problem.help(help));
    }
    Some(node.at(text.text))
}

fn warm_path(node: &Node<'_>) -> Option<At<String>> {
    upstream::own_path(node).map(|path| node.at(path))
}

/// What servers are started with by the gateway, and where else it is said.
const OWN_OPTIONS: [(&[&str], &str); 4] = [
    (
        &["--bind", "-b", "--uds", "--fd", "--host", "--port", "--socket", "--http", "--http-socket"],
        "each worker listens on a socket of its own",
    ),
    (&["--workers", "-w", "--processes"], "write workers = NUMBER beside `args`"),
    (&["--threads"], "write threads = NUMBER beside `args`"),
    (
        &["--daemon", "-D", "--daemonize", "--reload"],
        "each worker is a process that the gateway watches; new code is a release",
    ),
];

fn argument_of_server(node: &Node<'_>) -> Option<At<String>> {
    let argument = argument(node)?;
    let mut option = argument.value.split('=').next().unwrap_or_default();
    // As in `-w4`.
    if let Some(short) = argument.value.get(..2).filter(|short| short.starts_with('-') && *short != "--") {
        option = short;
    }
    let own = OWN_OPTIONS.iter().find(|(options, _)| options.contains(&option));
    match own.filter(|_| !node.span().is_secret()) {
        Some((_, help)) => node.refuse_with(format!("`{option}` is for the gateway to say"), *help),
        None => Some(argument),
    }
}

fn variable_name(node: &Node<'_>) -> Option<String> {
    let text = node.text("the name of a variable")?;
    if !env_file::is_name(&text.text) {
        return node.refuse(format!("{} cannot be the name of a variable", text.quoted()));
    }
    Some(text.text)
}

/// Variables, and which of them are secret.
#[derive(Default)]
struct Variables {
    values: BTreeMap<String, Secret>,
    secret: BTreeSet<String>,
}

impl Variables {
    fn insert(&mut self, name: &str, value: String, secret: bool) {
        if secret || mask::looks_secret(name) {
            self.secret.insert(name.to_owned());
        }
        self.values.insert(name.to_owned(), Secret::new(value));
    }

    /// Both together; of a variable that both have, this one's value.
    fn over(self, mut other: Variables) -> (BTreeMap<String, Secret>, BTreeSet<String>) {
        other.secret.retain(|name| !self.values.contains_key(name));
        other.values.extend(self.values);
        other.secret.extend(self.secret);
        (other.values, other.secret)
    }
}

fn variables(node: &Node<'_>) -> Option<Variables> {
    let table = node.table()?;
    let mut variables = Variables::default();
    for (name, node) in table.entries() {
        if !env_file::is_name(name) {
            let message = format!("`{}` cannot be the name of a variable", name.escape_debug());
            let problem = Problem::error(&node.cx.span(&node.key_range), message);
            node.cx.report(problem.help("names have letters, digits and `_`, and begin with no digit"));
            continue;
        }
        // Numbers and booleans are what people write too, and mean their text.
        let value = node.unquoted().or_else(|| node.secret_text("a string").map(|text| text.text));
        let Some(value) = value else { continue };
        if value.contains('\0') {
            node.refuse::<()>(format!("{} holds a NUL byte", node.key));
            continue;
        }
        variables.insert(name, value, node.literal().is_some_and(mask::draws_secret));
    }
    Some(variables)
}

/// The file beside the configuration, or else in the app's directory.
fn env_of_file(node: &Node<'_>, directory: Option<&At<PathBuf>>) -> Option<Variables> {
    let beside = value::path(node)?;
    let written = node.text("a path")?.text;
    let within = directory.map(|directory| directory.value.join(&written));
    let path = [Some(&beside), within.as_ref()].into_iter().flatten().find(|path| path.exists()).unwrap_or(&beside);
    // The app's user may own its directory, and would have what only the gateway can read given to itself.
    if path != &beside && path.is_symlink() {
        return node.refuse_with(
            format!("{} is a link in the app's directory", node.key),
            "name the file that it leads to, or put it beside the configuration",
        );
    }
    if !node.span().is_secret() {
        node.cx.files.borrow_mut().insert(path.clone());
    }
    let shown = if node.span().is_secret() { "the file".to_owned() } else { format!("`{}`", written.escape_debug()) };
    let text = match read_bounded(path, LARGEST_ENV_FILE) {
        Ok(bytes) => String::from_utf8(bytes),
        Err(reason) => return node.refuse(format!("cannot read {shown}: {reason}")),
    };
    let Ok(text) = text else { return node.refuse(format!("{shown} is not valid UTF-8")) };
    let mut variables = Variables::default();
    match env_file::parse(&text) {
        Ok(all) => all.into_iter().for_each(|(name, value)| variables.insert(&name, value, true)),
        Err(wrong) => {
            return node.refuse_with(
                format!("line {} of {shown} {}", wrong.line, wrong.what),
                "write NAME=value, one a line; quotes and # for comments are understood",
            );
        }
    }
    Some(variables)
}

fn user(node: &Node<'_>) -> Option<At<String>> {
    let text = node.text("the name of a user")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$');
    if text.text.is_empty() || text.text.len() > 256 || !text.text.bytes().all(plain) {
        return node.refuse(format!("{} cannot be the name of a user", text.quoted()));
    }
    Some(node.at(text.text))
}

/// Octal digits, as `umask` of a shell takes them.
fn umask(node: &Node<'_>) -> Option<u32> {
    let text = node.text("an octal umask such as \"0027\"")?;
    let octal = !text.text.is_empty() && text.text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(&text.text, 8).ok().filter(|mask| octal && *mask <= 0o777) {
        Some(mask) => Some(mask),
        None => node.refuse_with(format!("{} is no umask", text.quoted()), "write octal digits: \"0027\""),
    }
}

/// One command, or a list of them.
fn pre_release(node: &Node<'_>) -> Option<Vec<Vec<At<String>>>> {
    let takes = "a command such as [\"python\", \"manage.py\", \"migrate\"], or a list of those";
    let members = node.list(takes)?;
    if members.iter().any(Node::is_list) {
        return node.list_of(takes, command);
    }
    command(node).map(|command| vec![command])
}

fn command(node: &Node<'_>) -> Option<Vec<At<String>>> {
    let words = node.list_of("a command: a list of strings", argument)?;
    if words.first().is_none_or(|word| word.value.is_empty()) {
        return node.refuse(format!("{} names no command", node.key));
    }
    Some(words)
}

fn watch(node: &Node<'_>) -> Option<WatchSettings> {
    let table = node.table()?;
    let settings = WatchSettings {
        period: table.or("period", Duration::from_secs(30), number::timeout),
        requests: table.or("requests", NonZeroU32::MIN.saturating_add(19), |node| number::count(node, 1_000_000)),
        errors_percent: table.or("errors", 20, number::percent),
    };
    table.finish();
    Some(settings)
}

/// What uvicorn runs waits for no thread.
fn threads_have_an_effect(table: &Table<'_>, settings: &AppSettings) {
    if settings.server == Some(AppServer::Uvicorn)
        && let Some(node) = table.node("threads")
    {
        let problem = Problem::warning(&node.cx.span(&node.key_range), "`threads` has no effect with uvicorn");
        let help = "its services are asynchronous; add slots = NUMBER to bound what a worker runs at once";
        node.cx.report(problem.help(help));
    }
}
