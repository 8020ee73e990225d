//! TLS towards clients: what is compiled with the snapshot, and the handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, ClientHello, NoClientAuth, NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::{ByName, Certificate};
use super::client_auth;
use super::turns::Turns;
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

/// What a listener's clients shake hands with.
#[derive(Clone, Debug)]
pub struct Tls {
    /// By the gateway's preferences.
    usual: Arc<ServerConfig>,
    /// By the client's.
    as_the_client_likes: Arc<ServerConfig>,
}

/// AES with keys of 128 bits first: nobody can search through so many, and its hash, of 256 bits, is in the processors of
/// today, while that of the larger keys makes the key schedule the most expensive part of a handshake.
const SUITES: [rustls::SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

impl Tls {
    fn new(mut config: ServerConfig) -> Tls {
        let as_the_client_likes = Arc::new(config.clone());
        config.ignore_client_order = true;
        Tls { usual: Arc::new(config), as_the_client_likes }
    }

    /// A client that likes ChaCha20 best has no AES in its processor, and a battery.
    fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let known = |suite: &&CipherSuite| SUITES.iter().any(|known| known.suite() == **suite);
        let config = match hello.cipher_suites().iter().find(known) {
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => &self.as_the_client_likes,
            Some(_) | None => &self.usual,
        };
        Arc::clone(config)
    }
}

/// Compiles `[listener.NAME.tls]`. `None`: errors were added to `problems`.
pub(super) fn compile(settings: &ListenerTlsSettings, tickets: &Tickets, problems: &mut Vec<Problem>) -> Option<Tls> {
    let provider = Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), ..aws_lc_rs::default_provider() });
    let loaded = settings.certificates.iter().map(|files| Certificate::load(files, &provider, problems));
    // All are looked at before any is missed, for all problems to be told.
    let certificates: Vec<_> = loaded.collect();
    let client_auth: Option<Arc<dyn ClientCertVerifier>> = match &settings.client_auth {
        Some(files) => client_auth::compile(files, &provider, problems),
        None => Some(Arc::new(NoClientAuth)),
    };
    let certificates: Vec<_> = certificates.into_iter().collect::<Option<_>>()?;
    let client_auth = client_auth?;
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = match ServerConfig::builder_with_provider(provider).with_protocol_versions(versions) {
        Ok(builder) => builder,
        Err(error) => {
            let span = &settings.certificates.first()?.chain.span;
            problems.push(Problem::error(span, format!("TLS cannot be set up: {error}")));
            return None;
        }
    };
    let mut config =
        builder.with_client_cert_verifier(client_auth).with_cert_resolver(Arc::new(ByName::new(certificates)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Tickets hold all there is to resume: nothing is stored here, nothing is locked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A resumed session is that of the certificate that was verified once: it must not outlive what verified it.
    let own = settings.client_auth.as_ref().map(|_| Tickets::new());
    if let Some(ticketer) = &own.as_ref().unwrap_or(tickets).0 {
        config.ticketer = Arc::clone(ticketer);
    }
    config.send_tls13_tickets = 1;
    Some(Tls::new(config))
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

    /// Whether the client has shown a certificate that is not taken.
    pub(super) fn is_of_certificate(&self) -> bool {
        let Failure::Tls(error) = self else { return false };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(error, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_)))
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
    tls: &Tls,
    stream: TcpStream,
    header_timeout: Duration,
    turns: &Turns,
) -> Result<Box<TlsStream<TcpStream>>, Failure> {
    match timeout(header_timeout.min(HANDSHAKE_AT_MOST), shake(tls, stream, turns)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(Failure::Timeout),
    }
}

