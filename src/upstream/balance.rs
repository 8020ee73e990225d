//! Which server takes a request.
//!
//! Servers are ranked first: usable ones that this request has not tried yet, then usable ones that it has, then
//! ejected ones. Only among the best rank the upstream's `balance` decides. So when every server has been ejected by
//! failing requests, they are used all the same (as Envoy does in panic, and nginx when all its peers have failed):
//! an ejection is a guess, and guessing that nothing works helps nobody. Active checks do not guess: what they found
//! down gets nothing, and when that is all there is, the answer is `NoHealthyServer`. Workers of an app that listen no
//! more get nothing either; where that is all there is, requests wait for those that come in their place.
//!
//! Of the best rank, only servers with a free slot are looked at. When none has one, the request waits: for a slot of
//! this rank, not for whichever comes first. One that is tried again must not fail again where it just failed, only
//! because the others are busy.
//!
//! Everything here reads atomics; nothing locks or allocates.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ChooseBy;
use super::clock;
use super::health::{FULL, Standing};
use super::members::{Member, Members, Missing};
use super::server::{Lease, Server};
use crate::config::settings::{Balance, HashKey};
use crate::request::rejection::Cause;

/// Chooses among `members` and takes a slot; `turn` counts the turns that were taken, `hash` is what `hash:…` goes by.
/// `None`: those who could take the request have no slot free.
pub(super) fn choose(
    members: &Members,
    balance: &Balance,
    turn: &AtomicUsize,
    hash: Option<u64>,
    tried: &[u64],
) -> Result<Option<Lease>, Cause> {
    loop {
        let Some((member, rank)) = best(members, balance, turn, hash, tried)? else { return Ok(None) };
        // Another thread may have taken the last slot since.
        let Some(lease) = Lease::take(&member.server) else { continue };
        if rank >= Rank::Ejected {
            member.server.health.try_out();
        }
        return Ok(Some(lease));
    }
}

/// The same for nobody: no slot is taken, and a server that is only to be tried out is not.
pub(super) fn would_choose(
    members: &Members,
    balance: &Balance,
    turn: &AtomicUsize,
    hash: Option<u64>,
) -> Result<Option<Arc<Server>>, Cause> {
    let best = best(members, balance, turn, hash, &[])?;
    Ok(best.map(|(member, _)| Arc::clone(&member.server)))
}

/// `None`: no slot is free.
fn best<'a>(
    members: &'a Members,
    balance: &Balance,
    turn: &AtomicUsize,
    hash: Option<u64>,
    tried: &'a [u64],
) -> Result<Option<(&'a Member, Rank)>, Cause> {
    if members.list.is_empty() {
        return match members.missing {
            Missing::Addresses => Err(Cause::UpstreamUnresolved),
            Missing::Workers => Err(Cause::AppNotRunning),
            // Whoever waits for a slot gets one of them.
            Missing::WorkersForNow => Ok(None),
        };
    }
    let Some(field) = Field::new(members, tried) else {
        return if members.awaits_workers() { Ok(None) } else { Err(Cause::NoHealthyServer) };
    };
    let member = match (balance, hash) {
        (Balance::Hash(_), Some(hash)) => field.rendezvous(hash),
        (Balance::LeastRequests, _) | (Balance::Hash(_), None) => field.least_requests(turn),
        (Balance::RoundRobin, _) => field.next(turn.fetch_add(1, Ordering::Relaxed), None),
        (Balance::RandomTwo, _) => field.random_two(),
    };
    if member.is_none() && members.list.iter().any(|member| member.server.slots.is_full()) {
        return Ok(None);
    }
    // Health may have changed since the ranking; whoever comes first then is as good as any.
    let member = member.or_else(|| members.list.first()).ok_or(Cause::NoHealthyServer)?;
    Ok(Some((member, field.rank)))
}

/// How willingly a server is chosen; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Usable,
    UsableTried,
    Ejected,
    EjectedTried,
}

