//! Connections to servers: TCP, TLS over TCP, Unix sockets.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::health::Failure;
use super::{Address, Server};
use crate::request::rejection::Cause;

/// Between attempts at a Unix socket whose backlog is full.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A connection to a server.
pub enum ServerStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// One of the `UpstreamConnect…` causes or `UpstreamTlsFailed`.
    pub cause: Cause,
    /// What it says of the server's health; `None` when the gateway itself ran short of something.
    pub failure: Option<Failure>,
    /// What the system or the TLS library said: for the log, never for the client.
    pub detail: Option<String>,
}

impl ConnectError {
    fn new(cause: Cause, detail: impl ToString) -> ConnectError {
        ConnectError { cause, failure: Failure::of(cause), detail: Some(detail.to_string()) }
    }

    fn of(error: &io::Error) -> ConnectError {
        let cause = if error.kind() == io::ErrorKind::ConnectionRefused {
            Cause::UpstreamConnectRefused
        } else {
            Cause::UpstreamConnectFailed
        };
        let failure = if is_own_shortage(error) { None } else { Failure::of(cause) };
        ConnectError { cause, failure, detail: Some(error.to_string()) }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.row().cause)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Connects to `server` within `timeout`, TLS handshake included.
///
/// # Errors
/// One of the `UpstreamConnect…` causes or `UpstreamTlsFailed`, with the reason.
pub async fn connect(server: &Server, timeout: Duration) -> Result<ServerStream, ConnectError> {
    match tokio::time::timeout(timeout, reach(server)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::new(Cause::UpstreamConnectTimeout, format_args!("not within {timeout:?}"))),
    }
}

async fn reach(server: &Server) -> Result<ServerStream, ConnectError> {
    let stream = match &server.address {
        Address::Unix(path) => {
            return reach_unix(path).await.map(ServerStream::Unix).map_err(|error| ConnectError::of(&error));
        }
        Address::Tcp(address) => TcpStream::connect(address).await.map_err(|error| ConnectError::of(&error))?,
    };
    // Failing to turn Nagle off costs speed, nothing else.
    let _ = stream.set_nodelay(true);
    match &server.tls {
        None => Ok(ServerStream::Tcp(stream)),
        Some(tls) => tokio_rustls::TlsConnector::from(Arc::clone(&tls.config))
            .connect(tls.name.clone(), stream)
            .await
            .map(|stream| ServerStream::Tls(Box::new(stream)))
            .map_err(|error| ConnectError::new(Cause::UpstreamTlsFailed, error)),
    }
}

/// Linux answers "try again" when a Unix socket's backlog is full, where a TCP connection would wait: the server is
/// busy, not gone. So it is tried again, until the caller's patience ends.
async fn reach_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// Whether the gateway ran out of descriptors, ports or memory: no fault of the server's.
fn is_own_shortage(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => true,
        // EMFILE, ENFILE and ENOBUFS have no kind of their own.
        _ => matches!(error.raw_os_error(), Some(24 | 23 | 105)),
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            ServerStream::Tls(s) => Pin::new(s).poll_read(cx, buf),
            ServerStream::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ServerStream::Tcp(s) => Pin::new(s).poll_write(cx, data),
            ServerStream::Tls(s) => Pin::new(s).poll_write(cx, data),
            ServerStream::Unix(s) => Pin::new(s).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ServerStream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, data),
            ServerStream::Tls(s) => Pin::new(s).poll_write_vectored(cx, data),
            ServerStream::Unix(s) => Pin::new(s).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Tcp(s) => Pin::new(s).poll_flush(cx),
            ServerStream::Tls(s) => Pin::new(s).poll_flush(cx),
            ServerStream::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            ServerStream::Tls(s) => Pin::new(s).poll_shutdown(cx),
            ServerStream::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
