//! What a client of gRPC is told when the gateway itself answers: an answer without content whose head has what a service
//! would put into its trailers ("Trailers-Only"). Clients read another status of HTTP too, but only as "something
//! between here and there said 502"; this way they get the cause.

use std::fmt::Write;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::names::X_REQUEST_ID;
use super::rejection::Row;
use crate::body::{Content, ResponseBody};
use crate::headers::{Headers, Value};
use crate::response::Response;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether the request is one of gRPC, as its specification says.
pub fn is_grpc(request: &Headers) -> bool {
    is_type_of_grpc(request.get(CONTENT_TYPE).map(Value::as_bytes))
}

/// The same of its `Content-Type`.
pub fn is_type_of_grpc(kind: Option<&[u8]>) -> bool {
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The answer of this row.
pub(super) fn answer(row: &Row, request_id: &HeaderValue) -> Response {
    let mut response = Response::new(ResponseBody::new(Content::Empty));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code(row.status)));
    let message =
        message(&format!("{} ({}, request {})", row.title, row.cause, request_id.to_str().unwrap_or_default()));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, request_id.clone());
    response
}

/// The code for a status of HTTP: the specification's table for clients, and beyond it what a service would say.
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => 12,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => 14,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8,
        StatusCode::UNPROCESSABLE_ENTITY => 3,
        StatusCode::REQUEST_TIMEOUT => 4,
        status if status.is_client_error() => 13,
        _ => 2,
    }
}

/// Percent-encodes what the specification does not let stand.
fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::rejection::Cause;

    fn with(kind: &'static str) -> Headers {
        Headers::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn grpc_is_told_by_its_type() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=1"] {
            assert!(is_grpc(&with(kind)), "{kind}");
        }
        // gRPC-Web is answered in a form of its own, which browsers read.
        for kind in ["application/grpc-web", "application/json", "application/grpcx"] {
            assert!(!is_grpc(&with(kind)), "{kind}");
        }
        assert!(!is_grpc(&Headers::new()));
    }

    #[test]
    fn every_cause_has_a_code_and_a_message() {
        for cause in Cause::ALL {
            let answer = answer(&cause.row(), &HeaderValue::from_static("7"));
            assert_eq!(answer.status(), StatusCode::OK);
            let code = answer.headers().get(GRPC_STATUS).unwrap().to_str().unwrap().parse::<u16>().unwrap();
            assert!((2..=16).contains(&code), "{cause:?}");
            assert!(answer.headers().get(GRPC_MESSAGE).unwrap().to_str().unwrap().contains(cause.row().cause));
        }
        assert_eq!(message("50% \u{fc}\n"), "50%25 %C3%BC%0A");
    }
}
