//! Who a request came from.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::client::Written;

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
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What servers are told of this peer with every request, once it was needed.
    pub written: OnceCell<Written>,
}

/// What a client's certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject as RFC 4514 writes it, such as `CN=batch,O=Shop`; empty where there is none.
    pub subject: String,
    /// Each name: the parts of the subject (`CN=batch`), then the alternative names (`DNS:batch.internal`, `URI:…`,
    /// `EMAIL:…`, `IP:…`) in their order.
    pub names: Vec<String>,
}
