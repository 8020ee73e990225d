//! Who a request came from.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::client::Written;
use super::target::Host;
use crate::admit::identity::Identity;
use crate::admit::verified::Prover;

/// Who is at the other end of a connection and where it arrived.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name of the listener; its settings are looked up in the snapshot of each request.
    pub listener: Arc<str>,
    /// The client, or what the PROXY protocol of a trusted peer said of it.
    pub remote: SocketAddr,
    /// The address that the client connected to, likewise.
    pub local: SocketAddr,
    /// Whether `remote` is in `trusted_proxies`: what it writes into forwarding fields is believed.
    pub trusted: bool,
    pub tls: bool,
    /// The certificate that the client has shown and the listener's `client_ca` vouches for.
    pub certificate: Option<Rc<ClientCertificate>>,
    /// What servers are told of this peer with every request, once it was needed.
    pub written: OnceCell<Written>,
    /// The host that the last request named: most connections ask for one.
    pub host: RefCell<Option<Host>>,
}

/// What a client's certificate says of its holder.
#[derive(Clone)]
pub struct ClientCertificate {
    subject: String,
    names: Vec<String>,
    of_subject: usize,
    not_after: SystemTime,
    /// Whom an auth has made of it: the same for every request of the connection.
    known: RefCell<Option<(Prover, Arc<Identity>)>>,
}

impl ClientCertificate {
    /// `names`: the `of_subject` parts of the subject, then the alternative names.
    pub fn new(subject: String, names: Vec<String>, of_subject: usize, not_after: SystemTime) -> ClientCertificate {
        ClientCertificate { subject, names, of_subject, not_after, known: RefCell::default() }
    }

    /// The subject as RFC 4514 writes it, such as `CN=batch,O=Shop`; empty where there is none.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Each name: the parts of the subject (`CN=batch`), then the alternative names (`DNS:batch.internal`, `URI:…`,
    /// `EMAIL:…`, `IP:…`) in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The first alternative name.
    pub fn alternative(&self) -> Option<&str> {
        self.names.get(self.of_subject).map(String::as_str)
    }

    /// When it ends. The handshake has looked at that, but a connection may last longer, and so may a session that is
    /// resumed.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whom this auth has made of it before.
    pub fn known(&self, prover: Prover) -> Option<Arc<Identity>> {
        let known = self.known.borrow();
        known.as_ref().filter(|(by, _)| *by == prover).map(|(_, identity)| Arc::clone(identity))
    }

    pub fn remember(&self, prover: Prover, identity: &Arc<Identity>) {
        *self.known.borrow_mut() = Some((prover, Arc::clone(identity)));
    }
}

/// The names may be a person's: whoever prints this has not thought of that.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
