//! What upstreams need beside requests: names resolved and servers checked, on the control plane's runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Upstream;
use super::keeper::{Adopt, Keeper, Task};
use super::names::Resolvers;
use crate::gateway::Gateway;

/// How long a snapshot waits for names that have never been resolved.
const FIRST_LOOKUPS: Duration = Duration::from_secs(3);

/// The tasks of all upstreams; they end when this is dropped.
#[derive(Default)]
pub struct Background {
    resolvers: Arc<Resolvers>,
    keepers: HashMap<Arc<str>, Kept>,
}

struct Kept {
    adopt: mpsc::UnboundedSender<Adopt>,
    _task: Task,
}

impl Background {
    /// Makes the tasks fit `gateway`: those of upstreams that are gone end, those of unchanged ones go on. Returns
    /// when names that are new have been looked up, or after three seconds: then requests to them get
    /// `UpstreamUnresolved` until there is an address.
    ///
    /// Called on the control plane's runtime, with a snapshot that is about to be put into force. If it is not
    /// put into force after all, this must be called again with the one that stays.
    pub async fn apply(&mut self, gateway: &Gateway) {
        self.keep(gateway.upstreams.values()).await;
    }

    async fn keep(&mut self, upstreams: impl Iterator<Item = &Arc<Upstream>> + Clone) {
        self.keepers.retain(|name, _| upstreams.clone().any(|upstream| upstream.name == *name));
        let mut waiting = Vec::new();
        for upstream in upstreams {
            let kept = self.keepers.entry(Arc::clone(&upstream.name)).or_insert_with(|| {
                let (adopt, received) = mpsc::unbounded_channel();
                let keeper = Keeper::run(Arc::clone(upstream), Arc::clone(&self.resolvers), received);
                Kept { adopt, _task: Task::spawn(keeper) }
            });
            let (settled, told) = oneshot::channel();
            // A keeper ends only when this is dropped.
            let _ = kept.adopt.send(Adopt { upstream: Arc::clone(upstream), settled });
            waiting.push(told);
        }
        let patience = Instant::now() + FIRST_LOOKUPS;
        for told in waiting {
            let _ = tokio::time::timeout_at(patience, told).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use super::super::testing::{ANYONE, Backend, Behaviour, Dns, build, eventually, settings};
    use super::*;
    use crate::config::settings::{Balance, HealthSettings, UpstreamSettings};
    use crate::request::rejection::Cause;

    const OK: Behaviour = Behaviour::Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    const BROKEN: Behaviour = Behaviour::Answer("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n");
    const NAMED: (&str, u32) = ("http://orders.test:8001", 1);

    fn checks(path: &str) -> Option<HealthSettings> {
        Some(HealthSettings {
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            status: vec![200..=399],
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            fall: NonZeroU32::MIN,
            rise: NonZeroU32::MIN,
        })
    }

    fn upstream(settings: &UpstreamSettings, before: Option<&Upstream>) -> Arc<Upstream> {
        Arc::new(build(settings, before))
    }

    fn with(dns: &Dns) -> Background {
        Background { resolvers: Arc::new(Resolvers::fixed(dns.config())), keepers: HashMap::new() }
    }

    fn labels(upstream: &Upstream) -> Vec<String> {
        upstream.servers().iter().map(|server| server.label.to_string()).collect()
    }

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[tokio::test]
    async fn names_are_resolved_before_a_snapshot_is_in_force_and_again_by_their_ttl() {
        let dns = Dns::start(&[ONE], 1).await;
        let mut background = with(&dns);
        let orders = upstream(&settings(&[NAMED], Balance::LeastRequests), None);
        background.keep([&orders].into_iter()).await;
        assert_eq!(labels(&orders), ["http://orders.test:8001 (10.0.0.1)"]);
        dns.answer(&[ONE, TWO]);
        eventually("the second address", || orders.servers().len() == 2).await;
        // While there is no answer, the last one holds.
        let asked = dns.asked();
        dns.answer(&[]);
        eventually("failing lookups", || dns.asked() > asked).await;
        assert_eq!(orders.servers().len(), 2);
    }

    #[test]
    fn a_local_runtime_will_do() {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
        runtime.block_on(async {
            let dns = Dns::start(&[ONE], 60).await;
            let mut background = with(&dns);
            let orders = upstream(&settings(&[NAMED], Balance::LeastRequests), None);
            background.keep([&orders].into_iter()).await;
            assert_eq!(orders.servers().len(), 1);
        });
    }

    #[tokio::test]
    async fn a_ttl_is_waited_for() {
        let dns = Dns::start(&[ONE], 3600).await;
        let mut background = with(&dns);
        let orders = upstream(&settings(&[NAMED], Balance::LeastRequests), None);
        background.keep([&orders].into_iter()).await;
        let asked = dns.asked();
        // Another snapshot with the same name asks no more, and knows the address at once.
        let next = upstream(&settings(&[NAMED], Balance::RoundRobin), Some(&orders));
        background.keep([&next].into_iter()).await;
        assert_eq!(next.servers()[0].id, orders.servers()[0].id);
        assert_eq!(dns.asked(), asked);
    }

    #[tokio::test]
    async fn a_name_without_an_address_stops_nothing() {
        let dns = Dns::start(&[], 1).await;
        let mut background = with(&dns);
        let orders = upstream(&settings(&[NAMED], Balance::LeastRequests), None);
        background.keep([&orders].into_iter()).await;
        assert_eq!(orders.choose(ANYONE, &[]).err(), Some(Cause::UpstreamUnresolved));
        dns.answer(&[ONE]);
        eventually("an address", || orders.choose(ANYONE, &[]).is_ok()).await;
    }

    #[tokio::test]
    async fn an_address_that_is_learnt_late_reaches_the_newest_snapshot() {
        let dns = Dns::start(&[ONE], 1).await;
        let mut background = with(&dns);
        let first = upstream(&settings(&[NAMED], Balance::LeastRequests), None);
        // Built before anything was known.
        let second = upstream(&settings(&[NAMED], Balance::RoundRobin), Some(&first));
        background.keep([&first].into_iter()).await;
        background.keep([&second].into_iter()).await;
        assert_eq!(second.servers()[0].id, first.servers()[0].id);
        dns.answer(&[TWO]);
        eventually("the new address", || labels(&second) == ["http://orders.test:8001 (10.0.0.2)"]).await;
    }

    #[tokio::test]
    async fn checks_follow_the_settings_from_snapshot_to_snapshot() {
        let backend = Backend::start(BROKEN).await;
        let mut background = Background::default();
        let mut settings = settings(&[(&backend.url(), 1)], Balance::LeastRequests);
        settings.health = checks("/one");
        let first = upstream(&settings, None);
        background.keep([&first].into_iter()).await;
        eventually("down", || first.choose(ANYONE, &[]).is_err()).await;
        // Other checks: the server stays down until one of them passes.
        settings.health = checks("/two");
        let second = upstream(&settings, Some(&first));
        background.keep([&second].into_iter()).await;
        let heads = || backend.heads.lock().unwrap().clone();
        eventually("the new check", || heads().iter().any(|head| head.starts_with("GET /two "))).await;
        let from = heads().len();
        eventually("more checks", || heads().len() > from + 3).await;
        assert!(heads()[from..].iter().all(|head| head.starts_with("GET /two ")));
        assert!(second.choose(ANYONE, &[]).is_err());
        // No checks: nobody says that it is down any more.
        settings.health = None;
        let third = upstream(&settings, Some(&second));
        background.keep([&third].into_iter()).await;
        assert!(third.choose(ANYONE, &[]).is_ok());
    }

    #[tokio::test]
    async fn tasks_end_with_their_upstream_and_unchanged_ones_live_on() {
        let (kept, dropped) = (Backend::start(OK).await, Backend::start(OK).await);
        let mut background = Background::default();
        let of = |backend: &Backend, name: &str| {
            let mut settings = settings(&[(&backend.url(), 1)], Balance::LeastRequests);
            settings.health = checks("/");
            let mut upstream = build(&settings, None);
            upstream.name = Arc::from(name);
            Arc::new(upstream)
        };
        let (one, two) = (of(&kept, "one"), of(&dropped, "two"));
        background.keep([&one, &two].into_iter()).await;
        eventually("checks", || kept.requests() > 0 && dropped.requests() > 0).await;
        background.keep([&one].into_iter()).await;
        // At most the check that was under way comes through.
        let (from, left) = (kept.requests(), dropped.requests());
        eventually("more checks", || kept.requests() > from + 10).await;
        assert!(dropped.requests() <= left + 1);
        drop(background);
        let left = kept.requests();
        tokio::task::yield_now().await;
        assert!(kept.requests() <= left + 1);
    }
}
