//! From cells to what a scrape reads.

use std::collections::BTreeMap;
use std::sync::Weak;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::app::AppReading;
use super::auth::{FetchResult, Introspected, KeysMetrics};
use super::catalogue::Family;
use super::compression::CodedWith;
use super::document::DocumentFetch;
use super::listener::{HandshakeFailure, ListenerMetrics, Protocol};
use super::route::{METHODS, RouteMetrics, STATUSES};
use super::spool::Direction;
use super::store::Asked;
use super::upstream::{Dropped, UpstreamMetrics};
use super::{LogLoss, Metrics, ReloadResult};
use crate::request::rejection::Cause;

/// What is asked of the servers in force when metrics are scraped.
#[derive(Clone, Copy, Debug)]
pub struct ServerReading<'a> {
    pub upstream: &'a str,
    /// The server's label.
    pub server: &'a str,
    /// Whether it may be chosen.
    pub up: bool,
    /// Whether failed requests have taken it out.
    pub ejected: bool,
    pub in_flight: usize,
    /// Slots that are taken.
    pub busy: usize,
    /// How many there are; `None`: any number.
    pub slots: Option<usize>,
}

/// Who can be asked.
pub trait Readings: Send + Sync {
    fn servers(&self, each: &mut dyn FnMut(ServerReading<'_>));

    /// How many wait for a slot of each upstream.
    fn queues(&self, each: &mut dyn FnMut(&str, usize));

    /// The apps that run.
    fn apps(&self) -> Vec<AppReading>;
}

/// The collector of all families. Holds the metrics weakly, since their registry holds it.
pub(super) struct Gatherer {
    descriptions: Vec<Desc>,
    metrics: Weak<Metrics>,
}

impl Gatherer {
    /// # Errors
    /// A name or help text that Prometheus does not allow.
    pub(super) fn new(metrics: Weak<Metrics>) -> Result<Gatherer, prometheus::Error> {
        let descriptions = Family::ALL.iter().map(|family| {
            let row = family.row();
            let labels = row.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(row.name.to_owned(), row.help.to_owned(), labels, std::collections::HashMap::new())
        });
        Ok(Gatherer { descriptions: descriptions.collect::<Result<_, _>>()?, metrics })
    }
}

impl Collector for Gatherer {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let Some(metrics) = self.metrics.upgrade() else { return Vec::new() };
        let mut scrape = Scrape::default();
        for (name, route) in metrics.routes.all() {
            scrape.route(&name, &route);
        }
        for (name, rule) in metrics.rules.all() {
            let (route, name) = name.split_once(' ').unwrap_or_default();
            scrape.counter(Family::Denied, &[route, name], rule.denied_total());
        }
        for (name, rule) in metrics.reported.all() {
            let (route, name) = name.split_once(' ').unwrap_or_default();
            scrape.counter(Family::ValidationViolations, &[route, name], rule.denied_total());
        }
        for (name, listener) in metrics.listeners.all() {
            scrape.listener(&name, &listener);
        }
        for (name, upstream) in metrics.upstreams.all() {
            scrape.upstream(&name, &upstream);
        }
        for (name, keys) in metrics.keys.all() {
            scrape.keys(&name, &keys);
        }
        for (name, introspection) in metrics.introspections.all() {
            for result in Introspected::ALL {
                scrape.counter(Family::Introspections, &[&name, result.as_str()], introspection.asked_total(result));
            }
            scrape.gauge(Family::IntrospectionsInFlight, &[&name], introspection.in_flight() as f64);
        }
        for (name, limit) in metrics.limits.all() {
            scrape.gauge(Family::LimitKeys, &[&name], limit.keys() as f64);
            scrape.counter(Family::LimitOverflow, &[&name], limit.overflowed());
        }
        for (route, document) in metrics.documents.all() {
            for result in DocumentFetch::ALL {
                scrape.counter(Family::DocumentFetches, &[&route, result.as_str()], document.fetches_total(result));
            }
            scrape.gauge(Family::DocumentTimestamp, &[&route], document.confirmed_seconds());
        }
        for (name, store) in metrics.stores.all() {
            scrape.gauge(Family::StoreUp, &[&name], f64::from(u8::from(store.is_up())));
            for result in Asked::ALL {
                scrape.counter(Family::StoreDecisions, &[&name, result.as_str()], store.asked_total(result));
            }
            scrape.histogram(Family::StoreDuration, &[&name], store.duration());
        }
        scrape.spool(&metrics);
        scrape.compression(&metrics);
        scrape.servers(&metrics);
        scrape.process(&metrics);
        scrape.families()
    }
}

/// The series of one scrape, by family.
#[derive(Default)]
struct Scrape {
    series: BTreeMap<Family, Vec<proto::Metric>>,
}

/// The servers that share a label.
#[derive(Default)]
struct Merged {
    up: bool,
    /// Whether one of them is not ejected.
    spared: bool,
    in_flight: usize,
    busy: usize,
    slots: Option<usize>,
}

impl Scrape {
    fn route(&mut self, name: &str, route: &RouteMetrics) {
        for (method, method_label) in METHODS.iter().enumerate() {
            for (status, status_label) in STATUSES.iter().enumerate() {
                // Most of the table is never used; a series appears with its first request.
                let count = route.requests(method, status);
                if count > 0 {
                    self.counter(Family::Requests, &[name, method_label, status_label], count);
                }
            }
        }
        self.histogram(Family::RequestDuration, &[name], route.duration());
        self.histogram(Family::UpstreamDuration, &[name], route.upstream_duration());
        self.gauge(Family::RequestsInFlight, &[name], route.in_flight() as f64);
        self.counter(Family::RequestBytes, &[name], route.received());
        self.counter(Family::ResponseBytes, &[name], route.sent());
    }

