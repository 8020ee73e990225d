//! The gateway under test: the binary that cargo built, or the one that `PASSERELLE_BINARY` names, with a configuration
//! of the test's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Response};
use super::process::Process;
use super::{eventually, free_port};

/// A running gateway, ready to serve.
pub struct Gateway {
    process: Process,
    directory: TempDir,
    ports: BTreeMap<String, u16>,
}

/// What a configuration may hold in `@…@`: `@dir@`, the directory that it lies in, and any other word for a port.
fn expand(text: &str, directory: &Path, ports: &mut BTreeMap<String, u16>) -> String {
    let mut whole = String::new();
    for (index, part) in text.split('@').enumerate() {
        match (index % 2, part) {
            (0, literal) => whole.push_str(literal),
            (_, "dir") => whole.push_str(directory.to_str().unwrap()),
            (_, name) => whole.push_str(&ports.entry(name.to_owned()).or_insert_with(free_port).to_string()),
        }
    }
    whole
}

fn binary() -> String {
    std::env::var("PASSERELLE_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_passerelle").to_owned())
}

impl Gateway {
    /// Starts it with `config` and waits until it is ready to serve. Unless the text has an `[admin]` of its own, one
    /// on the port `@admin@` is added, with the control socket `@dir@/control.sock`.
    pub fn start(config: &str) -> Gateway {
        Gateway::start_with(config, |_, _| {})
    }

    /// `files` may put files beside the configuration, and add to the environment.
    pub fn start_with(config: &str, files: impl Fn(&Path, &mut Command)) -> Gateway {
        let config = match config.contains("[admin]") {
            true => config.to_owned(),
            false => format!("[admin]\naddress = \"127.0.0.1:@admin@\"\ncontrol = \"control.sock\"\n{config}"),
        };
        // A port that was free a moment ago may be gone; then the gateway says so and another one is tried.
        for _ in 0..5 {
            match Gateway::try_start(&config, &[], &files) {
                Ok(gateway) => return gateway,
                Err(output) if output.to_lowercase().contains("in use") => {}
                Err(output) => panic!("the gateway did not start:\n{output}\n\n{config}"),
            }
        }
        panic!("no free ports for the gateway");
    }

    /// Starts it with a listening socket for each of `names`, passed as systemd does, on the port `@name@`.
    pub fn start_with_sockets(config: &str, names: &[&str]) -> Gateway {
        let config = format!("[admin]\naddress = \"127.0.0.1:@admin@\"\ncontrol = \"control.sock\"\n{config}");
        Gateway::try_start(&config, names, |_, _| {}).unwrap_or_else(|output| panic!("{output}"))
    }

