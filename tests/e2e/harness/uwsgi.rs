//! Real uWSGI with the service `tests/services/wsgi.py`: over its own protocol, and over HTTP beside that.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::backends::python_program;
use super::process::Process;

pub struct Uwsgi {
    process: Process,
    port: u16,
    http: u16,
}

/// Where the services of the tests' own are.
pub fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services")
}

impl Uwsgi {
    /// Two processes; `more` are arguments such as `--buffer-size=16384`.
    pub fn start(more: &[&str]) -> Uwsgi {
        Uwsgi::start_on(0, more)
    }

    /// The same on a port that is known; 0 for any.
    pub fn start_on(port: u16, more: &[&str]) -> Uwsgi {
        let process = Process::start(&python_program("uwsgi"), |command| {
            command.current_dir(services()).env("PYTHONDONTWRITEBYTECODE", "1");
            command.args(["--socket", &format!("127.0.0.1:{port}"), "--http-socket", "127.0.0.1:0"]);
            command.args([
                "--module",
                "wsgi:app",
                "--need-app",
                "--master",
                "--die-on-term",
                "--no-orphans",
                "--processes",
                "2",
            ]);
            command.args(more);
        });
        let bound = |socket: usize| {
            let begin = format!("uwsgi socket {socket} bound to TCP address 127.0.0.1:");
            process.output().find("uWSGI says where it listens", |line| {
                line.strip_prefix(&begin)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            })
        };
        let (port, http) = (bound(0), bound(1));
        process
            .output()
            .find("uWSGI's workers are there", |line| line.contains("spawned uWSGI worker 2").then_some(()));
        Uwsgi { process, port, http }
    }

    pub fn url(&self) -> String {
        format!("uwsgi://127.0.0.1:{}", self.port)
    }

    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// kill -9 to it and all its workers.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// One that tests only talk to.
pub fn uwsgi() -> &'static Uwsgi {
    static SHARED: OnceLock<Uwsgi> = OnceLock::new();
    SHARED.get_or_init(|| Uwsgi::start(&["--threads", "4"]))
}

/// gunicorn with the same service, over uWSGI's protocol and over HTTP: their ports.
pub fn gunicorn() -> (u16, u16) {
    static SHARED: OnceLock<[(Process, u16); 2]> = OnceLock::new();
    let [(_, uwsgi), (_, http)] = SHARED.get_or_init(|| {
        ["uwsgi", "http"].map(|protocol| {
            let process = Process::start(&python_program("gunicorn"), |command| {
                command.current_dir(services()).env("PYTHONDONTWRITEBYTECODE", "1");
                command.args(["--bind", "127.0.0.1:0", "--no-control-socket", "--threads", "4"]);
                command.args(["--protocol", protocol, "wsgi:app"]);
            });
            let port = process.output().find("gunicorn says where it listens", |line| {
                let (_, after) = line.split_once("://127.0.0.1:")?;
                after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            process.output().find("its worker boots", |line| line.contains("Booting worker").then_some(()));
            (process, port)
        })
    });
    (*uwsgi, *http)
}