    fn listener(&mut self, name: &str, listener: &ListenerMetrics) {
        for protocol in Protocol::ALL {
            let labels = [name, protocol.as_str()];
            self.gauge(Family::ConnectionsOpen, &labels, listener.open(protocol) as f64);
            self.counter(Family::ConnectionsOpened, &labels, listener.opened_total(protocol));
        }
        self.counter(Family::ConnectionsTurnedAway, &[name], listener.turned_away_total());
        self.counter(Family::TlsHandshakes, &[name], listener.handshakes_total());
        for reason in HandshakeFailure::TLS {
            let count = listener.handshakes_failed_total(reason);
            self.counter(Family::TlsHandshakeFailures, &[name, reason.as_str()], count);
        }
        let count = listener.handshakes_failed_total(HandshakeFailure::ProxyProtocol);
        self.counter(Family::ProxyProtocolFailures, &[name], count);
        self.counter(Family::Floods, &[name], listener.floods_total());
    }

    fn upstream(&mut self, name: &str, upstream: &UpstreamMetrics) {
        self.counter(Family::Retries, &[name], upstream.retries_total());
        self.counter(Family::RetriesRefused, &[name], upstream.retries_refused_total());
        self.histogram(Family::QueueWait, &[name], upstream.waits());
        for why in Dropped::ALL {
            self.counter(Family::QueueDropped, &[name, why.as_str()], upstream.dropped_total(why));
        }
        for (label, server) in upstream.servers() {
            for (reused, reused_label) in [(false, "false"), (true, "true")] {
                let count = server.connections_total(reused);
                self.counter(Family::ServerConnections, &[name, &label, reused_label], count);
            }
            self.counter(Family::ConnectFailures, &[name, &label], server.connects_failed_total());
            self.counter(Family::Ejections, &[name, &label], server.ejections_total());
        }
    }

    fn keys(&mut self, auth: &str, keys: &KeysMetrics) {
        self.gauge(Family::Keys, &[auth], keys.usable() as f64);
        if let Some(age) = keys.age() {
            self.gauge(Family::KeysAge, &[auth], age);
        }
        for result in FetchResult::ALL {
            self.counter(Family::KeyFetches, &[auth, result.as_str()], keys.fetches_total(result));
        }
    }

    fn spool(&mut self, metrics: &Metrics) {
        let spool = metrics.spool();
        self.gauge(Family::BufferedBytes, &["memory"], spool.memory() as f64);
        self.gauge(Family::BufferedBytes, &["disk"], spool.disk() as f64);
        self.gauge(Family::SpooledBodies, &[], spool.files() as f64);
        for direction in Direction::ALL {
            let labels = [direction.as_str()];
            self.counter(Family::Spooled, &labels, spool.spooled_total(direction));
            self.counter(Family::SpooledBytes, &labels, spool.written_total(direction));
            self.counter(Family::SpoolRefused, &labels, spool.refused_total(direction));
        }
    }

    fn compression(&mut self, metrics: &Metrics) {
        let compression = &metrics.compression;
        for with in CodedWith::ALL {
            let label = with.as_str();
            self.counter(Family::Compressed, &[label], compression.answers_total(with));
            self.counter(Family::CompressedInput, &[label], compression.input_total(with));
            self.counter(Family::CompressedOutput, &[label], compression.output_total(with));
        }
        self.counter(Family::NotCompressed, &[], compression.refused_total());
    }

