use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::*;
use crate::config::parse_fetch_url;
use crate::config::source::SourceFile;

const LONG: Duration = Duration::from_secs(30);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers each request with the next of its answers, then closes.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `answers`: those of one connection.
    async fn start(answers: &'static [&'static str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answers, Arc::clone(&seen)));
            }
        });
        Server { port, heads, task: task.abort_handle() }
    }

    fn url(&self, path: &str) -> FetchUrl {
        parse_fetch_url(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answers: &[&str], seen: Arc<Mutex<Vec<String>>>) {
    for answer in answers {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"token=a") {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        seen.lock().unwrap().push(String::from_utf8(request).unwrap());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// A TLS server with a certificate of its own for `name`, and the file that vouches for it.
async fn tls(name: &str) -> (u16, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let _ = stream.write_all(OK.as_bytes()).await;
        }
    });
    (port, file)
}

fn trusting(file: Option<&tempfile::NamedTempFile>, before: Option<&Arc<Client>>) -> Arc<Client> {
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    let ca = file.map(|file| At { value: file.path().to_owned(), span: span.clone() });
    let mut problems = Vec::new();
    Client::build(ca.as_ref(), Tls::Always, &span, &SystemRoots::default(), before, &mut problems)
        .unwrap_or_else(|| panic!("{problems:?}"))
}

#[tokio::test]
async fn a_certificate_is_judged() {
    let (port, authority) = tls("127.0.0.1").await;
    let url = parse_fetch_url(&format!("https://127.0.0.1:{port}/")).unwrap();
    let client = trusting(Some(&authority), None);
    assert_eq!(client.ask(&get(&url)).await.unwrap().status, StatusCode::OK);
    assert!(Arc::ptr_eq(&trusting(Some(&authority), Some(&client)), &client));
    let (_, stranger) = tls("127.0.0.1").await;
    let other = trusting(Some(&stranger), Some(&client));
    assert!(!Arc::ptr_eq(&other, &client));
    assert!(matches!(other.ask(&get(&url)).await, Err(FetchError::Tls(_))));
    let (port, authority) = tls("hidden.test").await;
    let url = parse_fetch_url(&format!("https://127.0.0.1:{port}/")).unwrap();
    let error = trusting(Some(&authority), None).ask(&get(&url)).await.err().unwrap();
    assert_eq!(error, FetchError::Tls("its certificate is for another name".to_owned()));
    // Where no authority is known nobody is trusted.
    assert!(matches!(self::client().ask(&get(&url)).await, Err(FetchError::Tls(_))));
}

/// What is in the clear may lead to what is not: then the system's authorities judge, where it has some.
#[tokio::test]
async fn who_may_lead_elsewhere_is_followed_with_the_systems_trust() {
    let (port, _) = tls("127.0.0.1").await;
    let url = parse_fetch_url(&format!("https://127.0.0.1:{port}/")).unwrap();
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    let (system, mut problems) = (SystemRoots::default(), Vec::new());
    let has_some = Client::build(None, Tls::Always, &span, &system, None, &mut problems).is_some();
    problems.clear();
    for (tls, judged) in [(Tls::Perhaps, has_some), (Tls::Never, false)] {
        let client = Client::build(None, tls, &span, &system, None, &mut problems).unwrap();
        let Err(FetchError::Tls(why)) = client.ask(&get(&url)).await else { panic!("{tls:?}") };
        assert_eq!(why.contains("no authority is known"), !judged, "{tls:?}: {why}");
    }
    assert!(problems.is_empty());
}

fn client() -> Client {
    Client { roots: None, kept: Mutex::default() }
}

fn get(url: &FetchUrl) -> Question<'_> {
    Question { url, what: What::Get, authorization: None, max_body: 10, timeout: LONG }
}

async fn refused(answer: &'static str) -> FetchError {
    let answers = if answer.is_empty() { Vec::new() } else { vec![answer] };
    let server = Server::start(answers.leak()).await;
    client().ask(&get(&server.url("/"))).await.err().unwrap()
}

