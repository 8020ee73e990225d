//! Asking an upstream for something that the gateway itself wants: the document that it publishes. One small request
//! over a connection of its own, on the control plane.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_ENCODING, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::connect::connect;
use super::{ChooseBy, Server, Upstream};
use crate::config::settings::HostHeader;

/// Nobody's address: no client asks.
const NOBODY: ChooseBy<'static> = ChooseBy { client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), key: None };

/// The bounds of an answer's head.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 256;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    Text {
        text: Bytes,
        /// What its server calls it.
        tag: Option<HeaderValue>,
    },
    /// It is still what the tag names.
    Unchanged,
}

/// Why nothing came; for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchFailure(pub String);

/// Gets `path` from one of the upstream's servers: at most `largest` bytes, within `patience`. `tag` names what is there
/// already.
///
/// # Errors
/// No server can be asked, or its answer is not what was asked for.
pub async fn fetch(
    upstream: &Upstream,
    path: &str,
    tag: Option<&HeaderValue>,
    largest: usize,
    patience: Duration,
) -> Result<Fetched, FetchFailure> {
    let lease = upstream.choose(NOBODY, &[]).map_err(|cause| FetchFailure(cause.row().title.to_owned()))?;
    let exchange = exchange(upstream, lease.server(), path, tag, largest);
    let result = tokio::time::timeout(patience, exchange).await;
    let told = |why: String| FetchFailure(format!("{}: {why}", lease.server().label));
    result.unwrap_or_else(|_| Err(format!("no whole answer in {patience:?}"))).map_err(told)
}

async fn exchange(
    upstream: &Upstream,
    server: &Server,
    path: &str,
    tag: Option<&HeaderValue>,
    largest: usize,
) -> Result<Fetched, String> {
    let stream = connect(server, upstream.timeouts().connect).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let request = request(upstream, server, path, tag)?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(Fetched::Unchanged),
            status => return Err(format!("status {}", status.as_u16())),
        }
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err("its answer is compressed, which was not asked for".to_owned());
        }
        match Limited::new(body, largest).collect().await {
            Ok(body) => Ok(Fetched::Text { text: body.to_bytes(), tag: head.headers.get(ETAG).cloned() }),
            Err(error) if error.is::<LengthLimitError>() => Err(format!("its answer is longer than {largest} bytes")),
            Err(error) => Err(chain(&*error)),
        }
    };
    // What the connection fails with, the answer does too.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = asked => answer,
        () = driven => Err("the connection ended".to_owned()),
    }
}

fn request(
    upstream: &Upstream,
    server: &Server,
    path: &str,
    tag: Option<&HeaderValue>,
) -> Result<Request<Empty<Bytes>>, String> {
    let host = match (upstream.host(), upstream.settings.health.as_ref().and_then(|health| health.host.as_ref())) {
        (HostHeader::Literal(host), _) => host,
        // What checks ask for is known to be taken.
        (HostHeader::Preserve | HostHeader::Server, Some(host)) => host,
        (HostHeader::Preserve | HostHeader::Server, None) => &server.host,
    };
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/yaml;q=0.9, */*;q=0.1")
        .header(USER_AGENT, concat!("passerelle/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some(tag) = tag {
        request = request.header(IF_NONE_MATCH, tag);
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

/// An error and what it came of.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
