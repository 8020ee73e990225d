//! The queue with servers, on a paused clock; and its hand-over between real threads.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Waker};

use super::super::health::{Rules, Verdict};
use super::super::testing::{ANYONE, build, settings};
use super::super::{Asking, Server};
use super::*;
use crate::config::settings::{Balance, HashKey, SlotSettings, UpstreamSettings};
use crate::upstream::journey::Journey;

const A: (&str, u32) = ("http://127.0.0.1:1", 1);
const B: (&str, u32) = ("http://127.0.0.1:2", 1);
const MAX_WAIT: Duration = Duration::from_secs(2);

fn slots(count: usize) -> SlotSettings {
    SlotSettings::Fixed(NonZeroUsize::new(count).unwrap())
}

fn with_slots(servers: &[(&str, u32)], count: usize) -> UpstreamSettings {
    UpstreamSettings { slots: slots(count), ..settings(servers, Balance::LeastRequests) }
}

fn upstream(servers: &[(&str, u32)], count: usize) -> Arc<Upstream> {
    Arc::new(build(&with_slots(servers, count), None))
}

async fn seat_as(upstream: &Arc<Upstream>, priority: Priority, tried: &[u64]) -> Result<Lease, Cause> {
    let journey = Journey::default();
    upstream.seat(Asking { worker: WorkerId(0), by: ANYONE, tried, priority, journey: &journey }).await
}

async fn seat(upstream: &Arc<Upstream>) -> Result<Lease, Cause> {
    seat_as(upstream, Priority::Normal, &[]).await
}

type Waiting<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Lease, Cause>> + 'a>>;

/// Asks once; what has to wait is lined up then.
fn begin(upstream: &Arc<Upstream>) -> Waiting<'_> {
    let mut waiting: Waiting<'_> = Box::pin(seat(upstream));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    waiting
}

/// The slot that it has been given by now.
fn given(waiting: &mut Waiting<'_>) -> Option<Result<Lease, Cause>> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(outcome) => Some(outcome),
        std::task::Poll::Pending => None,
    }
}

fn take_down(server: &Server) {
    server.health.check();
    server.health.probed(Verdict::Failed("test".to_owned()), Rules { fall: 1, rise: 1 }, u64::MAX);
}