#[tokio::test]
async fn a_question_and_its_answer() {
    let server = Server::start(&[OK, OK]).await;
    let (client, url) = (client(), server.url("/keys?a=b"));
    let answer = client.ask(&get(&url)).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"ok"[..]));
    let head = server.heads().remove(0);
    assert!(head.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{head}");
    let form = || Ok(Bytes::from_static(b"token=a"));
    let what = What::PostForm(&form);
    let authorization = Some(HeaderValue::from_static("Basic x"));
    client.ask(&Question { what, authorization, ..get(&url) }).await.unwrap();
    let head = server.heads().remove(1);
    assert!(head.starts_with("POST /keys?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded\r\n"), "{head}");
    assert!(head.contains("authorization: Basic x\r\n") && head.contains("content-length: 7\r\n"), "{head}");
}

#[tokio::test]
async fn connections_are_kept_and_one_that_ended_is_replaced() {
    // Three connections answer two requests each; the third question of each meets a closed one.
    let server = Server::start(&[OK, OK]).await;
    let (client, url) = (client(), server.url("/"));
    for _ in 0..6 {
        client.ask(&get(&url)).await.unwrap();
        assert!(client.kept.lock().unwrap().len() <= 1);
    }
    assert_eq!(server.heads().len(), 6);
}

/// Connections that broke together would else see one question after the other.
#[tokio::test]
async fn a_question_is_put_twice_at_most() {
    // Each connection answers once, takes another request, and ends.
    let server = Server::start(&[OK, ""]).await;
    let (client, url) = (client(), server.url("/"));
    let question = get(&url);
    let (one, two, three) = tokio::join!(client.ask(&question), client.ask(&question), client.ask(&question));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(client.kept.lock().unwrap().len(), 3);
    client.ask(&question).await.unwrap();
    assert_eq!(server.heads().len(), 3 + 2);
    // What is sent again is made again.
    let made = AtomicUsize::new(0);
    let form = || Ok(Bytes::from(format!("jti={}&token=a", made.fetch_add(1, Ordering::SeqCst))));
    client.ask(&Question { what: What::PostForm(&form), ..get(&url) }).await.unwrap();
    let sent: Vec<String> = server.heads().split_off(3 + 2);
    assert_eq!(sent.len(), 2);
    assert!(sent[0].ends_with("jti=0&token=a") && sent[1].ends_with("jti=1&token=a"), "{sent:?}");
    let nothing = || Err("the key is gone".to_owned());
    let error = client.ask(&Question { what: What::PostForm(&nothing), ..get(&url) }).await.err();
    assert_eq!(error, Some(FetchError::Unasked("the key is gone".to_owned())));
}

#[tokio::test]
async fn what_is_no_answer_is_told() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(refused(moved).await, FetchError::Redirect(StatusCode::FOUND));
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
    assert_eq!(refused(long).await, FetchError::TooLarge(10));
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n";
    assert_eq!(refused(endless).await, FetchError::TooLarge(10));
    let coded = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(refused(coded).await, FetchError::Coded);
    for cut in ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "", "SSH-2.0-OpenSSH\r\n"] {
        assert!(matches!(refused(cut).await, FetchError::Broken(_)), "{cut}");
    }
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = parse_fetch_url(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let timeout = Duration::from_millis(20);
    let error = client().ask(&Question { timeout, ..get(&url) }).await.err();
    assert_eq!(error, Some(FetchError::Timeout(timeout)));
    drop(listener);
    assert!(matches!(client().ask(&get(&url)).await, Err(FetchError::Connect(_))));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let server = Server::start(&[OK]).await;
    // It may be ::1 first, where nobody listens.
    let url = parse_fetch_url(&format!("http://localhost:{}/", server.port)).unwrap();
    client().ask(&get(&url)).await.unwrap();
    let url = parse_fetch_url("http://nobody.localhost:1/").unwrap();
    assert!(client().ask(&get(&url)).await.is_err());
}
