//! The one function that every request goes through, whatever protocol it came by.
//!
//! The order of the steps is fixed: normalise, route, admit, validate, choose and forward, finish. A step yields what
//! the next one needs or a [`Rejection`]; one place turns rejections into answers.

use std::cell::Cell;
use std::rc::Rc;

use http::header::{ALLOW, CONNECTION, EXPECT, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::client::{self, Told};
use super::cors::preflight_method;
use super::inbound::{Inbound, authority};
use super::limited::limit;
use super::names::X_REQUEST_ID;
use super::outgoing::{ConnectionNamed, Outgoing, is_hop_by_hop, sent_framing, wanted_upgrade};
use super::record::Record;
use super::refusal;
use super::rejection::{Cause, Rejection};
use super::route::{Action, Route, location};
use super::routes::Unmatched;
use super::target::{Host, NormalPath, Path, Target};
use crate::body::{Content, RequestBody, ResponseBody};
use crate::config::settings::{Balance, ErrorFormat, HashKey, UpstreamTimeouts};
use crate::gateway::Gateway;
use crate::http1::head::ResponseHead;
use crate::server::stream::Peer;
use crate::server::worker::Worker;
use crate::upstream::forward::{Call, Forwarded, forward};
use crate::upstream::http1::Interim;
use crate::upstream::upgrade::Upgraded;
use crate::upstream::{ChooseBy, Server, Upstream};

/// Methods that are served where nothing narrower is said.
const SERVED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// What a connection does next.
pub enum Answer {
    Response(Response<ResponseBody>),
    /// Sends the head and becomes a tunnel. Only when the request was `upgradable`.
    Upgrade { head: Response<()>, upgraded: Box<Upgraded>, record: Box<Record> },
}

/// Answers a request.
pub async fn handle(worker: &Rc<Worker>, peer: &Rc<Peer>, inbound: Inbound, interim: &dyn Interim) -> Answer {
    let gateway = worker.gateway();
    let mut record = Record::begin(worker, peer, &inbound);
    let mut passage = Passage { worker, peer, gateway: &gateway, interim, record: &mut record };
    let body = RequestBody::Empty;
    let mut inbound = inbound;
    let body = std::mem::replace(&mut inbound.body, body);
    match passage.pass(&inbound, body).await {
        Ok(Passed::Response(response)) => Answer::Response(finish(response, &inbound.headers, peer, record)),
        Ok(Passed::Upgrade(mut head, upgraded)) => {
            head.headers_mut().insert(X_REQUEST_ID, record.request_id.clone());
            record.status = Some(head.status());
            Answer::Upgrade { head, upgraded, record }
        }
        Err(rejection) => Answer::Response(refuse(&rejection, Some(&inbound.headers), peer, record)),
    }
}

/// Answers what never became a request: a malformed head, one that is too large, one that does not come.
pub fn refuse_head(worker: &Rc<Worker>, peer: &Rc<Peer>, cause: Cause) -> Response<ResponseBody> {
    refuse(&cause.into(), None, peer, Record::headless(worker, peer))
}

fn refuse(rejection: &Rejection, request: Option<&HeaderMap>, peer: &Peer, mut record: Box<Record>) -> Response<ResponseBody> {
    record.cause = Some(rejection.cause);
    let format = record.route.as_ref().map_or(ErrorFormat::Problem, |route| route.settings.errors);
    let response = refusal::answer(rejection, format, request, &record.request_id);
    finish(response, request.unwrap_or(&HeaderMap::new()), peer, record)
}

/// The last step: the fields that every answer of a route carries, and the record that its end will write.
fn finish(
    mut response: Response<ResponseBody>,
    request: &HeaderMap,
    peer: &Peer,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    if let Some(route) = &record.route {
        if let Some(cors) = route.cors.as_ref().filter(|_| record.cause.is_some() || !is_preflight_answer(&response)) {
            cors.mark(request, response.headers_mut());
        }
        route.finish_headers(response.headers_mut(), peer.tls);
    }
    response.headers_mut().insert(X_REQUEST_ID, record.request_id.clone());
    record.status = Some(response.status());
    response.map(|body| body.on_end(record))
}

/// A preflight that the gateway answered is marked already.
fn is_preflight_answer(response: &Response<ResponseBody>) -> bool {
    response.extensions().get::<PreflightAnswer>().is_some()
}

#[derive(Clone, Copy)]
struct PreflightAnswer;

enum Passed {
    Response(Response<ResponseBody>),
    Upgrade(Response<()>, Box<Upgraded>),
}

/// A request on its way through the steps.
struct Passage<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Rc<Peer>,
    gateway: &'a Gateway,
    interim: &'a dyn Interim,
    record: &'a mut Record,
}

