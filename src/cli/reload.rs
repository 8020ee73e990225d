//! `passerelle reload`: asks the running gateway over its control socket.

use std::io::{self, Write};
use std::path::Path;

use super::control::{PATIENCE, ask, socket_of};
use super::{Exit, print_error};
use crate::admin::control::protocol::{Answer, Command};

pub(super) fn reload(path: &Path) -> Exit {
    let Some(socket) = socket_of(path) else { return Exit::Wrong };
    let why = match ask(&socket, Command::Reload, Some(PATIENCE), |_| {}) {
        Ok(Answer::Ok { generation }) => {
            // Nobody to tell: the reload has happened all the same.
            let _ = writeln!(io::stdout(), "reloaded: generation {generation} is in force");
            return Exit::Fine;
        }
        Ok(Answer::Failed { problems }) => {
            print_error(&format!("{problems}\npasserelle: not reloaded, the configuration before serves on\n"));
            return Exit::Failed;
        }
        Ok(Answer::Refused { reason }) => reason,
        Ok(Answer::Progress { .. } | Answer::Done { .. } | Answer::Undone { .. } | Answer::Apps { .. }) => {
            "its answer is one to something else".to_owned()
        }
        Err(error) => error.to_string(),
    };
    print_error(&format!("passerelle: not reloaded: {why}\n"));
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;
    use std::time::Duration;

    use super::super::control::AskError;
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
        let error = ask(&directory.path().join("control.sock"), Command::Reload, Some(PATIENCE), |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("no gateway listens on "), "{error}");
        assert_eq!(reload(&directory.path().join("passerelle.toml")), Exit::Failed);
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_not_waited_for() {
        let directory = directory("");
        let socket = directory.path().join("control.sock");
        let _listening = UnixListener::bind(&socket).unwrap();
        let error = ask(&socket, Command::Reload, Some(Duration::from_millis(20)), |_| {}).unwrap_err();
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
