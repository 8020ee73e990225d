//! `passerelle serve`: a Python service with no configuration file, from nothing to HTTPS, and its code as it changes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::process::Process;

/// The customary ports are looked for, so one is served at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A project of its own, with a directory for what the gateway keeps.
struct Project {
    home: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// Answers everything with `VERSION`, without any package but the server's own.
const APP: &str = "\
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'VERSION\\n' if environ['PATH_INFO'] != '/healthz' else b'ok\\n']
";

impl Project {
    fn new(files: &[(&str, &str)]) -> Project {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().unwrap();
        // Whoever the service runs as must come through.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(home.path().join("shop")).unwrap();
        let project = Project { home, _turn: turn };
        for (path, text) in files {
            project.put(path, text);
        }
        project
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("shop")
    }

    fn put(&self, path: &str, text: &str) {
        std::fs::write(self.directory().join(path), text).unwrap();
    }

    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.directory()).env("STATE_DIRECTORY", self.home.path().join("state"));
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_passerelle"));
        self.prepare(&mut command);
        command.args(arguments).output().unwrap()
    }

    fn serve(&self, arguments: &[&str]) -> Process {
        Process::start(env!("CARGO_BIN_EXE_passerelle"), |command| {
            self.prepare(command);
            command.arg("serve").args(["--address", "127.0.0.1:0", "--workers", "1"]).args(arguments);
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The `curl` line that was printed, and where the certificate is.
fn curl_line(process: &Process) -> (String, PathBuf) {
    let line = process.output().find("the service is up", |line| line.trim().strip_prefix("curl ").map(str::to_owned));
    let certificate = line.split(' ').nth(1).unwrap().into();
    (line, certificate)
}

fn curl(line: &str) -> String {
    let output = Command::new("sh").args(["-c", &format!("curl -sS --max-time 20 {line}")]).output().unwrap();
    assert!(output.status.success(), "curl {line}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_is_printed_is_a_configuration() {
    let project = Project::new(&[("app.py", APP)]);
    let printed = project.run(&["serve", "--print-config", "--workers", "2-4", "--threads", "2"]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    project.put("passerelle.toml", &text(&printed.stdout));
    let checked = project.run(&["check"]);
    assert!(checked.status.success(), "{}{}", text(&printed.stdout), text(&checked.stderr));
    assert_eq!(text(&checked.stdout), "passerelle.toml: ok, 1 listener, 1 app, 1 route\n");
    // It is the same from one time to the next.
    assert_eq!(
        text(&project.run(&["serve", "--print-config", "--workers", "2-4", "--threads", "2"]).stdout),
        text(&printed.stdout)
    );
}

#[test]
fn what_cannot_be_served_is_said() {
    let project = Project::new(&[("util.py", "x = 1\n")]);
    for (arguments, said) in [
        (&["serve"][..], "no service was found in "),
        (&["serve", "none.py:app"], "there is no none.py in "),
        (&["serve", "none:app"], "there is no module none in "),
        (&["serve", "util.py:app", "--address", "here"], "write HOST:PORT"),
        (&["serve", "util.py:app", "--workers", "none"], "write a number, or two: 4, 2-8"),
        (&["serve", "util.py:app", "--server", "apache"], "gunicorn"),
        (&["serve", "util.py:app", "--env", "MODE"], "write NAME=VALUE"),
        (&["serve", "util.py:app", "--health", "nowhere"], "passerelle: --health: "),
        (&["serve", "util.py:app", "--env-file", "none.env"], "passerelle: --env-file: "),
    ] {
        let output = project.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn a_service_is_served_and_follows_its_code() {
    let project = Project::new(&[("app.py", &APP.replace("VERSION", "one"))]);
    let mut process = project.serve(&["app.py:app", "--watch"]);
    let (line, certificate) = curl_line(&process);
    assert_eq!(curl(&line), "one\n");
    let key = certificate.with_extension("key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    // The commands find it by the file that it would be.
    let apps = project.run(&["apps"]);
    assert!(apps.status.success(), "{}", text(&apps.stderr));
    assert!(text(&apps.stdout).contains("shop"), "{}", text(&apps.stdout));

    project.put("app.py", &APP.replace("VERSION", "two"));
    eventually("the new code is served", || (curl(&line) == "two\n").then_some(()));

    // What cannot be started leaves the old code serving, and says why.
    project.put("app.py", "raise RuntimeError('not today')\n");
    process.output().find("the traceback is told", |line| line.contains("RuntimeError: not today").then_some(()));
    process.output().find("it was not put in place", |line| line.contains("not put in place: ").then_some(()));
    assert_eq!(curl(&line), "two\n");
    // Nor is what does not become well waited for, once it has been mended.
    project.put("app.py", "def app(environ, start):\n    raise RuntimeError('not this one')\n");
    process.output().find("the traceback is told", |line| line.contains("RuntimeError: not this one").then_some(()));
    let mended = std::time::Instant::now();
    project.put("app.py", &APP.replace("VERSION", "three"));
    eventually("the mended code is served", || (curl(&line) == "three\n").then_some(()));
    assert!(mended.elapsed() < std::time::Duration::from_secs(40), "not once start_timeout is over");

    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(0), "{}", process.output().text());

    // The certificate is kept.
    let before = std::fs::read(&key).unwrap();
    let mut again = project.serve(&["app:app"]);
    let (line, _) = curl_line(&again);
    assert_eq!(curl(&line), "three\n");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    again.signal(Signal::TERM);
    assert_eq!(again.wait().code(), Some(0));
    assert!(left_over(&project.directory()).is_empty());
}

/// Processes that still work for the project.
fn left_over(directory: &Path) -> Vec<String> {
    let home = directory.parent().unwrap().display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    commands.map(|command| text(&command).replace('\0', " ")).filter(|command| command.contains(&home)).collect()
}

#[test]
fn a_service_that_does_not_start_is_told_whole() {
    let project = Project::new(&[("app.py", "import none_such\napp = 1\n")]);
    let mut process = project.serve(&["app.py:app", "--no-tls"]);
    assert_eq!(process.wait().code(), Some(1), "{}", process.output().text());
    let told = process.output().text();
    assert!(told.contains("shop does not start: "), "{told}");
    assert!(told.contains("ModuleNotFoundError: No module named 'none_such'"), "{told}");
}

#[test]
fn what_serves_is_left_alone_by_those_who_would_too() {
    // The first start fails: what is said once it serves is said then.
    let project =
        Project::new(&[("app.py", "import none_such\n"), ("requirements.txt", ""), ("pyproject.toml", "[tool.x]\n")]);
    let mut process = project.serve(&["app.py:app", "--watch", "--env", "MODE=a b", "--health", "/healthz"]);
    process.output().find("it waits for a change", |line| line.contains("at once when its code changes").then_some(()));
    project.put("app.py", &format!("import os\n{}", APP.replace("b'VERSION\\n'", "os.environ['MODE'].encode()")));
    let (line, certificate) = curl_line(&process);
    assert_eq!(curl(&line), "a b");
    let greeting = process.output().text();
    assert!(greeting.contains("--health /healthz --print-config >"), "{greeting}");
    assert!(greeting.contains("'MODE=a b'") && !greeting.contains("--watch --env"), "{greeting}");
    assert!(!greeting.contains("Booting worker"), "{greeting}");
    if rustix::process::geteuid().is_root() {
        assert!(greeting.contains("which nothing else runs as"), "{greeting}");
    }

    let key = certificate.with_extension("key");
    let both = || (std::fs::read(&key).unwrap(), std::fs::read(&certificate).unwrap());
    let before = both();
    let url = line.rsplit(' ').next().unwrap().trim_end_matches('/').replace("localhost", "127.0.0.1");
    let again = project.run(&["serve", "--address", "0.0.0.0:0"]);
    assert_eq!(again.status.code(), Some(1));
    let told = text(&again.stderr);
    assert!(told.contains(&format!("is served already, on {url}, by process {}\n", process.id())), "{told}");
    let printed = project.run(&["serve", "app.py:app", "--address", "0.0.0.0:9443", "--print-config"]);
    assert!(printed.status.success());
    assert_eq!(both(), before);
    // Nor is a port that is taken: of another folder, nothing is made either.
    let other = project.directory().with_file_name("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("app.py"), APP).unwrap();
    let address = url.trim_start_matches("https://");
    let taken = project.run(&["serve", other.join("app.py").to_str().unwrap(), "--address", address]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(text(&taken.stderr).contains("another process holds this address"), "{}", text(&taken.stderr));
    assert_eq!(curl(&line), "a b");

    // The terminal is closed.
    process.signal(Signal::HUP);
    assert_eq!(process.wait().code(), Some(0), "{}", process.output().text());
    assert!(left_over(&project.directory()).is_empty());
}
