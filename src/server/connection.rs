//! What happens to a connection between accept and its protocol: PROXY protocol, TLS, the choice of the protocol.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client_certificate;
use super::counted::Counted;
use super::farewell;
use super::listener::{Listener, Place};
use super::open::Open;
use super::proxy_protocol::{self, Proxied, canonical};
use super::stream::ClientStream;
use super::tls;
use super::{http1, http2};
use crate::observe::metrics::{HandshakeFailure, Protocol};
use crate::observe::trouble::{self, Trouble};
use crate::request::peer::Peer;
use crate::request::rejection::Cause;
use crate::worker::Worker;

/// What a connection turned out to be.
struct Begun {
    stream: ClientStream,
    peer: Peer,
    http2: bool,
}

/// Serves one accepted connection to its end, and keeps `_held` until then. Whatever it needs for a time only is on the
/// heap for that time: a future is as large as its largest part, and this one is what an idle connection takes.
pub(super) async fn serve(
    _held: (Open, Place),
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    stream: TcpStream,
    from: SocketAddr,
) {
    let Some(Begun { stream, peer, http2 }) = Box::pin(begin(&worker, &listener, stream, from)).await else { return };
    let peer = Rc::new(peer);
    if http2 {
        let _counted = Counted::new(&listener.metrics, worker.id, Protocol::Http2);
        Box::pin(http2::serve(worker, listener, stream, peer)).await;
    } else {
        let counted = Counted::new(&listener.metrics, worker.id, Protocol::Http1);
        http1::serve(worker, stream, peer, counted).await;
    }
}

/// Hears who is there, and shakes hands where that is done.
async fn begin(worker: &Worker, listener: &Listener, mut stream: TcpStream, from: SocketAddr) -> Option<Begun> {
    let mut peer = introduce(worker, listener, &mut stream, from).await?;
    let Some(config) = &listener.tls else {
        return Some(Begun { stream: ClientStream::Plain(stream), peer, http2: false });
    };
    peer.tls = true;
    match tls::handshake(config, stream, listener.settings.header_timeout, &worker.handshakes).await {
        Ok(stream) => {
            listener.metrics.handshake(worker.id);
            let session = stream.get_ref().1;
            let http2 = session.alpn_protocol() == Some(tls::H2);
            peer.certificate = client_certificate::shown(session.peer_certificates()).map(Rc::new);
            Some(Begun { stream: ClientStream::Tls(stream), peer, http2 })
        }
        Err(failure) => {
            listener.metrics.handshake_failed(worker.id, failure.label());
            tracing::debug!(listener = &*listener.name, client = %peer.remote, reason = %failure,
                "TLS handshake failed");
            if failure.is_of_certificate() {
                trouble::certificate_refused(&listener.name, peer.remote, &failure);
            }
            if let tls::Failure::PlainHttp(stream) = failure {
                Box::pin(farewell::say(worker, stream, Cause::PlainHttp)).await;
            }
            None
        }
    }
}

/// Who is at the other end: the socket's own peer, or whoever a trusted proxy says is behind it.
async fn introduce(worker: &Worker, listener: &Listener, stream: &mut TcpStream, from: SocketAddr) -> Option<Peer> {
    // Fails when the client has left already.
    let local = canonical(stream.local_addr().ok()?);
    let remote = canonical(from);
    let mut peer = Peer {
        listener: Arc::clone(&listener.name),
        remote,
        local,
        trusted: false,
        tls: false,
        certificate: None,
        written: OnceCell::new(),
        host: Default::default(),
    };
    if listener.settings.proxy_protocol {
        match proxied(listener, stream, remote).await {
            Ok(Proxied::Own) => {}
            Ok(Proxied::Client { remote, local }) => (peer.remote, peer.local) = (remote, local),
            Err((label, reason)) => {
                listener.metrics.handshake_failed(worker.id, label);
                tracing::debug!(listener = &*listener.name, peer = %remote, reason, "connection refused");
                return None;
            }
        }
    }
    // Whoever speaks HTTP here must be trusted to speak for others. A proxy that relays bytes does not vouch for what
    // its clients write into header fields.
    peer.trusted = listener.trusts(peer.remote.ip());
    Some(peer)
}

async fn proxied(
    listener: &Listener,
    stream: &mut TcpStream,
    from: SocketAddr,
) -> Result<Proxied, (HandshakeFailure, String)> {
    // Of anybody else no header is demanded, nor taken: it would be a malformed request.
    if !listener.trusts(from.ip()) {
        return Ok(Proxied::Own);
    }
    match timeout(listener.settings.header_timeout, proxy_protocol::read(stream)).await {
        Ok(Ok(proxied)) => Ok(proxied),
        // A load balancer that only looks whether the port is open says nothing.
        Ok(Err(failure @ proxy_protocol::Failure::Read(_))) => Err((HandshakeFailure::Closed, failure.to_string())),
        Ok(Err(failure @ proxy_protocol::Failure::Malformed)) => {
            Err((HandshakeFailure::ProxyProtocol, failure.to_string()))
        }
        Err(_) => Err((HandshakeFailure::Timeout, "no PROXY protocol header came in time".to_owned())),
    }
}

/// Tells a client that it is one too many. Over TLS that would take the very handshake that cannot be afforded.
pub(super) fn turn_away(worker: &Worker, listener: &Listener, stream: TcpStream) {
    let cause = Cause::TooManyConnections;
    listener.metrics.turned_away(worker.id);
    worker.metrics.rejected(worker.id, cause);
    // No access record ever tells of it.
    trouble::tell(cause, &Trouble { listener: &listener.name, ..Trouble::default() });
    if listener.tls.is_none() && !listener.settings.proxy_protocol {
        farewell::say_if_few(stream, cause);
    }
}
