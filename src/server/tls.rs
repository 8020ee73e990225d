//! TLS towards clients: what is compiled with the snapshot, and the handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::{ByName, Certificate};
use crate::config::problem::Problem;
use crate::config::settings::{ListenerTlsSettings, TlsVersion};
use crate::observe::metrics::HandshakeFailure;

/// The names of the protocols in ALPN.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A handshake takes this at most, whatever `header_timeout` allows a head.
const HANDSHAKE_AT_MOST: Duration = Duration::from_secs(10);

/// The first byte of a TLS record that carries a handshake, RFC 8446 section 5.1.
const HANDSHAKE_RECORD: u8 = 22;

/// The keys that session tickets are made with: one set for all threads and listeners, kept from snapshot to snapshot,
/// so that a client may resume wherever its next connection arrives.
#[derive(Clone, Debug)]
pub struct Tickets(Option<Arc<dyn ProducesTickets>>);

impl Tickets {
    /// Without randomness there are no tickets, and every handshake is a full one.
    pub fn new() -> Tickets {
        Tickets(aws_lc_rs::Ticketer::new().ok())
    }
}

impl Default for Tickets {
    fn default() -> Tickets {
        Tickets::new()
    }
}

/// Compiles `[listener.NAME.tls]`. `None`: errors were added to `problems`.
pub(super) fn compile(
    settings: &ListenerTlsSettings,
    tickets: &Tickets,
    problems: &mut Vec<Problem>,
) -> Option<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let loaded = settings.certificates.iter().map(|files| Certificate::load(files, &provider, problems));
    // All are looked at before any is missed, for all problems to be told.
    let certificates: Vec<_> = loaded.collect();
    let certificates: Vec<_> = certificates.into_iter().collect::<Option<_>>()?;
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = match ServerConfig::builder_with_provider(provider).with_protocol_versions(versions) {
        Ok(builder) => builder,
        Err(error) => {
            let span = &settings.certificates.first()?.span;
            problems.push(Problem::error(span, format!("TLS cannot be set up: {error}")));
            return None;
        }
    };
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(ByName::new(certificates)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Tickets hold all there is to resume: nothing is stored here, nothing is locked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(ticketer) = &tickets.0 {
        config.ticketer = Arc::clone(ticketer);
    }
    config.send_tls13_tickets = 1;
    Some(Arc::new(config))
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Timeout,
    /// The client closed before it said anything.
    Closed,
    /// What came looks like plain HTTP, still unread.
    PlainHttp(TcpStream),
    Tls(io::Error),
}

impl Failure {
    pub(super) fn label(&self) -> HandshakeFailure {
        match self {
            Failure::Timeout => HandshakeFailure::Timeout,
            Failure::Closed => HandshakeFailure::Closed,
            Failure::PlainHttp(_) | Failure::Tls(_) => HandshakeFailure::Tls,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Timeout => f.write_str("the handshake took too long"),
            Failure::Closed => f.write_str("the client closed the connection"),
            Failure::PlainHttp(_) => f.write_str("the client spoke plain HTTP"),
            Failure::Tls(error) => error.fmt(f),
        }
    }
}

/// Makes a TLS stream of `stream`, within `header_timeout` or ten seconds.
pub(super) async fn handshake(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
    header_timeout: Duration,
) -> Result<Box<TlsStream<TcpStream>>, Failure> {
    match timeout(header_timeout.min(HANDSHAKE_AT_MOST), shake(config, stream)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(Failure::Timeout),
    }
}

async fn shake(config: &Arc<ServerConfig>, stream: TcpStream) -> Result<Box<TlsStream<TcpStream>>, Failure> {
    // Nothing is set up for a connection on which nothing comes.
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(Failure::Closed),
        Ok(_) => {}
        Err(error) => return Err(Failure::Tls(error)),
    }
    let [first] = first;
    if first != HANDSHAKE_RECORD && first.is_ascii_uppercase() {
        return Err(Failure::PlainHttp(stream));
    }
    let shaken = TlsAcceptor::from(Arc::clone(config)).accept(stream).await;
    shaken.map(Box::new).map_err(|error| {
        // The client left in the middle: nothing to be learnt from it.
        if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset {
            Failure::Closed
        } else {
            Failure::Tls(error)
        }
    })
}
