//! Asking the admin listener of the running gateway, as the commands do that need an answer of it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};

use crate::http1::head::{HeadScan, Kind, Limits, take_response};

/// Of an answer's head.
const HEAD: Limits = Limits { bytes: 16 * 1024, target: 0, fields: 64 };

/// An answer of the admin listener.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) path: &'a str,
    /// JSON.
    pub(super) body: &'a [u8],
    pub(super) token: Option<&'a SecretString>,
    /// For each step: connecting, each write and each read.
    pub(super) patience: Duration,
    /// Bytes of the answer.
    pub(super) most: u64,
}

/// Where a listener on every address can be reached from this machine.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Posts a question.
///
/// # Errors
/// Nobody answers, or not in HTTP.
pub(super) fn post(address: SocketAddr, question: &Question<'_>) -> io::Result<Answer> {
    let Question { path, body, token, patience, most } = question;
    let mut stream = TcpStream::connect_timeout(&address, *patience)?;
    stream.set_read_timeout(Some(*patience))?;
    stream.set_write_timeout(Some(*patience))?;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    if let Some(token) = token {
        request.extend(["Authorization: Bearer ", token.expose_secret(), "\r\n"]);
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(*most).read_to_end(&mut answer)?;
    let mut answer = BytesMut::from(answer.as_slice());
    let no_http = || io::Error::other("what it answers is no HTTP");
    let length = HeadScan::default().advance(&answer, &HEAD, Kind::Response).map_err(|_| no_http())?;
    let head = take_response(&mut answer, length.ok_or_else(no_http)?, &HEAD).map_err(|_| no_http())?;
    Ok(Answer { status: head.status, body: answer.to_vec() })
}
