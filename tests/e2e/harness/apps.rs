//! Apps: a gateway that runs Python services itself, with their code in a directory of the test's own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::backends::python_program;
use super::gateway::{Gateway, passerelle};
use super::http::{Client, Response};
use super::{PATIENCE, eventually, eventually_every, http};

/// A WSGI service that tells much of itself. `VERSION` is to be replaced.
pub const WSGI: &str = r#"
import json, os, sys, threading

VERSION = "@VERSION@"
together = threading.Barrier(4)


def answer(start, body, status="200 OK"):
    body = body.encode()
    start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def app(environ, start):
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if path == "/version":
        return answer(start, VERSION)
    if path == "/pid":
        return answer(start, str(os.getpid()))
    if path == "/length":
        return answer(start, "%s %d" % (VERSION, len(body)))
    if path == "/environ":
        return answer(start, json.dumps(dict(os.environ)))
    if path == "/ids":
        mask = os.umask(0)
        os.umask(mask)
        return answer(start, json.dumps({
            "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "umask": mask, "cwd": os.getcwd(),
            "pid": os.getpid(), "pgrp": os.getpgrp(), "parent": os.getppid(), "home": os.environ["HOME"],
        }))
    if path == "/read":
        try:
            return answer(start, open(query, errors="replace").read())
        except OSError as error:
            return answer(start, type(error).__name__, "403 Forbidden")
    if path == "/list":
        try:
            return answer(start, json.dumps(sorted(os.listdir(query))))
        except OSError as error:
            return answer(start, type(error).__name__, "403 Forbidden")
    if path == "/together":
        together.wait(30)
        return answer(start, "together")
    if path == "/held":
        # Until a file is there; the answer names what ran from the start.
        open(query + ".began", "w").close()
        import time
        while not os.path.exists(query):
            time.sleep(0.01)
        return answer(start, VERSION)
    if path == "/say":
        print(query, flush=True)
        return answer(start, "said")
    if path == "/raise":
        try:
            raise KeyError("inner")
        except KeyError:
            raise RuntimeError("outer")
    if path == "/exit":
        os._exit(3)
    return answer(start, "ok")
"#;

/// The same in as far as ASGI services are asked for it.
pub const ASGI: &str = r#"
import os

VERSION = "@VERSION@"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text")})
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body")
    path = scope["path"]
    text = {
        "/version": VERSION, "/pid": str(os.getpid()), "/length": "%s %d" % (VERSION, length), "/": "ok",
        "/healthz": "ok",
    }.get(path)
    status = 200 if text is not None else 404
    body = (text or "no such path").encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"#;

pub fn wsgi(version: &str) -> String {
    WSGI.replace("@VERSION@", version)
}

pub fn asgi(version: &str) -> String {
    ASGI.replace("@VERSION@", version)
}

pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The line that names whoever runs the tests, where a user must be named: whoever else it is may be unable to run the
/// Python of the tests.
pub fn own_user() -> &'static str {
    if is_root() { "user = \"root\"" } else { "" }
}

/// The line that names the environment of the tests.
pub fn test_python() -> String {
    format!("python = {:?}", python_program("python"))
}

/// A gateway with apps, and the place that it keeps them in.
pub struct Site {
    pub gateway: Gateway,
}

/// What to make of one.
#[derive(Clone, Default)]
pub struct Plan {
    app: String,
    upper: String,
    files: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    directory: Option<String>,
    entry: Option<String>,
    environment: Option<String>,
    user: Option<String>,
}

impl Plan {
    /// One app, `shop`, of one file, with the environment of the tests. `lines`: of its section.
    pub fn new(code: &str, lines: &str) -> Plan {
        Plan { app: lines.to_owned(), ..Plan::default() }.file("app.py", code)
    }