/// The members of the best rank at this moment.
struct Field<'a> {
    members: &'a Members,
    tried: &'a [u64],
    rank: Rank,
    /// Every server is well and none was tried, as nearly always: nothing needs a second look.
    plain: bool,
    now: u64,
}

impl<'a> Field<'a> {
    /// `None` when every server is down or gone.
    fn new(members: &'a Members, tried: &'a [u64]) -> Option<Field<'a>> {
        // The clock is read only when some server is, or lately was, not well.
        let all_open = members.list.iter().all(|member| member.server.health.is_open());
        let now = if all_open { 0 } else { clock::now() };
        let mut field = Field { members, tried, rank: Rank::Usable, plain: all_open && tried.is_empty(), now };
        if !field.plain {
            field.rank = members.list.iter().filter_map(|member| field.rank(member)).min()?;
        }
        Some(field)
    }

    fn rank(&self, member: &Member) -> Option<Rank> {
        let tried = self.tried.contains(&member.server.id);
        match (member.server.health.standing(self.now), tried) {
            (Standing::Usable(_), false) => Some(Rank::Usable),
            (Standing::Usable(_), true) => Some(Rank::UsableTried),
            (Standing::Ejected, false) => Some(Rank::Ejected),
            (Standing::Ejected, true) => Some(Rank::EjectedTried),
            (Standing::Down | Standing::Gone, _) => None,
        }
    }

    /// The part of the load that a member should take, if it is in the field and has a free slot: its weight in
    /// thousandths, less while it is returning.
    fn share(&self, member: &Member) -> Option<u64> {
        if member.server.slots.is_full() {
            return None;
        }
        if self.plain {
            return Some(u64::from(member.weight).saturating_mul(FULL));
        }
        if self.rank(member) != Some(self.rank) {
            return None;
        }
        let part = match member.server.health.standing(self.now) {
            Standing::Usable(part) => part,
            Standing::Ejected | Standing::Down | Standing::Gone => FULL,
        };
        Some(u64::from(member.weight).saturating_mul(part))
    }

    /// Takes turns: the first member of the field from `start` in the round, a returning one with the probability of
    /// its part. `with` narrows the field to those whose load is the same as this.
    fn next(&self, start: usize, with: Option<Load>) -> Option<&'a Member> {
        let round = &self.members.round;
        let mut fallback = None;
        let begin = start.checked_rem(round.len())?;
        for index in round.iter().skip(begin).chain(round.iter().take(begin)) {
            let Some(member) = self.members.list.get(*index) else { continue };
            let Some(share) = self.share(member) else { continue };
            if with.is_some_and(|load| !Load::of(member, share).equals(load)) {
                continue;
            }
            let full = u64::from(member.weight).saturating_mul(FULL);
            if share >= full || fastrand::u64(..full) < share {
                return Some(member);
            }
            fallback = fallback.or(Some(member));
        }
        fallback
    }

    /// The fewest requests in flight for its share; those with equally few take turns, so that idle servers share
    /// what comes.
    fn least_requests(&self, turn: &AtomicUsize) -> Option<&'a Member> {
        let mut best: Option<(&Member, Load)> = None;
        let mut tied = false;
        for member in &self.members.list {
            let Some(share) = self.share(member) else { continue };
            let load = Load::of(member, share);
            match best {
                Some((_, least)) if least.equals(load) => tied = true,
                Some((_, least)) if !load.is_less(least) => {}
                Some(_) | None => {
                    best = Some((member, load));
                    tied = false;
                }
            }
        }
        let (member, load) = best?;
        let in_turn = if tied { self.next(turn.fetch_add(1, Ordering::Relaxed), Some(load)) } else { None };
        in_turn.or(Some(member))
    }

    /// The less loaded of two that are drawn by weight: nearly as even as looking at all, and no herd forms.
    fn random_two(&self) -> Option<&'a Member> {
        let draw = || self.next(fastrand::usize(..self.members.round.len().max(1)), None);
        let first = draw()?;
        let mut second = first;
        // Two draws may hit the same; with heavy weights it is worth trying again a few times.
        for _ in 0..4 {
            second = draw()?;
            if second.server.id != first.server.id {
                break;
            }
        }
        let (Some(one), Some(two)) = (self.share(first), self.share(second)) else { return Some(first) };
        if Load::of(second, two).is_less(Load::of(first, one)) { Some(second) } else { Some(first) }
    }

    /// Weighted rendezvous hashing: every server draws a number for the key, the best draw wins. When a server
    /// leaves, only its own keys move; so they do while it has no slot free.
    fn rendezvous(&self, key: u64) -> Option<&'a Member> {
        let mut best: Option<(&Member, f64)> = None;
        for member in &self.members.list {
            let Some(share) = self.share(member) else { continue };
            let score = score(key, member.server.seed, share);
            if best.is_none_or(|(_, most)| score > most) {
                best = Some((member, score));
            }
        }
        best.map(|(member, _)| member)
    }
}

