//! What the tests of this module build upstreams from.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use http_body::{Body, Frame};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use super::tls::SystemRoots;
use super::{ChooseBy, Upstream};
use crate::body::RequestBody;
use crate::config::problem::Problem;
use crate::config::settings::{
    At, Authority, Balance, Endpoint, Host, HostHeader, QueueSettings, RetrySettings, ServerSpec, SlotSettings,
    UpstreamSettings, UpstreamTimeouts, UpstreamTlsSettings,
};
use crate::config::source::{SourceFile, Span};
use crate::observe::metrics::Metrics;
use crate::request::rejection::Cause;

/// A place in a file.
pub(crate) fn span() -> Span {
    Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")))
}

/// A request's body of one piece, and what is alive as long as it is held.
pub(super) fn held() -> (Rc<()>, RequestBody) {
    struct Held(Option<Bytes>, #[expect(dead_code, reason = "it is there")] Rc<()>);

    impl Body for Held {
        type Data = Bytes;
        type Error = Cause;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
    }

    let alive = Rc::default();
    let body = Held(Some(Bytes::from_static(b"body")), Rc::clone(&alive));
    (alive, RequestBody::Stream(Box::pin(body)))
}

pub(super) fn at<T>(value: T) -> At<T> {
    At { value, span: span() }
}

/// A server as the file has it; its port must be written.
pub(super) fn server(url: &str, weight: u32) -> At<ServerSpec> {
    let endpoint = if let Some(path) = url.strip_prefix("http+unix:") {
        Endpoint::HttpUnix(PathBuf::from(path))
    } else if let Some(path) = url.strip_prefix("uwsgi+unix:") {
        Endpoint::UwsgiUnix(PathBuf::from(path))
    } else {
        let (scheme, authority) = url.split_once("://").unwrap();
        let (host, port) = authority.rsplit_once(':').unwrap();
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
        let authority = Authority { host, port: port.parse().unwrap() };
        match scheme {
            "http" => Endpoint::Http(authority),
            "https" => Endpoint::Https(authority),
            "uwsgi" => Endpoint::Uwsgi(authority),
            "h2" => Endpoint::H2(authority),
            "h2c" => Endpoint::H2c(authority),
            other => panic!("no server is reached by {other}"),
        }
    };
    at(ServerSpec { endpoint, weight: NonZeroU32::new(weight).unwrap() })
}

pub(crate) fn settings(servers: &[(&str, u32)], balance: Balance) -> UpstreamSettings {
    UpstreamSettings {
        span: span(),
        servers: servers.iter().map(|(url, weight)| server(url, *weight)).collect(),
        workers: None,
        balance,
        host: HostHeader::Preserve,
        slots: SlotSettings::Unlimited,
        queue: QueueSettings { size: 1000, max_wait: Duration::from_secs(2) },
        max_upgraded: NonZeroUsize::new(10).unwrap(),
        health: None,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            between_bytes: Duration::from_secs(60),
            upgraded: Duration::from_secs(3600),
            keep_alive: Duration::from_millis(1500),
        },
        retry: RetrySettings { attempts: 2, budget_percent: 20 },
        tls: UpstreamTlsSettings::default(),
        uwsgi_params: Vec::new(),
    }
}

/// Builds without complaint.
pub(crate) fn build(settings: &UpstreamSettings, before: Option<&Upstream>) -> Upstream {
    let (upstream, problems) = try_build(settings, before);
    assert_eq!(problems, []);
    upstream
}

pub(super) fn try_build(settings: &UpstreamSettings, before: Option<&Upstream>) -> (Upstream, Vec<Problem>) {
    let mut problems = Vec::new();
    let metrics = Metrics::new(1);
    let upstream = Upstream::build("test", settings, &SystemRoots::default(), before, &metrics, &mut problems);
    (upstream, problems)
}

pub(super) const ANYONE: ChooseBy<'static> = ChooseBy { client: IpAddr::V4(Ipv4Addr::LOCALHOST), key: None };

/// Waits for `condition` on the real clock, and fails after ten seconds.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < patience, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a [`Backend`] does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Reads a request's head, answers this, closes.
    Answer(&'static str),
    /// Reads and says nothing.
    Hang,
    /// Closes at once.
    Close,
}

