//! Before an app is started: nobody else runs it, and nothing is left of a gateway that died.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getpgid, kill_process};

use super::launch::PLACE;
use super::place::{Place, named};
use super::remove::remove;

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(20);

/// Keeps other gateways from running the app, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the place. Blocks for a moment.
///
/// # Errors
/// Another process has it, or the system refuses.
pub(super) fn lock(place: &Place) -> io::Result<Lock> {
    let path = place.lock();
    // Whoever can open it could hold it.
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|error| named(&path, &error))?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| named(&path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let message = format!("another gateway runs this app: it holds {}", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, message))
        }
        Err(error) => Err(named(&path, &error.into())),
    }
}

/// Ends every process that a gateway before this one has left here, and removes their sockets. Returns how many there
/// were. Blocks until they are gone.
pub(super) fn sweep(place: &Place) -> usize {
    let marker = marker(place.root().as_os_str());
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    loop {
        let left = marked(&marker);
        most = most.max(left.len());
        if left.is_empty() || Instant::now() >= deadline {
            break;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
    for entry in fs::read_dir(place.sockets()).into_iter().flatten().flatten() {
        if let Err(error) = remove(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "what a gateway left could not be removed");
        }
    }
    most
}

/// Kills what is left in a group of processes whose first process was started for `place`. Blocks for a moment.
pub(super) fn end_group(place: &OsStr, group: i32) {
    // Its number may be another's by now.
    for pid in marked(&marker(place)) {
        if getpgid(Some(pid)).is_ok_and(|of| of.as_raw_pid() == group) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The variable of every process that is started for the place.
fn marker(place: &OsStr) -> Vec<u8> {
    [PLACE.as_bytes(), b"=", place.as_bytes()].concat()
}

/// The processes whose environment has the variable. Those that are dead and not yet buried have none.
fn marked(marker: &[u8]) -> Vec<Pid> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = numbers.filter(|pid| *pid != own);
    let is_marked = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == marker)
    };
    others.filter(is_marked).filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}
