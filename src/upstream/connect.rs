//! Connections to servers: TCP, TLS over TCP, Unix sockets.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::health::Failure;
use super::{Address, Server};
use crate::body::Pipe;
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

impl ServerStream {
    /// Whether what comes is what the server sent, byte for byte.
    pub fn is_plain(&self) -> bool {
        match self {
            ServerStream::Tcp(_) | ServerStream::Unix(_) => true,
            ServerStream::Tls(_) => false,
        }
    }

    /// Moves at most so many bytes into `pipe`; how many. Nought is the end of the stream.
    ///
    /// # Errors
    /// Those of the socket; `Unsupported` where it is not plain.
    pub fn poll_move(&self, cx: &mut Context<'_>, pipe: &mut Pipe, most: u64) -> Poll<io::Result<usize>> {
        loop {
            let moved = match self {
                ServerStream::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || pipe.take(stream, most))
                }
                ServerStream::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || pipe.take(stream, most))
                }
                ServerStream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match moved {
                // It looked ready: the runtime knows better now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    /// Whether nothing has come that nobody asked for, neither bytes nor the end, as far as the runtime knows.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let would_block = |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        match self {
            ServerStream::Tcp(stream) => would_block(stream.try_read(&mut byte)),
            ServerStream::Unix(stream) => would_block(stream.try_read(&mut byte)),
            ServerStream::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// One of the `UpstreamConnect…` causes or `UpstreamTlsFailed`; `UpstreamInvalidResponse` where the server does not
    /// speak what it should.
    pub cause: Cause,
    /// What it says of the server's health; `None` when the gateway itself ran short of something.
    pub failure: Option<Failure>,
    /// What the system or the TLS library said: for the log, never for the client.
    pub detail: Option<String>,
    /// There is nobody who listens.
    pub nobody: bool,
}

impl ConnectError {
    pub(super) fn new(cause: Cause, detail: Option<String>) -> ConnectError {
        ConnectError { cause, failure: Failure::of(cause), detail, nobody: false }
    }

    fn of(error: &io::Error) -> ConnectError {
        let cause = if error.kind() == io::ErrorKind::ConnectionRefused {
            Cause::UpstreamConnectRefused
        } else {
            Cause::UpstreamConnectFailed
        };
        let failure = if is_own_shortage(error) { None } else { Failure::of(cause) };
        let nobody = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        ConnectError { cause, failure, detail: Some(error.to_string()), nobody }
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
    let connected = AtomicBool::new(false);
    match tokio::time::timeout(timeout, reach(server, &connected)).await {
        Ok(result) => result,
        Err(_) => {
            let begun = connected.load(Ordering::Relaxed);
            let what = if begun { "the TLS handshake did not end" } else { "no connection came about" };
            let detail = format!("{what} within {timeout:?}");
            Err(ConnectError::new(Cause::UpstreamConnectTimeout, Some(detail)))
        }
    }
}

/// `connected`: told when only TLS is left.
async fn reach(server: &Server, connected: &AtomicBool) -> Result<ServerStream, ConnectError> {
    let stream = match &server.address {
        Address::Unix(path) => {
            let reached = reach_unix(path).await.and_then(|stream| checked(stream, server.owner));
            return reached.map(ServerStream::Unix).map_err(|error| ConnectError::of(&error));
        }
        Address::Tcp(address) => TcpStream::connect(address).await.map_err(|error| ConnectError::of(&error))?,
    };
    // Failing to turn Nagle off costs speed, nothing else.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &server.tls else { return Ok(ServerStream::Tcp(stream)) };
    connected.store(true, Ordering::Relaxed);
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
    let stream = connector.connect(tls.name.clone(), stream).await.map_err(|error| {
        // The reason may quote the name that the certificate should be for.
        ConnectError::new(Cause::UpstreamTlsFailed, (!tls.secret).then(|| error.to_string()))
    })?;
    if !tls.is_agreed(stream.get_ref().1, server.protocol) {
        let detail = "the server does not offer HTTP/2 (h2 by ALPN)";
        return Err(ConnectError::new(Cause::UpstreamTlsFailed, Some(detail.to_owned())));
    }
    Ok(ServerStream::Tls(Box::new(stream)))
}

impl ServerStream {
    /// Whether a failed read means nothing but that the server has closed. Who closes a socket without having read all
    /// that came resets the connection: over TCP that takes away what was on its way, so that an answer may be cut; a
    /// Unix socket says so only after all that was written.
    pub(super) fn is_end(&self, error: &io::Error) -> bool {
        matches!(self, ServerStream::Unix(_)) && error.kind() == io::ErrorKind::ConnectionReset
    }
}

/// Whether the server ended TLS: what it makes of the gateway's certificate it says after the handshake.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<rustls::Error>())
}

