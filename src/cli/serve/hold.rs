//! What a `passerelle serve` has for itself before it changes anything: the folder, and the ports.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::config::CONTROL_SOCKET;
use crate::server::bind;

/// Ports after the customary one that are tried.
const TRIES: u16 = 100;

/// Of a line that says where a service is.
const LONGEST: u64 = 512;

/// The folder is served by this process, for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    lock: File,
}

impl Folder {
    /// Takes it. `state`: what belongs to the folder alone.
    ///
    /// # Errors
    /// It is served already, or the system refuses.
    pub(super) fn take(folder: &Path, state: &Path) -> Result<Folder, String> {
        // What lies in it leads to the app's own too, which others run.
        let made = DirBuilder::new().recursive(true).mode(0o711).create(state);
        made.map_err(|error| format!("{}: {error}", state.display()))?;
        let path = state.join("serve.lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut lock = opened.map_err(|error| format!("{}: {error}", path.display()))?;
        let help = "that one follows what changes with --watch, or takes new code with `passerelle release`; end it first, \
                    with Ctrl-C, to serve the folder otherwise";
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut whom = String::new();
            let _ = (&mut lock).take(LONGEST).read_to_string(&mut whom);
            let shown: String = whom.chars().filter(|c| !c.is_control()).collect();
            return Err(format!("{} is served already{shown}\n{help}", folder.display()));
        }
        if UnixStream::connect(state.join(CONTROL_SOCKET)).is_ok() {
            let why = format!("{} is served already, by a `passerelle run` of its passerelle.toml", folder.display());
            return Err(format!("{why}\n{help}"));
        }
        let folder = Folder { lock };
        folder.says("");
        Ok(folder)
    }

    /// What whoever comes next is told.
    pub(super) fn is_at(&self, url: &str) {
        self.says(&format!(", on {url}, by process {}", std::process::id()));
    }

    fn says(&self, text: &str) {
        // What cannot be written is not told.
        let _ = self.lock.set_len(0);
        let _ = self.lock.write_all_at(text.as_bytes(), 0);
    }
}

/// Listens at `asked`.
///
/// # Errors
/// What the system says, and what to do about it.
pub(super) fn at(asked: SocketAddr) -> Result<TcpListener, String> {
    bind::hold(asked).map_err(|error| {
        let advice = if error.kind() == ErrorKind::PermissionDenied {
            "only root has ports below 1024: choose a higher one"
        } else {
            bind::advice(&error)
        };
        format!("--address {asked} cannot be listened to: {error}\n{advice}")
    })
}

/// Listens on loopback, at the port by custom or the next that nobody has.
///
/// # Errors
/// There is none.
pub(super) fn next_to(port: u16) -> Result<TcpListener, String> {
    let mut why = String::new();
    for port in port..=port.saturating_add(TRIES) {
        match bind::hold(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)) {
            Ok(held) => return Ok(held),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("none of the ports from {port} on can be listened to: {why}\n--address HOST:PORT says another"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_served_once() {
        let home = tempfile::tempdir().unwrap();
        let (folder, state) = (Path::new("/srv/shop"), home.path().join("state/shop"));
        let first = Folder::take(folder, &state).unwrap();
        let told = Folder::take(folder, &state).unwrap_err();
        assert!(told.starts_with("/srv/shop is served already\n"), "{told}");
        first.is_at("https://127.0.0.1:8443");
        let told = Folder::take(folder, &state).unwrap_err();
        let expected =
            format!("/srv/shop is served already, on https://127.0.0.1:8443, by process {}\n", std::process::id());
        assert!(told.starts_with(&expected), "{told}");
        drop(first);
        drop(Folder::take(folder, &state).unwrap());
        let _control = std::os::unix::net::UnixListener::bind(state.join(CONTROL_SOCKET)).unwrap();
        assert!(Folder::take(folder, &state).unwrap_err().contains("by a `passerelle run`"));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = next_to(20_000).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = next_to(port).unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
        assert!(at(taken.local_addr().unwrap()).unwrap_err().contains("another process holds this address"));
    }
}
