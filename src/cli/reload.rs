//! `passerelle reload`: asks the running gateway over its control socket.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Exit, print_error, print_problems};
use crate::admin::control::protocol::{Answer, Command, Request, line};
use crate::config;

/// How long the gateway may take to build a configuration.
const PATIENCE: Duration = Duration::from_secs(60);
/// No rendered list of problems is longer.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// The file is read only for `control` of `[admin]`; whatever else may be wrong with it is for the gateway to say.
pub(super) fn reload(path: &Path) -> Exit {
    let mut control = None;
    let (_, problems) = config::load(path).build(|settings, _| {
        control = settings.admin.control;
        None::<()>
    });
    let Some(control) = control else {
        if problems.is_empty() {
            print_error(&format!(
                "passerelle: {} names no control socket: add control = \"run/control.sock\" to [admin] and restart \
                 the gateway, or send it SIGHUP\n",
                path.display()
            ));
        } else {
            print_problems(&problems);
        }
        return Exit::Wrong;
    };
    match ask(&control.value, PATIENCE) {
        Ok(Answer::Ok { generation }) => {
            // Nobody to tell: the reload has happened all the same.
            let _ = writeln!(io::stdout(), "reloaded: generation {generation} is in force");
            Exit::Fine
        }
        Ok(Answer::Failed { problems }) => {
            print_error(&format!("{problems}\npasserelle: not reloaded, the configuration before serves on\n"));
            Exit::Failed
        }
        Ok(Answer::Refused { reason }) => {
            print_error(&format!("passerelle: not reloaded: {reason}\n"));
            Exit::Failed
        }
        Err(error) => {
            print_error(&format!("passerelle: not reloaded: {error}\n"));
            Exit::Failed
        }
    }
}

/// Why the gateway's answer is not known.
#[derive(Debug)]
enum AskError {
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

fn ask(socket: &Path, patience: Duration) -> Result<Answer, AskError> {
    let mut stream =
        UnixStream::connect(socket).map_err(|error| AskError::Connect { socket: socket.to_owned(), error })?;
    let answer = exchange(&mut stream, patience).map_err(AskError::Exchange)?;
    serde_json::from_slice(&answer).map_err(AskError::Garbled)
}

fn exchange(stream: &mut UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&line(&Request::new(Command::Reload)))?;
    // One request: the gateway closes after its answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A directory with a configuration whose control socket is `control.sock` beside it.
    fn directory(more: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("[admin]\ncontrol = \"control.sock\"\n{more}\n");
        std::fs::write(directory.path().join("passerelle.toml"), text).unwrap();
        directory
    }

    /// A gateway that gives one answer.
    fn gateway(directory: &Path, answer: &'static [u8]) -> thread::JoinHandle<String> {
        let socket = UnixListener::bind(directory.join("control.sock")).unwrap();
        thread::spawn(move || {
            let (stream, _) = socket.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            (&stream).write_all(answer).unwrap();
            request
        })
    }

    #[test]
    fn answers_become_exit_codes() {
        for (answer, exit) in [
            (&b"{\"result\":\"ok\",\"generation\":3}\n"[..], Exit::Fine),
            (b"{\"result\":\"failed\",\"problems\":\"error\"}\n", Exit::Failed),
            (b"{\"result\":\"refused\",\"reason\":\"no\"}\n", Exit::Failed),
            (b"what?\n", Exit::Failed),
            (b"", Exit::Failed),
        ] {
            // That the file is wrong elsewhere is the gateway's to say.
            let directory = directory("[route.x]\nupstream = \"${env:NOT_SET_ANYWHERE}\"");
            let gateway = gateway(directory.path(), answer);
            assert_eq!(reload(&directory.path().join("passerelle.toml")), exit, "{answer:?}");
            assert_eq!(gateway.join().unwrap(), "{\"version\":1,\"command\":\"reload\"}\n");
        }
    }

    #[test]
    fn no_gateway_is_a_failure() {
        let directory = directory("");
        let error = ask(&directory.path().join("control.sock"), PATIENCE).unwrap_err();
        assert!(error.to_string().starts_with("no gateway listens on "), "{error}");
        assert_eq!(reload(&directory.path().join("passerelle.toml")), Exit::Failed);
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_not_waited_for() {
        let directory = directory("");
        let socket = directory.path().join("control.sock");
        let _listening = UnixListener::bind(&socket).unwrap();
        let error = ask(&socket, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, AskError::Exchange(_)), "{error}");
    }

    #[test]
    fn a_file_without_control_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passerelle.toml");
        assert_eq!(reload(&path), Exit::Wrong);
        std::fs::write(&path, "[admin]\naddress = \"127.0.0.1:9600\"\n").unwrap();
        assert_eq!(reload(&path), Exit::Wrong);
        std::fs::write(&path, "[admin\n").unwrap();
        assert_eq!(reload(&path), Exit::Wrong);
    }
}
