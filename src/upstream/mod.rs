//! Pools of Python workers: choosing a server, reaching it, speaking to it.

pub mod background;
mod balance;
mod clock;
pub mod connect;
pub mod fetch;
pub mod forward;
pub mod health;
pub mod http1;
pub mod http2;
pub mod journey;
mod keeper;
mod members;
mod names;
mod own;
mod places;
pub mod pool;
mod probe;
pub mod queue;
pub mod replay;
pub mod retry;
mod server;
mod slots;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod upgrade;
pub mod uwsgi;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config::problem::Problem;
use crate::config::settings::{Balance, HashKey, HostHeader, Priority, Protocol, UpstreamSettings, UpstreamTimeouts};
use crate::observe::metrics::{Metrics, UpstreamMetrics, WorkerId};
use crate::request::rejection::Cause;
use health::Standing;
use journey::Journey;
use members::{Addresses, Entry, Kin, Members, Missing};
use queue::{Queue, Wanted};
use tls::{Common, SystemRoots};

pub use workers::{Retired, Worker};

pub use server::{Address, Lease, Receiver, Server, ServerStatus};

/// How much servers need to be told a body's length before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lengths {
    /// All speak HTTP/2, where a length is a hint.
    Indifferent,
    /// Some speak HTTP/1.1: they are sent chunks where the length is not known, which WSGI services cannot read.
    Wanted,
    /// Some speak uwsgi, which knows no other way.
    Demanded,
}

/// One `[upstream.NAME]` of a snapshot.
///
/// What changes while requests run (servers with their health and slots, those who wait for a slot, the addresses of
/// names, the retry budget) is taken over from the snapshot before it where name and settings are the same.
pub struct Upstream {
    pub name: Arc<str>,
    pub settings: UpstreamSettings,
    pub metrics: Arc<UpstreamMetrics>,
    pub budget: Arc<retry::Budget>,
    /// Upgraded connections that are open.
    pub upgraded: Arc<AtomicUsize>,
    /// Where requests wait for a slot.
    pub queue: Arc<Queue>,
    /// How much its servers need to be told a body's length before the body.
    pub needs_lengths: Lengths,
    tls: Option<Arc<Common>>,
    entries: Vec<Entry>,
    /// Turns that were taken by round robin and between equals.
    turn: Arc<AtomicUsize>,
    members: Arc<ArcSwap<Members>>,
    /// The workers of an app are others now: for its keeper.
    changed: Arc<Notify>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.name).finish()
    }
}

/// What `hash:…` balancing looks at.
#[derive(Clone, Copy, Debug)]
pub struct ChooseBy<'a> {
    pub client: IpAddr,
    /// The value of the header or cookie, when the upstream hashes one and the request has it.
    pub key: Option<&'a [u8]>,
}

/// A request that wants a slot.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub worker: WorkerId,
    pub by: ChooseBy<'a>,
    /// The ids of servers on which it has failed already.
    pub tried: &'a [u64],
    pub priority: Priority,
    pub journey: &'a Journey,
}

