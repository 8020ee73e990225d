//! Files as answers to requests: those of the route, and those that a service names instead of sending them.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::inbound::Inbound;
use super::names::{X_ACCEL_REDIRECT, X_SENDFILE};
use super::plain::redirection;
use super::rejection::{Cause, Rejection};
use super::route::Route;
use super::routes::captures;
use super::target::NormalPath;
use crate::coding::accept::Accepted;
use crate::coding::answer::DIGESTS;
use crate::config::problem::Problem;
use crate::config::settings::{FilesSettings, PatternSegment};
use crate::files::answer::{Frame, answer};
use crate::files::find::Sought;
use crate::files::internal::{InternalFiles, Named};
use crate::files::path::{Beneath, Dotfiles};
use crate::files::root::{Failure, Root};
use crate::files::{Readers, look_up};
use crate::headers::Headers;
use crate::response::Response;
use crate::upstream::journey::Journey;

/// `files` of a route, compiled.
pub struct Files {
    root: Arc<Root>,
    cache_control: Option<HeaderValue>,
}

/// Why a route's files do not answer a request.
pub enum Unserved {
    /// There is no such file, or the method is not one for files: a fallback may know more.
    Elsewhere(Rejection),
    Refused(Rejection),
}

/// What of a request files are chosen by.
pub struct Asked<'a> {
    pub inbound: &'a Inbound,
    pub path: &'a NormalPath,
    /// The client's own: it is sent back with all that is in it.
    pub query: Option<&'a [u8]>,
}

impl Files {
    /// Warns of what is not there yet: files may be put in place while the gateway runs.
    pub fn build(settings: &FilesSettings, problems: &mut Vec<Problem>) -> Files {
        let root = Root::new(settings.path.value.clone());
        if let Some(why) = root.trouble() {
            problems.push(unusable(&root, &why, &settings.path.span));
        }
        Files { root: Arc::new(root), cache_control: settings.cache_control.clone() }
    }

    /// Answers with the file that `{*rest}` of the route's path names. A route whose path has none serves what a request
    /// to the directory itself is answered with.
    ///
    /// # Errors
    /// Why none does.
    pub async fn serve(&self, route: &Route, readers: &Readers, asked: &Asked<'_>) -> Result<Response, Unserved> {
        let Asked { inbound, path, query } = asked;
        if !matches!(inbound.method, Method::GET | Method::HEAD) {
            let rejection = Rejection::from(Cause::MethodNotAllowed);
            return Err(Unserved::Elsewhere(rejection.with_fields([(ALLOW, HeaderValue::from_static("GET, HEAD"))])));
        }
        let pattern = &route.settings.path.value;
        let (rest, slash) = match pattern.segments.last() {
            Some(PatternSegment::Rest(_)) => {
                (captures(pattern, path.as_str()).last().map_or("", |(_, rest)| rest), path.as_str().ends_with('/'))
            }
            // Nothing lies beneath, so relative links of the index lead elsewhere in any case.
            Some(PatternSegment::Literal(_) | PatternSegment::Parameter(_)) | None => ("", true),
        };
        let beneath = Beneath::of_url(rest, Dotfiles::Hidden);
        let accepted = Accepted::of(&inbound.headers);
        let found = match look_up(readers, &self.root, beneath, slash, accepted).await {
            Ok(Sought::File(found)) => found,
            Ok(Sought::Slash) => return to_directory(path, *query).map_err(|cause| Unserved::Refused(cause.into())),
            Err(Failure::NotFound(why)) => return Err(self.not_found(rest, why)),
            Err(failure) => return Err(Unserved::Refused(refused(failure, &self.root, rest.as_bytes()))),
        };
        let mut frame = Frame {
            method: &inbound.method,
            request: &inbound.headers,
            headers: Headers::new(),
            status: StatusCode::OK,
            compressed: route.settings.compress,
        };
        if let Some(cache_control) = &self.cache_control {
            frame.headers.insert(CACHE_CONTROL, cache_control.clone());
        }
        answer(found, frame, readers).map_err(Unserved::Refused)
    }

    fn not_found(&self, rest: &str, why: &'static str) -> Unserved {
        let detail = detail(&self.root, rest.as_bytes(), why);
        Unserved::Elsewhere(Rejection::from(Cause::FileNotFound).with_detail(detail))
    }
}

/// The problem of a directory that cannot serve anything now.
pub fn unusable(root: &Root, why: &str, span: &crate::config::source::Span) -> Problem {
    let message = format!("nothing can be served of `{}`: {why}", root.path().display());
    let help = "paths are relative to the configuration file, and the user that the gateway runs as must be able to enter \
                every directory on the way";
    Problem::warning(span, message).help(help)
}

