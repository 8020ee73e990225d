//! Connections to servers: TCP, TLS over TCP, Unix sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::{Address, Server};
use crate::request::rejection::Cause;

/// A connection to a server.
pub enum ServerStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Connects to `server` within `timeout`, TLS handshake included.
///
/// # Errors
/// One of the `UpstreamConnect…` causes or `UpstreamTlsFailed`.
pub async fn connect(server: &Server, timeout: Duration) -> Result<ServerStream, Cause> {
    match tokio::time::timeout(timeout, reach(server)).await {
        Ok(result) => result,
        Err(_) => Err(Cause::UpstreamConnectTimeout),
    }
}

async fn reach(server: &Server) -> Result<ServerStream, Cause> {
    let stream = match &server.address {
        Address::Unix(path) => {
            return UnixStream::connect(path).await.map(ServerStream::Unix).map_err(|e| cause_of(&e));
        }
        Address::Tcp(address) => TcpStream::connect(address).await.map_err(|e| cause_of(&e))?,
    };
    // Failing to turn Nagle off costs speed, nothing else.
    let _ = stream.set_nodelay(true);
    match &server.tls {
        None => Ok(ServerStream::Tcp(stream)),
        Some(tls) => tokio_rustls::TlsConnector::from(tls.config.clone())
            .connect(tls.name.clone(), stream)
            .await
            .map(|stream| ServerStream::Tls(Box::new(stream)))
            .map_err(|_| Cause::UpstreamTlsFailed),
    }
}

fn cause_of(error: &io::Error) -> Cause {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Cause::UpstreamConnectRefused
    } else {
        Cause::UpstreamConnectFailed
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
