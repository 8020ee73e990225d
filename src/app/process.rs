//! A process of an app as the gateway sees it: started by way of a keeper (see `shim`), watched to its end, asked to stop.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::{Child, Command};

use super::App;
use super::environ::Environ;
use super::launch::PLACE;
use super::records::LONGEST_LINE;
use super::shim::{Asked, Ids, KEEPER, Order, Plan, Told};
use super::sweep;

/// The program that a keeper is: this very one, even if another has taken its place on the disk.
#[cfg(not(test))]
fn program() -> &'static std::path::Path {
    std::path::Path::new("/proc/self/exe")
}

/// The tests of the library are no such program, so they have the real one built.
#[cfg(test)]
fn program() -> &'static std::path::Path {
    static BUILT: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        // As a test of it wants it, with the features that tests have beside: that one is there already where all tests
        // run, and `cargo build` would build everything once more.
        let cargo = std::process::Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--locked", "--no-run", "--test", "explain"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(cargo.unwrap().success(), "the program could not be built");
        // This test is target/debug/deps/passerelle-…
        let own = std::env::current_exe().unwrap();
        own.parent().and_then(std::path::Path::parent).unwrap().join("passerelle")
    });
    &BUILT
}

/// How long a keeper may take beyond the grace that it was given, before it is left alone.
const KEEPER_GRACE: Duration = Duration::from_secs(10);

/// A process that runs, or has ended and is not known to have. Dropped, it ends: the keeper sees that nobody is there.
pub(super) struct Process {
    /// Of the app's process, not of the keeper.
    pub(super) pid: i32,
    /// What marks it and what it starts, for whoever has to look for them.
    place: Option<OsString>,
    told: Lines<BufReader<OwnedReadHalf>>,
    asking: OwnedWriteHalf,
    keeper: Child,
}

/// What holds for every process of an app.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    user: Option<Ids>,
    umask: u32,
    open_files: Option<u64>,
}

impl Limits {
    pub(super) fn of(app: &App) -> Limits {
        let settings = &app.settings;
        Limits { user: app.account.ids.clone(), umask: settings.umask, open_files: settings.open_files.map(Into::into) }
    }

    /// Runs `command` in `directory`.
    pub(super) fn plan(self, command: Vec<String>, directory: &Path) -> Plan {
        let Limits { user, umask, open_files } = self;
        Plan { command, directory: directory.to_owned(), user, umask, open_files }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Killed(i32),
    /// Its keeper was killed, and with it the process.
    Lost,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(code) => write!(f, "it exited with code {code}"),
            Ended::Killed(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "it was ended by {name}"),
                None => write!(f, "it was ended by signal {signal}"),
            },
            Ended::Lost => f.write_str("it was killed together with its keeper"),
        }
    }
}

/// The signals that processes end by.
fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [(i32, &str); 9] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (9, "SIGKILL, as the kernel does when memory runs out"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
    ];
    NAMES.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
}

