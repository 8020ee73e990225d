//! TLS towards servers: own CA, client certificate, server name.

use std::sync::Arc;

use rustls_pki_types::ServerName;

/// Everything that a handshake with one server needs.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub config: Arc<rustls::ClientConfig>,
    pub name: ServerName<'static>,
}
