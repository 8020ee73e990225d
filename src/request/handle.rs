//! The one function that every request goes through, whatever protocol it came by.
//!
//! The order of the steps is fixed: normalise, route, admit, validate, choose and forward, finish. A step yields what
//! the next one needs or a [`Rejection`]; one place turns rejections into answers.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};

use super::buffering;
use super::client;
use super::cors::preflight_method;
use super::decisions::{NotRouted, asking, choose_route, is_expected, is_served, passing_query, to_https, unserved};
use super::files::{self, Asked, Unserved};
use super::inbound::{Inbound, authority};
use super::limited::limit;
use super::names::{X_ACCEL_REDIRECT, X_REQUEST_ID};
use super::onward::Onward;
use super::outgoing::{switched_to, wanted_upgrade};
use super::plain::{self, about_the_server, from_server, redirection};
use super::record::{Record, client_closed};
use super::refusal;
use super::rejection::{Cause, Rejection};
use super::route::{Action, Route, location};
use super::target::{NormalPath, Path, Target};
use crate::admit::Caller;
use crate::admit::gate::{Admitted, Refused};
use crate::admit::limit::Counting;
use crate::body::{Content, RequestBody, ResponseBody};
use crate::coding::answer::compress;
use crate::config::settings::{ListenerSettings, UpstreamTimeouts};
use crate::gateway::Gateway;
use crate::headers::Headers;
use crate::http1::head::ResponseHead;
use crate::request::peer::Peer;
use crate::response::Response;
use crate::upstream::Upstream;
use crate::upstream::forward::{Call, Forwarded, forward};
use crate::upstream::http1::Interim;
use crate::upstream::upgrade::Upgraded;
use crate::validate::{Judging, Validation};
use crate::worker::Worker;

/// What a connection does next.
pub enum Answer {
    Response(Response),
    /// Sends the head and becomes a tunnel. Only when the request was `upgradable`.
    Upgrade {
        head: Response<()>,
        upgraded: Box<Upgraded>,
        record: Box<Record>,
    },
}

/// Answers a request.
pub async fn handle(worker: &Rc<Worker>, peer: &Rc<Peer>, mut inbound: Inbound, interim: &dyn Interim) -> Answer {
    let gateway = worker.gateway();
    let mut record = Record::begin(worker, peer, &inbound);
    let body = std::mem::replace(&mut inbound.body, RequestBody::Empty);
    let listener = gateway.listeners.get(&peer.listener).map(|listener| &listener.settings);
    let mut passage = Passage { worker, peer, gateway: &gateway, listener, interim, record: &mut record };
    match passage.pass(&inbound, body).await {
        Ok(Passed::Response(mut response)) => {
            if record.manners().is_some_and(|route| route.settings.compress) {
                compress(&worker.encoders, &inbound.method, &inbound.headers, &mut response);
            }
            mark_origin(&record, &inbound.headers, response.headers_mut());
            finish(&mut response, &gateway, peer, record);
            Answer::Response(response)
        }
        Ok(Passed::Preflight(mut response)) => {
            finish(&mut response, &gateway, peer, record);
            Answer::Response(response)
        }
        Ok(Passed::Upgrade(mut head, upgraded)) => {
            head.headers_mut().insert(X_REQUEST_ID, record.request_id.clone());
            record.status = Some(head.status());
            Answer::Upgrade { head, upgraded, record }
        }
        Err(rejection) => Answer::Response(refuse(&rejection, Some(&inbound.headers), &gateway, peer, record)),
    }
}

/// Answers what never became a request: a malformed head, one that is too large, one that does not come.
pub fn refuse_head(worker: &Rc<Worker>, peer: &Rc<Peer>, cause: Cause) -> Response {
    refuse(&cause.into(), None, &worker.gateway(), peer, Record::headless(worker, peer))
}

