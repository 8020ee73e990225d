//! A connection to whoever is asked: every address of the name is tried, the certificate is judged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::FetchError;
use crate::config::problem::Problem;
use crate::config::settings::{At, FetchUrl, Host};
use crate::config::source::Span;
use crate::upstream::tls::{self, SystemRoots};

/// After which another address is tried beside the first (RFC 8305 section 8 calls it the connection attempt delay).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How many addresses of a name are tried at most.
const MAX_ADDRESSES: usize = 16;

/// Whom to trust.
pub(super) struct Roots {
    store: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Roots) -> bool {
        self.store.roots == other.store.roots
    }
}

impl Roots {
    pub(super) fn read(
        ca: Option<&At<PathBuf>>,
        span: &Span,
        system: &SystemRoots,
        problems: &mut Vec<Problem>,
    ) -> Option<Roots> {
        let (store, config) = tls::trusting(ca, span, system, problems)?;
        Some(Roots { store, config })
    }
}

/// TCP, or TLS over it.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bounded by the caller's patience alone.
pub(super) async fn connect(url: &FetchUrl, roots: Option<&Roots>) -> Result<Stream, FetchError> {
    let addresses = look_up(url).await?;
    if !url.https {
        return reach(addresses).await.map(Stream::Tcp);
    }
    let Some(roots) = roots else {
        return Err(FetchError::Tls("no authority is known to judge its certificate".to_owned()));
    };
    let name = match &url.authority.host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| FetchError::Tls("no certificate has such a name".to_owned()))?,
    };
    let stream = reach(addresses).await?;
    let stream = TlsConnector::from(Arc::clone(&roots.config)).connect(name, stream).await;
    stream.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| FetchError::Tls(failure(&error)))
}

/// In the library's words, except that the name that was asked for may come from a secret.
fn failure(error: &io::Error) -> String {
    let error_of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
    )) = error_of_tls
    {
        return "its certificate is for another name".to_owned();
    }
    error.to_string()
}

async fn look_up(url: &FetchUrl) -> Result<Vec<SocketAddr>, FetchError> {
    let port = url.authority.port;
    let mut addresses: Vec<SocketAddr> = match &url.authority.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => tokio::net::lookup_host((name.as_str(), port))
            .await
            .map_err(|error| FetchError::Lookup(error.to_string()))?
            .collect(),
    };
    if !url.https {
        // Whatever the resolver says of "localhost": in the clear nothing leaves this machine.
        addresses.retain(|address| address.ip().is_loopback() || is_mapped_loopback(address.ip()));
    }
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Err(FetchError::Lookup("there is none that may be used".to_owned()));
    }
    Ok(addresses)
}

fn is_mapped_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The first address that answers. The next one is tried when the last failed, or keeps silent.
async fn reach(addresses: Vec<SocketAddr>) -> Result<TcpStream, FetchError> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = None;
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = if addresses.len() > 0 {
            match tokio::time::timeout(NEXT_ADDRESS, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match ended {
            Some(Ok(Ok(stream))) => {
                // Failing to turn Nagle off costs speed, nothing else.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Ok(Err(error))) => failure = Some(error.to_string()),
            Some(Err(error)) => failure = Some(error.to_string()),
            None => return Err(FetchError::Connect(failure.unwrap_or_else(|| "there is no address".to_owned()))),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