    /// The gauges of servers. Two that share a label (one address written twice) are told as one.
    fn servers(&mut self, metrics: &Metrics) {
        let Some(readings) = metrics.readings.get() else { return };
        let mut merged: BTreeMap<(String, String), Merged> = BTreeMap::new();
        readings.servers(&mut |reading| {
            let seen = merged.entry((reading.upstream.to_owned(), reading.server.to_owned())).or_default();
            seen.up |= reading.up;
            seen.spared |= !reading.ejected;
            seen.in_flight = seen.in_flight.saturating_add(reading.in_flight);
            seen.busy = seen.busy.saturating_add(reading.busy);
            seen.slots = seen.slots.map_or(reading.slots, |slots| Some(slots.saturating_add(reading.slots?)));
        });
        for ((upstream, server), seen) in &merged {
            let labels = [upstream.as_str(), server.as_str()];
            self.gauge(Family::ServerUp, &labels, f64::from(u8::from(seen.up)));
            self.gauge(Family::ServerEjected, &labels, f64::from(u8::from(!seen.spared)));
            self.gauge(Family::ServerInFlight, &labels, seen.in_flight as f64);
            self.gauge(Family::SlotsBusy, &labels, seen.busy as f64);
            if let Some(slots) = seen.slots {
                self.gauge(Family::Slots, &labels, slots as f64);
            }
        }
        readings.queues(&mut |upstream, waiting| self.gauge(Family::QueueLength, &[upstream], waiting as f64));
        for app in readings.apps() {
            self.app(&app);
        }
    }

    fn app(&mut self, reading: &AppReading) {
        let app = &*reading.app;
        for (state, count) in &reading.states {
            self.gauge(Family::AppWorkers, &[app, state], *count as f64);
        }
        self.gauge(Family::AppWorkersWanted, &[app], reading.wanted.into());
        for (reason, count) in &reading.restarts {
            self.counter(Family::AppRestarts, &[app, reason], *count);
        }
        self.seconds(Family::AppCpu, &[app], reading.cpu_seconds);
        let figures = [
            (Family::AppMemoryLimit, reading.memory_limit.map(|bytes| bytes as f64)),
            (Family::AppRelease, reading.release.map(|release| release as f64)),
            (Family::AppBuild, reading.build_seconds),
            (Family::AppStart, reading.start_seconds),
        ];
        for (family, value) in figures {
            if let Some(value) = value {
                self.gauge(family, &[app], value);
            }
        }
        for (outcome, count) in &reading.releases {
            self.counter(Family::AppReleases, &[app, outcome], *count);
        }
        for worker in &reading.workers {
            let number = worker.number.to_string();
            let labels = [app, &number];
            self.gauge(Family::AppWorkerAge, &labels, worker.age_seconds as f64);
            if let Some(bytes) = worker.memory {
                self.gauge(Family::AppResident, &labels, bytes as f64);
            }
            if let Some(files) = worker.open_files {
                self.gauge(Family::AppOpenFiles, &labels, files as f64);
            }
        }
    }

    fn process(&mut self, metrics: &Metrics) {
        for cause in Cause::ALL {
            let row = cause.row();
            let count = metrics.rejections.sum(cause.index());
            self.counter(Family::Rejections, &[row.cause, row.blame.as_str()], count);
        }
        for result in ReloadResult::ALL {
            self.counter(Family::Reloads, &[result.as_str()], metrics.reloads_total(result));
        }
        self.gauge(Family::LastReload, &[], metrics.last_reload_seconds());
        for reason in LogLoss::ALL {
            self.counter(Family::LogRecordsLost, &[reason.as_str()], metrics.log_lost_total(reason));
        }
        self.gauge(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
    }

    fn counter(&mut self, family: Family, labels: &[&str], value: u64) {
        self.seconds(family, labels, value as f64);
    }

    /// A counter that is no whole number.
    fn seconds(&mut self, family: Family, labels: &[&str], value: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = labelled(family, labels);
        metric.set_counter(counter);
        self.add(family, metric);
    }

    fn gauge(&mut self, family: Family, labels: &[&str], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(family, labels);
        metric.set_gauge(gauge);
        self.add(family, metric);
    }

    fn histogram(&mut self, family: Family, labels: &[&str], value: proto::Histogram) {
        let mut metric = labelled(family, labels);
        metric.set_histogram(value);
        self.add(family, metric);
    }

    fn add(&mut self, family: Family, metric: proto::Metric) {
        self.series.entry(family).or_default().push(metric);
    }

    fn families(self) -> Vec<proto::MetricFamily> {
        let families = self.series.into_iter().map(|(family, series)| {
            let row = family.row();
            let mut family = proto::MetricFamily::default();
            family.set_name(row.name.to_owned());
            family.set_help(row.help.to_owned());
            family.set_field_type(row.kind);
            family.set_metric(series);
            family
        });
        families.collect()
    }
}

fn labelled(family: Family, values: &[&str]) -> proto::Metric {
    let names = family.row().labels;
    debug_assert_eq!(names.len(), values.len(), "{family:?}");
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}
