//! What happens to a connection between accept and its protocol: PROXY protocol, TLS, the choice of the protocol.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::http1;
use super::listener::Listener;
use super::stream::{ClientStream, Peer};
use super::worker::Worker;
use crate::observe::metrics::{ListenerMetrics, Protocol};

/// Serves one accepted connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, from: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = Rc::new(Peer {
        listener: Arc::clone(&listener.name),
        remote: from,
        local,
        trusted: listener.trusts(from.ip()),
        tls: false,
    });
    let _counted = Counted::new(&worker, &listener, Protocol::Http1);
    http1::serve(worker, ClientStream::Plain(stream), peer).await;
}

/// Closes a connection that is one too many.
pub(super) fn turn_away(_listener: &Listener, stream: TcpStream) {
    drop(stream);
}

/// A connection in the listener's count of open ones.
struct Counted {
    metrics: Arc<ListenerMetrics>,
    worker: super::WorkerId,
    protocol: Protocol,
}

impl Counted {
    fn new(worker: &Worker, listener: &Listener, protocol: Protocol) -> Counted {
        listener.metrics.opened(worker.id, protocol);
        Counted { metrics: Arc::clone(&listener.metrics), worker: worker.id, protocol }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.closed(self.worker, self.protocol);
    }
}
