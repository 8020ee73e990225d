//! The control socket: how `passerelle reload` and its kin speak to the running gateway. Only its own user and root
//! may.

pub mod protocol;

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io::ErrorKind};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use self::protocol::{Answer, Command, Request, line};
use super::Shared;
use super::lifecycle::ReloadOutcome;
use crate::app::background::Pending;

const MOST_CONNECTIONS: usize = 16;
const LONGEST_REQUEST: u64 = 16 * 1024;
/// For a request to arrive, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ROOT: u32 = 0;

/// The bound socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
    owner: u32,
}

/// The file of a socket that we bound.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why the socket cannot be had.
#[derive(Debug)]
pub enum ControlError {
    /// A live process listens there.
    InUse(PathBuf),
    /// Something that is no socket has this name.
    NotASocket(PathBuf),
    Io(PathBuf, io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::InUse(path) => {
                write!(f, "{} is the control socket of another process that runs", path.display())
            }
            ControlError::NotASocket(path) => write!(f, "{} is there and is no socket", path.display()),
            ControlError::Io(path, error) => write!(f, "the control socket {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ControlError::Io(_, error) => Some(error),
            ControlError::InUse(_) | ControlError::NotASocket(_) => None,
        }
    }
}

impl ControlSocket {
    /// Makes the socket, and its directory where that is missing. What a dead process left is replaced.
    ///
    /// # Errors
    /// Another process listens there, or the system refuses.
    pub(super) fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
        make_room(path)?;
        let failed = |error| ControlError::Io(path.to_owned(), error);
        let listener = StdListener::bind(path).map_err(failed)?;
        // For the moment between these two calls the mode is what the umask left; whoever connects then is judged by
        // their user all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(ControlSocket { listener, file, owner: made.uid() })
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, shared: Arc<Shared>) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) if self.may_command(&stream) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        // A client that goes away in the middle harms nobody.
                        let _ = connection(stream, &shared).await;
                        drop(place);
                    });
                }
                Ok(_) => {
                    tracing::warn!(path = %self.file.path.display(), "another user was refused at the control socket")
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the control socket could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn may_command(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == ROOT)
    }
}

/// Only what is still ours: a successor may have made its own by now.
impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).as_ref().is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sees to the directory, and removes the socket of a process that is dead.
fn make_room(path: &Path) -> Result<(), ControlError> {
    let failed = |error| ControlError::Io(path.to_owned(), error);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        // It may be the state directory, through which users of apps come to their own. Who may use the socket is
        // said by its mode, and by a look at whoever connects.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(ControlError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match StdStream::connect(path) {
        Ok(_) => Err(ControlError::InUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Answers request after request until the client leaves.
async fn connection(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut request = Vec::new();
        let size = timeout(PATIENCE, (&mut read).take(LONGEST_REQUEST).read_until(b'\n', &mut request)).await??;
        if size == 0 {
            return Ok(());
        }
        let whole = request.last() == Some(&b'\n');
        let answer = match Request::parse(&request) {
            Ok(request) => obey(request.command, shared, &mut write).await?,
            Err(answer) => answer,
        };
        tell(&mut write, &answer).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn tell(write: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    timeout(PATIENCE, write.write_all(&line(answer))).await?
}

/// What takes long is told of while it goes on. A client that leaves does not end it.
async fn obey(command: Command, shared: &Shared, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
    let pending = match command {
        Command::Reload => return Ok(reload(shared).await),
        Command::Apps => return Ok(Answer::Apps { apps: shared.apps.report() }),
        Command::Release { app, directory } => shared.apps.release(&app, directory),
        Command::Rollback { app } => shared.apps.rollback(&app),
    };
    match pending {
        Ok(pending) => follow(pending, write).await,
        Err(reason) => Ok(Answer::Refused { reason }),
    }
}

async fn follow(mut pending: Pending, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
    loop {
        tokio::select! {
            biased;
            line = pending.lines.recv() => match line {
                Ok(line) => tell(write, &Answer::Progress { line: line.to_string() }).await?,
                // The newest lines matter most; without any more, only the outcome is to come.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(outcome((&mut pending.outcome).await)),
            },
            came = &mut pending.outcome => return Ok(outcome(came)),
        }
    }
}

fn outcome(came: Result<Result<String, String>, oneshot::error::RecvError>) -> Answer {
    match came {
        Ok(Ok(said)) => Answer::Done { said },
        Ok(Err(why)) => Answer::Undone { why },
        Err(_) => Answer::Refused { reason: "the app is not run any more".to_owned() },
    }
}

async fn reload(shared: &Shared) -> Answer {
    match shared.reload().await {
        Some(ReloadOutcome::Loaded { generation }) => Answer::Ok { generation },
        Some(ReloadOutcome::Failed { problems }) => Answer::Failed { problems },
        None => Answer::Refused { reason: "the gateway is about to end".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing;

    async fn ask(path: &Path, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_reload_goes_round() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o711);

        let (shared, mut requests) = testing::shared_and_requests(testing::with_token(None));
        let serving = tokio::spawn(socket.serve(shared));
        let asking = async {
            let two = b"{\"command\":\"reload\"}\n{\"command\":\"reload\"}\n";
            (ask(&path, two).await, ask(&path, b"nonsense").await, ask(&path, &[b' '; 16 * 1024]).await)
        };
        let reloading = async {
            let first = requests.recv().await.unwrap();
            first.answer.send(ReloadOutcome::Loaded { generation: 2 }).unwrap();
            let second = requests.recv().await.unwrap();
            second.answer.send(ReloadOutcome::Failed { problems: "error: x\n".to_owned() }).unwrap();
        };
        let ((reloads, nonsense, long), ()) = tokio::join!(asking, reloading);
        let expected = "{\"result\":\"ok\",\"generation\":2}\n{\"result\":\"failed\",\"problems\":\"error: x\\n\"}\n";
        assert_eq!(reloads, expected);
        assert!(nonsense.starts_with("{\"result\":\"refused\""), "{nonsense}");
        assert!(long.starts_with("{\"result\":\"refused\""), "{long}");

        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_gateway_that_drains_does_not_reload() {
        let (shared, _requests) = testing::shared_and_requests(testing::with_token(None));
        shared.lifecycle.draining();
        let refused = Answer::Refused { reason: "the gateway is about to end".to_owned() };
        assert_eq!(reload(&shared).await, refused);
    }

    #[tokio::test]
    async fn a_live_socket_is_left_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let dead = StdListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::InUse(_))));
        drop(dead);
        assert!(path.exists());
        let ours = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::InUse(_))));
        drop(ours);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is there and is no socket", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_successors_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let first = ControlSocket::bind(&path).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let _second = StdListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
