//! Asking an upstream for something that the gateway itself wants: the document that it publishes. One small request
//! over a connection of its own, on the control plane.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderName, HeaderValue, StatusCode};

use super::connect::connect;
use super::own::Question;
use super::places::Place;
use super::{Server, Upstream};
use crate::config::settings::HostHeader;
use crate::headers::Value;

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
    upstream: &Arc<Upstream>,
    path: &str,
    tag: Option<&HeaderValue>,
    largest: usize,
    patience: Duration,
) -> Result<Fetched, FetchFailure> {
    let lease = upstream.seat_own().await.map_err(|cause| FetchFailure(cause.row().title.to_owned()))?;
    let exchange = exchange(upstream, lease.server(), path, tag, largest);
    let result = tokio::time::timeout(patience, exchange).await;
    let told = |why: String| FetchFailure(format!("{}: {why}", lease.server().label));
    result.unwrap_or_else(|_| Err(format!("no whole answer in {patience:?}"))).map_err(told)
}

async fn exchange(
    upstream: &Upstream,
    server: &Arc<Server>,
    path: &str,
    tag: Option<&HeaderValue>,
    largest: usize,
) -> Result<Fetched, String> {
    // Among the bounded, this connection counts too.
    let _place = Place::take(server);
    let mut stream = connect(server, upstream.timeouts().connect).await.map_err(|error| error.to_string())?;
    let fields = fields(tag);
    let question = Question {
        target: path,
        host: host(upstream, server),
        fields: &fields,
        params: &upstream.settings.uwsgi_params,
    };
    let (head, mut rest) = question.ask(server, &mut stream).await?;
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(Fetched::Unchanged),
        status => return Err(format!("status {}", status.as_u16())),
    }
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err("its answer is compressed, which was not asked for".to_owned());
    }
    let mut text = BytesMut::new();
    while let Some(piece) = rest.piece().await? {
        if piece.len() > largest.saturating_sub(text.len()) {
            return Err(format!("its answer is longer than {largest} bytes"));
        }
        text.extend_from_slice(&piece);
    }
    Ok(Fetched::Text { text: text.freeze(), tag: head.headers.get(ETAG).map(Value::owned) })
}

fn host<'a>(upstream: &'a Upstream, server: &'a Server) -> &'a HeaderValue {
    match (upstream.host(), upstream.settings.health.as_ref().and_then(|health| health.host.as_ref())) {
        (HostHeader::Literal(host), _) => host,
        // What checks ask for is known to be taken.
        (HostHeader::Preserve | HostHeader::Server, Some(host)) => host,
        (HostHeader::Preserve | HostHeader::Server, None) => &server.host,
    }
}

fn fields(tag: Option<&HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = vec![
        (ACCEPT, HeaderValue::from_static("application/json, application/yaml;q=0.9, */*;q=0.1")),
        (USER_AGENT, HeaderValue::from_static(concat!("passerelle/", env!("CARGO_PKG_VERSION")))),
    ];
    fields.extend(tag.map(|tag| (IF_NONE_MATCH, tag.clone())));
    fields
}
