//! Certificates made on the spot, and a TLS client.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;
use super::http::Client;

/// A self-signed certificate and its key.
pub struct Certificate {
    pub chain: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    }

    /// Writes `<name>.pem` and `<name>.key`, each by renaming, so that a reader sees the old or the new one.
    pub fn write(&self, directory: &Path, name: &str) {
        for (ending, text) in [("key", &self.key), ("pem", &self.chain)] {
            let beside = directory.join(format!("{name}.{ending}.next"));
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, directory.join(format!("{name}.{ending}"))).unwrap();
        }
    }
}

/// What a client trusts and offers.
pub fn client_config(
    trusted: &[&Certificate],
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands.
///
/// # Errors
/// What the connection or the handshake fails with.
pub fn connect(port: u16, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Client<TlsStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    connect_over(stream, name, config)
}

/// The same over a connection that is there already.
///
/// # Errors
/// What the handshake fails with.
pub fn connect_over(
    mut stream: TcpStream,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<Client<TlsStream>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(Client::new(StreamOwned::new(session, stream)))
}
