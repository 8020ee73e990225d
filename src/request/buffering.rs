//! Bodies that are held, so that neither a slow client nor a slow upload holds a server.

use std::sync::Arc;

use http::header::CONTENT_TYPE;

use super::rejection::Rejection;
use crate::body::{Ahead, Bounds, RequestBody, Spool, hold};
use crate::config::settings::BufferSettings;
use crate::headers::{Headers, Value};
use crate::response::Response;
use crate::upstream::Lengths;

/// What nginx reads of an application, and so what applications send.
const X_ACCEL_BUFFERING: &str = "x-accel-buffering";

/// Content of answers that is read while it comes, whatever its length.
const STREAMS: [&str; 3] = ["text/event-stream", GRPC, "multipart/x-mixed-replace"];

const GRPC: &str = "application/grpc";

pub fn bounds(settings: &BufferSettings) -> Bounds {
    Bounds { memory: settings.memory, disk: settings.disk }
}

/// Whether a request's body is taken in whole: where the route says so or the server has to be told its length, unless it
/// is a stream.
///
/// Of what the client says of it, only gRPC to servers of HTTP/2 makes it a stream: any other word of a client's would
/// let it hold a worker for as long as it likes.
pub fn is_taken_in(body: &RequestBody, headers: &Headers, settings: &BufferSettings, lengths: Lengths) -> bool {
    match (body, lengths) {
        (RequestBody::Empty | RequestBody::Whole(_) | RequestBody::Held(_), _) => false,
        (RequestBody::Stream(_), Lengths::Demanded) if body.length().is_none() => true,
        (RequestBody::Stream(_), Lengths::Demanded | Lengths::Wanted) => settings.request,
        (RequestBody::Stream(_), Lengths::Indifferent) => settings.request && !is_of(headers, &[GRPC]),
    }
}

/// Takes a request's body in whole.
///
/// # Errors
/// What the body fails with, and what keeps it from being held.
pub async fn take_in(
    body: RequestBody,
    settings: &BufferSettings,
    spool: &Arc<Spool>,
) -> Result<RequestBody, Rejection> {
    hold(body, bounds(settings), spool).await.map_err(|error| {
        let rejection = Rejection::from(error.cause);
        match error.detail {
            Some(detail) => rejection.with_detail(detail),
            None => rejection,
        }
    })
}

/// A body that is here goes on without its trailers where a length is wanted: with them it would have to go in chunks,
/// which uwsgi cannot carry and WSGI services cannot read. RFC 9110 section 6.5.1 lets them be dropped.
pub fn settle(body: &mut RequestBody, lengths: Lengths) {
    if lengths != Lengths::Indifferent {
        body.drop_trailers();
    }
}

/// Lets a server's answer be read ahead of the client, unless it is a stream.
pub fn read_ahead(response: &mut Response, settings: &BufferSettings, spool: &Arc<Spool>) {
    if settings.response && response.body().is_stream() && !is_stream(response.headers()) {
        response.body_mut().read_ahead(|| Ahead::new(spool, bounds(settings), settings.stream_after));
    }
}

/// Of an answer. The field is left for whoever stands in front: another proxy must not hold the stream either.
fn is_stream(headers: &Headers) -> bool {
    let refuses = |value: Value<'_>| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"no");
    headers.get(X_ACCEL_BUFFERING).is_some_and(refuses) || is_of(headers, &STREAMS)
}

/// Whether the content is of one of these types.
fn is_of(headers: &Headers, types: &[&str]) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).map(Value::as_bytes) else { return false };
    let content_type = content_type.trim_ascii_start();
    types.iter().any(|stream| {
        let (start, rest) = content_type.split_at_checked(stream.len()).unwrap_or_default();
        // Of gRPC there are several: application/grpc+proto, application/grpc-web.
        let ends = !rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric());
        start.eq_ignore_ascii_case(stream.as_bytes()) && ends
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::HeaderValue;
    use http_body::Frame;

    use super::*;
    use crate::request::rejection::Cause;

    #[test]
    fn streams_are_recognised() {
        let with = |name: &'static str, value: &'static str| {
            is_stream(&Headers::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))]))
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

    #[test]
    fn no_word_of_a_client_keeps_its_body_from_being_taken_in() {
        struct Coming;

        impl http_body::Body for Coming {
            type Data = Bytes;
            type Error = Cause;

            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
                Poll::Pending
            }
        }

        let settings = BufferSettings { request: true, ..BufferSettings::default() };
        let taken_in = |name: &'static str, value: &'static str, lengths| {
            let headers = Headers::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))]);
            is_taken_in(&RequestBody::Stream(Box::pin(Coming)), &headers, &settings, lengths)
        };
        for lengths in [Lengths::Demanded, Lengths::Wanted, Lengths::Indifferent] {
            for content in ["text/event-stream", "multipart/x-mixed-replace"] {
                assert!(taken_in("content-type", content, lengths), "{content}");
            }
            assert!(taken_in("x-accel-buffering", "no", lengths));
            assert_eq!(taken_in("content-type", "application/grpc", lengths), lengths != Lengths::Indifferent);
        }
    }
}