fn counted(upstream: &Upstream, why: Dropped) -> u64 {
    upstream.metrics.dropped_total(why)
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_handed_on_in_order() {
    let upstream = upstream(&[A, B], 2);
    let mut held: Vec<Lease> = Vec::new();
    for _ in 0..4 {
        held.push(seat(&upstream).await.unwrap());
    }
    assert!(upstream.servers().iter().all(|server| server.in_flight() == 2));
    let (mut first, mut second) = (begin(&upstream), begin(&upstream));
    assert_eq!(upstream.queue.len(), 2);
    let freed = held.pop().unwrap();
    let server = Arc::clone(freed.server());
    drop(freed);
    assert!(given(&mut second).is_none());
    let lease = given(&mut first).unwrap().unwrap();
    assert!(Arc::ptr_eq(lease.server(), &server), "where the slot is");
    drop(lease);
    given(&mut second).unwrap().unwrap();
    assert!(upstream.queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_those_who_wait() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let mut first = begin(&upstream);
    drop(held);
    // The slot is theirs already, although they have not looked.
    let mut second = begin(&upstream);
    assert!(given(&mut first).unwrap().is_ok());
    assert!(given(&mut second).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_is_refused() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let began = Instant::now();
    assert_eq!(seat(&upstream).await.err(), Some(Cause::QueueTimeout));
    assert_eq!(began.elapsed(), MAX_WAIT);
    assert_eq!(counted(&upstream, Dropped::Timeout), 1);
    assert!(upstream.queue.is_empty());
    drop(held);
    seat(&upstream).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_wait_no_longer() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let journey = Journey::default();
    let asking = Asking { worker: WorkerId(0), by: ANYONE, tried: &[], priority: Priority::Normal, journey: &journey };
    let (first, ()) = tokio::join!(upstream.seat(asking), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        drop(held);
    });
    let held = first.unwrap();
    assert_eq!(journey.queued(), Duration::from_millis(1500));
    let began = Instant::now();
    assert_eq!(upstream.seat(asking).await.err(), Some(Cause::QueueTimeout));
    assert_eq!(began.elapsed(), Duration::from_millis(500));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_gone_at_once() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let (gone, mut next) = (begin(&upstream), begin(&upstream));
    drop(gone);
    assert_eq!((upstream.queue.len(), counted(&upstream, Dropped::ClientLeft)), (1, 1));
    drop(held);
    let lease = given(&mut next).unwrap().unwrap();
    // One that leaves with a slot that it does not know of gives it to the next.
    let (gone, mut next) = (begin(&upstream), begin(&upstream));
    drop(lease);
    assert!(given(&mut next).is_none());
    drop(gone);
    given(&mut next).unwrap().unwrap();
    assert_eq!(upstream.servers()[0].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_nobody() {
    let mut settings = with_slots(&[A], 1);
    settings.queue.size = 1;
    let upstream = Arc::new(build(&settings, None));
    let held = seat(&upstream).await.unwrap();
    let mut low: Waiting<'_> = Box::pin(seat_as(&upstream, Priority::Low, &[]));
    assert!(given(&mut low).is_none());
    assert_eq!(seat_as(&upstream, Priority::Low, &[]).await.err(), Some(Cause::QueueFull));
    let mut better = begin(&upstream);
    assert_eq!(given(&mut low).unwrap().err(), Some(Cause::QueueFull));
    assert_eq!(counted(&upstream, Dropped::Full), 2);
    drop(held);
    given(&mut better).unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_on_a_server_waits_for_another() {
    let upstream = upstream(&[A, B], 1);
    let (a, b) = (seat(&upstream).await.unwrap(), seat(&upstream).await.unwrap());
    let tried = [a.server().id];
    drop(a);
    // The server that has a slot is the one that failed it; others take that slot meanwhile.
    let mut again: Waiting<'_> = Box::pin(seat_as(&upstream, Priority::Normal, &tried));
    assert!(given(&mut again).is_none());
    let other = seat(&upstream).await.unwrap();
    assert_eq!(other.server().id, tried[0]);
    let id = b.server().id;
    drop(b);
    assert_eq!(given(&mut again).unwrap().unwrap().server().id, id);
}

#[tokio::test(start_paused = true)]
async fn when_every_server_is_down_those_who_wait_are_told() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let mut waiting = begin(&upstream);
    take_down(&upstream.servers()[0]);
    upstream.queue.settle();
    assert_eq!(given(&mut waiting).unwrap().err(), Some(Cause::NoHealthyServer));
    assert_eq!(counted(&upstream, Dropped::NoServer), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_find_the_slots_of_a_new_snapshot() {
    let before = upstream(&[A], 1);
    let held = seat(&before).await.unwrap();
    let (mut first, mut second) = (begin(&before), begin(&before));
    let after = Arc::new(build(&with_slots(&[A], 2), Some(&before)));
    assert!(given(&mut first).is_none(), "it is not in force yet");
    after.enforce();
    let one = given(&mut first).unwrap().unwrap();
    assert!(given(&mut second).is_none());
    // And the other way round: what is beyond the new number is given back in its time.
    before.enforce();
    drop(one);
    assert!(given(&mut second).is_none());
    drop(held);
    given(&mut second).unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn upgraded_connections_hold_no_slot() {
    let upstream = upstream(&[A], 1);
    let held = seat(&upstream).await.unwrap();
    let mut waiting = begin(&upstream);
    let open = held.upgraded();
    let lease = given(&mut waiting).unwrap().unwrap();
    let server = &upstream.servers()[0];
    assert_eq!((server.in_flight(), server.status(1).busy), (2, 1));
    drop((open, lease));
    assert_eq!((server.in_flight(), server.status(1).busy), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn keyed_requests_pass_over_a_server_without_a_slot() {
    let settings = UpstreamSettings { balance: Balance::Hash(HashKey::ClientIp), ..with_slots(&[A, B], 1) };
    let upstream = Arc::new(build(&settings, None));
    let mine = seat(&upstream).await.unwrap();
    let next = seat(&upstream).await.unwrap();
    assert_ne!(mine.server().id, next.server().id);
    let mut waiting = begin(&upstream);
    drop(mine);
    given(&mut waiting).unwrap().unwrap();
}

/// Asks for a slot `rounds` times, and leaves now and then while it waits. `running` are those who have one.
async fn client(upstream: &Arc<Upstream>, rounds: usize, running: &AtomicUsize) {
    for round in 0..rounds {
        let lease = if round % 5 == 3 {
            // Polled once.
            match tokio::time::timeout(Duration::ZERO, seat(upstream)).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            }
        } else {
            seat(upstream).await
        };
        match lease {
            Ok(lease) => {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 2, "a slot was taken twice");
                if round % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                drop(lease);
            }
            // It is busy for as long as this takes, and newcomers go first.
            Err(cause) => assert_eq!(cause, Cause::Overloaded),
        }
    }
}

/// Real threads and more requests than slots: a slot is never taken twice, and none is ever forgotten.
#[test]
fn slots_are_handed_on_between_threads() {
    const ROUNDS: usize = 1500;
    let mut settings = with_slots(&[A, B], 1);
    // Whoever is forgotten waits for as long as this.
    settings.queue.max_wait = Duration::from_secs(60);
    let upstream = Arc::new(build(&settings, None));
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let client = || client(&upstream, ROUNDS, &running);
                runtime.block_on(async { tokio::join!(client(), client(), client(), client()) });
            });
        }
    });
    assert!(upstream.queue.is_empty());
    assert!(upstream.servers().iter().all(|server| server.in_flight() == 0));
    assert!(upstream.metrics.waits().get_sample_count() > 0, "nobody had to wait");
}
