//! TLS towards servers: own CA, client certificate, server name.

use std::cell::OnceCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::problem::Problem;
use crate::config::settings::{At, CertificateFiles, Protocol, UpstreamTlsSettings};
use crate::config::source::Span;
use crate::gateway::pem;

/// Sessions that are kept for each server.
const KEPT_SESSIONS: usize = 8;

/// What HTTP/2 is called by in a handshake.
const H2: &[u8] = b"h2";

/// Everything that a handshake with one server needs.
#[derive(Clone)]
pub struct ClientTls {
    /// Of this server alone, so that its sessions are not offered to others.
    pub config: Arc<ClientConfig>,
    /// What its certificate must be for.
    pub name: ServerName<'static>,
    /// The name was drawn from a secret: what is said of it is not for the log.
    pub(super) secret: bool,
    common: Arc<Common>,
}

/// What a server's certificate must be for.
#[derive(Clone)]
pub(super) struct CertifiedName {
    pub(super) name: ServerName<'static>,
    pub(super) secret: bool,
}

/// Says nothing of keys.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    pub(super) fn new(common: &Arc<Common>, name: &CertifiedName, protocol: Protocol) -> ClientTls {
        let mut config = ClientConfig::clone(&common.config);
        config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
        if protocol == Protocol::Http2 {
            config.alpn_protocols = vec![H2.to_vec()];
        }
        let CertifiedName { name, secret } = name.clone();
        ClientTls { config: Arc::new(config), name, secret, common: Arc::clone(common) }
    }

    /// Whether a handshake that has ended agreed on what the server was said to speak.
    pub(super) fn is_agreed(&self, session: &rustls::ClientConnection, protocol: Protocol) -> bool {
        // Servers of HTTP/1.1 need not know of such agreements.
        protocol != Protocol::Http2 || session.alpn_protocol() == Some(H2)
    }

    /// Whether this was made of the same files and for the same name.
    pub(super) fn is_of(&self, common: &Arc<Common>, name: &CertifiedName) -> bool {
        Arc::ptr_eq(&self.common, common) && self.name == name.name && self.secret == name.secret
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
        // Both are read even if one fails, so that every problem is told.
        let roots = match &settings.ca {
            Some(ca) => read_roots(ca, problems),
            None => system.load(upstream, problems),
        };
        let client = match &settings.client {
            Some(files) => read_client(files, problems).map(Some),
            None => Some(None),
        };
        let (roots, client) = (roots?, client?);
        let chain = client.as_ref().map(|(chain, _)| chain.clone()).unwrap_or_default();
        if let Some(before) = before
            && before.roots.roots == roots.roots
            && before.chain == chain
        {
            return Some(Arc::clone(before));
        }
        let span = settings.client.as_ref().map_or(upstream, |files| &files.chain.span);
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

/// Trusts `ca`, or the system's authorities; shows no certificate of its own. `None`: the problems are told, at `span`
/// where no file is at fault.
pub fn trusting(
    ca: Option<&At<PathBuf>>,
    span: &Span,
    system: &SystemRoots,
    problems: &mut Vec<Problem>,
) -> Option<(Arc<RootCertStore>, Arc<ClientConfig>)> {
    let roots = match ca {
        Some(ca) => read_roots(ca, problems),
        None => system.load(span, problems),
    }?;
    match configure(&roots, None) {
        Ok(config) => Some((roots, Arc::new(config))),
        Err(error) => {
            problems.push(Problem::error(span, format!("TLS cannot be set up: {error}")));
            None
        }
    }
}

fn read_roots(ca: &At<PathBuf>, problems: &mut Vec<Problem>) -> Option<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::read(ca, "certificate", problems)? {
        if let Err(error) = roots.add(certificate) {
            let message = format!("a certificate in `{}` cannot be used: {error}", ca.value.display());
            problems.push(Problem::error(&ca.span, message));
            return None;
        }
    }
    Some(Arc::new(roots))
}

fn read_client(files: &CertificateFiles, problems: &mut Vec<Problem>) -> Option<Client> {
    // Both are read even if one fails, so that every problem is told.
    let chain = pem::read(&files.chain, "certificate", problems);
    let key = pem::read_key(&files.key, problems);
    Some((chain?, key?))
}

