//! Real Python servers with the services from `examples/`.
//!
//! Those that tests only talk to are started once and shared; a test that kills or restarts one has its own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;

use super::http;
use super::process::Process;
use super::{eventually, free_port};

/// A Python server on a port of loopback.
pub struct Backend {
    process: Process,
    /// With `PORT` where the port belongs.
    command: Vec<String>,
    service: &'static str,
    port: u16,
    state: tempfile::TempDir,
}

/// Where a program of the tests' Python environment is.
pub fn python_program(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("PASSERELLE_TEST_VENV").map_or_else(|| root.join("target/test-venv"), PathBuf::from);
    let program = venv.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is missing: these tests need real Python servers, which ./tests/run installs before it runs the tests",
        program.display()
    );
    program.to_str().unwrap().to_owned()
}

impl Backend {
    /// gunicorn with the service `examples/<service>`; `more` are arguments such as `--threads`.
    pub fn gunicorn(service: &'static str, entry: &str, more: &[&str]) -> Backend {
        Backend::gunicorn_somewhere(service, entry, more).once_it_answers()
    }

    /// gunicorn behind TLS, which is up when it says so: who speaks to it has to be let in first.
    pub fn gunicorn_with_tls(service: &'static str, entry: &str, more: &[&str]) -> Backend {
        let backend = Backend::gunicorn_somewhere(service, entry, more);
        backend.process.output().find("its worker boots", |line| line.contains("Booting worker").then_some(()));
        backend
    }

    fn gunicorn_somewhere(service: &'static str, entry: &str, more: &[&str]) -> Backend {
        let before = [&python_program("gunicorn"), "--bind", "127.0.0.1:PORT", "--no-control-socket"];
        Backend::start([&before, more, &[entry]].concat(), service)
    }

    /// gunicorn on a Unix socket, which is up when it is connected to.
    pub fn gunicorn_on_socket(path: &Path, service: &'static str, entry: &str) -> Process {
        let bind = format!("unix:{}", path.display());
        let command = [&python_program("gunicorn"), "--bind", &bind, "--no-control-socket", "--threads", "4", entry]
            .map(str::to_owned);
        let process = launch(&command, 0, service, path.parent().unwrap());
        eventually("gunicorn takes connections", || std::os::unix::net::UnixStream::connect(path).ok());
        process
    }

    /// uvicorn with the service `examples/<service>`.
    pub fn uvicorn(service: &'static str, entry: &str) -> Backend {
        Backend::uvicorn_with(service, entry, &[])
    }

    /// The same; `more` are arguments such as `--root-path`.
    pub fn uvicorn_with(service: &'static str, entry: &str, more: &[&str]) -> Backend {
        let before = [&python_program("uvicorn"), "--port", "PORT"];
        Backend::start([&before, more, &[entry]].concat(), service).once_it_answers()
    }

    /// hypercorn with the service `examples/<service>`.
    pub fn hypercorn(service: &'static str, entry: &str) -> Backend {
        Backend::start(vec![&python_program("hypercorn"), "--bind", "127.0.0.1:PORT", entry], service).once_it_answers()
    }

    /// granian with the service `examples/<service>`. It does not say which port the kernel gave it, so it is told one.
    pub fn granian(service: &'static str, entry: &str) -> Backend {
        let port = free_port();
        let command = [&python_program("granian"), "--interface", "asgi", "--port", "PORT", entry].map(str::to_owned);
        let state = tempfile::tempdir().unwrap();
        let process = launch(&command, port, service, state.path());
        Backend { process, command: command.into(), service, port, state }.once_it_answers()
    }

    /// Starts a server on a port that the kernel gives, and waits until it says which.
    fn start(command: Vec<&str>, service: &'static str) -> Backend {
        let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
        let state = tempfile::tempdir().unwrap();
        let process = launch(&command, 0, service, state.path());
        let port = process.output().find("the server says where it listens", |line| {
            let (_, after) = line.split_once("://127.0.0.1:")?;
            after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        Backend { process, command, service, port, state }
    }

    fn once_it_answers(mut self) -> Backend {
        self.wait_until_up();
        self
    }

    fn wait_until_up(&mut self) {
        eventually(&format!("{} answers", self.service), || {
            if self.process.has_ended().is_some() {
                panic!("{} did not start:\n{}", self.service, self.process.output().text());
            }
            http::try_get(self.port, "/healthz").ok().filter(|response| response.status == 200).map(|_| ())
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the service keeps what it keeps.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether a line that it wrote has this in it.
    pub fn said(&self, what: &str) -> bool {
        self.process.output().text().contains(what)
    }

    /// kill -9 to the server and all its workers.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops every process of it in its tracks: the port accepts, and nobody answers.
    pub fn freeze(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(pid, Signal::STOP).unwrap();
    }

    pub fn thaw(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(pid, Signal::CONT).unwrap();
    }

    /// SIGHUP: gunicorn replaces its workers, the old ones finishing what they do.
    pub fn recycle(&self) {
        self.process.signal(Signal::HUP);
    }

    /// The same again on the same port, and waits until it answers.
    pub fn start_again(&mut self) {
        self.process = launch(&self.command, self.port, self.service, self.state.path());
        self.wait_until_up();
    }
}

/// Runs a command in the service's directory, with `PORT` in it replaced.
fn launch(command: &[String], port: u16, service: &str, state: &Path) -> Process {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(service);
    let port = port.to_string();
    Process::start(&command[0], |process| {
        process.args(command[1..].iter().map(|argument| argument.replace("PORT", &port))).current_dir(directory);
        process.env("ORDERS_DB", state.join("orders.db")).env("ORDERS_PROXIES", "1");
        process.env("INVOICES_STATIC", state.join("static")).env("ORDERS_RECEIPTS", state.join("receipts"));
        process.env("INVOICES_HOSTS", "*").env("PYTHONDONTWRITEBYTECODE", "1");
    })
}

/// Flask under gunicorn's default worker, which closes after every answer.
pub fn orders_sync() -> &'static Backend {
    static SHARED: OnceLock<Backend> = OnceLock::new();
    SHARED.get_or_init(|| Backend::gunicorn("orders", "app:app", &["--workers", "3"]))
}

/// Flask under gunicorn's threads, which keep connections.
pub fn orders_threads() -> &'static Backend {
    static SHARED: OnceLock<Backend> = OnceLock::new();
    SHARED.get_or_init(|| Backend::gunicorn("orders", "app:app", &["--threads", "16"]))
}

/// Django under gunicorn.
pub fn invoices() -> &'static Backend {
    static SHARED: OnceLock<Backend> = OnceLock::new();
    SHARED.get_or_init(|| Backend::gunicorn("invoices", "invoices:application", &["--threads", "16"]))
}

/// FastAPI under uvicorn.
pub fn chat() -> &'static Backend {
    static SHARED: OnceLock<Backend> = OnceLock::new();
    SHARED.get_or_init(|| Backend::uvicorn("chat", "chat:app"))
}
