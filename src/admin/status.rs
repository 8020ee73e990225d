//! The body of `/status`: what is configured and how it fares. Holds no value of the configuration that could be
//! secret: no header, no body, no target of a redirect.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::Shared;
use super::apps::{self, AppStatus};
use super::lifecycle::ReloadOutcome;
use crate::admit::auth::Auth;
use crate::admit::introspection::Standing;
use crate::admit::jwt::keys::Keys;
use crate::body::Spool;
use crate::config::settings::{At, RouteAction};
use crate::gateway::Gateway;
use crate::observe::metrics::{Dropped, Protocol, UpstreamMetrics};
use crate::observe::timestamp::rfc3339;
use crate::request::route::Route;
use crate::server::listener::Listener;
use crate::upstream::Upstream;
use crate::validate::openapi::published::Published;

#[derive(Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    phase: &'static str,
    started: String,
    uptime_seconds: u64,
    workers: usize,
    bodies: Bodies,
    configuration: Configuration,
    listeners: Vec<ListenerStatus<'a>>,
    routes: Vec<RouteStatus<'a>>,
    upstreams: Vec<UpstreamStatus<'a>>,
    auths: Vec<AuthStatus<'a>>,
    /// Those that the gateway runs.
    apps: Vec<AppStatus>,
}

/// Bodies that are held.
#[derive(Serialize)]
struct Bodies {
    memory_bytes: u64,
    disk_bytes: u64,
    /// `temp_limit`
    disk_limit_bytes: u64,
    /// Those that have a temporary file.
    spooled: u64,
}

#[derive(Serialize)]
struct Configuration {
    generation: u64,
    loaded: String,
    /// Absent while there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload: Option<Reload>,
}

#[derive(Serialize)]
struct Reload {
    at: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<String>,
}

#[derive(Serialize)]
struct ListenerStatus<'a> {
    name: &'a str,
    /// Those that are bound.
    addresses: Vec<String>,
    tls: bool,
    connections: Connections,
}

#[derive(Serialize)]
struct Connections {
    http1: u64,
    http2: u64,
    upgraded: u64,
}

#[derive(Serialize)]
struct RouteStatus<'a> {
    name: &'a str,
    hosts: Vec<String>,
    path: String,
    /// Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<&'a str>>,
    #[serde(flatten)]
    action: Action<'a>,
    /// Of the upstream; absent where none is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    openapi: Option<DocumentStatus>,
}

/// An OpenAPI document that is fetched.
#[derive(Serialize)]
struct DocumentStatus {
    path: String,
    operations: usize,
    /// When it was last fetched, or found unchanged; absent: there is none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<String>,
    /// Why the last attempt failed; absent: it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Action<'a> {
    Upstream { upstream: &'a str },
    Files { fallback: Option<&'a str> },
    Redirect { status: u16 },
    Respond { status: u16 },
}

#[derive(Serialize)]
struct UpstreamStatus<'a> {
    name: &'a str,
    balance: &'static str,
    healthy: bool,
    queue: QueueStatus,
    servers: Vec<ServerStatus>,
}

/// Where requests wait for a slot.
#[derive(Serialize)]
struct QueueStatus {
    waiting: usize,
    size: usize,
    max_wait_seconds: f64,
    waited: Waited,
    /// Why how many got no slot.
    dropped: BTreeMap<&'static str, u64>,
}

/// How long those waited who had to and got a slot.
#[derive(Serialize)]
struct Waited {
    count: u64,
    sum_seconds: f64,
    /// What waited longest is in none of them.
    buckets: Vec<WaitedBucket>,
}

#[derive(Serialize)]
struct WaitedBucket {
    up_to_seconds: f64,
    /// Of all that waited for no longer.
    count: u64,
}

#[derive(Serialize)]
struct ServerStatus {
    server: String,
    state: &'static str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    in_flight: usize,
    busy: usize,
    /// Absent: not bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<usize>,
    weight: u32,
}

#[derive(Serialize)]
struct AuthStatus<'a> {
    name: &'a str,
    kind: &'static str,
    /// Absent where none are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<KeysStatus>,
    /// Absent for other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    introspection: Option<IntrospectionStatus>,
}

/// A server that is asked about tokens.
#[derive(Serialize)]
struct IntrospectionStatus {
    in_flight: u64,
    /// Since when it gives no answer that can be used, and why; absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The keys of an issuer.
#[derive(Serialize)]
struct KeysStatus {
    /// How many there are; 0: tokens get 503.
    usable: usize,
    /// Since they were last fetched; absent: they never were.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Since when they cannot be fetched, and why; absent: they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) fn status<'a>(gateway: &'a Gateway, shared: &Shared) -> Status<'a> {
    let lifecycle = &shared.lifecycle;
    let configuration = lifecycle.configuration();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        phase: lifecycle.phase().as_str(),
        started: rfc3339(lifecycle.started()),
        uptime_seconds: lifecycle.uptime().as_secs(),
        workers: gateway.settings.server.workers.get(),
        bodies: bodies(&gateway.spool),
        configuration: Configuration {
            generation: configuration.generation,
            loaded: rfc3339(configuration.loaded),
            last_reload: lifecycle.last_reload().map(|reload| last_reload(reload.at, &reload.outcome)),
        },
        listeners: gateway.listeners.values().map(|listener| listener_status(listener, shared)).collect(),
        routes: gateway.routes.iter().map(|route| route_status(route)).collect(),
        upstreams: gateway.upstreams.values().map(|upstream| upstream_status(upstream)).collect(),
        auths: gateway.auths.values().map(|auth| auth_status(auth)).collect(),
        apps: shared.apps.report().into_iter().map(apps::status).collect(),
    }
}