fn refuse(
    rejection: &Rejection,
    request: Option<&Headers>,
    gateway: &Gateway,
    peer: &Peer,
    mut record: Box<Record>,
) -> Response {
    record.cause = Some(rejection.cause);
    record.journey.detail(rejection.detail().map(str::to_owned));
    let format = record.manners().map_or(gateway.routes.unrouted.errors, |route| route.style.errors);
    let mut response = refusal::answer(rejection, format, request, &record.request_id);
    if rejection.cause == Cause::ClientClosed {
        // There is nobody to tell.
        record.status = Some(client_closed());
    } else if response.status().is_success() {
        // A client of gRPC is told elsewhere than in the status; what went wrong is the same.
        record.status = Some(rejection.cause.row().status);
    }
    if let Some(request) = request {
        mark_origin(&record, request, response.headers_mut());
    }
    finish(&mut response, gateway, peer, record);
    response
}

/// What a browser must see on any answer, an error too, before it shows it to another origin's script.
fn mark_origin(record: &Record, request: &Headers, answer: &mut Headers) {
    if let Some(cors) = record.manners().and_then(|route| route.cors.as_ref()) {
        cors.mark(request, answer);
    }
}

/// The last step: the fields that every answer carries, and the record that its end will write.
fn finish(response: &mut Response, gateway: &Gateway, peer: &Peer, mut record: Box<Record>) {
    // Before the route's own rules, so that these may take them away.
    response.headers_mut().extend(record.held.fields());
    match record.manners() {
        Some(route) => route.finish_headers(response.headers_mut(), peer.tls),
        None => gateway.routes.unrouted.mark(response.headers_mut(), peer.tls, &[]),
    }
    response.headers_mut().insert(X_REQUEST_ID, record.request_id.clone());
    record.status.get_or_insert(response.status());
    response.body_mut().on_end(record);
}

enum Passed {
    Response(Response),
    /// A preflight's answer, marked for its origin already.
    Preflight(Response),
    Upgrade(Response<()>, Box<Upgraded>),
}

/// A request on its way through the steps.
struct Passage<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Rc<Peer>,
    gateway: &'a Gateway,
    /// `None` once the configuration has it no more and only its connections are left.
    listener: Option<&'a ListenerSettings>,
    interim: &'a dyn Interim,
    record: &'a mut Record,
}

impl<'a> Passage<'a> {
    async fn pass(&mut self, inbound: &Inbound, body: RequestBody) -> Result<Passed, Rejection> {
        let target = self.normalise(inbound)?;
        let path = match target.path {
            Path::Normal(path) => path,
            Path::Asterisk => return Ok(Passed::Response(about_the_server())),
        };
        self.record.path = Some(path.clone());
        if let Some(port) = self.listener.and_then(|listener| listener.redirect_to_https) {
            let host = self.record.host.as_ref();
            let (status, location) = to_https(&self.gateway.routes, port, host, &path, target.query.as_deref())?;
            return Ok(Passed::Response(redirection(status, location)));
        }
        let route = self.enter(inbound, &path)?;
        if !route.admits(self.record.client) {
            return Err(Cause::AddressDenied.into());
        }
        let counting = Counting { worker: self.worker, client: self.record.client, headers: &inbound.headers };
        if let Some(asked) = route.limits.before_identity(&counting, &mut self.record.held)? {
            asked.await?;
        }
        // Browsers ask beforehand without credentials.
        if let (Some(cors), Some(_)) = (&route.cors, preflight_method(&inbound.method, &inbound.headers)) {
            let mut response = Response::new(ResponseBody::new(Content::Empty));
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors.answer_preflight(&inbound.headers, response.headers_mut());
            return Ok(Passed::Preflight(response));
        }
        let query = target.query.as_deref();
        let admitted = match self.admit_at_once(route, inbound, query) {
            Some(admitted) => admitted?,
            None => Box::pin(self.admit(route, inbound, query)).await?,
        };
        if let Some(asked) = route.limits.by_caller(&counting, &admitted.caller, &mut self.record.held)? {
            asked.await?;
        }
        let query = passing_query(query, &route.gate);
        let query = query.as_deref();
        match &route.action {
            Action::Respond(fixed) => Ok(Passed::Response(plain::fixed(fixed))),
            Action::Redirect(redirect) => {
                let query = query.and_then(|query| std::str::from_utf8(query).ok());
                let location =
                    location(redirect, &route.settings.path.value, path.as_str(), query).ok_or(Cause::Internal)?;
                Ok(Passed::Response(redirection(redirect.status, location)))
            }
            Action::Files { files, fallback } => {
                let asked = Asked { inbound, path: &path, query: target.query.as_deref() };
                match (files.serve(route, &self.worker.readers, &asked).await, fallback) {
                    (Ok(response), _) => Ok(Passed::Response(response)),
                    (Err(Unserved::Elsewhere(_)), Some((upstream, timeouts))) => {
                        let way = Way { route, upstream, timeouts, path: &path, query, admitted: &admitted };
                        self.forward(inbound, body, &way).await
                    }
                    (Err(Unserved::Elsewhere(rejection) | Unserved::Refused(rejection)), _) => Err(rejection),
                }
            }
            Action::Forward { upstream, timeouts } => {
                let way = Way { route, upstream, timeouts, path: &path, query, admitted: &admitted };
                self.forward(inbound, body, &way).await
            }
        }
    }

