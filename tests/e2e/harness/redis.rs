//! A Redis of the test's own, which keeps nothing on disk.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::Process;
use super::{eventually, free_port};

/// A running server; it ends when this is dropped.
pub struct Redis {
    process: Option<Process>,
    port: u16,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With further settings, as the command line has them: `["--requirepass", "secret"]`.
    pub fn start_with(arguments: &[&str]) -> Redis {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Redis { process: None, port: free_port(), arguments, directory: tempfile::tempdir().unwrap() };
        redis.launch(false);
        redis
    }

    /// The only node of a cluster.
    pub fn start_cluster() -> Redis {
        let redis = Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()]);
        redis.command("CLUSTER ADDSLOTSRANGE 0 16383");
        eventually("the cluster is whole", || redis.command("CLUSTER INFO").contains("cluster_state:ok").then_some(()));
        redis
    }

    /// Its port speaks TLS with the certificate in these files; no client certificate is asked for.
    pub fn start_with_tls(chain: &Path, key: &Path) -> Redis {
        let arguments = ["--tls-cert-file", chain.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()];
        let more = ["--tls-auth-clients", "no", "--tls-ca-cert-file", chain.to_str().unwrap()];
        let arguments = arguments.iter().chain(&more).map(|argument| (*argument).to_owned()).collect();
        let mut redis = Redis { process: None, port: free_port(), arguments, directory: tempfile::tempdir().unwrap() };
        redis.launch(true);
        redis
    }

    fn launch(&mut self, tls: bool) {
        let port = self.port.to_string();
        let mut process = Process::start("redis-server", |command: &mut Command| {
            let ports = if tls { ["--port", "0", "--tls-port", &port] } else { ["--port", &port, "--tls-port", "0"] };
            command.args(ports).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--daemonize", "no", "--dir", self.directory.path().to_str().unwrap()]).args(&self.arguments);
        });
        eventually("Redis is ready", || {
            assert!(process.has_ended().is_none(), "Redis did not start:\n{}", process.output().text());
            process.output().text().contains("Ready to accept connections").then_some(())
        });
        self.process = Some(process);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it, as a machine that goes away does.
    pub fn kill(&mut self) {
        self.process = None;
        eventually("nobody listens there", || TcpStream::connect(("127.0.0.1", self.port)).err().map(drop));
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.kill();
        self.launch(false);
    }

    /// A port behind which it is further away: whatever goes there or comes back takes so long.
    pub fn far_away(&self, delay: Duration) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), self.port);
        // The threads end with the connections, and with the test.
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), delay);
                carry(far, near, delay);
            }
        });
        port
    }

    /// SIGSTOP: it goes on listening and answers nothing.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Sends a command in its inline form, such as `KEYS *`, and reads to the end of the answer.
    pub fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.trim_end().trim_end_matches("+OK").trim_end().to_owned()
    }
}

/// Carries what comes from one side to the other, each piece so long after it came.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut space = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut space) {
            if sender.send((Instant::now() + delay, space[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