    /// A file of the app's code.
    pub fn file(mut self, name: &str, text: &str) -> Plan {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Lines of `[app.shop]`.
    pub fn lines(mut self, lines: &str) -> Plan {
        self.app.push('\n');
        self.app.push_str(lines);
        self
    }

    /// Sections beside, `[server]` with its lines first if it is to have some.
    pub fn rest(mut self, text: &str) -> Plan {
        self.upper.push('\n');
        self.upper.push_str(text);
        self
    }

    /// A variable of the gateway itself.
    pub fn variable(mut self, name: &str, value: &str) -> Plan {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Code that is elsewhere.
    pub fn directory(mut self, directory: &Path) -> Plan {
        self.directory = Some(directory.display().to_string());
        self
    }

    pub fn entry(mut self, entry: &str) -> Plan {
        self.entry = Some(entry.to_owned());
        self
    }

    /// Instead of the tests' environment: lines of `[app.shop]`.
    pub fn environment(mut self, lines: &str) -> Plan {
        self.environment = Some(lines.to_owned());
        self
    }

    /// Instead of whoever runs the tests.
    pub fn user(mut self, line: &str) -> Plan {
        self.user = Some(line.to_owned());
        self
    }

    pub fn text(&self) -> String {
        let server = if self.upper.contains("[server]") { "" } else { "[server]\n" };
        let upper = self.upper.replace("[server]", "[server]\nstate_directory = \"@dir@/state\"");
        let server =
            if server.is_empty() { String::new() } else { "[server]\nstate_directory = \"@dir@/state\"\n".into() };
        let directory = self.directory.clone().unwrap_or_else(|| "@dir@/shop".to_owned());
        let entry = self.entry.as_deref().unwrap_or("app:app");
        let environment = self.environment.clone().unwrap_or_else(test_python);
        let user = self.user.as_deref().unwrap_or(own_user());
        let app = &self.app;
        // The machine may have much else to do: whoever waits for a worker waits.
        let queue = if app.contains("queue") { "" } else { "queue = { max_wait = \"20s\" }" };
        format!(
            "{server}{upper}\n[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
             [app.shop]\ndirectory = {directory:?}\nentry = {entry:?}\n{environment}\n{user}\n{app}\n{queue}\n\
             [route.shop]\npath = \"/{{*rest}}\"\nupstream = \"shop\"\n"
        )
    }

    /// Starts the gateway; the app comes when it comes.
    pub fn begin(&self) -> Site {
        let gateway = Gateway::start_with(&self.text(), |directory, command| {
            // Apps of another user pass through.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory, mode).unwrap();
            for (name, text) in &self.files {
                write(&directory.join("shop").join(name), text);
            }
            command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        });
        Site { gateway }
    }

    /// Starts the gateway and waits until every worker serves.
    pub fn start(&self) -> Site {
        let site = self.begin();
        if self.environment.is_some() {
            // To make an environment is a lot of work, for a machine that has much to do.
            let deadline = Instant::now() + PATIENCE * 3;
            while site.there("run").is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        site.serves();
        site
    }
}

/// At once or not at all, as deployments do it.
fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

impl Site {
    pub fn path(&self) -> &Path {
        self.gateway.directory()
    }

    pub fn port(&self) -> u16 {
        self.gateway.port("http")
    }

    pub fn get(&self, path: &str) -> Response {
        self.gateway.get(path)
    }

    /// Writes a file of the app's code, or of another directory beside the configuration.
    pub fn write(&self, name: &str, text: &str) {
        write(&self.path().join(name), text);
    }

    /// `passerelle COMMAND --config FILE …`
    pub fn command(&self, command: &str, more: &[&str]) -> (ExitStatus, String) {
        let config = self.gateway.config_path();
        passerelle(&[&[command, "--config", config.to_str().unwrap()], more].concat())
    }

    /// Makes a release, which must come about; what was told.
    #[track_caller]
    pub fn release(&self) -> String {
        let (status, output) = self.command("release", &["shop"]);
        assert!(status.success(), "{output}\n{}", self.gateway.output());
        output
    }

    /// Tries to make a release, which must not come about; what was told.
    #[track_caller]
    pub fn no_release(&self) -> String {
        let (status, output) = self.command("release", &["shop"]);
        assert_eq!(status.code(), Some(1), "{output}");
        output
    }

    /// How the app is.
    pub fn app(&self, name: &str) -> Value {
        self.try_app(name).unwrap_or_else(|| panic!("no app {name}"))
    }

    fn try_app(&self, name: &str) -> Option<Value> {
        // By the control socket, as `passerelle apps` does it, which is a lot of work to be started again and again.
        let mut socket = UnixStream::connect(self.path().join("control.sock")).ok()?;
        socket.write_all(b"{\"command\":\"apps\"}\n").ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        answer["apps"].as_array()?.iter().find(|app| app["name"] == name).cloned()
    }

    /// The release that serves.
    pub fn serving(&self) -> u64 {
        self.app("shop")["release"].as_u64().expect("a release serves")
    }

    /// Waits until every worker of the app that should serve does, and no other is there.
    pub fn serves(&self) {
        self.app_serves("shop");
    }

    pub fn app_serves(&self, name: &str) {
        eventually(&format!("{name} serves"), || {
            let app = self.try_app(name)?;
            let workers = app["workers"].as_array().unwrap();
            let all = workers.iter().all(|worker| worker["state"] == "serving");
            (all && !workers.is_empty() && app["wanted"] == workers.len()).then_some(())
        });
    }

    /// The processes of the workers that serve.
    pub fn pids(&self, name: &str) -> BTreeSet<i32> {
        let app = self.app(name);
        let workers = app["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "serving");
        workers.map(|worker| i32::try_from(worker["pid"].as_i64().unwrap()).unwrap()).collect()
    }

    /// Of the app's upstream, as `/status` has them.
    pub fn servers(&self) -> Vec<Value> {
        let status = self.gateway.status();
        let upstreams = status["upstreams"].as_array().unwrap();
        let shop = upstreams.iter().find(|upstream| upstream["name"] == "shop").unwrap();
        shop["servers"].as_array().unwrap().clone()
    }

    /// The place of the app.
    pub fn place(&self) -> PathBuf {
        self.path().join("state/apps/shop")
    }

    /// What lies in a directory of the place.
    pub fn there(&self, name: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.place().join(name)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Every process that has to do with this place, but for the gateway: its number and its command.
    pub fn processes(&self) -> Vec<(i32, String)> {
        processes_of(self.path(), self.gateway.id())
    }

    /// Those of them that are keepers.
    pub fn keepers(&self) -> Vec<i32> {
        let keepers = self.processes().into_iter().filter(|(_, command)| command.contains("app-keeper"));
        keepers.map(|(pid, _)| pid).collect()
    }
}

/// Whatever happened before: when the gateway ends, by whatever death, everything does.
impl Drop for Site {
    fn drop(&mut self) {
        self.gateway.kill();
        if std::thread::panicking() {
            println!("{}", self.gateway.output());
            return;
        }
        let (path, own) = (self.path().to_owned(), self.gateway.id());
        eventually_every(Duration::from_millis(100), "all processes end with the gateway", || {
            processes_of(&path, own).is_empty().then_some(())
        });
    }
}

fn processes_of(place: &Path, gateway: u32) -> Vec<(i32, String)> {
    let place = place.to_str().unwrap().as_bytes();
    let has = |bytes: &[u8]| bytes.windows(place.len()).any(|window| window == place);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, environ) = (read("cmdline"), read("environ"));
        let works_in =
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| has(cwd.as_os_str().as_encoded_bytes()));
        let is_ours = has(&environ) || works_in || has(&command);
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The commands of the test itself name the configuration.
        if is_ours && pid.unsigned_abs() != gateway && !command.contains("--config") {
            found.push((pid, command));
        }
    }
    found
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Requests in a steady stream, until they are told to end.
pub struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub failures: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    method: &'static str,
    kept: bool,
}

const PACE: Duration = Duration::from_millis(5);

impl Load {
    /// GET and POST with a body, over connections that are kept and new ones.
    pub fn of_all_kinds(port: u16) -> Load {
        Load::start(port, &["GET", "POST", "GET", "POST"])
    }

    /// Only requests that may be repeated.
    pub fn of_gets(port: u16) -> Load {
        Load::start(port, &["GET", "GET"])
    }

    fn start(port: u16, methods: &[&'static str]) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let kinds = methods.iter().flat_map(|method| [true, false].map(|kept| Kind { method, kept }));
        let threads = kinds.map(|kind| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || kind.ask_on(port, &over))
        });
        Load { threads: threads.collect(), over }
    }

    pub fn end(self) -> Tally {
        self.over.store(true, Ordering::SeqCst);
        let mut tally = Tally::default();
        for thread in self.threads {
            let Tally { requests, failures } = thread.join().unwrap();
            tally.requests += requests;
            tally.failures.extend(failures);
        }
        tally
    }

    /// Ends it; not one may have failed.
    #[track_caller]
    pub fn end_well(self) -> u64 {
        let tally = self.end();
        assert_eq!(tally.failures, Vec::<String>::new(), "of {} requests", tally.requests);
        assert!(tally.requests > 50, "hardly any load: {}", tally.requests);
        tally.requests
    }
}

impl Kind {
    fn ask_on(self, port: u16, over: &AtomicBool) -> Tally {
        let mut tally = Tally::default();
        let mut client: Option<Client<std::net::TcpStream>> = None;
        while !over.load(Ordering::SeqCst) {
            tally.requests += 1;
            let asked = self.ask(port, &mut client);
            if !self.kept {
                client = None;
            }
            if let Err(why) = asked {
                client = None;
                tally.failures.push(format!("{self:?}: {why}"));
            }
            std::thread::sleep(PACE);
        }
        tally
    }

    fn ask(self, port: u16, client: &mut Option<Client<std::net::TcpStream>>) -> Result<(), String> {
        let told = |error: std::io::Error| error.to_string();
        if client.is_none() {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(told)?;
            *client = Some(Client::over(stream));
        }
        let client = client.as_mut().unwrap();
        let request = match self.method {
            "POST" => {
                let head = http::head("POST", "/length", &[("Content-Length", "2000")]);
                [head.as_bytes(), &[b'x'; 2000]].concat()
            }
            method => http::head(method, "/version", &[]).into_bytes(),
        };
        client.try_send(request).map_err(told)?;
        let answer = client.try_answer_to(self.method).map_err(told)?;
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        if self.method == "POST" && !answer.body.ends_with(b" 2000") {
            return Err(format!("not what was sent: {answer:?}"));
        }
        Ok(())
    }
}

/// Runs a program to its end; what it wrote.
pub fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
