//! A server on bare TCP that does to a connection whatever the test says: for faults, and to see the exact bytes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// Serves every connection on a thread of its own until it is dropped.
pub struct Fake {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicUsize,
    /// All that arrived so far, one entry a request.
    requests: Mutex<Vec<Request>>,
    /// By the number that they came with.
    open: Mutex<HashMap<usize, TcpStream>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// With the blank line.
    pub head: String,
    /// Unframed.
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Request {
    /// The request line's target.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers_named(name);
        assert!(values.len() <= 1, "{name} comes {} times:\n{}", values.len(), self.head);
        values.first().copied()
    }
}

/// One connection of a fake server.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl Fake {
    /// `serve` has each connection to itself; the connection closes when it returns.
    pub fn start(serve: impl Fn(Connection) + Send + Sync + 'static) -> Fake {
        Fake::start_at(0, serve)
    }

    /// The same on a given port.
    pub fn start_at(port: u16, serve: impl Fn(Connection) + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shared.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                    shared.open.lock().unwrap().insert(number, stream.try_clone().unwrap());
                    let (serve, shared) = (Arc::clone(&serve), Arc::clone(&shared));
                    std::thread::spawn(move || {
                        let closing = stream.try_clone().unwrap();
                        serve(Connection { stream, buffer: Vec::new(), shared: Arc::clone(&shared) });
                        shared.open.lock().unwrap().remove(&number);
                        // What lingers for no time is reset when its last handle goes, which is this one.
                        if SockRef::from(&closing).linger().unwrap_or_default() != Some(Duration::ZERO) {
                            let _ = closing.shutdown(Shutdown::Both);
                        }
                    });
                }
            }
        });
        Fake { port, shared, accepting: Some(accepting) }
    }

    /// Answers every request on every connection with these bytes.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Fake {
        let answer = answer.into();
        Fake::start(move |mut connection| {
            while connection.read_request().is_some() {
                connection.send(&answer);
            }
        })
    }

    /// Answers every request with 200 and a small body.
    pub fn ok() -> Fake {
        Fake::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    }

    /// Answers every request with its own head, as it came.
    pub fn echo() -> Fake {
        Fake::start(|mut connection| {
            while let Some(request) = connection.read_request() {
                let length = request.head.len();
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", request.head));
            }
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request was expected: {requests:?}");
        requests.remove(0)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Connection {
    /// Reads one request whole and remembers it; `None` when the gateway closes instead.
    pub fn read_request(&mut self) -> Option<Request> {
        let request = self.read_and_forget()?;
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// The same without remembering it.
    pub fn read_and_forget(&mut self) -> Option<Request> {
        let head = self.read_head()?;
        let mut request = Request { head, body: Vec::new(), trailers: String::new() };
        if request.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.read_line()?;
                let size = usize::from_str_radix(&line, 16).expect("a bare chunk size");
                if size == 0 {
                    break;
                }
                let chunk = self.read_exactly(size)?;
                request.body.extend_from_slice(&chunk);
                assert_eq!(self.read_line()?, "");
            }
            loop {
                let line = self.read_line()?;
                if line.is_empty() {
                    break;
                }
                request.trailers.push_str(&line);
                request.trailers.push('\n');
            }
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().unwrap();
            request.body = self.read_exactly(length)?;
        }
        Some(request)
    }

    /// Reads a head only; the body, if any, stays unread.
    pub fn read_head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let line = self.read_line()?;
            head.push_str(&line);
            head.push_str("\r\n");
            if line.is_empty() {
                return Some(head);
            }
        }
    }

    fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill()?;
        }
    }

    pub fn read_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Option<()> {
        let mut piece = [0; 16384];
        match self.stream.read(&mut piece) {
            Ok(read) if read > 0 => {
                self.buffer.extend_from_slice(&piece[..read]);
                Some(())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Sends bytes; a gateway that has gone is no concern here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Holds the connection open, reading and forgetting, until the gateway closes it.
    pub fn hold(&mut self) {
        while self.fill().is_some() {
            self.buffer.clear();
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