impl Upstream {
    /// Compiles `settings`: files are read, nothing is contacted. Takes over from `before` what the settings allow.
    pub fn build(
        name: &str,
        settings: &UpstreamSettings,
        system_roots: &SystemRoots,
        before: Option<&Upstream>,
        metrics: &Metrics,
        problems: &mut Vec<Problem>,
    ) -> Upstream {
        let name: Arc<str> = Arc::from(name);
        let metrics = metrics.upstream(&name);
        let tls = build_tls(settings, system_roots, before, problems);
        let entries: Vec<Entry> = settings
            .servers
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| Entry::build(index, spec, &settings.tls, tls.as_ref(), problems))
            .collect();
        // An app has its workers from whoever runs them, not from a snapshot: old and new snapshots see the same.
        let of_app = before.filter(|before| settings.workers.is_some() && before.settings.workers.is_some());
        let members_before = before.map(|before| before.members.load_full());
        let mut addresses = members_before.as_ref().map(|members| members.addresses.clone()).unwrap_or_default();
        addresses.retain(|name, _| entries.iter().any(|entry| entry.name() == Some(name)));
        let queue = match before {
            Some(before) => Arc::clone(&before.queue),
            None => Arc::new(Queue::new(settings.queue, &metrics)),
        };
        let kin = Kin { upstream: &name, metrics: &metrics, slots: settings.slots, queue: &queue };
        let members = match of_app {
            Some(before) => Arc::clone(&before.members),
            None if settings.workers.is_some() => {
                Arc::new(ArcSwap::from_pointee(Members::of_workers(&[], Missing::WorkersForNow)))
            }
            None => {
                let members = Members::assemble(&entries, addresses, members_before.as_slice(), kin);
                Arc::new(ArcSwap::from_pointee(members))
            }
        };
        let percent = settings.retry.budget_percent;
        let budget = before
            .map(|before| &before.budget)
            .filter(|budget| budget.percent() == u64::from(percent))
            .map_or_else(|| Arc::new(retry::Budget::new(percent)), Arc::clone);
        Upstream {
            name,
            settings: settings.clone(),
            metrics,
            budget,
            upgraded: before.map(|before| Arc::clone(&before.upgraded)).unwrap_or_default(),
            queue,
            needs_lengths: lengths_needed(settings),
            tls,
            entries,
            turn: before.map(|before| Arc::clone(&before.turn)).unwrap_or_default(),
            members,
            changed: of_app.map(|before| Arc::clone(&before.changed)).unwrap_or_default(),
        }
    }

    /// The header or cookie that `hash:…` needs of a request.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.settings.balance {
            Balance::Hash(key) => Some(key),
            Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => None,
        }
    }

    /// A slot of a server for one attempt, preferably of a server that has not been tried; `None`: it must be waited for.
    ///
    /// # Errors
    /// `NoHealthyServer`, or `UpstreamUnresolved` while no name has an address.
    fn seat_at_once(&self, asking: &Asking<'_>) -> Result<Option<Lease>, Cause> {
        // Nobody passes those who wait.
        if !self.queue.is_empty() {
            return Ok(None);
        }
        self.try_seat(balance::hash_of(&self.settings.balance, asking.by), asking.tried)
    }

    /// The same as soon as there is one.
    ///
    /// # Errors
    /// Those of [`seat_at_once`](Self::seat_at_once); `QueueFull`, `QueueTimeout` or `Overloaded` when there is no slot
    /// in time.
    async fn wait_for_seat(self: &Arc<Self>, asking: Asking<'_>) -> Result<Lease, Cause> {
        let Asking { worker, by, tried, priority, journey } = asking;
        let hash = balance::hash_of(&self.settings.balance, by);
        let wanted = Wanted { hash, tried, priority, worker, waited: journey.queued() };
        let waited = self.queue.wait(self, wanted, |time| journey.waited(time)).await;
        waited.map_err(|cause| self.of_missing(cause))
    }

    /// The two in one, for tests.
    #[cfg(test)]
    pub(crate) async fn seat(self: &Arc<Self>, asking: Asking<'_>) -> Result<Lease, Cause> {
        match self.seat_at_once(&asking)? {
            Some(lease) => Ok(lease),
            None => self.wait_for_seat(asking).await,
        }
    }

    /// Who waited in vain for workers that were still to come lacks no slot, but the app.
    fn of_missing(&self, cause: Cause) -> Cause {
        let is_missing = self.settings.workers.is_some() && self.members.load().list.is_empty();
        if cause == Cause::QueueTimeout && is_missing { Cause::AppNotRunning } else { cause }
    }

    /// Whether an app has no worker that could take anything, and will have one soon.
    fn awaits_workers(&self) -> bool {
        self.members.load().awaits_workers()
    }

    /// A slot for a request that the gateway makes for itself, behind those of clients.
    ///
    /// # Errors
    /// As for [`wait_for_seat`](Self::wait_for_seat).
    async fn seat_own(self: &Arc<Self>) -> Result<Lease, Cause> {
        if self.queue.is_empty()
            && let Some(lease) = self.try_seat(None, &[])?
        {
            return Ok(lease);
        }
        let (worker, waited) = (WorkerId::NONE, Duration::ZERO);
        let wanted = Wanted { hash: None, tried: &[], priority: Priority::Low, worker, waited };
        self.queue.wait(self, wanted, |_| {}).await
    }

    /// The same without waiting, for tests.
    #[cfg(test)]
    pub(crate) fn choose(&self, by: ChooseBy<'_>, tried: &[u64]) -> Result<Lease, Cause> {
        let hash = balance::hash_of(&self.settings.balance, by);
        self.try_seat(hash, tried)?.ok_or(Cause::QueueFull)
    }

    /// The same without waiting; `None`: no slot is free.
    fn try_seat(&self, hash: Option<u64>, tried: &[u64]) -> Result<Option<Lease>, Cause> {
        balance::choose(&self.members.load(), &self.settings.balance, &self.turn, hash, tried)
    }

    /// Seconds after which a request that was refused for `cause` may come again; `None`: nothing is known.
    pub fn retry_after(&self, cause: Cause) -> Option<u64> {
        if matches!(cause, Cause::QueueFull | Cause::QueueTimeout | Cause::Overloaded) {
            return Some(self.queue.retry_after());
        }
        // No server is back before its checks have passed as often as they must.
        let health = self.settings.health.as_ref().filter(|_| cause == Cause::NoHealthyServer)?;
        Some(health.interval.saturating_mul(health.rise.get()).as_secs().clamp(1, queue::LONGEST_RETRY))
    }

    /// The slots of all servers that may be chosen; those without bound count for as many as they run.
    fn capacity(&self) -> usize {
        let now = clock::now();
        let usable = |server: &&Arc<Server>| matches!(server.health.standing(now), Standing::Usable(_));
        let slots = |server: &Arc<Server>| server.slots.limit().unwrap_or_else(|| server.slots.busy());
        self.members.load().servers().filter(usable).map(slots).fold(0, usize::saturating_add)
    }

    /// Where slots are learnt, looks at what came of them.
    fn learn_slots(&self) {
        let is_wanted = !self.queue.is_empty();
        for server in self.members.load().servers() {
            server.slots.learn(server.health.answers(), is_wanted);
        }
        // There may be more of them now.
        self.queue.freed();
    }

    /// Puts the settings of slots and queue in force for what earlier snapshots have left.
    fn enforce(&self) {
        for server in self.members.load().servers() {
            server.slots.set(server.slots_of(self.settings.slots));
        }
        self.queue.set(self.settings.queue);
        self.queue.settle();
    }

    /// The gateway ends: whoever waits for a slot is refused.
    pub fn end_queue(&self) {
        self.queue.end(Cause::ShutDown);
    }

    /// The server that would be chosen now for a first attempt, as far as that does not hang on chance; `None`: it would
    /// have to wait for a slot. Nothing is taken or counted.
    ///
    /// # Errors
    /// `NoHealthyServer`, or `UpstreamUnresolved` while no name has an address.
    pub fn would_choose(&self, by: ChooseBy<'_>) -> Result<Option<Arc<Server>>, Cause> {
        let turn = AtomicUsize::new(self.turn.load(Ordering::Relaxed));
        let hash = balance::hash_of(&self.settings.balance, by);
        let chosen = balance::would_choose(&self.members.load(), &self.settings.balance, &turn, hash)?;
        // Nobody passes those who wait.
        Ok(chosen.filter(|_| self.queue.is_empty()))
    }

    /// What the log and `/status` call each of its `servers`, and what a request to it is written for.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Receiver<'_>)> {
        self.entries.iter().map(|entry| (entry.label(), entry.receiver()))
    }

    /// The servers of this moment.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.members.load().servers().cloned().collect()
    }

    /// The servers of this moment, for `/status` and the gauges of `/metrics`.
    pub fn status(&self) -> Vec<ServerStatus> {
        self.members.load().list.iter().map(|member| member.server.status(member.weight)).collect()
    }

    /// Whether some server is up; where there are active checks, one of them must have said so. For `/ready`.
    pub fn is_healthy(&self) -> bool {
        self.members.load().servers().any(|server| server.health.state().is_usable() && !server.health.is_unproven())
    }

    /// The names that have to be resolved, each with what the log calls it.
    fn names(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let named = self.entries.iter().filter_map(|entry| Some((entry.name()?, entry.shown_name()?)));
        named.map(|(name, shown)| (Arc::clone(name), Arc::clone(shown))).collect()
    }

    /// The names of which a server is down or ejected.
    fn names_in_trouble(&self) -> BTreeSet<Arc<str>> {
        let members = self.members.load();
        let troubled = members.list.iter().filter(|member| !member.server.health.state().is_usable());
        troubled.filter_map(|member| member.name.clone()).collect()
    }

    /// The addresses that its names were last known to have.
    fn addresses(&self) -> Addresses {
        self.members.load().addresses.clone()
    }

    /// Names have these addresses now. Servers that are there already, here or in `before`, stay what they are.
    /// Called by the upstream's keeper alone.
    fn learn(&self, addresses: Addresses, before: Option<&Upstream>) {
        let before = before.map(|before| before.members.load_full());
        let known: Vec<Arc<Members>> = std::iter::once(self.members.load_full()).chain(before).collect();
        let kin = Kin { upstream: &self.name, metrics: &self.metrics, slots: self.settings.slots, queue: &self.queue };
        let members = Members::assemble(&self.entries, addresses, &known, kin);
        // Those that were away may have missed a change.
        members.servers().for_each(|server| server.slots.set(self.settings.slots));
        self.members.store(Arc::new(members));
    }

    pub fn timeouts(&self) -> &UpstreamTimeouts {
        &self.settings.timeouts
    }

    pub fn host(&self) -> &HostHeader {
        &self.settings.host
    }
}