fn bodies(spool: &Spool) -> Bodies {
    let held = spool.held();
    Bodies {
        memory_bytes: held.memory(),
        disk_bytes: held.disk(),
        disk_limit_bytes: spool.limit(),
        spooled: held.files(),
    }
}

fn last_reload(at: SystemTime, outcome: &ReloadOutcome) -> Reload {
    let (result, problems) = match outcome {
        ReloadOutcome::Loaded { .. } => ("success", None),
        ReloadOutcome::Failed { problems } => ("failure", Some(problems.clone())),
    };
    Reload { at: rfc3339(at), result, problems }
}

fn listener_status<'a>(listener: &'a Listener, shared: &Shared) -> ListenerStatus<'a> {
    let open = |protocol| listener.metrics.open(protocol);
    ListenerStatus {
        name: &listener.name,
        addresses: shared.lifecycle.addresses(&listener.name).iter().map(ToString::to_string).collect(),
        tls: listener.settings.tls.is_some(),
        connections: Connections {
            http1: open(Protocol::Http1),
            http2: open(Protocol::Http2),
            upgraded: open(Protocol::Upgraded),
        },
    }
}

fn route_status(route: &Route) -> RouteStatus<'_> {
    let openapi = route.validation.as_ref().and_then(|validation| validation.openapi());
    let document = openapi.and_then(|openapi| openapi.published());
    let name = &route.name;
    let route = &route.settings;
    RouteStatus {
        name,
        hosts: route.hosts.iter().map(At::shown).collect(),
        path: route.path.shown(),
        methods: route.methods.as_ref().map(|methods| methods.iter().map(http::Method::as_str).collect()),
        action: match &route.action {
            RouteAction::Upstream(upstream) => Action::Upstream { upstream: &upstream.value },
            RouteAction::Files(files) => {
                Action::Files { fallback: files.fallback.as_ref().map(|name| name.value.as_str()) }
            }
            RouteAction::Redirect(redirect) => Action::Redirect { status: redirect.status.as_u16() },
            RouteAction::Respond(respond) => Action::Respond { status: respond.status.as_u16() },
        },
        openapi: document.map(|(document, _)| document_status(document)),
    }
}

fn document_status(document: &Published) -> DocumentStatus {
    let standing = document.standing();
    DocumentStatus {
        path: document.shown.clone(),
        operations: standing.operations,
        fetched: standing.fetched.map(rfc3339),
        reason: standing.failing,
    }
}

fn upstream_status(upstream: &Upstream) -> UpstreamStatus<'_> {
    let servers = upstream.status().into_iter().map(|server| ServerStatus {
        server: server.label.to_string(),
        state: server.state.as_str(),
        since: rfc3339(server.since),
        reason: server.reason,
        in_flight: server.in_flight,
        busy: server.busy,
        slots: server.slots,
        weight: server.weight,
    });
    UpstreamStatus {
        name: &upstream.name,
        balance: upstream.settings.balance.kind(),
        healthy: upstream.is_healthy(),
        queue: QueueStatus {
            waiting: upstream.queue.len(),
            size: upstream.settings.queue.size,
            max_wait_seconds: upstream.settings.queue.max_wait.as_secs_f64(),
            waited: waited(&upstream.metrics),
            dropped: Dropped::ALL.map(|why| (why.as_str(), upstream.metrics.dropped_total(why))).into(),
        },
        servers: servers.collect(),
    }
}

fn waited(metrics: &UpstreamMetrics) -> Waited {
    let waits = metrics.waits();
    let bucket = |bucket: &prometheus::proto::Bucket| WaitedBucket {
        up_to_seconds: bucket.upper_bound(),
        count: bucket.cumulative_count(),
    };
    Waited {
        count: waits.get_sample_count(),
        sum_seconds: waits.get_sample_sum(),
        buckets: waits.get_bucket().iter().map(bucket).collect(),
    }
}

fn auth_status(auth: &Auth) -> AuthStatus<'_> {
    AuthStatus {
        name: &auth.name,
        kind: auth.kind.method().as_str(),
        keys: auth.kind.keys().and_then(|keys| keys_status(keys)),
        introspection: auth.kind.standing().map(introspection_status),
    }
}

fn introspection_status(standing: &Standing) -> IntrospectionStatus {
    let failing = standing.failing();
    IntrospectionStatus {
        in_flight: standing.in_flight(),
        failing_seconds: failing.as_ref().map(|failing| failing.since.elapsed().as_secs()),
        reason: failing.map(|failing| failing.why),
    }
}

fn keys_status(keys: &Keys) -> Option<KeysStatus> {
    let standing = keys.standing()?;
    Some(KeysStatus {
        usable: keys.current().map_or(0, |keys| keys.count()),
        age_seconds: standing.fetched.map(|fetched| fetched.elapsed().as_secs()),
        failing_seconds: standing.failing.as_ref().map(|failing| failing.since.elapsed().as_secs()),
        reason: standing.failing.map(|failing| failing.why),
    })
}
