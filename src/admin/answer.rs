//! One request to the admin listener or the probe listener, answered.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;

use super::explain;
use super::guard::{self, Refusal};
use super::ready::{Readiness, readiness};
use super::{Shared, status};

/// Which of the two listeners a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// `address`
    Admin,
    /// `probe_address`: `/live` and `/ready` alone.
    Probes,
}

/// What there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Index,
    Metrics,
    Status,
    /// Answers questions, see `explain.rs`.
    Explain,
    Live,
    Ready,
}

impl Page {
    fn find(surface: Surface, path: &str) -> Option<Page> {
        match (path, surface) {
            ("/live", Surface::Admin | Surface::Probes) => Some(Page::Live),
            ("/ready", Surface::Admin | Surface::Probes) => Some(Page::Ready),
            ("/", Surface::Admin) => Some(Page::Index),
            ("/metrics", Surface::Admin) => Some(Page::Metrics),
            ("/status", Surface::Admin) => Some(Page::Status),
            ("/explain", Surface::Admin) => Some(Page::Explain),
            (_, Surface::Admin | Surface::Probes) => None,
        }
    }

    /// Whether anybody who reaches the listener may see it.
    fn is_open(self) -> bool {
        match self {
            Page::Live | Page::Ready => true,
            Page::Index | Page::Metrics | Page::Status | Page::Explain => false,
        }
    }
}

/// Answers any request.
pub(super) async fn answer<B>(request: Request<B>, surface: Surface, shared: &Arc<Shared>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (request, body) = request.into_parts();
    if let Err(refusal) = admit(&request, surface, shared) {
        return refused(refusal);
    }
    match surface {
        Surface::Admin if explain::is_asked(&request) => explain::answer(&request.headers, body, shared).await,
        // A body is not read; hyper ends the connection when there is much of it.
        Surface::Admin | Surface::Probes => page(&request, surface, shared).await,
    }
}

/// Whoever may see nothing does not learn either what there is.
fn admit(request: &Parts, surface: Surface, shared: &Shared) -> Result<(), Refusal> {
    let open = Page::find(surface, request.uri.path()).is_some_and(Page::is_open);
    match surface {
        Surface::Admin if !open => guard::check(request, shared.newest.load().settings.admin.token.as_ref()),
        Surface::Admin | Surface::Probes => Ok(()),
    }
}

/// Every page has an answer; none depends on a body.
async fn page(request: &Parts, surface: Surface, shared: &Shared) -> Response<Full<Bytes>> {
    let page = Page::find(surface, request.uri.path());
    let Some(page) = page else { return problem(StatusCode::NOT_FOUND, "There is nothing here.") };
    if page != Page::Explain && !matches!(request.method, Method::GET | Method::HEAD) {
        return refuse_method("Only GET and HEAD are answered here.", "GET, HEAD");
    }
    match page {
        // What it answers does not come here.
        Page::Explain => refuse_method("Only POST is answered here.", "POST"),
        Page::Index => {
            let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", INDEX);
            let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            response
        }
        Page::Metrics => metrics(shared).await,
        Page::Status => json(StatusCode::OK, &status::status(&shared.newest.load(), shared)),
        Page::Live => json(StatusCode::OK, &Live { status: "live" }),
        Page::Ready => {
            let readiness = readiness(&shared.newest.load(), &shared.lifecycle);
            let status = match readiness {
                Readiness::Ready => StatusCode::OK,
                Readiness::NotReady { .. } => StatusCode::SERVICE_UNAVAILABLE,
            };
            json(status, &readiness)
        }
    }
}

/// All that is counted. Read aside: that of limits with many keys takes as long as some hundred requests.
async fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    let metrics = Arc::clone(&shared.metrics);
    match shared.scrapes.run(move || metrics.render()).await {
        Ok(Ok(text)) => return with_type(StatusCode::OK, prometheus::TEXT_FORMAT, text),
        Ok(Err(error)) => tracing::error!(%error, "the metrics could not be told"),
        // The panic was logged where it happened.
        Err(_) => {}
    }
    problem(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be told; the log says why.")
}

/// The dashboard's place.
const INDEX: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Passerelle</title>
<h1>Passerelle</h1>
<ul>
<li><a href=\"/status\">/status</a>: what is configured and how it fares
<li><a href=\"/metrics\">/metrics</a>: for Prometheus
<li><a href=\"/ready\">/ready</a>: whether it should be sent requests
<li><a href=\"/live\">/live</a>: whether it runs
</ul>
</html>
";

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Unauthorized => {
            let detail = "The admin token is missing or wrong: send it as Authorization: Bearer.";
            let mut response = problem(StatusCode::UNAUTHORIZED, detail);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"passerelle\""));
            response
        }
        Refusal::ForeignHost => {
            problem(StatusCode::FORBIDDEN, "Without a token, only requests to an address or to localhost are answered.")
        }
    }
}

fn refuse_method(detail: &str, allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = Problem { kind: "about:blank", title, status: status.as_u16(), detail };
    with_type(status, "application/problem+json", to_json(&problem))
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    with_type(status, "application/json", to_json(value))
}

/// What is told here are structs of strings and numbers, which always serialise.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    // For whoever asks from a terminal.
    json.push(b'\n');
    json
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