/// The certificates that the system trusts: read once for a snapshot, and only if somebody needs them.
#[derive(Default)]
pub struct SystemRoots {
    loaded: OnceCell<Result<Arc<RootCertStore>, String>>,
}

impl SystemRoots {
    fn load(&self, span: &Span, problems: &mut Vec<Problem>) -> Option<Arc<RootCertStore>> {
        match self.loaded.get_or_init(read_system_roots) {
            Ok(roots) => Some(Arc::clone(roots)),
            Err(why) => {
                let message = format!("the system's trusted certificates cannot be read: {why}");
                problems.push(
                    Problem::error(span, message)
                        .help("install the ca-certificates package, or name a file as `ca` here"),
                );
                None
            }
        }
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

#[cfg(test)]
mod tests {
    use super::super::Upstream;
    use super::super::testing::{Certificates, at, settings, try_build};
    use super::*;
    use crate::config::settings::Balance;

    fn build(tls: UpstreamTlsSettings, before: Option<&Upstream>) -> (Upstream, Vec<String>) {
        let mut settings =
            settings(&[("https://orders.test:8443", 1), ("https://10.0.0.1:8443", 1)], Balance::RoundRobin);
        settings.tls = tls;
        let (upstream, problems) = try_build(&settings, before);
        (upstream, problems.into_iter().map(|problem| problem.message).collect())
    }

    fn the_problem(tls: UpstreamTlsSettings) -> String {
        let (_, problems) = build(tls, None);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.into_iter().next().unwrap()
    }

    #[test]
    fn good_files_make_no_problems() {
        let files = Certificates::new();
        assert_eq!(build(files.settings("orders.test"), None).1, [""; 0]);
        let client = Some(CertificateFiles { chain: at(files.chain()), key: at(files.key()) });
        assert_eq!(build(UpstreamTlsSettings { client, ..files.settings("orders.test") }, None).1, [""; 0]);
    }

    #[test]
    fn files_that_cannot_be_used_are_told() {
        let files = Certificates::new();
        let junk = files.write("junk.pem", "junk");
        let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let with_ca = |ca| UpstreamTlsSettings { ca: Some(at(ca)), ..UpstreamTlsSettings::default() };
        assert!(
            the_problem(with_ca("/nowhere/ca.pem".into()))
                .starts_with("the certificate `/nowhere/ca.pem` cannot be read: no such")
        );
        assert!(the_problem(with_ca(junk.clone())).ends_with("junk.pem` holds no certificate"));
        assert!(the_problem(with_ca(broken)).contains("broken.pem` cannot be used"));
        let with_client = |chain, key| UpstreamTlsSettings {
            client: Some(CertificateFiles { chain: at(chain), key: at(key) }),
            ..files.settings("orders.test")
        };
        assert!(the_problem(with_client(junk.clone(), files.key())).ends_with("junk.pem` holds no certificate"));
        assert!(the_problem(with_client(files.chain(), junk)).contains("no private key that can be used"));
        let other = Certificates::new();
        assert!(the_problem(with_client(files.chain(), other.key())).contains("cannot be used"));
    }

    #[test]
    fn a_server_name_must_be_one() {
        let files = Certificates::new();
        let (_, problems) = build(files.settings("not a name"), None);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("not a name that a certificate can be for"));
    }

    #[test]
    fn new_certificates_make_new_servers() {
        let (files, others) = (Certificates::new(), Certificates::new());
        let ids = |upstream: &Upstream| upstream.servers().iter().map(|server| server.id).collect::<Vec<_>>();
        let (before, _) = build(files.settings("orders.test"), None);
        let (same, _) = build(files.settings("orders.test"), Some(&before));
        assert_eq!(ids(&before), ids(&same));
        let (other, _) = build(others.settings("orders.test"), Some(&before));
        assert_ne!(ids(&before), ids(&other));
        let (renamed, _) = build(files.settings("media.test"), Some(&before));
        assert_ne!(ids(&before), ids(&renamed));
    }
}
