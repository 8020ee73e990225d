//! One connection of HTTP/1.1 and what is said over it.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::connect::Stream;
use super::{Answer, FetchError, Question, What};
use crate::config::settings::{FetchUrl, Host};

/// The bounds of an answer's head.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// A connection; closed when this is dropped.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) async fn over(stream: Stream) -> Result<Connection, FetchError> {
        let shaken = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let (sender, connection) = shaken;
        // What it fails with is told to whoever waits for an answer.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, driver })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>, max_body: usize) -> Result<Answer, FetchError> {
        self.sender.ready().await.map_err(|error| broken(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            self.driver.abort();
            return Err(FetchError::Coded);
        }
        let body = match Limited::new(body, max_body).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                // What is left of the answer is not waited for.
                self.driver.abort();
                return Err(match error.is::<LengthLimitError>() {
                    true => FetchError::TooLarge(max_body),
                    false => FetchError::Broken(chain(&*error)),
                });
            }
        };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// The request of a question.
pub(super) fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, FetchError> {
    let (method, body) = match &question.what {
        What::Get => (Method::GET, Bytes::new()),
        What::PostForm(form) => (Method::POST, form().map_err(FetchError::Unasked)?),
    };
    let form = method == Method::POST;
    let mut request = Request::builder()
        .method(method)
        .uri(&*question.url.path)
        .header(HOST, host(question.url))
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("passerelle/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|error| FetchError::Broken(error.to_string()))?;
    if form {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
    }
    if let Some(authorization) = &question.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}

/// RFC 9110 section 7.2: without the scheme's own port.
fn host(url: &FetchUrl) -> String {
    let host = match &url.authority.host {
        Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    };
    let default_port = if url.https { 443 } else { 80 };
    if url.authority.port == default_port { host } else { format!("{host}:{}", url.authority.port) }
}

fn broken(error: &hyper::Error) -> FetchError {
    FetchError::Broken(chain(error))
}

/// An error and what it came of.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