    /// Step 1: refuses what is ambiguous, and reads the target in its one form.
    fn normalise(&mut self, inbound: &Inbound) -> Result<Target, Rejection> {
        is_served(&inbound.method)?;
        let target = Target::parse(&inbound.method, &inbound.target)?;
        self.record.host = authority(inbound, &target, self.peer)?;
        let trusted = self.listener.map_or(&[][..], |listener| &listener.trusted_proxies);
        self.record.client = client::address(self.peer, trusted, &inbound.headers);
        is_expected(inbound)?;
        Ok(target)
    }

    /// Step 2: host, path, method.
    fn enter(&mut self, inbound: &Inbound, path: &NormalPath) -> Result<&'a Arc<Route>, Rejection> {
        match choose_route(&self.gateway.routes, inbound, self.record.host.as_ref(), path) {
            Ok(route) => {
                self.record.enter(route);
                Ok(route)
            }
            Err(NotRouted { rejection, beside }) => {
                self.record.beside = beside;
                Err(rejection)
            }
        }
    }

    /// Step 3: who is calling, and may that caller come in; `None`: somebody has to be asked.
    fn admit_at_once<'r>(
        &mut self,
        route: &'r Route,
        inbound: &Inbound,
        query: Option<&[u8]>,
    ) -> Option<Result<Admitted<'r>, Rejection>> {
        let asking = asking(self.peer, inbound, self.record.host.as_ref(), query, route);
        let admitted = route.gate.admit_at_once(&asking, self.worker)?;
        Some(self.note_caller(admitted))
    }

    /// The same by asking. On the heap, by whoever calls it: the answer is nearly always known.
    async fn admit<'r>(
        &mut self,
        route: &'r Route,
        inbound: &Inbound,
        query: Option<&[u8]>,
    ) -> Result<Admitted<'r>, Rejection> {
        let asking = asking(self.peer, inbound, self.record.host.as_ref(), query, route);
        let admitted = route.gate.admit(&asking, self.worker).await;
        self.note_caller(admitted)
    }

    fn note_caller<'r>(&mut self, admitted: Result<Admitted<'r>, Refused>) -> Result<Admitted<'r>, Rejection> {
        if self.gateway.settings.log.subject {
            self.record.caller = match &admitted {
                Ok(Admitted { caller: Caller::Known(identity), .. }) => Some(Arc::clone(identity)),
                Ok(Admitted { caller: Caller::Anonymous, .. }) => None,
                Err(refused) => refused.caller.clone(),
            };
        }
        admitted.map_err(|refused| refused.rejection)
    }

    fn onward<'w>(&'w self, inbound: &'w Inbound, way: &Way<'w>) -> Onward<'w> {
        let Way { route, upstream, path, query, admitted, .. } = *way;
        Onward {
            peer: self.peer,
            inbound,
            host: self.record.host.as_ref(),
            client: self.record.client,
            path,
            query,
            route,
            upstream,
            caller: &admitted.caller,
            withheld: admitted.withheld,
            identity_fields: &self.gateway.routes.identity_fields,
        }
    }

    /// Steps 4 to 6: the body's bounds and what it must look like, a server, the answer.
    async fn forward(&mut self, inbound: &Inbound, body: RequestBody, way: &Way<'_>) -> Result<Passed, Rejection> {
        let Way { route, upstream, timeouts, .. } = *way;
        let mut body = self.limit(body, route)?;
        if let Some(validation) = &route.validation {
            let (worker, journey) = (self.worker, &self.record.journey);
            let judge = async move |judging: &Judging<'_>| validation.judge(judging, body, worker, journey).await;
            // On the heap: most routes have none.
            body = Box::pin(self.onward(inbound, way).judged(judge)).await?;
        }
        let upgrade = wanted_upgrade(inbound, &body);
        let (buffer, spool) = (&route.settings.buffer, &self.gateway.spool);
        if buffering::is_taken_in(&body, &inbound.headers, buffer, upstream.needs_lengths) {
            // On the heap: most requests have no body.
            body = Box::pin(buffering::take_in(body, buffer, spool)).await?;
        }
        buffering::settle(&mut body, upstream.needs_lengths);
        let forwarded = {
            let onward = self.onward(inbound, way);
            let outgoing = onward.outgoing(body.length(), upgrade.as_ref(), &self.record.request_id);
            let call = Call {
                worker: self.worker.id,
                pool: &self.worker.pool,
                upstream,
                timeouts,
                priority: route.settings.priority,
                by: onward.choose_by(),
                method: &inbound.method,
                head: &outgoing,
                framing: outgoing.framing,
                upgrade: upgrade.is_some(),
                interim: self.interim,
                journey: &self.record.journey,
            };
            forward(&call, body).await.map_err(|cause| unserved(cause, upstream))?
        };
        match forwarded {
            Forwarded::Response(head, content) => {
                let mut response = from_server(head, content);
                buffering::read_ahead(&mut response, buffer, spool);
                if let Some(internal) = &route.internal {
                    // On the heap: hardly any route has some.
                    let named = files::named(route, internal, &self.worker.readers, inbound, response);
                    return Box::pin(named).await.map(Passed::Response);
                }
                files::unnamed(&mut response, &self.record.journey);
                Ok(Passed::Response(response))
            }
            Forwarded::Upgraded(head, upgraded) => switched(head, upgraded, upgrade),
        }
    }

    fn limit(&self, body: RequestBody, route: &Route) -> Result<RequestBody, Rejection> {
        let most = route.validation.as_ref().map_or(route.settings.max_body, Validation::hard_limit);
        let reserved = self.gateway.routes.reserved_trailers.as_ref();
        let limited = limit(body, most, &self.record.journey, reserved, route.settings.min_upload_rate);
        Ok(limited.inspect_err(|_| {
            if let Some(validation) = &route.validation {
                validation.refused_length(self.worker);
            }
        })?)
    }
}

/// A server has switched to what was `asked` for.
fn switched(head: ResponseHead, upgraded: Box<Upgraded>, asked: Option<HeaderValue>) -> Result<Passed, Rejection> {
    let protocol = asked.and_then(|asked| switched_to(&asked, &head.headers));
    let mut response = from_server(head, Content::Empty).map(|_| ());
    let Some(protocol) = protocol else { return Err(Cause::UpstreamInvalidResponse.into()) };
    // Nothing is sent in its place, and nobody is to know what lies where.
    response.headers_mut().remove(X_ACCEL_REDIRECT);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    Ok(Passed::Upgrade(response, upgraded))
}

/// Where a request is forwarded to.
#[derive(Clone, Copy)]
struct Way<'a> {
    route: &'a Route,
    upstream: &'a Arc<Upstream>,
    timeouts: &'a UpstreamTimeouts,
    path: &'a NormalPath,
    query: Option<&'a [u8]>,
    admitted: &'a Admitted<'a>,
}
