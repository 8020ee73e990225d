//! One `[listener.NAME]` of a snapshot.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bind::SocketKey;
use super::tls::{self, Tickets, Tls};
use crate::config::problem::Problem;
use crate::config::settings::ListenerSettings;
use crate::observe::metrics::{ListenerMetrics, Metrics};

/// A listener's settings, compiled.
pub struct Listener {
    pub name: Arc<str>,
    pub settings: ListenerSettings,
    pub metrics: Arc<ListenerMetrics>,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Open connections over all workers, for `max_connections`; counted on from snapshot to snapshot.
    pub connections: Arc<AtomicUsize>,
}

impl Listener {
    /// Binds nothing. Whatever is wrong with certificates goes to `problems`; with an error there the listener must not
    /// be used, since it would speak plain HTTP. The count of connections is taken over from `before`, the listener of
    /// the same name.
    pub fn build(
        name: &str,
        settings: &ListenerSettings,
        before: Option<&Listener>,
        tickets: &Tickets,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Listener {
        let tls = settings.tls.as_ref().and_then(|tls| tls::compile(tls, tickets, problems));
        Listener {
            name: Arc::from(name),
            settings: settings.clone(),
            metrics: metrics.listener(name),
            tls,
            connections: before.map(|listener| Arc::clone(&listener.connections)).unwrap_or_default(),
        }
    }

    /// The keys of its sockets.
    pub fn sockets(&self) -> impl Iterator<Item = SocketKey> {
        let addresses = self.settings.addresses.iter().enumerate();
        addresses.map(|(index, address)| SocketKey::new(&address.value, &self.name, index))
    }

    /// A place among its connections, or `None` at `max_connections`.
    pub(super) fn admit(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.connections));
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // Dropping the place undoes the count.
        (before < self.settings.max_connections.get()).then_some(place)
    }

    /// Whether `address` may speak for others.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.settings.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

/// A place among a listener's connections, given back when it is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