/// To the same with a slash, so that relative links of the index lead beneath it.
fn to_directory(path: &NormalPath, query: Option<&[u8]>) -> Result<Response, Cause> {
    let mark: &[u8] = if query.is_some() { b"?" } else { b"" };
    let location = [path.as_str().as_bytes(), b"/", mark, query.unwrap_or_default()].concat();
    let location = HeaderValue::try_from(location).map_err(|_| Cause::Internal)?;
    Ok(redirection(StatusCode::PERMANENT_REDIRECT, location))
}

/// What a failure other than that there is none comes to.
fn refused(failure: Failure, root: &Root, path: &[u8]) -> Rejection {
    match failure {
        Failure::NotFound(why) => Rejection::from(Cause::FileNotFound).with_detail(detail(root, path, why)),
        Failure::Forbidden => {
            Rejection::from(Cause::FileForbidden).with_detail(detail(root, path, "permission denied"))
        }
        Failure::Io(error) => {
            Rejection::from(Cause::FileUnreadable).with_detail(detail(root, path, &error.to_string()))
        }
        Failure::WouldBlock => Cause::Internal.into(),
    }
}

fn detail(root: &Root, path: &[u8], why: &str) -> String {
    format!("`{}` beneath `{}`: {why}", String::from_utf8_lossy(path), root.path().display())
}

/// What is said of a file that is named is said anew of the file that is sent.
static OF_THE_BODY: [HeaderName; 6] =
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, ACCEPT_RANGES, ETAG, LAST_MODIFIED];

/// Takes away what names a file on a route that has none to send: it would tell a client what lies where, and whoever
/// forgot `internal_files` finds it in the record. `X-Sendfile` means as little to nginx, and passes.
pub fn unnamed(response: &mut Response, journey: &Journey) {
    if let Some(value) = response.headers_mut().take(&X_ACCEL_REDIRECT) {
        let value = String::from_utf8_lossy(value.as_bytes());
        journey.detail(Some(format!("{X_ACCEL_REDIRECT}: {value}: the route has no internal_files")));
    }
}

/// Sends the file that a service's answer names, if it names one. The answer's own body is dropped, so its server is free;
/// its other fields stay.
///
/// # Errors
/// Why the file may not be sent, or is not there.
pub async fn named(
    route: &Route,
    internal: &InternalFiles,
    readers: &Readers,
    inbound: &Inbound,
    response: Response,
) -> Result<Response, Rejection> {
    let (mut head, body) = response.into_parts();
    // Never towards the client, acted upon or not: they tell what lies where.
    let redirect = head.headers.take(&X_ACCEL_REDIRECT);
    let sendfile = head.headers.take(&X_SENDFILE);
    let (field, value) = match (redirect, sendfile) {
        (Some(value), _) => (X_ACCEL_REDIRECT, value),
        (None, Some(value)) => (X_SENDFILE, value),
        (None, None) => return Ok(Response::from_parts(head, body)),
    };
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        return Ok(Response::from_parts(head, body));
    }
    drop(body);
    for name in OF_THE_BODY.iter().chain(&DIGESTS) {
        head.headers.remove(name);
    }
    let value = value.as_bytes();
    let named = if field == X_ACCEL_REDIRECT { internal.by_url(value) } else { internal.by_disk(readers, value).await };
    let Named { root, path } = named.map_err(|why| {
        let detail = format!("{field}: {}: {why}", String::from_utf8_lossy(value));
        Rejection::from(Cause::InternalFileRefused).with_detail(detail)
    })?;
    let shown = path.as_bytes().to_vec();
    let missing = |why: &str| {
        let detail = format!("{field}: {}", detail(root, &shown, why));
        Rejection::from(Cause::InternalFileMissing).with_detail(detail)
    };
    if path.is_directory() {
        return Err(missing("it is a directory"));
    }
    // No siblings: the service has agreed to this file alone, and whoever may upload could put one beside another's.
    let found = match look_up(readers, root, Ok(path), true, Accepted::NOTHING).await {
        Ok(Sought::File(found)) => found,
        Ok(Sought::Slash) => return Err(missing("it is a directory")),
        Err(Failure::NotFound(why)) => return Err(missing(why)),
        Err(failure) => return Err(refused(failure, root, &shown)),
    };
    let asks = matches!(inbound.method, Method::GET | Method::HEAD);
    let status = match head.status {
        // Flask answers ranges and conditions by itself, and leaves the file to whoever sends it all the same. It knows
        // neither the tag that the client was given nor what of the file goes out: they are judged here.
        StatusCode::PARTIAL_CONTENT => StatusCode::OK,
        StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED if asks => StatusCode::OK,
        status => status,
    };
    let (method, request, compressed) = (&inbound.method, &inbound.headers, route.settings.compress);
    let frame = Frame { method, request, headers: head.headers, status, compressed };
    answer(found, frame, readers)
}