async fn shake(tls: &Tls, stream: TcpStream, turns: &Turns) -> Result<Box<TlsStream<TcpStream>>, Failure> {
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
    let shaken = turns.run(async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = tls.for_client(&begun.client_hello());
        begun.into_stream(config).await
    });
    let shaken = shaken.await;
    shaken.map(Box::new).map_err(|error| {
        // The client left in the middle: nothing to be learnt from it.
        if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset {
            Failure::Closed
        } else {
            Failure::Tls(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::config::problem::Severity;
    use crate::config::settings::{At, CertificateFiles};
    use crate::upstream::testing::span;

    /// Takes any certificate, and only these kinds of signatures.
    #[derive(Debug)]
    struct Anyone(Vec<SignatureScheme>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.clone()
        }
    }

    fn client(schemes: &[SignatureScheme], versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        client_of(aws_lc_rs::default_provider(), schemes, versions)
    }

    fn client_of(
        provider: CryptoProvider,
        schemes: &[SignatureScheme],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(schemes.to_vec())))
            .with_no_client_auth()
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            Files { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            std::fs::write(self.path(name), text).unwrap();
            self.path(name)
        }

        /// Makes a certificate for `names` and says where it is.
        fn make(
            &self,
            id: &str,
            names: &[&str],
            algorithm: &'static rcgen::SignatureAlgorithm,
            change: impl FnOnce(&mut rcgen::CertificateParams),
        ) -> CertificateFiles {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            change(&mut params);
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            at(
                &self.write(&format!("{id}.pem"), &certificate.pem()),
                &self.write(&format!("{id}.key"), &key.serialize_pem()),
            )
        }

        fn ecdsa(&self, id: &str, names: &[&str]) -> CertificateFiles {
            self.make(id, names, &rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
        }
    }

    fn at(chain: &Path, key: &Path) -> CertificateFiles {
        let at = |path: &Path| At { value: path.to_owned(), span: span() };
        CertificateFiles { chain: at(chain), key: at(key) }
    }

    fn compiled(certificates: Vec<CertificateFiles>, tickets: &Tickets) -> (Option<Tls>, Vec<Problem>) {
        let mut problems = Vec::new();
        let settings = ListenerTlsSettings { certificates, min_version: TlsVersion::Tls12, client_auth: None };
        (compile(&settings, tickets, &mut problems), problems)
    }

    fn good(certificates: Vec<CertificateFiles>) -> Tls {
        let (config, problems) = compiled(certificates, &Tickets::new());
        assert_eq!(problems, []);
        config.unwrap()
    }

    /// The certificate that a client gets, and how the handshake went for it.
    async fn ask(
        config: &Tls,
        name: &str,
        client: Arc<ClientConfig>,
    ) -> (CertificateDer<'static>, Option<HandshakeKind>) {
        shaken(config, name, client, |connection| {
            (connection.peer_certificates().unwrap()[0].clone().into_owned(), connection.handshake_kind())
        })
        .await
    }

    /// What a client knows when it has shaken hands.
    async fn shaken<T>(
        config: &Tls,
        name: &str,
        client: Arc<ClientConfig>,
        look: impl FnOnce(&ClientConnection) -> T,
    ) -> T {
        let (listener, address) = listener().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = handshake(config, stream, Duration::from_secs(30), &Turns::default()).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read(&mut [0]).await;
        };
        let connect = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut stream = TlsConnector::from(client).connect(name, stream).await.unwrap();
            // The ticket comes after the handshake.
            let mut hello = Vec::new();
            stream.read_to_end(&mut hello).await.unwrap();
            look(stream.get_ref().1)
        };
        tokio::join!(serve, connect).1
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn der(files: &CertificateFiles) -> CertificateDer<'static> {
        use rustls_pki_types::pem::PemObject;
        CertificateDer::from_pem_file(&files.chain.value).unwrap()
    }

    #[tokio::test]
    async fn certificates_are_picked_by_name() {
        let files = Files::new();
        let (first, exact) = (files.ecdsa("first", &["first.test"]), files.ecdsa("exact", &["a.wild.test"]));
        let wild = files.ecdsa("wild", &["*.wild.test"]);
        let config = good(vec![first.clone(), wild.clone(), exact.clone()]);
        let client = Arc::new(client(ECDSA, &[&TLS13]));
        for (name, expected) in [
            ("first.test", &first),
            ("A.WILD.test", &exact),
            ("b.wild.test", &wild),
            ("c.b.wild.test", &first),
            ("wild.test", &first),
            ("unknown.test", &first),
            // No name is sent for an address.
            ("127.0.0.1", &first),
        ] {
            assert_eq!(ask(&config, name, Arc::clone(&client)).await.0, der(expected), "{name}");
        }
    }

    #[tokio::test]
    async fn keys_are_picked_by_what_the_client_can_verify() {
        let files = Files::new();
        let ecdsa = files.ecdsa("ecdsa", &["a.test"]);
        let rsa = files.make("rsa", &["a.test"], &rcgen::PKCS_RSA_SHA256, |_| {});
        let config = good(vec![ecdsa.clone(), rsa.clone()]);
        for name in ["a.test", "unknown.test"] {
            for version in [&TLS12, &TLS13] {
                let got = ask(&config, name, Arc::new(client(ECDSA, &[version]))).await.0;
                assert_eq!(got, der(&ecdsa), "{name}");
                let got = ask(&config, name, Arc::new(client(RSA, &[version]))).await.0;
                assert_eq!(got, der(&rsa), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn the_cheaper_cipher_is_taken_unless_the_client_has_a_reason() {
        use cipher_suite::*;
        let files = Files::new();
        let config = good(vec![files.ecdsa("a", &["a.test"])]);
        for (offered, expected) in [
            (
                &[TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256][..],
                TLS13_AES_128_GCM_SHA256,
            ),
            (&[TLS13_AES_256_GCM_SHA384], TLS13_AES_256_GCM_SHA384),
            (&[TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256], TLS13_CHACHA20_POLY1305_SHA256),
            (
                &[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ),
            (
                &[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
                TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ),
        ] {
            let provider = CryptoProvider { cipher_suites: offered.to_vec(), ..aws_lc_rs::default_provider() };
            let version = if offered[0].tls13().is_some() { &TLS13 } else { &TLS12 };
            let client = client_of(provider, ECDSA, &[version]);
            let taken =
                shaken(&config, "a.test", Arc::new(client), |connection| connection.negotiated_cipher_suite()).await;
            assert_eq!(taken, Some(expected));
        }
    }

    #[tokio::test]
    async fn sessions_resume_across_snapshots() {
        let files = Files::new();
        let tickets = Tickets::new();
        let certificate = files.ecdsa("a", &["a.test"]);
        for version in [&TLS12, &TLS13] {
            let client = Arc::new(client(ECDSA, &[version]));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let config = compiled(vec![certificate.clone()], &tickets).0.unwrap();
                kinds.push(ask(&config, "a.test", Arc::clone(&client)).await.1.unwrap());
            }
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
        }
    }

    #[test]
    fn what_is_wrong_with_files_is_told_all_at_once() {
        let files = Files::new();
        let (good, other) = (files.ecdsa("good", &["a.test"]), files.ecdsa("other", &["a.test"]));
        let (chain, key) = (&good.chain.value, &good.key.value);
        let missing = files.path("missing.pem");
        let empty = files.write("empty.pem", "");
        let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        let garbage = files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let locked = files
            .write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        for (wrong, expected) in [
            (at(&missing, key), "the certificate `"),
            (at(chain, &missing), "the private key `"),
            (at(&empty, key), "holds no certificate"),
            (at(&broken, key), "is not valid PEM"),
            (at(&garbage, key), "cannot be used"),
            (at(chain, &empty), "holds no private key"),
            (at(chain, &locked), "holds no private key"),
            (at(chain, &other.key.value), "does not belong to the certificate"),
        ] {
            let (config, problems) = compiled(vec![wrong, good.clone()], &Tickets::new());
            assert!(config.is_none());
            let [problem] = &*problems else { panic!("{problems:?}") };
            assert!(problem.message.contains(expected), "{problem:?}");
            assert!(problem.help.is_some(), "{problem:?}");
        }
        let (_, problems) = compiled(vec![at(&missing, &missing), at(&empty, key)], &Tickets::new());
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn dates_are_warned_of() {
        let files = Files::new();
        for (year, expected) in [((2001, 2002), "has expired"), ((3001, 3002), "is not valid yet")] {
            let certificate = files.make("dated", &["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
                params.not_before = rcgen::date_time_ymd(year.0, 1, 1);
                params.not_after = rcgen::date_time_ymd(year.1, 1, 1);
            });
            let (config, problems) = compiled(vec![certificate], &Tickets::new());
            assert!(config.is_some());
            let [problem] = &*problems else { panic!("{problems:?}") };
            assert_eq!(problem.severity, Severity::Warning);
            assert!(problem.message.contains(expected), "{problem:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_handshake() {
        let files = Files::new();
        let config = good(vec![files.ecdsa("a", &["a.test"])]);
        for (sent, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "the client spoke plain HTTP"),
            (b"", "the client closed the connection"),
            (b"\x16\x03", "the client closed the connection"),
            (b"\x80garbage", "received corrupt message of type InvalidContentType"),
        ] {
            let (listener, address) = listener().await;
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let failure = handshake(&config, stream, Duration::from_secs(30), &Turns::default()).await.unwrap_err();
            assert_eq!(failure.to_string(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_ended() {
        let files = Files::new();
        let config = good(vec![files.ecdsa("a", &["a.test"])]);
        let (listener, address) = listener().await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let start = tokio::time::Instant::now();
        let failure = handshake(&config, stream, Duration::from_secs(30), &Turns::default()).await.unwrap_err();
        assert!(matches!(failure, Failure::Timeout));
        assert_eq!(start.elapsed().as_secs(), HANDSHAKE_AT_MOST.as_secs());
    }
}
