//! TLS towards servers: own CA, client certificate, server name.

use std::cell::OnceCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::problem::Problem;
use crate::config::settings::{At, CertificateFiles, UpstreamTlsSettings};
use crate::config::source::Span;

/// Sessions that are kept for each server.
const KEPT_SESSIONS: usize = 8;

/// Everything that a handshake with one server needs.
#[derive(Clone)]
pub struct ClientTls {
    /// Of this server alone, so that its sessions are not offered to others.
    pub config: Arc<ClientConfig>,
    /// What its certificate must be for.
    pub name: ServerName<'static>,
    common: Arc<Common>,
}

/// Says nothing of keys.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientTls {
    pub(super) fn new(common: &Arc<Common>, name: ServerName<'static>) -> ClientTls {
        let mut config = ClientConfig::clone(&common.config);
        config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
        ClientTls { config: Arc::new(config), name, common: Arc::clone(common) }
    }

    /// Whether this was made of the same files and for the same name.
    pub(super) fn is_of(&self, common: &Arc<Common>, name: &ServerName<'static>) -> bool {
        Arc::ptr_eq(&self.common, common) && self.name == *name
    }
}

/// What the servers of an upstream have in common. Kept across reloads while the files say the same, and with it the
/// servers and their sessions.
pub(super) struct Common {
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    /// The client certificate; its key belongs to it, so comparing the chain is enough.
    chain: Vec<CertificateDer<'static>>,
}

impl Common {
    /// Reads the files of `settings`; hands out `before` when nothing changed. `None`: the problems are told.
    pub(super) fn build(
        settings: &UpstreamTlsSettings,
        upstream: &Span,
        system: &SystemRoots,
        before: Option<&Arc<Common>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Common>> {
        let roots = match &settings.ca {
            Some(ca) => read_roots(ca).map_err(|problem| problems.push(problem)),
            None => system.load(upstream).map_err(|problem| problems.push(problem)),
        };
        let client = match &settings.client {
            Some(files) => read_client(files).map(Some).map_err(|problem| problems.push(problem)),
            None => Ok(None),
        };
        let (Ok(roots), Ok(client)) = (roots, client) else { return None };
        let chain = client.as_ref().map(|(chain, _)| chain.clone()).unwrap_or_default();
        if let Some(before) = before
            && before.roots.roots == roots.roots
            && before.chain == chain
        {
            return Some(Arc::clone(before));
        }
        let span = settings.client.as_ref().map_or(upstream, |files| &files.span);
        match configure(&roots, client) {
            Ok(config) => Some(Arc::new(Common { config: Arc::new(config), roots, chain })),
            Err(error) => {
                problems.push(Problem::error(span, format!("this client certificate cannot be used: {error}")));
                None
            }
        }
    }
}

type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn configure(roots: &Arc<RootCertStore>, client: Option<Client>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots));
    let mut config = match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_roots(ca: &At<std::path::PathBuf>) -> Result<Arc<RootCertStore>, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(&ca.value, &ca.span)? {
        roots.add(certificate).map_err(|error| {
            Problem::error(&ca.span, format!("a certificate in {} cannot be used: {error}", ca.value.display()))
        })?;
    }
    Ok(Arc::new(roots))
}

fn read_client(files: &At<CertificateFiles>) -> Result<Client, Problem> {
    let chain = read_certificates(&files.value.chain, &files.span)?;
    let path = &files.value.key;
    let text = read(path, &files.span)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        Problem::error(&files.span, format!("{} holds no private key that can be read", path.display()))
            .help("write an unencrypted PEM key in PKCS#8, PKCS#1 or SEC1 form")
    })?;
    Ok((chain, key))
}

fn read_certificates(path: &Path, span: &Span) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = read(path, span)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::error(span, format!("{} is not valid PEM: {error}", path.display())))?;
    if certificates.is_empty() {
        return Err(Problem::error(span, format!("{} holds no certificate", path.display()))
            .help("certificates are written in PEM form, between BEGIN CERTIFICATE and END CERTIFICATE"));
    }
    Ok(certificates)
}

fn read(path: &Path, span: &Span) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| Problem::error(span, format!("{} cannot be read: {error}", path.display())))
}

/// The certificates that the system trusts: read once for a snapshot, and only if an upstream needs them.
#[derive(Default)]
pub struct SystemRoots {
    loaded: OnceCell<Result<Arc<RootCertStore>, String>>,
}

impl SystemRoots {
    fn load(&self, upstream: &Span) -> Result<Arc<RootCertStore>, Problem> {
        self.loaded.get_or_init(read_system_roots).clone().map_err(|why| {
            Problem::error(upstream, format!("the system's trusted certificates cannot be read: {why}"))
                .help("install the ca-certificates package, or name a file as ca in the upstream's tls")
        })
    }
}

fn read_system_roots() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold oddities; what remains is what it trusts.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(why);
    }
    Ok(Arc::new(roots))
}