/// Requests in flight, to be seen in proportion to a share.
#[derive(Clone, Copy, Debug)]
struct Load {
    in_flight: u64,
    share: u64,
}

impl Load {
    fn of(member: &Member, share: u64) -> Load {
        Load { in_flight: u64::try_from(member.server.in_flight()).unwrap_or(u64::MAX), share }
    }

    fn is_less(self, other: Load) -> bool {
        self.in_flight.saturating_mul(other.share) < other.in_flight.saturating_mul(self.share)
    }

    fn equals(self, other: Load) -> bool {
        self.in_flight.saturating_mul(other.share) == other.in_flight.saturating_mul(self.share)
    }
}

/// What a server draws for a key: `-share / ln(u)`, u even in (0, 1).
#[allow(clippy::cast_precision_loss, reason = "53 bits are plenty for a draw")]
fn score(key: u64, seed: u64, share: u64) -> f64 {
    let bits = mixed(key ^ seed) >> 11;
    let even = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    -(share as f64) / even.ln()
}

/// What a request is balanced by, where that is a hash of something that it has.
pub(super) fn hash_of(balance: &Balance, by: ChooseBy<'_>) -> Option<u64> {
    match balance {
        Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => None,
        Balance::Hash(HashKey::ClientIp) => Some(hash_ip(by.client)),
        Balance::Hash(HashKey::Header(_) | HashKey::Cookie(_)) => by.key.map(hash),
    }
}

/// An IPv6 client counts by its /64: the rest changes by the day.
fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&(u128::from(ip) >> 64).to_be_bytes()),
    }
}