/// A small server on loopback, whose behaviour can be changed.
pub(super) struct Backend {
    pub(super) port: u16,
    behaviour: Arc<Mutex<Behaviour>>,
    /// The heads that came.
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Backend {
    pub(super) async fn start(behaviour: Behaviour) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (of_task, seen) = (Arc::clone(&behaviour), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            let mut held = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let behaviour = *of_task.lock().unwrap();
                held.spawn(serve(stream, behaviour, Arc::clone(&seen)));
            }
        });
        Backend { port, behaviour, heads, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(super) fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, heads: Arc<Mutex<Vec<String>>>) {
    if behaviour == Behaviour::Close {
        return;
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    match behaviour {
        Behaviour::Answer(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Behaviour::Hang | Behaviour::Close => {
            let _ = stream.read(&mut [0]).await;
        }
    }
}

/// A name server on loopback that gives every name the same IPv4 addresses, or none.
pub(super) struct Dns {
    port: u16,
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Dns {
    pub(super) async fn start(addresses: &[Ipv4Addr], ttl: u32) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let addresses = Arc::new(Mutex::new(addresses.to_vec()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (of_task, count) = (Arc::clone(&addresses), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                count.fetch_add(1, Ordering::Relaxed);
                let addresses = of_task.lock().unwrap().clone();
                let _ = socket.send_to(&dns_answer(&packet[..length], &addresses, ttl), from).await;
            }
        });
        Dns { port, addresses, asked, task }
    }

    pub(super) fn config(&self) -> ResolverConfig {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.port;
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
        ResolverConfig::from_parts(None, Vec::new(), vec![server])
    }

    pub(super) fn answer(&self, addresses: &[Ipv4Addr]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    /// Queries so far.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a query with one question (RFC 1035 section 4.1).
fn dns_answer(query: &[u8], addresses: &[Ipv4Addr], ttl: u32) -> Vec<u8> {
    // The question: labels up to the empty one, then two bytes each of type and class.
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
    let records: &[Ipv4Addr] = if is_a { addresses } else { &[] };
    let mut answer = query[..2].to_vec();
    // A response, recursion desired and available, no error; one question and the records.
    answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    for address in records {
        // The name of the question, type A, class IN.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        answer.extend_from_slice(&ttl.to_be_bytes());
        answer.extend_from_slice(&[0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    answer
}

/// A CA and a certificate for `orders.test` with its key, in files.
pub(crate) struct Certificates {
    directory: tempfile::TempDir,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["orders.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let files = Certificates {
            directory: tempfile::tempdir().unwrap(),
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        };
        files.write("ca.pem", &ca_pem);
        files.write("chain.pem", &certificate.pem());
        files.write("key.pem", &key.serialize_pem());
        files
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// Trusts the CA, and demands `server_name`.
    pub(crate) fn settings(&self, server_name: &str) -> UpstreamTlsSettings {
        UpstreamTlsSettings {
            ca: Some(at(self.directory.path().join("ca.pem"))),
            client: None,
            server_name: Some(at(server_name.to_owned())),
        }
    }

    /// A TLS server that sends one byte to whoever connects, and waits for the end.
    pub(super) async fn serve(&self) -> TlsBackend {
        let listener = self.listen().await;
        let port = listener.port();
        let task = tokio::spawn(async move {
            let mut held = JoinSet::new();
            while let Ok((stream, _)) = listener.listener.accept().await {
                let acceptor = listener.acceptor.clone();
                held.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let _ = stream.write_all(b"!").await;
                    let _ = stream.read(&mut [0]).await;
                });
            }
        });
        TlsBackend { port, task }
    }

    /// A TLS server that the test itself serves.
    pub(crate) async fn listen(&self) -> TlsListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsListener { listener, acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)) }
    }
}

pub(crate) struct TlsListener {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl TlsListener {
    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    pub(crate) async fn accept(&self) -> tokio_rustls::server::TlsStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(stream).await.unwrap()
    }
}

pub(super) struct TlsBackend {
    pub(super) port: u16,
    task: JoinHandle<()>,
}

impl Drop for TlsBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}
