//! An HTTP/1.1 client that hides nothing: bytes out, a strictly read answer back.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::PATIENCE;

/// One connection.
pub struct Client<S> {
    pub stream: S,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

/// An answer, as it came.
#[derive(Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The 1xx answers before it.
    pub interim: Vec<Response>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        write!(f, "{} {:?} {body:?} ({} bytes)", self.status, self.headers, self.body.len())
    }
}

impl Response {
    /// The only value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers_named(name);
        assert!(values.len() <= 1, "{name} comes {} times: {self:?}", values.len());
        values.first().copied()
    }

    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `cause` of a problem+json answer of the gateway.
    pub fn cause(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["cause"].as_str().expect("a problem has a cause").to_owned()
    }
}

impl Client<TcpStream> {
    pub fn connect(port: u16) -> Client<TcpStream> {
        Client::over(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// As `connect`, from another address of loopback.
    pub fn connect_from(address: &str, port: u16) -> Client<TcpStream> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from: std::net::IpAddr = address.parse().unwrap();
        socket.bind(&std::net::SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        Client::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> Client<TcpStream> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// No more will be sent; answers may still come.
    pub fn end(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Another hand on the same connection, for writing while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
        self
    }

    /// As `send`, to a peer that may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        self.send(head(method, target, headers));
        self.answer_to(method)
    }

    /// Sends a request with a body of known length.
    pub fn ask_with(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let length = body.len().to_string();
        let mut with_length = vec![("Content-Length", length.as_str())];
        with_length.extend_from_slice(headers);
        // In one go, since some servers answer the head alone and close.
        self.send([head(method, target, &with_length).as_bytes(), body].concat());
        self.answer_to(method)
    }

    /// Reads the answer to a request of this method.
    pub fn answer_to(&mut self, method: &str) -> Response {
        self.try_answer_to(method).unwrap_or_else(|error| panic!("no answer to {method}: {error}"))
    }

    pub fn answer(&mut self) -> Response {
        self.answer_to("GET")
    }

    /// # Errors
    /// The connection's own, `UnexpectedEof` when it closes before the answer is complete, and `InvalidData` for an
    /// answer that is not HTTP.
    pub fn try_answer_to(&mut self, method: &str) -> std::io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response);
                continue;
            }
            response.interim = std::mem::take(&mut interim);
            let bodiless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
            if !bodiless {
                self.read_body(&mut response)?;
            }
            return Ok(response);
        }
    }

    /// Reads a head, and leaves what follows unread.
    pub fn read_head(&mut self) -> std::io::Result<Response> {
        let line = self.read_line()?;
        let (version, rest) = line.split_once(' ').ok_or_else(|| invalid(&line))?;
        if version != "HTTP/1.1" {
            return Err(invalid(&line));
        }
        let status = rest.get(..3).and_then(|code| code.parse().ok()).ok_or_else(|| invalid(&line))?;
        Ok(Response { status, headers: self.read_fields()?, ..Response::default() })
    }

    fn read_body(&mut self, response: &mut Response) -> std::io::Result<()> {
        let chunked = response.header("transfer-encoding").map(str::to_owned);
        let length = response.header("content-length").map(str::to_owned);
        response.body = match (chunked.as_deref(), length) {
            (Some("chunked"), None) => {
                let mut body = Vec::new();
                while let Some(chunk) = self.read_chunk()? {
                    body.extend_from_slice(&chunk);
                }
                response.trailers = self.read_fields()?;
                body
            }
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| invalid(&length))?;
                self.read_exactly(length)?
            }
            (None, None) => self.read_to_end()?,
            (Some(coding), _) => return Err(invalid(coding)),
        };
        Ok(())
    }

    /// The next chunk of a chunked body; `None` for the last, after which the trailers come.
    pub fn read_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| invalid(&line))?;
        if size == 0 {
            return Ok(None);
        }
        let chunk = self.read_exactly(size)?;
        let end = self.read_line()?;
        if end.is_empty() { Ok(Some(chunk)) } else { Err(invalid(&end)) }
    }

    fn read_fields(&mut self) -> std::io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| invalid(&line))?;
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    fn read_line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads `length` bytes.
    pub fn read_exactly(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.buffer)),
                Err(error) => return Err(error),
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut piece = [0; 65536];
        let read = self.stream.read(&mut piece)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(())
    }

    /// Waits for the other side to close, and fails if anything else comes first.
    #[track_caller]
    pub fn expect_close(&mut self) {
        if let Err(error) = self.try_close() {
            panic!("{error}");
        }
    }

    /// # Errors
    /// What came instead of a close.
    pub fn try_close(&mut self) -> Result<(), String> {
        match self.read_to_end() {
            Ok(rest) if rest.is_empty() => Ok(()),
            Ok(rest) => Err(format!("bytes before the close: {:?}", String::from_utf8_lossy(&rest))),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(format!("the connection is not closed: {error}")),
        }
    }
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, format!("not HTTP/1.1: {what:?}"))
}

/// A request head; `Host` is added unless it is among the headers.
pub fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// GET over a connection of its own.
pub fn get(port: u16, target: &str) -> Response {
    Client::connect(port).ask("GET", target, &[])
}

/// # Errors
/// Whatever keeps the answer from coming.
pub fn try_get(port: u16, target: &str) -> std::io::Result<Response> {
    let mut client = Client::over(TcpStream::connect(("127.0.0.1", port))?);
    client.try_send(head("GET", target, &[]))?;
    client.try_answer_to("GET")
}