    fn try_start(config: &str, sockets: &[&str], files: impl Fn(&Path, &mut Command)) -> Result<Gateway, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut ports = BTreeMap::new();
        let path = directory.path().join("passerelle.toml");
        std::fs::write(&path, expand(config, directory.path(), &mut ports)).unwrap();
        let binary = binary();
        let program = if sockets.is_empty() { &binary } else { "python3" };
        let process = Process::start(program, |command| {
            if !sockets.is_empty() {
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/systemd.py"));
                for name in sockets {
                    let port = ports.entry((*name).to_owned()).or_insert_with(free_port);
                    command.arg(format!("{name}={port}"));
                }
                command.args(["--", &binary]);
            }
            command.arg("run").arg("--config").arg(&path);
            files(directory.path(), command);
        });
        let mut gateway = Gateway { process, directory, ports };
        if gateway.is_live() { Ok(gateway) } else { Err(gateway.process.output().text()) }
    }

    /// Waits until it is, or has ended.
    fn is_live(&mut self) -> bool {
        eventually("the gateway is live, or ends", || {
            if self.process.has_ended().is_some() {
                return Some(false);
            }
            self.try_admin("/live").filter(|response| response.status == 200).map(|_| true)
        })
    }

    /// Another one in the same place, of one that was killed.
    pub fn start_again(&mut self) {
        let path = self.config_path();
        self.process = Process::start(&binary(), |command| {
            command.arg("run").arg("--config").arg(&path);
        });
        assert!(self.is_live(), "the gateway did not start again:\n{}", self.output());
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it has written.
    pub fn output(&self) -> String {
        self.process.output().text()
    }

    /// The port that stands for `@name@` in the configuration.
    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// What the kernel tells of the process in `/proc/PID/NAME`.
    pub fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string()).join(name)
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("passerelle.toml")
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// GET, over a connection of its own to the port `@http@`.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.port("http"), path)
    }

    fn try_admin(&self, path: &str) -> Option<Response> {
        http::try_get(*self.ports.get("admin")?, path).ok()
    }

    pub fn admin(&self, path: &str) -> Response {
        http::get(self.port("admin"), path)
    }

    pub fn status(&self) -> Value {
        self.admin("/status").json()
    }

    /// The sum of all series of the metric whose labels include each of `labels`, written as `name="value"`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").text();
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, with) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.iter().all(|label| with.contains(label))).then(|| value.parse::<f64>().unwrap())
        });
        series.sum()
    }

    /// Waits until the metric has at least this value.
    pub fn metric_reaches(&self, name: &str, labels: &[&str], least: f64) {
        eventually(&format!("{name}{labels:?} reaches {least}"), || (self.metric(name, labels) >= least).then_some(()));
    }

    /// Puts another configuration in place, as an editor or a deployment does: whole, by renaming.
    pub fn write_config(&mut self, config: &str) {
        let config = match config.contains("[admin]") {
            true => config.to_owned(),
            false => format!("[admin]\naddress = \"127.0.0.1:@admin@\"\ncontrol = \"control.sock\"\n{config}"),
        };
        let text = expand(&config, self.directory.path(), &mut self.ports);
        let beside = self.directory.path().join("next.toml");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.config_path()).unwrap();
    }

    /// `passerelle reload`; its exit code and what it wrote.
    pub fn reload(&self) -> (ExitStatus, String) {
        passerelle(&["reload", "--config", self.config_path().to_str().unwrap()])
    }

    /// Every line of the log so far that is JSON.
    pub fn log(&self) -> Vec<Value> {
        self.process.output().lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line of the log that `is_it` accepts.
    pub fn log_line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.process.output().find(what, |line| serde_json::from_str(line).ok().filter(&is_it))
    }

    /// Waits for the access record of the request that had this answer.
    pub fn access_record(&self, of: &Response) -> Value {
        let id = of.header("x-request-id").expect("an answer has an X-Request-ID").to_owned();
        self.log_line(&format!("the access record of {id}"), |line| {
            line.get("request_id").and_then(Value::as_str) == Some(&id) && line.get("status").is_some()
        })
    }

    /// SIGTERM, and the wait for the end.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let status = self.process.wait();
        (status, self.process.output().text())
    }
}

/// Runs the command to its end.
pub fn passerelle(arguments: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_passerelle")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8(text).unwrap())
}

/// The usual configuration: one listener without TLS on the port `@http@`, one upstream `app`, one route to it. Each
/// field adds lines to its section; `rest` adds sections.
#[derive(Clone, Default)]
pub struct Setup {
    pub listener: String,
    /// URLs.
    pub servers: Vec<String>,
    pub upstream: String,
    pub route: String,
    pub rest: String,
}

impl Setup {
    pub fn before<const N: usize>(servers: [String; N]) -> Setup {
        Setup { servers: servers.to_vec(), ..Setup::default() }
    }

    pub fn listener(mut self, lines: &str) -> Setup {
        self.listener.push_str(lines);
        self.listener.push('\n');
        self
    }

    pub fn upstream(mut self, lines: &str) -> Setup {
        self.upstream.push_str(lines);
        self.upstream.push('\n');
        self
    }

    pub fn route(mut self, lines: &str) -> Setup {
        self.route.push_str(lines);
        self.route.push('\n');
        self
    }

    pub fn rest(mut self, lines: &str) -> Setup {
        self.rest.push_str(lines);
        self.rest.push('\n');
        self
    }

    pub fn text(&self) -> String {
        let Setup { listener, servers, upstream, route, rest } = self;
        format!(
            "[listener.http]\naddress = \"127.0.0.1:@http@\"\n{listener}\n\
             [upstream.app]\nservers = {servers:?}\n{upstream}\n\
             [route.all]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n{route}\n{rest}\n"
        )
    }

    pub fn start(&self) -> Gateway {
        Gateway::start(&self.text())
    }
}
