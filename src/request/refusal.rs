//! The answer that a rejection becomes: status, cause and request ID for the client, nothing internal.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::names::X_REQUEST_ID;
use super::rejection::{Cause, Rejection, Row};
use super::violation::Violation;
use super::{dialect, grpc};
use crate::body::{Content, ResponseBody};
use crate::config::settings::ErrorFormat;
use crate::headers::Headers;
use crate::response::Response;

/// Seconds after which a client may try again what was unavailable.
const RETRY_SECONDS: u32 = 1;

/// Builds the answer. `request` holds the request's fields, if it came so far.
pub fn answer(
    rejection: &Rejection,
    format: ErrorFormat,
    request: Option<&Headers>,
    request_id: &HeaderValue,
) -> Response {
    let mut row = rejection.cause.row();
    if request.is_some_and(grpc::is_grpc) {
        return grpc::answer(&row, request_id);
    }
    let violations = rejection.violations();
    if format == ErrorFormat::Drf && !violations.is_empty() {
        // Clients of the Django REST framework know what is invalid by this status.
        row.status = StatusCode::BAD_REQUEST;
    }
    let id = request_id.to_str().unwrap_or_default();
    let (content_type, body) = if request.is_some_and(prefers_html) {
        ("text/html; charset=utf-8", html(&row, id, violations))
    } else {
        match format {
            ErrorFormat::Problem => ("application/problem+json", problem(&row, id, violations)),
            ErrorFormat::FastApi if !violations.is_empty() => {
                let body = json!({
                    "detail": dialect::fastapi(violations), "cause": row.cause, "request_id": id,
                });
                ("application/json", format!("{body}\n"))
            }
            ErrorFormat::Drf if !violations.is_empty() => {
                ("application/json", format!("{}\n", dialect::drf(violations)))
            }
            ErrorFormat::FastApi | ErrorFormat::Drf => ("application/json", detail(&row, id)),
            ErrorFormat::Plain => {
                let mut text = format!("{} ({}, request {id})\n", row.title, row.cause);
                dialect::plain(violations, &mut text);
                ("text/plain; charset=utf-8", text)
            }
        }
    };
    let mut response = Response::new(ResponseBody::new(Content::Full(Bytes::from(body))));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_REQUEST_ID, request_id.clone());
    if rejection.cause.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in rejection.fields() {
        headers.append(name, value.clone());
    }
    if row.status == StatusCode::SERVICE_UNAVAILABLE && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    }
    response
}

/// The whole answer to a client that is not listened to any further, as it goes over the wire.
pub fn farewell(cause: Cause, request_id: &HeaderValue) -> String {
    let row = cause.row();
    let id = request_id.to_str().unwrap_or_default();
    let body = problem(&row, id, &[]);
    let retry = match row.status {
        StatusCode::SERVICE_UNAVAILABLE => format!("retry-after: {RETRY_SECONDS}\r\n"),
        _ => String::new(),
    };
    format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nx-request-id: {id}\r\n{retry}content-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        row.status,
        body.len()
    )
}

/// RFC 9457. Causes, titles and request IDs are of plain characters, so nothing of them needs escaping.
fn problem(row: &Row, id: &str, violations: &[Violation]) -> String {
    let mut text = String::with_capacity(256);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}","cause":"{}","blame":"{}","request_id":"{id}""#,
        phrase(row),
        row.status.as_u16(),
        row.title,
        row.cause,
        row.blame.as_str(),
    );
    if !violations.is_empty() {
        let _ = write!(text, r#","violations":{}"#, dialect::problem(violations));
    }
    text.push_str("}\n");
    text
}

/// What FastAPI and the Django REST framework answer: clients look at `detail`.
fn detail(row: &Row, id: &str) -> String {
    format!("{{\"detail\":\"{}\",\"cause\":\"{}\",\"request_id\":\"{id}\"}}\n", row.title, row.cause)
}

fn html(row: &Row, id: &str, violations: &[Violation]) -> String {
    let (status, phrase) = (row.status.as_u16(), phrase(row));
    let mut list = String::new();
    if !violations.is_empty() {
        dialect::html(violations, &mut list);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{status} {phrase}</title>\n\
         <body style=\"font-family: sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em\">\n\
         <h1>{status} {phrase}</h1>\n<p>{}</p>\n{list}<p><small>{} &middot; request {id}</small></p>\n</html>\n",
        row.title, row.cause
    )
}

