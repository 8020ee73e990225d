//! Asking the running gateway over its control socket, as the commands do that change something.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{print_error, print_problems};
use crate::admin::control::protocol::{Answer, Command, Request, line};
use crate::config::{self, CONTROL_SOCKET, Outside};

/// How long the gateway may take to build a configuration.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// No rendered list of problems is longer, and no installer says more.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Why the gateway's answer is not known.
#[derive(Debug)]
pub(super) enum AskError {
    Connect {
        socket: PathBuf,
        error: io::Error,
    },
    Exchange(io::Error),
    /// What came is no answer.
    Garbled(serde_json::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Connect { socket, error } => {
                let (socket, kind) = (socket.display(), error.kind());
                if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                    write!(f, "no gateway listens on {socket}: it does not run, or was started without this `control`")
                } else if kind == ErrorKind::PermissionDenied {
                    write!(f, "only the gateway's own user and root may use {socket}")
                } else {
                    write!(f, "{socket} cannot be connected to: {error}")
                }
            }
            AskError::Exchange(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                write!(f, "the gateway did not answer within {} seconds", PATIENCE.as_secs())
            }
            AskError::Exchange(error) => write!(f, "the gateway closed the control socket without an answer: {error}"),
            AskError::Garbled(error) => write!(f, "the gateway's answer is not understood: {error}"),
        }
    }
}

/// The control socket of the configuration at `path`. The file is read only for that; whatever else may be wrong with it
/// is for the gateway to say. `None`: it names none, which has been told.
pub(super) fn socket_of(path: &Path) -> Option<PathBuf> {
    if let Some(socket) = socket_of_serve(path) {
        return Some(socket);
    }
    let mut control = None;
    let (_, problems) = config::load(path).build(|settings, _| {
        control = settings.admin.control;
        None::<()>
    });
    if control.is_none() && problems.is_empty() {
        print_error(&format!(
            "passerelle: {} names no control socket: add control = \"run/control.sock\" to [admin] and restart the \
             gateway, or send it SIGHUP\n",
            path.display()
        ));
    } else if control.is_none() {
        print_problems(&problems);
    }
    control.map(|control| control.value)
}

/// Where there is no file, `passerelle serve` may serve what one would be written for.
pub(super) fn socket_of_serve(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok().filter(|path| !path.exists())?;
    let (directory, name) = (path.parent()?.canonicalize().ok()?, path.file_name()?.to_str()?);
    let state = config::state_directory(&directory, name, &Outside::new(&|name| std::env::var_os(name)));
    Some(state.join(CONTROL_SOCKET)).filter(|socket| socket.exists())
}

/// Asks the gateway, and tells each line of progress. `patience`: from one word of the gateway to the next.
///
/// # Errors
/// Its answer is not known.
pub(super) fn ask(
    socket: &Path,
    command: Command,
    patience: Option<Duration>,
    mut progress: impl FnMut(&str),
) -> Result<Answer, AskError> {
    let mut stream =
        UnixStream::connect(socket).map_err(|error| AskError::Connect { socket: socket.to_owned(), error })?;
    ask_of(&mut stream, command, patience).map_err(AskError::Exchange)?;
    let mut answers = BufReader::new(stream.take(LONGEST_ANSWER));
    loop {
        let mut answer = String::new();
        if answers.read_line(&mut answer).map_err(AskError::Exchange)? == 0 {
            return Err(AskError::Exchange(ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(AskError::Garbled)? {
            Answer::Progress { line } => progress(&line),
            answer @ (Answer::Ok { .. }
            | Answer::Failed { .. }
            | Answer::Refused { .. }
            | Answer::Done { .. }
            | Answer::Undone { .. }
            | Answer::Apps { .. }) => return Ok(answer),
        }
    }
}

fn ask_of(stream: &mut UnixStream, command: Command, patience: Option<Duration>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(patience)?;
    stream.write_all(&line(&Request::new(command)))?;
    // One request: the gateway closes after its answer.
    stream.shutdown(std::net::Shutdown::Write)
}
