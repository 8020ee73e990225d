//! `passerelle health`: asks the running gateway whether it lives. For containers, whose images hold no other program
//! that could.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::admin::reachable;
use super::{Exit, print_error};
use crate::config;
use crate::config::settings::AdminSettings;

/// How long each step may take: a gateway that lives answers at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// No answer of `/live` is longer.
const LONGEST_ANSWER: u64 = 16 * 1024;

/// The file is read only for `address` of `[admin]`. One that has become bad under a running gateway changes nothing
/// there, so it must not make the gateway look dead: then the default address is asked.
pub(super) fn health(path: &Path) -> Exit {
    let mut address = AdminSettings::DEFAULT_ADDRESS;
    let (_, _) = config::load(path).build(|settings, _| {
        address = settings.admin.address.value;
        None::<()>
    });
    match ask(reachable(address)) {
        Ok(()) => Exit::Fine,
        Err(error) => {
            print_error(&format!("passerelle: {address} does not answer as a gateway that lives: {error}\n"));
            Exit::Failed
        }
    }
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("it answers \"{}\"", line.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// How `health` ends when the admin listener answers like this.
    fn told(answer: &'static [u8]) -> Exit {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passerelle.toml");
        std::fs::write(&path, format!("[admin]\naddress = \"{}\"\n", listener.local_addr().unwrap())).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /live HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
        });
        let exit = health(&path);
        serving.join().unwrap();
        exit
    }

    #[test]
    fn a_gateway_that_lives_says_so() {
        assert_eq!(told(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Exit::Fine);
        assert_eq!(told(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Exit::Failed);
        assert_eq!(told(b""), Exit::Failed);
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9600"), "127.0.0.1:9600");
        assert_eq!(reached("[::]:9600"), "[::1]:9600");
        assert_eq!(reached("192.0.2.1:9600"), "192.0.2.1:9600");
    }
}