/// FNV-1a with a final mix: the same in every process, unlike the standard library's.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of SplitMix64: every bit of the input touches every bit of the output.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::health::{Failure, Rules, Verdict};
    use super::super::testing::{ANYONE, build, settings};
    use super::super::{Server, Upstream};
    use super::*;

    const ABC: [(&str, u32); 3] = [("http://127.0.0.1:1", 1), ("http://127.0.0.1:2", 1), ("http://127.0.0.1:3", 1)];
    const RULES: Rules = Rules { fall: 1, rise: 1 };

    fn upstream(servers: &[(&str, u32)], balance: Balance) -> Upstream {
        build(&settings(servers, balance), None)
    }

    fn port(server: &Server) -> u16 {
        server.label.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    fn chosen(upstream: &Upstream) -> u16 {
        port(upstream.choose(ANYONE, &[]).unwrap().server())
    }

    fn tally(upstream: &Upstream, requests: usize) -> HashMap<u16, usize> {
        let mut tally = HashMap::new();
        for _ in 0..requests {
            *tally.entry(chosen(upstream)).or_default() += 1;
        }
        tally
    }

    fn eject(server: &Server) {
        server.health.failed(Failure::Connect);
        server.health.failed(Failure::Connect);
    }

    fn take_down(server: &Server) {
        server.health.check();
        server.health.probed(Verdict::Failed("test".to_owned()), RULES, u64::MAX);
    }

    #[test]
    fn idle_servers_share_what_comes_by_weight() {
        let servers = [("http://127.0.0.1:1", 1), ("http://127.0.0.1:2", 3)];
        for balance in [Balance::LeastRequests, Balance::RoundRobin] {
            let upstream = upstream(&servers, balance);
            assert_eq!(tally(&upstream, 400), HashMap::from([(1, 100), (2, 300)]));
        }
    }

    #[test]
    fn round_robin_is_smooth() {
        let servers = [("http://127.0.0.1:1", 5), ("http://127.0.0.1:2", 1), ("http://127.0.0.1:3", 1)];
        let upstream = upstream(&servers, Balance::RoundRobin);
        let turns: Vec<_> = (0..7).map(|_| chosen(&upstream)).collect();
        assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1]);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_chosen() {
        let upstream = upstream(&[("http://127.0.0.1:1", 1), ("http://127.0.0.1:2", 2)], Balance::LeastRequests);
        let leases: Vec<Lease> = (0..30).map(|_| upstream.choose(ANYONE, &[]).unwrap()).collect();
        let load: Vec<_> = upstream.servers().iter().map(|server| server.in_flight()).collect();
        assert_eq!(load, [10, 20]);
        drop(leases);
        assert!(upstream.servers().iter().all(|server| server.in_flight() == 0));
    }

    #[test]
    fn a_stuck_server_gets_no_more_while_others_are_free() {
        let upstream = upstream(&ABC, Balance::LeastRequests);
        let stuck = upstream.choose(ANYONE, &[]).unwrap();
        let stuck_port = port(stuck.server());
        assert_eq!(tally(&upstream, 100).get(&stuck_port), None);
    }

    #[test]
    fn random_two_prefers_the_less_loaded() {
        let upstream = upstream(&ABC, Balance::RandomTwo);
        let first = &upstream.servers()[0];
        let held: Vec<_> = (0..50).filter_map(|_| Lease::take(first)).collect();
        // It can only be chosen when it is drawn five times in a row.
        let tally = tally(&upstream, 1000);
        assert!(tally.get(&1).copied().unwrap_or(0) < 50, "{tally:?}");
        assert!(tally[&2] > 300 && tally[&3] > 300, "{tally:?}");
        drop(held);
    }

    #[test]
    fn random_two_follows_the_weights() {
        let upstream = upstream(&[("http://127.0.0.1:1", 1), ("http://127.0.0.1:2", 3)], Balance::RandomTwo);
        let leases: Vec<Lease> = (0..400).map(|_| upstream.choose(ANYONE, &[]).unwrap()).collect();
        let load: Vec<_> = upstream.servers().iter().map(|server| server.in_flight()).collect();
        assert!((80..=120).contains(&load[0]), "{load:?}");
        drop(leases);
    }

    #[test]
    fn those_tried_are_avoided_while_there_is_another() {
        for balance in
            [Balance::LeastRequests, Balance::RoundRobin, Balance::RandomTwo, Balance::Hash(HashKey::ClientIp)]
        {
            let upstream = upstream(&ABC, balance);
            let ids: Vec<u64> = upstream.servers().iter().map(|server| server.id).collect();
            for _ in 0..50 {
                assert_eq!(port(upstream.choose(ANYONE, &ids[..2]).unwrap().server()), 3);
            }
            assert!(upstream.choose(ANYONE, &ids).is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ejected_servers_are_skipped_until_all_are() {
        for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::RandomTwo] {
            let upstream = upstream(&ABC, balance);
            let servers = upstream.servers();
            eject(&servers[0]);
            eject(&servers[1]);
            assert_eq!(tally(&upstream, 100), HashMap::from([(3, 100)]));
            // A retry rather goes to the one that is usable than to one that is ejected.
            assert_eq!(port(upstream.choose(ANYONE, &[servers[2].id]).unwrap().server()), 3);
            eject(&servers[2]);
            let tally = tally(&upstream, 300);
            assert_eq!(tally.len(), 3, "{tally:?}");
            assert!(!upstream.is_healthy());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_panic_brings_a_server_back() {
        let upstream = upstream(&ABC[..1], Balance::LeastRequests);
        eject(&upstream.servers()[0]);
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        upstream.choose(ANYONE, &[]).unwrap().server().health.answered(http::StatusCode::OK);
        assert!(upstream.is_healthy());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_request_of_before_brings_none_back() {
        let upstream = upstream(&ABC, Balance::LeastRequests);
        let lease = upstream.choose(ANYONE, &[]).unwrap();
        eject(lease.server());
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        lease.server().health.answered(http::StatusCode::OK);
        assert!(!lease.server().health.state().is_usable());
    }

    #[test]
    fn servers_that_checks_found_down_get_nothing() {
        let upstream = upstream(&ABC, Balance::LeastRequests);
        let servers = upstream.servers();
        take_down(&servers[0]);
        take_down(&servers[1]);
        eject(&servers[2]);
        assert_eq!(tally(&upstream, 10), HashMap::from([(3, 10)]));
        take_down(&servers[2]);
        assert_eq!(upstream.choose(ANYONE, &[]).err(), Some(Cause::NoHealthyServer));
    }

    #[test]
    fn names_without_addresses_are_unresolved() {
        let upstream = upstream(&[("http://orders.internal:80", 1)], Balance::LeastRequests);
        assert_eq!(upstream.choose(ANYONE, &[]).err(), Some(Cause::UpstreamUnresolved));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_returns_takes_a_growing_share() {
        let upstream = upstream(&ABC[..2], Balance::RoundRobin);
        eject(&upstream.servers()[0]);
        let part = || tally(&upstream, 10_000).get(&1).copied().unwrap_or(0);
        assert_eq!(part(), 0);
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        let early = part();
        assert!((300..=800).contains(&early), "{early}");
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        let later = part();
        assert!((2000..=4000).contains(&later), "{later}");
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert_eq!(part(), 5000);
    }

    fn by_key(upstream: &Upstream, key: usize) -> u16 {
        let key = key.to_string();
        let by = ChooseBy { key: Some(key.as_bytes()), ..ANYONE };
        port(upstream.choose(by, &[]).unwrap().server())
    }

    #[test]
    fn a_key_stays_and_only_the_keys_of_a_lost_server_move() {
        let balance = || Balance::Hash(HashKey::Cookie("session".to_owned()));
        let whole = upstream(&ABC, balance());
        let before: Vec<u16> = (0..3000).map(|key| by_key(&whole, key)).collect();
        // The same in another process, whatever the order in the file.
        let mut shuffled = ABC;
        shuffled.reverse();
        let other = upstream(&shuffled, balance());
        assert!((0..3000).all(|key| by_key(&other, key) == before[key]));
        for port in 1..=3 {
            let keys = before.iter().filter(|at| **at == port).count();
            assert!((900..=1100).contains(&keys), "{keys}");
        }
        eject(&whole.servers()[0]);
        for (key, was) in before.iter().enumerate() {
            let is = by_key(&whole, key);
            if *was == 1 { assert_ne!(is, 1) } else { assert_eq!(is, *was) }
        }
    }

    #[test]
    fn keys_follow_the_weights() {
        let servers = [("http://127.0.0.1:1", 1), ("http://127.0.0.1:2", 3)];
        let upstream = upstream(&servers, Balance::Hash(HashKey::Cookie("session".to_owned())));
        let light = (0..4000).filter(|key| by_key(&upstream, *key) == 1).count();
        assert!((900..=1100).contains(&light), "{light}");
    }

    #[test]
    fn without_its_key_a_request_goes_to_the_least_loaded() {
        let upstream = upstream(&ABC, Balance::Hash(HashKey::Cookie("session".to_owned())));
        assert_eq!(tally(&upstream, 300), HashMap::from([(1, 100), (2, 100), (3, 100)]));
    }

    #[test]
    fn clients_hash_by_address_and_ipv6_by_network() {
        let hash = |ip: &str| hash_ip(ip.parse().unwrap());
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:10.0.0.1"), hash("10.0.0.1"));
        assert_ne!(hash("10.0.0.1"), hash("10.0.0.2"));
    }
}