/// Whether it is `owner` who listens. A worker of an app can put a link to somebody else's socket where its own should be,
/// and a gateway that is root gets in everywhere.
fn checked(stream: UnixStream, owner: Option<u32>) -> io::Result<UnixStream> {
    match owner {
        Some(owner) if stream.peer_cred()?.uid() != owner => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket is another user's than the app's"))
        }
        Some(_) | None => Ok(stream),
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
    // The first three have no kind of their own.
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::ADDRNOTAVAIL | Errno::NOMEM)
    )
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

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::net::TcpListener;

    use super::super::Upstream;
    use super::super::testing::{Backend, Behaviour, Certificates, build, settings};
    use super::*;
    use crate::config::settings::Balance;

    const LONG: Duration = Duration::from_secs(10);

    fn upstream(url: &str) -> Upstream {
        build(&settings(&[(url, 1)], Balance::LeastRequests), None)
    }

    async fn reached(upstream: &Upstream, timeout: Duration) -> Result<ServerStream, ConnectError> {
        connect(&upstream.servers()[0], timeout).await
    }

    fn error(result: Result<ServerStream, ConnectError>) -> ConnectError {
        result.err().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_listens_is_reached() {
        let backend = Backend::start(Behaviour::Hang).await;
        let stream = reached(&upstream(&backend.url()), LONG).await.unwrap();
        let ServerStream::Tcp(stream) = stream else { panic!("not plain TCP") };
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = error(reached(&upstream(&format!("http://127.0.0.1:{port}")), LONG).await);
        assert_eq!((error.cause, error.failure), (Cause::UpstreamConnectRefused, Some(Failure::Connect)));
        assert!(error.to_string().starts_with("upstream_connect_refused: "), "{error}");
    }

    #[tokio::test]
    async fn a_unix_socket_that_is_missing_or_closed_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let upstream = upstream(&format!("http+unix:{}", path.display()));
        assert_eq!(error(reached(&upstream, LONG).await).cause, Cause::UpstreamConnectFailed);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(error(reached(&upstream, LONG).await).cause, Cause::UpstreamConnectRefused);
    }

    #[tokio::test]
    async fn a_full_backlog_of_a_unix_socket_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let upstream = upstream(&format!("http+unix:{}", path.display()));
        let first = reached(&upstream, LONG).await.unwrap();
        let error = error(reached(&upstream, Duration::from_millis(30)).await);
        assert_eq!((error.cause, error.failure), (Cause::UpstreamConnectTimeout, Some(Failure::Timeout)));
        let (second, ()) = tokio::join!(reached(&upstream, LONG), async {
            tokio::task::yield_now().await;
            listener.accept().unwrap();
        });
        second.unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn tls_is_verified_against_the_own_ca_and_the_name() {
        let files = Certificates::new();
        let server = files.serve().await;
        let mut settings = settings(&[(&format!("https://127.0.0.1:{}", server.port), 1)], Balance::LeastRequests);
        settings.tls = files.settings("orders.test");
        let stream = reached(&build(&settings, None), LONG).await.unwrap();
        let ServerStream::Tls(stream) = stream else { panic!("not TLS") };
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

        settings.tls = files.settings("somebody.else");
        let error = error(reached(&build(&settings, None), LONG).await);
        assert_eq!((error.cause, error.failure), (Cause::UpstreamTlsFailed, Some(Failure::Connect)));
        assert!(error.detail.unwrap().contains("certificate"));
    }

    #[tokio::test]
    async fn sessions_are_resumed_across_snapshots() {
        let files = Certificates::new();
        let server = files.serve().await;
        let mut settings = settings(&[(&format!("https://127.0.0.1:{}", server.port), 1)], Balance::LeastRequests);
        settings.tls = files.settings("orders.test");
        let before = build(&settings, None);
        for resumed in [false, true] {
            // The weight changes, the files do not.
            settings.servers[0].value.weight = settings.servers[0].value.weight.saturating_add(1);
            let after = build(&settings, Some(&before));
            assert_eq!(after.servers()[0].id, before.servers()[0].id);
            let ServerStream::Tls(mut stream) = reached(&after, LONG).await.unwrap() else { panic!("not TLS") };
            // The server's tickets come with its first bytes.
            tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_handshake_that_goes_nowhere_times_out() {
        let backend = Backend::start(Behaviour::Hang).await;
        let files = Certificates::new();
        let mut settings = settings(&[(&format!("https://127.0.0.1:{}", backend.port), 1)], Balance::LeastRequests);
        settings.tls = files.settings("orders.test");
        let error = error(reached(&build(&settings, None), Duration::from_millis(50)).await);
        assert_eq!(error.cause, Cause::UpstreamConnectTimeout);
        assert_eq!(error.detail.as_deref(), Some("the TLS handshake did not end within 50ms"));
    }

    #[test]
    fn what_the_gateway_lacks_is_no_fault_of_the_servers() {
        for errno in [23, 24, 99, 105, 12] {
            let error = ConnectError::of(&io::Error::from_raw_os_error(errno));
            assert_eq!((error.cause, error.failure), (Cause::UpstreamConnectFailed, None), "{errno}");
        }
        assert_eq!(ConnectError::of(&io::Error::from_raw_os_error(113)).failure, Some(Failure::Connect));
    }
}
