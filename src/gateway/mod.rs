//! The snapshot: everything that a request needs, compiled from [`Settings`] and never changed after.

pub mod pem;
mod temp;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::admit::auth::{Auth, Auths, Building};
use crate::admit::limit::{self, AllLimits};
use crate::app::{self, App};
use crate::body::Spool;
use crate::config::problem::{Problem, Severity};
use crate::config::settings::{Access, Settings};
use crate::observe::metrics::Metrics;
use crate::request::route::{Parts, Routes};
use crate::server::bind::SocketKey;
use crate::server::listener::Listener;
use crate::server::tls::Tickets;
use crate::upstream::Upstream;
use crate::upstream::tls::SystemRoots;

/// One configuration in force. A handshake or a request takes the newest and keeps it to its end.
pub struct Gateway {
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    pub apps: BTreeMap<Arc<str>, Arc<App>>,
    pub auths: Auths,
    pub limits: AllLimits,
    pub routes: Routes,
    pub settings: Settings,
    /// Where bodies go that outgrow memory.
    pub spool: Arc<Spool>,
    /// The keys of TLS session tickets.
    tickets: Tickets,
    /// Which listener a socket's connections belong to.
    sockets: HashMap<SocketKey, Arc<Listener>>,
}

impl Gateway {
    /// Compiles `settings`; binds nothing and starts nothing. State of `before` lives on where identity and settings
    /// are the same. Warnings are added to `problems` too; any error there means `None`.
    pub fn build(
        settings: Settings,
        before: Option<&Gateway>,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Option<Gateway> {
        let system_roots = SystemRoots::default();
        let upstreams: BTreeMap<Arc<str>, Arc<Upstream>> = settings
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let before = before.and_then(|gateway| gateway.upstreams.get(name.as_str())).map(Arc::as_ref);
                (
                    Arc::from(name.as_str()),
                    Arc::new(Upstream::build(name, upstream, &system_roots, before, metrics, problems)),
                )
            })
            .collect();
        let state = &settings.server.state_directory;
        let apps = app::build(&settings.apps, state, problems);
        let tickets = before.map(|gateway| gateway.tickets.clone()).unwrap_or_default();
        let mut building = Building { metrics, system_roots: &system_roots, problems };
        let auths = build_auths(&settings, before, &mut building);
        let limits =
            limit::build(&settings.limits, &settings.stores, before.map(|before| &before.limits), &mut building);
        let parts = Parts { upstreams: &upstreams, auths: &auths, limits: &limits };
        let routes = Routes::build(&settings, &parts, before.map(|before| &before.routes), &mut building);
        let spool = Arc::new(temp::build(&settings, before.map(|before| &*before.spool), metrics, problems));
        let listeners: BTreeMap<Arc<str>, Arc<Listener>> = settings
            .listeners
            .iter()
            .map(|(name, listener)| {
                let before = before.and_then(|gateway| gateway.listeners.get(name.as_str())).map(Arc::as_ref);
                (
                    Arc::from(name.as_str()),
                    Arc::new(Listener::build(name, listener, before, &tickets, metrics, problems)),
                )
            })
            .collect();
        let sockets = listeners
            .values()
            .flat_map(|listener| listener.sockets().map(|socket| (socket, Arc::clone(listener))))
            .collect();
        let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
        (!failed).then_some(Gateway {
            listeners,
            upstreams,
            apps,
            auths,
            limits,
            routes,
            settings,
            spool,
            tickets,
            sockets,
        })
    }

    /// Whether a route lists the `[auth.NAME]`.
    pub fn uses(&self, auth: &str) -> bool {
        self.settings.routes.values().any(|route| match &route.access {
            Access::Public => false,
            Access::Demands(demands) => demands.auths.iter().any(|listed| listed.value == auth),
        })
    }

    /// The listener that holds the socket, if one does.
    pub fn listener_of(&self, socket: &SocketKey) -> Option<&Arc<Listener>> {
        self.sockets.get(socket)
    }

    /// Every listening socket of the data plane.
    pub fn sockets(&self) -> impl Iterator<Item = (&SocketKey, &Arc<Listener>)> {
        self.sockets.iter()
    }
}

fn build_auths(settings: &Settings, before: Option<&Gateway>, building: &mut Building<'_>) -> Auths {
    let built = settings.auths.iter().filter_map(|(name, auth)| {
        let before = before.and_then(|gateway| gateway.auths.get(name.as_str())).map(Arc::as_ref);
        let auth = Auth::build(name, auth, before, building)?;
        Some((Arc::clone(&auth.name), Arc::new(auth)))
    });
    built.collect()
}
