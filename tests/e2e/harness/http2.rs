//! An HTTP/2 client over TLS, for tests that are not asynchronous themselves.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::PATIENCE;

/// One connection.
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub head: response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Http2 {
    pub fn connect(port: u16, name: &str, config: &Arc<ClientConfig>) -> Http2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Http2 { runtime, sender }
    }

    /// Runs `what` with the connection, within the patience of a test.
    pub fn run<T>(&mut self, what: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
        let sender = self.sender.clone();
        self.runtime.block_on(async { within(what(sender)).await })
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Errors
    /// What the stream or the connection ends with.
    pub fn ask(&mut self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        self.run(async |sender| exchange(sender, request, body).await)
    }

    /// A GET of this URI, which must be absolute.
    ///
    /// # Errors
    /// As for `ask`.
    pub fn get(&mut self, uri: &str) -> Result<Answer, h2::Error> {
        self.ask(Request::get(uri).body(()).unwrap(), b"")
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("an answer over HTTP/2 in time")
}

/// Opens a stream.
///
/// # Errors
/// What the connection refuses it with.
pub async fn open(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    sender.ready().await?.send_request(request, end)
}

/// One request and its answer.
///
/// # Errors
/// What the stream or the connection ends with.
pub async fn exchange(sender: SendRequest<Bytes>, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
    let (answer, mut sending) = open(sender, request, body.is_empty()).await?;
    let upload = async {
        let mut rest = Bytes::copy_from_slice(body);
        while !rest.is_empty() {
            sending.reserve_capacity(rest.len());
            match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
                Some(Ok(room)) => {
                    let piece = rest.split_to(room.min(rest.len()));
                    if sending.send_data(piece, rest.is_empty()).is_err() {
                        return;
                    }
                }
                // An early answer ends the upload; what came of it the answer tells.
                Some(Err(_)) | None => return,
            }
        }
    };
    let download = async {
        let (head, stream) = answer.await?.into_parts();
        let (body, trailers) = read(stream).await?;
        Ok(Answer { head, body, trailers })
    };
    tokio::join!(upload, download).1
}

async fn read(mut stream: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok((body, stream.trailers().await?))
}
