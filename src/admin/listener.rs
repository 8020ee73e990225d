//! The HTTP server of the admin listener and the probe listener: few connections, small heads, short patience.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Shared;
use super::answer::{Surface, answer};

/// Connections at a time; more wait in the backlog.
const MOST_CONNECTIONS: usize = 64;
/// For a request head, and for the pause before the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked to end after this.
const LONGEST: Duration = Duration::from_secs(300);
/// And is cut off when it has not done so after this: a reader may be slow, but not endlessly.
const LAST_ANSWER: Duration = Duration::from_secs(30);
const MOST_HEAD_BYTES: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped. Connections that are open then live on to their own ends.
pub(super) async fn serve(listener: TcpListener, surface: Surface, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Never closed, so there is always a place some time.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    connection(stream, surface, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end. What goes wrong on it is its client's affair.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    surface: Surface,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, surface, &shared).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MOST_HEAD_BYTES)
            .max_headers(MOST_FIELDS)
            .serve_connection(TokioIo::new(stream), service)
    );
    if tokio::time::timeout(LONGEST, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;
    use crate::admin::testing;

    /// What is answered to `request`, which must end the connection.
    async fn exchange(request: &str, surface: Surface, token: Option<&str>) -> String {
        let (mut client, server) = tokio::io::duplex(1024);
        let shared = testing::shared(testing::with_token(token));
        let serving = connection(server, surface, shared);
        let asking = async {
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::join!(serving, asking).1
    }

    fn get(path: &str, more: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
    }

    #[tokio::test]
    async fn every_page_is_answered() {
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/metrics", "text/plain; version=0.0.4"),
            ("/live", "application/json"),
            ("/ready", "application/json"),
            ("/status", "application/json"),
        ] {
            let answer = exchange(&get(path, ""), Surface::Admin, None).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
            assert!(answer.contains(&format!("content-type: {content_type}\r\n")), "{path}: {answer}");
            assert!(answer.contains("cache-control: no-store\r\n"), "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn status_tells_the_configuration() {
        let answer = exchange(&get("/status", ""), Surface::Admin, None).await;
        let status: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["phase"], "serving");
        assert_eq!(status["configuration"]["generation"], 1);
        assert_eq!(status["upstreams"][0]["name"], "orders");
        assert_eq!(status["upstreams"][0]["servers"][0]["server"], "http://127.0.0.1:8001");
        assert_eq!(status["upstreams"][0]["servers"][0]["state"], "up");
    }

    #[tokio::test]
    async fn the_token_guards_all_but_probes() {
        for path in ["/", "/metrics", "/status", "/nowhere"] {
            let answer = exchange(&get(path, ""), Surface::Admin, Some("s3cret")).await;
            assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{path}: {answer}");
            assert!(answer.contains("www-authenticate: Bearer realm=\"passerelle\"\r\n"), "{answer}");
            assert!(!answer.contains("s3cret"));
        }
        for path in ["/live", "/ready"] {
            let answer = exchange(&get(path, ""), Surface::Admin, Some("s3cret")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        }
        let request = get("/status", "Authorization: Bearer s3cret\r\n");
        let answer = exchange(&request, Surface::Admin, Some("s3cret")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.contains("s3cret"));
    }

    #[tokio::test]
    async fn a_page_of_another_host_is_refused() {
        let request = "GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        let answer = exchange(request, Surface::Admin, None).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn the_probe_listener_has_probes_alone() {
        for (path, status) in [("/live", 200), ("/ready", 200), ("/status", 404), ("/metrics", 404), ("/", 404)] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: probe.example\r\nConnection: close\r\n\r\n");
            let answer = exchange(&request, Surface::Probes, None).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }

    #[tokio::test]
    async fn other_methods_are_refused_and_head_has_no_body() {
        let request = "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        let answer = exchange(request, Surface::Admin, None).await;
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        let request = "HEAD /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = exchange(request, Surface::Admin, None).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    /// Sends `bytes` and waits for the other side to close.
    async fn closed_after(client: &mut DuplexStream, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        client.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_not_waited_for() {
        let (mut client, server) = tokio::io::duplex(1024);
        let serving = connection(server, Surface::Admin, testing::shared(testing::with_token(None)));
        let (elapsed, ()) = tokio::join!(closed_after(&mut client, b"GET / HTTP/1.1\r\nHost:"), serving);
        assert_eq!(elapsed.as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_cut_off() {
        let (mut client, server) = tokio::io::duplex(64);
        let began = Instant::now();
        let serving = connection(server, Surface::Admin, testing::shared(testing::with_token(None)));
        let request = get("/metrics", "");
        let (_, ()) = tokio::join!(client.write_all(request.as_bytes()), serving);
        assert_eq!(began.elapsed(), LONGEST + LAST_ANSWER);
    }
}
