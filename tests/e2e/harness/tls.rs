//! Certificates made on the spot, and a TLS client.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
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

/// Who vouches for clients.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = called(name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A client's certificate of this common name and these alternative names, all of DNS.
    pub fn client(&self, name: &str, alternatives: &[&str]) -> Certificate {
        let alternatives: Vec<String> = alternatives.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name = called(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { chain: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// What a client trusts and offers.
pub fn client_config(
    trusted: &[&Certificate],
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    client_config_as(None, trusted, alpn, versions)
}

/// The same for a client that shows a certificate of its own.
pub fn client_config_as(
    own: Option<&Certificate>,
    trusted: &[&Certificate],
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
        }
    };
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
