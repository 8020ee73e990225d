//! Answers that are made of little: redirections, fixed ones, that of `OPTIONS *`; and a server's own, without what was
//! its connection's.

use http::header::{ALLOW, CONTENT_LENGTH, LOCATION};
use http::{HeaderValue, StatusCode};

use super::route::FixedAnswer;
use crate::body::{Content, ResponseBody};
use crate::headers::Headers;
use crate::http1::connection::remove_hop_by_hop;
use crate::http1::head::{Notable, ResponseHead};
use crate::response::{Head, Response};

/// Methods that are served where nothing narrower is said.
pub const SERVED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

fn made(status: StatusCode, headers: Headers, content: Content) -> Response {
    Response::from_parts(Head { status, headers }, ResponseBody::new(content))
}

/// A server's answer without what belonged to its connection.
pub fn from_server(head: ResponseHead, content: Content) -> Response {
    let mut headers = head.headers;
    if [Notable::Connection, Notable::HopByHop, Notable::TransferEncoding].iter().any(|&what| head.seen.has(what)) {
        remove_hop_by_hop(&mut headers);
    }
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: some Python servers send one all the same, and some clients would wait for its bytes.
        headers.remove(CONTENT_LENGTH);
    }
    made(head.status, headers, content)
}

/// What a route answers by itself.
pub fn fixed(fixed: &FixedAnswer) -> Response {
    made(fixed.status, fixed.headers.clone(), Content::Full(fixed.body.clone()))
}

pub fn redirection(status: StatusCode, location: HeaderValue) -> Response {
    made(status, Headers::from_iter([(LOCATION, location)]), Content::Empty)
}

/// `OPTIONS *` (RFC 9110 section 9.3.7).
pub fn about_the_server() -> Response {
    made(StatusCode::NO_CONTENT, Headers::from_iter([(ALLOW, SERVED)]), Content::Empty)
}