fn lengths_needed(settings: &UpstreamSettings) -> Lengths {
    let of = |protocol| match protocol {
        Protocol::Uwsgi => Lengths::Demanded,
        Protocol::Http1 => Lengths::Wanted,
        Protocol::Http2 => Lengths::Indifferent,
    };
    let protocols = settings.servers.iter().map(|spec| spec.value.endpoint.protocol());
    protocols.chain(settings.workers).map(of).max().unwrap_or(Lengths::Wanted)
}

/// What the upstream's servers behind TLS share; `None` where there are none, or when problems have been told.
fn build_tls(
    settings: &UpstreamSettings,
    system_roots: &SystemRoots,
    before: Option<&Upstream>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Common>> {
    if !settings.servers.iter().any(|spec| spec.value.endpoint.is_tls()) {
        return None;
    }
    let before = before.and_then(|before| before.tls.as_ref());
    Common::build(&settings.tls, &settings.span, system_roots, before, problems)
}

#[cfg(test)]
mod tests {
    use super::health::{Failure, State};
    use super::testing::{ANYONE, build, settings};
    use super::*;
    use crate::config::settings::RetrySettings;
    use crate::config::{Outside, load_text};

    const A: (&str, u32) = ("http://127.0.0.1:1", 1);
    const B: (&str, u32) = ("http://127.0.0.1:2", 1);

    fn addresses(name: &str, ips: &[&str]) -> Addresses {
        Addresses::from([(Arc::from(name), ips.iter().map(|ip| ip.parse().unwrap()).collect())])
    }

    fn labels(upstream: &Upstream) -> Vec<String> {
        upstream.servers().iter().map(|server| server.label.to_string()).collect()
    }

    #[test]
    fn a_new_snapshot_takes_servers_over_with_all_that_is_known_of_them() {
        let before = build(&settings(&[A, B], Balance::LeastRequests), None);
        before.upgraded.fetch_add(1, Ordering::Relaxed);
        let lease = before.choose(ANYONE, &[]).unwrap();
        lease.server().health.failed(Failure::Connect);
        lease.server().health.failed(Failure::Connect);
        // Another weight, another order, another policy.
        let after = build(&settings(&[B, (A.0, 5)], Balance::RoundRobin), Some(&before));
        let (old, new) = (before.servers(), after.servers());
        assert!(Arc::ptr_eq(&old[0], &new[1]) && Arc::ptr_eq(&old[1], &new[0]));
        assert_eq!(new[1].in_flight(), 1);
        assert_eq!(new[1].health.state(), State::Ejected);
        assert_eq!(after.status()[1].weight, 5);
        assert!(Arc::ptr_eq(&before.budget, &after.budget));
        assert_eq!(after.upgraded.load(Ordering::Relaxed), 1);
        drop(lease);
        assert_eq!(after.servers()[1].in_flight(), 0);
    }

    #[test]
    fn a_server_that_returns_while_it_is_busy_is_the_same() {
        let before = build(&settings(&[A, B], Balance::LeastRequests), None);
        let lease = Lease::take(&before.servers()[0]).unwrap();
        let without = build(&settings(&[B], Balance::LeastRequests), Some(&before));
        let another = build(&settings(&[B], Balance::RoundRobin), Some(&without));
        drop((before, without));
        let after = build(&settings(&[A, B], Balance::LeastRequests), Some(&another));
        assert_eq!((after.servers()[0].id, after.servers()[0].in_flight()), (lease.server().id, 1));
        // One that nobody uses is forgotten.
        let id = lease.server().id;
        drop((lease, build(&settings(&[A], Balance::LeastRequests), None)));
        let without = build(&settings(&[B], Balance::LeastRequests), Some(&after));
        drop((another, after));
        assert_ne!(build(&settings(&[A, B], Balance::LeastRequests), Some(&without)).servers()[0].id, id);
    }

    #[test]
    fn a_server_at_another_address_is_another() {
        let before = build(&settings(&[A], Balance::LeastRequests), None);
        let after = build(&settings(&[B], Balance::LeastRequests), Some(&before));
        assert_ne!(before.servers()[0].id, after.servers()[0].id);
    }

    #[test]
    fn another_share_is_another_budget() {
        let mut settings = settings(&[A], Balance::LeastRequests);
        let before = build(&settings, None);
        settings.retry = RetrySettings { budget_percent: 50, ..settings.retry };
        assert!(!Arc::ptr_eq(&before.budget, &build(&settings, Some(&before)).budget));
    }

    #[test]
    fn names_are_servers_by_their_addresses() {
        let settings = settings(&[("http://orders.internal:8001", 2), A], Balance::LeastRequests);
        let upstream = build(&settings, None);
        assert_eq!(labels(&upstream), [A.0]);
        upstream.learn(addresses("orders.internal", &["10.0.0.1", "10.0.0.2"]), None);
        let first = upstream.servers();
        assert_eq!(
            labels(&upstream),
            ["http://orders.internal:8001 (10.0.0.1)", "http://orders.internal:8001 (10.0.0.2)", A.0]
        );
        assert_eq!(first[0].host, "orders.internal:8001");
        assert_eq!(upstream.status()[0].weight, 2);
        // One address leaves, another comes; what stays is the same server. Who runs on the lost one may finish.
        let lease = Lease::take(&first[0]).unwrap();
        upstream.learn(addresses("orders.internal", &["10.0.0.2", "10.0.0.3"]), None);
        let second = upstream.servers();
        assert_eq!(second[0].id, first[1].id);
        assert!(first.iter().all(|server| server.id != second[1].id));
        assert_eq!(lease.server().in_flight(), 1);
        // The next snapshot knows the addresses at once, as long as it has the name.
        let after = build(&settings, Some(&upstream));
        assert_eq!(after.servers().iter().map(|server| server.id).collect::<Vec<_>>(), {
            second.iter().map(|server| server.id).collect::<Vec<_>>()
        });
        let without = build(&testing::settings(&[A], Balance::LeastRequests), Some(&after));
        assert_eq!(labels(&without), [A.0]);
        assert!(without.addresses().is_empty());
    }

    #[test]
    fn localhost_needs_no_resolver() {
        let upstream = build(&settings(&[("http://localhost:8001", 1)], Balance::LeastRequests), None);
        let server = &upstream.servers()[0];
        assert_eq!(server.address, Address::Tcp("127.0.0.1:8001".parse().unwrap()));
        assert_eq!(&*server.label, "http://localhost:8001");
    }

    #[test]
    fn a_server_knows_its_own_host() {
        let servers = [
            ("http://127.0.0.1:80", 1),
            ("http://127.0.0.1:443", 1),
            ("http+unix:/run/orders.sock", 1),
            ("http://::1:8001", 1),
        ];
        let upstream = build(&settings(&servers, Balance::LeastRequests), None);
        let hosts: Vec<_> = upstream.servers().iter().map(|server| server.host.clone()).collect();
        assert_eq!(hosts, ["127.0.0.1", "127.0.0.1:443", "localhost", "[::1]:8001"]);
        assert_eq!(labels(&upstream)[2], "http+unix:/run/orders.sock");
    }

    #[test]
    fn a_server_that_was_drawn_from_a_secret_is_not_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("url");
        std::fs::write(&file, "http://hidden.test:8001\n").unwrap();
        let text = format!(
            "[listener.http]\naddress = \"127.0.0.1:0\"\n[upstream.a]\nservers = [\"{}\", \"${{file:{}}}\"]\n\
             [route.a]\npath = \"/{{*rest}}\"\nupstream = \"a\"\n",
            A.0,
            file.display()
        );
        let loaded = load_text("test.toml", &text, directory.path(), &Outside::new(&|_| None));
        let (settings, problems) = loaded.build(|settings, _| Some(settings));
        let settings = settings.unwrap_or_else(|| panic!("{problems:?}"));
        let upstream = build(&settings.upstreams["a"], None);
        upstream.learn(addresses("hidden.test", &["10.0.0.1"]), None);
        assert_eq!(labels(&upstream), [A.0, "server 2 (10.0.0.1)"]);
        assert_eq!(upstream.names(), BTreeMap::from([(Arc::from("hidden.test"), Arc::from("server 2"))]));
    }

    #[test]
    fn the_status_tells_why_and_how_much() {
        let upstream = build(&settings(&[A], Balance::LeastRequests), None);
        let lease = upstream.choose(ANYONE, &[]).unwrap();
        let status = upstream.status().remove(0);
        assert_eq!((status.state, status.reason, status.in_flight), (State::Up, None, 1));
        lease.server().health.failed(Failure::Connect);
        lease.server().health.failed(Failure::Connect);
        let status = upstream.status().remove(0);
        assert_eq!(status.state.as_str(), "ejected");
        assert_eq!(status.reason.as_deref(), Some("it could not be connected to"));
    }
}
