//! What stands between the gateway and each process of an app: this very program, run again as two small stages.
//!
//! The *keeper* starts the process and stays. It holds one end of a socket of which the gateway holds the other: when the
//! gateway ends, in whatever way, the socket does, and the keeper ends everything that it started. What outlives its
//! parent becomes the keeper's child, so nothing escapes by forking twice. The *starter* becomes the process: it takes the
//! user, the masks and the limits, asks the kernel to be killed should the keeper die, and executes the command. That
//! wish has to be made after the change of user, which clears it, and by the process itself, which inherits none; and it
//! follows the thread that made it a child, which is the keeper's only one that starts anything.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, WaitOptions, WaitStatus, getpid, getppid, kill_process,
    kill_process_group, set_child_subreaper, set_parent_process_death_signal, setrlimit, umask, wait,
};
use rustix::thread::{
    clear_ambient_capability_set, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

/// The hidden commands by which this program is run again.
pub const KEEPER: &str = "app-keeper";
pub const STARTER: &str = "app-starter";

/// How long what is left behind by a gateway that died may take to end by itself.
const ORPHANS_GRACE: Duration = Duration::from_secs(1);

/// How shells tell that a command could not be run.
pub const NOT_RUN: u8 = 127;

/// A process to be, less its environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<String>,
    pub directory: PathBuf,
    /// `None`: the gateway's own.
    pub user: Option<Ids>,
    pub umask: u32,
    /// `None`: as many as the gateway.
    pub open_files: Option<u64>,
}

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What a keeper and then a starter read first: a process to be, with its variables. They themselves have none of those:
/// a variable that names a library is not for who is root still.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub plan: Plan,
    /// Names and values, in the bytes of the system.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a keeper tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Started { pid: i32 },
    Exited { code: i32 },
    Killed { signal: i32 },
}

/// What a keeper is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// SIGTERM, and SIGKILL for what is there still after so many milliseconds.
    Stop { grace: u64 },
}

/// Runs the keeper: its standard input is the socket, whose first line is the [`Order`].
///
/// # Errors
/// The socket or the plan is of no use, or nothing could be started.
pub fn keep() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut asked = BufReader::new(socket.try_clone()?);
    let mut order = String::new();
    asked.read_line(&mut order)?;
    set_child_subreaper(Some(getpid()))?;
    no_core_dumps();
    let mut starter = Command::new("/proc/self/exe");
    let mut starter = starter.arg(STARTER).stdin(Stdio::piped()).process_group(0).spawn()?;
    let child = Pid::from_child(&starter);
    if let Some(mut input) = starter.stdin.take() {
        // One that has ended already is waited for below.
        let _ = input.write_all(order.as_bytes());
    }
    drop(order);
    tell(&mut socket, Told::Started { pid: child.as_raw_nonzero().get() });
    // A signal must not reach whoever gets the number next.
    let ended = Arc::new(AtomicBool::new(false));
    let listening = Arc::clone(&ended);
    std::thread::spawn(move || listen(asked, child, &listening));
    let told = wait_for(child)?;
    ended.store(true, Ordering::SeqCst);
    let _ = kill_process_group(child, Signal::KILL);
    end_descendants();
    tell(&mut socket, told);
    Ok(())
}

/// A gateway that is gone need not be told.
fn tell(socket: &mut UnixStream, told: Told) {
    if let Ok(mut line) = serde_json::to_vec(&told) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}

/// Does what the gateway asks for, and ends everything once it is gone.
fn listen(asked: impl BufRead, child: Pid, ended: &Arc<AtomicBool>) {
    let end = |grace: Duration| {
        let running = || !ended.load(Ordering::SeqCst);
        if running() {
            let _ = kill_process(child, Signal::TERM);
        }
        std::thread::sleep(grace);
        if running() {
            let _ = kill_process_group(child, Signal::KILL);
            // It may have gone to another group.
            let _ = kill_process(child, Signal::KILL);
        }
    };
    std::thread::scope(|threads| {
        for line in asked.lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Asked::Stop { grace }) => {
                    threads.spawn(move || end(Duration::from_millis(grace)));
                }
                // Only another version would ask for something else, and it cannot be here.
                Err(_) => {}
            }
        }
        end(ORPHANS_GRACE);
    });
}

/// Waits for the end of `child`, and buries whatever else ends meanwhile.
fn wait_for(child: Pid) -> io::Result<Told> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                if let Some(told) = as_told(status) {
                    return Ok(told);
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn as_told(status: WaitStatus) -> Option<Told> {
    let exited = status.exit_status().map(|code| Told::Exited { code });
    exited.or_else(|| status.terminating_signal().map(|signal| Told::Killed { signal }))
}

/// What left the group became a child of this process when its parent died, or does now.
fn end_descendants() {
    loop {
        for child in children() {
            let _ = kill_process(child, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Secrets are in the environment and the memory of what runs here. A limit of nothing is not heeded where dumps go to a
/// program; that there is nothing to dump is.
fn no_core_dumps() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, nothing);
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Runs the starter, which does not come back: its standard input is the [`Order`].
///
/// # Errors
/// Why the command could not be run.
pub fn start() -> io::Error {
    let Order { plan, variables } = match serde_json::from_reader(io::stdin().lock()) {
        Ok(order) => order,
        Err(error) => return error.into(),
    };
    match prepare(&plan) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let Some((program, arguments)) = plan.command.split_first() else {
        return io::Error::other("there is no command");
    };
    let variables = variables.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)));
    let mut command = Command::new(program);
    let error = command.args(arguments).env_clear().envs(variables).stdin(Stdio::null()).exec();
    io::Error::new(error.kind(), format!("{program} could not be run: {error}"))
}

/// Everything that the process inherits.
fn prepare(plan: &Plan) -> io::Result<()> {
    let keeper = getppid();
    umask(Mode::from_raw_mode(plan.umask));
    if let Some(files) = plan.open_files {
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        setrlimit(Resource::Nofile, limit).map_err(|error| context(error, "open_files cannot be put in force"))?;
    }
    if let Some(Ids { uid, gid, groups }) = &plan.user {
        let refused = |error| context(error, "the user cannot be changed");
        let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups).map_err(refused)?;
        let gid = Gid::from_raw(*gid);
        set_thread_res_gid(gid, gid, gid).map_err(refused)?;
        let uid = Uid::from_raw(*uid);
        set_thread_res_uid(uid, uid, uid).map_err(refused)?;
    }
    // What a gateway that is not root was given is not for its apps. Old kernels have none.
    let _ = clear_ambient_capability_set();
    set_no_new_privs(true)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != keeper {
        return Err(io::Error::other("the keeper is gone"));
    }
    std::env::set_current_dir(&plan.directory)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", plan.directory.display())))
}

fn context(error: rustix::io::Errno, what: &str) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