fn phrase(row: &Row) -> &'static str {
    row.status.canonical_reason().unwrap_or("Error")
}

/// Whether HTML is accepted by name and no form of JSON or plain text is liked as much (RFC 9110 section 12.5.1).
fn prefers_html(request: &Headers) -> bool {
    let (mut html, mut other) = (0u16, 0u16);
    for value in request.get_all(ACCEPT).filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            match kind.as_str() {
                "text/html" | "application/xhtml+xml" => html = html.max(quality),
                "application/json" | "application/problem+json" | "application/*" | "text/plain" => {
                    other = other.max(quality)
                }
                _ => {}
            }
        }
    }
    html > other
}

/// `0.8` as 800.
fn thousandths(text: &str) -> u16 {
    let quality = text.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0);
    // Within 0 to 1000 by the clamp.
    (quality * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> Headers {
        Headers::from_iter([(ACCEPT, HeaderValue::from_static(text))])
    }

    fn body(cause: Cause, format: ErrorFormat, request: &Headers) -> (String, String) {
        let mut response = answer(&cause.into(), format, Some(request), &HeaderValue::from_static("abc"));
        let kind = response.headers().get(CONTENT_TYPE).expect("a type").to_str().expect("ASCII").to_owned();
        let body = response.body_mut().take_full().expect("all there");
        (kind, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn every_cause_makes_valid_json() {
        for &cause in Cause::ALL {
            for format in [ErrorFormat::Problem, ErrorFormat::FastApi, ErrorFormat::Drf] {
                let (_, text) = body(cause, format, &Headers::new());
                let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(parsed["cause"], cause.row().cause);
                assert_eq!(parsed["request_id"], "abc");
            }
        }
    }

    #[test]
    fn html_is_for_those_who_prefer_it() {
        for (text, html) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0.9, application/json;q=0.5", true),
            ("", false),
        ] {
            let (kind, _) = body(Cause::NoRoute, ErrorFormat::Problem, &accept(text));
            assert_eq!(kind.starts_with("text/html"), html, "{text}");
        }
    }

    #[test]
    fn violations_are_told_in_every_dialect() {
        let violation = Violation::new(super::super::violation::Place::Body, "/a\"b", "required", "is required");
        let rejection = Rejection::from(Cause::InvalidRequest).with_violations(vec![violation]);
        let told = |format, request: &Headers| {
            let mut response = answer(&rejection, format, Some(request), &HeaderValue::from_static("abc"));
            let body = response.body_mut().take_full().expect("all there");
            (response.status().as_u16(), String::from_utf8(body.to_vec()).expect("UTF-8"))
        };
        let json = |format| {
            let (status, text) = told(format, &Headers::new());
            (status, serde_json::from_str::<serde_json::Value>(&text).expect("JSON"))
        };
        let (status, problem) = json(ErrorFormat::Problem);
        assert_eq!((status, &problem["status"]), (422, &json!(422)));
        assert_eq!(problem["cause"], "invalid_request");
        let violation = json!({"in": "body", "pointer": "/a\"b", "rule": "required", "message": "is required"});
        assert_eq!(problem["violations"], json!([violation]));
        let (status, fastapi) = json(ErrorFormat::FastApi);
        assert_eq!((status, &fastapi["detail"][0]["loc"]), (422, &json!(["body", "a\"b"])));
        assert_eq!(json(ErrorFormat::Drf), (400, json!({"a\"b": ["This field is required."]})));
        let (status, plain) = told(ErrorFormat::Plain, &Headers::new());
        assert_eq!((status, plain.lines().nth(1)), (422, Some("body/a\"b is required (required)")));
        let (_, page) = told(ErrorFormat::Problem, &accept("text/html"));
        assert!(page.contains("<li><code>body/a&quot;b</code> is required</li>"), "{page}");
    }

    #[test]
    fn unavailable_says_when_to_come_again() {
        let response =
            answer(&Cause::NoHealthyServer.into(), ErrorFormat::Problem, None, &HeaderValue::from_static("abc"));
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "1");
        assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "no-store");
    }
}
