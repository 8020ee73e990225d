//! Bodies that are held, so that neither a slow client nor a slow upload holds a server.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};

use super::rejection::Rejection;
use crate::body::{Ahead, Bounds, RequestBody, ResponseBody, Spool, hold};
use crate::config::settings::BufferSettings;

/// What nginx reads of an application, and so what applications send.
const X_ACCEL_BUFFERING: &str = "x-accel-buffering";

/// Content that is read while it comes, whatever its length.
const STREAMS: [&str; 3] = ["text/event-stream", "application/grpc", "multipart/x-mixed-replace"];

pub fn bounds(settings: &BufferSettings) -> Bounds {
    Bounds { memory: settings.memory, disk: settings.disk }
}

/// Whether a request's body is taken in whole.
pub fn is_taken_in(body: &RequestBody, headers: &HeaderMap, settings: &BufferSettings, length_demanded: bool) -> bool {
    match body {
        RequestBody::Empty | RequestBody::Whole(_) | RequestBody::Held(_) => false,
        RequestBody::Stream(_) if length_demanded && body.length().is_none() => true,
        RequestBody::Stream(_) => settings.request && !is_stream(headers),
    }
}

/// Takes a request's body in whole, where the route says so or the server has to be told its length, unless it is a
/// stream. Where the length is demanded trailers are dropped: such servers have no place for them.
///
/// # Errors
/// What the body fails with, and what keeps it from being held.
pub async fn take_in(
    body: RequestBody,
    headers: &HeaderMap,
    settings: &BufferSettings,
    length_demanded: bool,
    spool: &Arc<Spool>,
) -> Result<RequestBody, Rejection> {
    if !is_taken_in(&body, headers, settings, length_demanded) {
        return Ok(body);
    }
    let mut held = hold(body, bounds(settings), spool).await.map_err(|error| {
        let rejection = Rejection::from(error.cause);
        match error.detail {
            Some(detail) => rejection.with_detail(detail),
            None => rejection,
        }
    })?;
    if length_demanded {
        held.drop_trailers();
    }
    Ok(held)
}

/// Lets a server's answer be read ahead of the client, unless it is a stream.
pub fn read_ahead(
    response: Response<ResponseBody>,
    settings: &BufferSettings,
    spool: &Arc<Spool>,
) -> Response<ResponseBody> {
    if !settings.response || !response.body().is_stream() || is_stream(response.headers()) {
        return response;
    }
    response.map(|body| body.read_ahead(|| Ahead::new(spool, bounds(settings), settings.stream_after)))
}

/// The field is left for whoever stands in front: another proxy must not hold the stream either.
fn is_stream(headers: &HeaderMap) -> bool {
    let refuses = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"no");
    if headers.get(X_ACCEL_BUFFERING).is_some_and(refuses) {
        return true;
    }
    let Some(content_type) = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes) else { return false };
    let content_type = content_type.trim_ascii_start();
    STREAMS.iter().any(|stream| {
        let (start, rest) = content_type.split_at_checked(stream.len()).unwrap_or_default();
        // Of gRPC there are several: application/grpc+proto, application/grpc-web.
        let ends = !rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric());
        start.eq_ignore_ascii_case(stream.as_bytes()) && ends
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn streams_are_recognised() {
        let with = |name: &'static str, value: &'static str| {
            is_stream(&HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))]))
        };
        for stream in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "application/grpc+proto"] {
            assert!(with("content-type", stream), "{stream}");
        }
        for other in ["text/event-streams", "text/plain", "application/json", "", "application/grpcx"] {
            assert!(!with("content-type", other), "{other}");
        }
        assert!(with("x-accel-buffering", "no") && with("x-accel-buffering", "No "));
        assert!(!with("x-accel-buffering", "yes"));
    }
}