impl Process {
    /// Starts what `plan` says, with `environ` and nothing else of the gateway's environment. What it writes, to standard
    /// output and standard error in one order, is to be read of the receiver.
    ///
    /// # Errors
    /// The system refuses. A command that cannot be run is no error here: its process says so and exits with 127.
    pub(super) async fn start(plan: &Plan, environ: &Environ) -> io::Result<(Process, pipe::Receiver)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program());
        // None of the app's variables, but for the one by which it is found should it be left behind.
        command.arg(KEEPER).env_clear();
        if let Some(place) = environ.get(PLACE) {
            command.env(PLACE, place);
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(writer.try_clone()?).stderr(writer);
        // Not of the terminal's group: Ctrl-C there is for the gateway, which lets its apps finish.
        command.process_group(0);
        let keeper = command.spawn()?;
        // It holds the other ends.
        drop(command);
        let (told, mut asking) = UnixStream::from_std(ours)?.into_split();
        let bytes = |text: &OsString| text.as_bytes().to_vec();
        let variables = environ.variables().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let mut line = serde_json::to_vec(&Order { plan: plan.clone(), variables })?;
        line.push(b'\n');
        asking.write_all(&line).await?;
        let place = environ.get(PLACE).map(OsStr::to_owned);
        let mut process = Process { pid: 0, place, told: BufReader::new(told).lines(), asking, keeper };
        let written = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        match process.next().await {
            Some(Told::Started { pid }) => process.pid = pid,
            Some(Told::Exited { .. } | Told::Killed { .. }) | None => {
                return Err(io::Error::other("its keeper could not start it"));
            }
        }
        Ok((process, written))
    }

    /// The process that this one, and all below it, descend from. `None` once it has ended.
    pub(super) fn keeper(&self) -> Option<i32> {
        self.keeper.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        let ended = loop {
            match self.next().await {
                Some(Told::Started { .. }) => {}
                Some(Told::Exited { code }) => break Ended::Exited(code),
                Some(Told::Killed { signal }) => break Ended::Killed(signal),
                None => break Ended::Lost,
            }
        };
        // What the keeper does now takes no time, unless something cannot even be killed.
        let _ = tokio::time::timeout(KEEPER_GRACE, self.keeper.wait()).await;
        if let (Ended::Lost, Some(place)) = (ended, self.place.clone()) {
            // The kernel ends the process, but not what that has started; nobody else is left who could.
            let group = self.pid;
            let _ = tokio::task::spawn_blocking(move || sweep::end_group(&place, group)).await;
        }
        ended
    }

    /// Asks it to stop, and kills it after `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) -> Ended {
        let grace_in_milliseconds = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if let Ok(mut line) = serde_json::to_vec(&Asked::Stop { grace: grace_in_milliseconds }) {
            line.push(b'\n');
            // One that has ended already need not be asked.
            let _ = self.asking.write_all(&line).await;
        }
        let patience = grace.saturating_add(KEEPER_GRACE);
        tokio::time::timeout(patience, self.ended()).await.unwrap_or(Ended::Lost)
    }

    /// The keeper's next word; `None`: there is none any more.
    async fn next(&mut self) -> Option<Told> {
        let line = self.told.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

/// Runs what `plan` says to its end, and tells each line of what it writes. Dropped, it ends what runs.
///
/// # Errors
/// The system refuses to start it, or `patience` is over: it was killed.
pub(super) async fn run(
    plan: &Plan,
    environ: &Environ,
    patience: Duration,
    mut tell: impl FnMut(&str),
) -> io::Result<Ended> {
    let (mut process, written) = Process::start(plan, environ).await?;
    let mut lines = BoundedLines::new(written);
    let to_end = async {
        while let Some(line) = lines.next().await {
            tell(&line);
        }
        process.ended().await
    };
    match tokio::time::timeout(patience, to_end).await {
        Ok(ended) => Ok(ended),
        Err(_) => {
            process.stop(Duration::ZERO).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {patience:?}")))
        }
    }
}

/// Lines of whatever a process writes, cut where they become too long. What is not UTF-8 is replaced.
pub(super) struct BoundedLines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: tokio::io::AsyncRead + Unpin> BoundedLines<R> {
    pub(super) fn new(reader: R) -> BoundedLines<R> {
        BoundedLines { reader: BufReader::new(reader), line: Vec::new() }
    }

    /// The next line, without its break; `None` at the end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            let available = self.reader.fill_buf().await.unwrap_or_default();
            if available.is_empty() {
                let line = std::mem::take(&mut self.line);
                return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
            }
            let room = LONGEST_LINE.saturating_sub(self.line.len());
            let end = memchr::memchr(b'\n', available);
            let length = end.unwrap_or(available.len()).min(room);
            self.line.extend_from_slice(available.get(..length).unwrap_or_default());
            let is_whole = end.is_some_and(|end| end <= room);
            let used = if is_whole { length.saturating_add(1) } else { length };
            self.reader.consume(used);
            if is_whole || self.line.len() >= LONGEST_LINE {
                let mut line = std::mem::take(&mut self.line);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
}