impl Passage<'_> {
    async fn pass(&mut self, inbound: &Inbound, body: RequestBody) -> Result<Passed, Rejection> {
        let target = self.normalise(inbound)?;
        let path = match target.path {
            Path::Normal(path) => path,
            Path::Asterisk => return Ok(Passed::Response(about_the_server())),
        };
        self.record.path = Some(path.clone());
        if let Some(port) = self.listener_redirect() {
            return self.redirect_to_https(port, &path, target.query.as_deref()).map(Passed::Response);
        }
        let route = self.route(inbound, &path)?;
        self.admit(&route)?;
        if let (Some(cors), Some(_)) = (&route.cors, preflight_method(&inbound.method, &inbound.headers)) {
            let mut response = Response::new(ResponseBody::new(Content::Empty));
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors.answer_preflight(&inbound.headers, response.headers_mut());
            response.extensions_mut().insert(PreflightAnswer);
            return Ok(Passed::Response(response));
        }
        match &route.action {
            Action::Respond(fixed) => {
                let mut response = Response::new(ResponseBody::new(Content::Full(fixed.body.clone())));
                *response.status_mut() = fixed.status;
                *response.headers_mut() = fixed.headers.clone();
                Ok(Passed::Response(response))
            }
            Action::Redirect(redirect) => {
                let query = target.query.as_deref().and_then(|query| std::str::from_utf8(query).ok());
                let location = location(redirect, &route.settings.path.value, path.as_str(), query).ok_or(Cause::Internal)?;
                Ok(Passed::Response(redirection(redirect.status, location)))
            }
            Action::Forward { upstream, timeouts } => {
                let way = Way { route: &route, upstream, timeouts, path: &path, query: target.query.as_deref() };
                self.forward(inbound, body, way).await
            }
        }
    }

    /// Step 1: refuses what is ambiguous, and reads the target in its one form.
    fn normalise(&mut self, inbound: &Inbound) -> Result<Target, Rejection> {
        if matches!(inbound.method, Method::CONNECT | Method::TRACE) {
            return Err(Rejection { cause: Cause::MethodRefused, allow: Some(SERVED) });
        }
        let target = Target::parse(&inbound.method, &inbound.target)?;
        self.record.host = authority(inbound, &target)?;
        let trusted = self.gateway.listeners.get(&self.peer.listener).map(|listener| &listener.settings.trusted_proxies);
        self.record.client = client::address(self.peer, trusted.map_or(&[], |nets| nets), &inbound.headers);
        let mut expectations = inbound.headers.get_all(EXPECT).iter();
        if !expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Cause::ExpectationFailed.into());
        }
        Ok(target)
    }

    /// The port that this listener sends clients to.
    fn listener_redirect(&self) -> Option<u16> {
        self.gateway.listeners.get(&self.peer.listener).and_then(|listener| listener.settings.redirect_to_https)
    }

    /// Only to hosts that lead to a route: a made-up `Host` must not decide where a browser goes.
    fn redirect_to_https(&self, port: u16, path: &NormalPath, query: Option<&[u8]>) -> Result<Response<ResponseBody>, Rejection> {
        let host = self.record.host.as_ref().map(Host::name).ok_or(Cause::BadHost)?;
        if !self.gateway.routes.serve_host(host) {
            return Err(Cause::NoRoute.into());
        }
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let mark = if query.is_some() { "?" } else { "" };
        let query = std::str::from_utf8(query.unwrap_or_default()).map_err(|_| Cause::BadTarget)?;
        let location = format!("https://{host}{port}{}{mark}{query}", path.as_str());
        let location = HeaderValue::try_from(location).map_err(|_| Cause::BadTarget)?;
        Ok(redirection(StatusCode::PERMANENT_REDIRECT, location))
    }

    /// Step 2: host, path, method. `%2F` is refused wherever no route allows it.
    fn route(&mut self, inbound: &Inbound, path: &NormalPath) -> Result<Rc<Route>, Rejection> {
        todo!()
    }
}
