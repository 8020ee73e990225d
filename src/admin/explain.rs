//! `POST /explain`: what the running gateway would do with a request that nobody sends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::Semaphore;

use super::Shared;
use super::answer::{json, problem};
use super::lifecycle::ReloadOutcome;
use crate::explain::{Asked, Explanation, InForce, Moment, explain};
use crate::gateway::Gateway;
use crate::observe::timestamp::rfc3339_seconds;

/// Bytes of a question: a body of 1 MiB and large fields, in base64 and JSON.
const MOST: usize = 2 * 1024 * 1024;
/// For a whole question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions at the same time: signatures and bodies may take their time.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Whether it is this that is asked. Any other method is refused like that of any page.
pub(super) fn is_asked(request: &Parts) -> bool {
    request.method == http::Method::POST && request.uri.path() == "/explain"
}

/// Answers. The question itself is judged beside the control plane, which goes on meanwhile.
pub(super) async fn answer<B>(headers: &HeaderMap, body: B, shared: &Arc<Shared>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // No page of another site can make a browser send this without being asked first.
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send the question as application/json.");
    }
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, MOST).collect());
    let text = match read.await {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(_)) => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "The question is larger than 2 MiB, or broke off.");
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "The question did not arrive in time."),
    };
    let asked: Asked = match serde_json::from_slice(&text) {
        Ok(asked) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("This is no question: {error}.")),
    };
    // Never closed.
    let Ok(place) = AT_ONCE.acquire().await else { return busy() };
    let (gateway, runtime, shared) = (shared.newest.load_full(), tokio::runtime::Handle::current(), Arc::clone(shared));
    let explained = tokio::task::spawn_blocking(move || {
        let explained = runtime.block_on(explain(&gateway, &asked, Moment::Live));
        explained.map(|explanation| Explanation { in_force: Some(in_force(&gateway, &shared)), ..explanation })
    });
    let explained = explained.await;
    drop(place);
    match explained {
        Ok(Ok(explanation)) => json(StatusCode::OK, &explanation),
        Ok(Err(unaskable)) => problem(StatusCode::BAD_REQUEST, &unaskable.to_string()),
        Err(_) => busy(),
    }
}

fn busy() -> Response<Full<Bytes>> {
    problem(StatusCode::SERVICE_UNAVAILABLE, "The gateway is about to end, or this made it fail.")
}

/// Which configuration explains, and whether the file still is that.
fn in_force(gateway: &Gateway, shared: &Shared) -> InForce {
    let configuration = shared.lifecycle.configuration();
    let file = gateway.settings.lines.file().to_owned();
    let changed = std::fs::metadata(&file).and_then(|file| file.modified());
    let failed = shared.lifecycle.last_reload().is_some_and(|reload| match reload.outcome {
        ReloadOutcome::Failed { .. } => true,
        ReloadOutcome::Loaded { .. } => false,
    });
    InForce {
        generation: configuration.generation,
        loaded: rfc3339_seconds(configuration.loaded),
        file_is_newer: changed.is_ok_and(|changed: SystemTime| changed > configuration.loaded),
        last_reload_failed: failed,
        file,
    }
}
