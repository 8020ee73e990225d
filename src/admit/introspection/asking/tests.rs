use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::super::super::identity::{Identity, Method};
use super::*;
use crate::observe::metrics::{Introspected, IntrospectionMetrics};

/// Says of a token what its name says: "good…", "bad…", "away…", "broken…". Answers when it is let.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<String>>,
    held: AtomicBool,
    go: Notify,
}

impl Server for Script {
    async fn ask(&self, token: Arc<str>) -> Outcome {
        self.asked.lock().unwrap().push(token.to_string());
        while self.held.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        let failed = |whose| Outcome::Failed(Failed { why: "it is away".to_owned(), whose });
        match &*token {
            good if good.starts_with("good") => {
                let who = Identity::new(&Arc::from("opaque"), Method::Introspection, good, [], []);
                Outcome::Active { identity: Arc::new(who), until: None }
            }
            away if away.starts_with("away") => failed(Whose::Server),
            broken if broken.starts_with("broken") => failed(Whose::Token),
            _ => Outcome::Refused(Refused { why: "no", until: None }),
        }
    }
}

struct Test {
    script: Arc<Script>,
    metrics: Arc<IntrospectionMetrics>,
    asks: mpsc::Sender<Ask>,
}

impl Test {
    fn start(max_in_flight: usize) -> Test {
        let (script, metrics) = (Arc::new(Script::default()), Arc::new(IntrospectionMetrics::default()));
        let standing = Arc::new(Standing::new(&Arc::from("opaque"), Arc::clone(&metrics)));
        let (asks, received) = mpsc::channel(100_000);
        let bounds = Bounds { max_in_flight, cache: Duration::from_secs(30) };
        tokio::spawn(Asking::run(Arc::clone(&script), bounds, standing, received));
        Test { script, metrics, asks }
    }

    fn begin(&self, token: &str) -> oneshot::Receiver<Told> {
        let (answer, told) = oneshot::channel();
        let digest = crate::admit::digest::digest([token.as_bytes()]);
        self.asks.try_send(Ask { digest, token: Arc::from(token), answer }).ok().unwrap();
        told
    }

    async fn ask(&self, token: &str) -> &'static str {
        word(self.begin(token).await.unwrap())
    }

    fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }

    fn hold(&self) {
        self.script.held.store(true, Ordering::SeqCst);
    }

    fn release(&self) {
        self.script.held.store(false, Ordering::SeqCst);
        self.script.go.notify_waiters();
    }

    /// Lets everything happen that can happen now.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

fn word((said, _): Told) -> &'static str {
    match said {
        Said::Active(_) => "active",
        Said::Refused(_) => "refused",
        Said::Unknown(_) => "unknown",
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn one_question_a_token_and_cache_time() {
    let test = Test::start(64);
    for _ in 0..10 {
        assert_eq!((test.ask("good").await, test.ask("bad").await), ("active", "refused"));
    }
    assert_eq!(test.asked(), ["good", "bad"]);
    pass(Duration::from_millis(29_999)).await;
    assert_eq!((test.ask("good").await, test.ask("bad").await), ("active", "refused"));
    assert_eq!(test.asked().len(), 2);
    pass(Duration::from_millis(1)).await;
    assert_eq!((test.ask("good").await, test.ask("bad").await), ("active", "refused"));
    assert_eq!(test.asked().len(), 4);
    let total = |result| test.metrics.asked_total(result);
    assert_eq!((total(Introspected::Active), total(Introspected::Inactive)), (2, 2));
    assert_eq!(test.metrics.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_meanwhile_waits_for_the_same_answer() {
    let test = Test::start(64);
    test.hold();
    let waiting: Vec<_> = (0..100).map(|_| test.begin("good")).collect();
    test.settle().await;
    assert_eq!((test.asked().len(), test.metrics.in_flight()), (1, 1));
    test.release();
    for told in waiting {
        assert_eq!(word(told.await.unwrap()), "active");
    }
    assert_eq!(test.asked(), ["good"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_inventions_meets_a_bound_and_known_tokens_go_first() {
    let test = Test::start(2);
    assert_eq!(test.ask("good old").await, "active");
    pass(Duration::from_secs(31)).await;
    test.hold();
    let flood: Vec<_> = (0..100).map(|index| test.begin(&format!("bad {index}"))).collect();
    test.settle().await;
    assert_eq!(test.asked().len(), 1 + 2, "two at one time");
    let old = test.begin("good old");
    test.settle().await;
    test.release();
    assert_eq!(word(old.await.unwrap()), "active");
    let asked = test.asked();
    assert!(asked.iter().position(|token| token == "good old").is_some_and(|at| at == 0));
    let again = asked.iter().skip(1).position(|token| token == "good old").unwrap();
    assert!(again <= 3, "before all that had waited longer: {asked:?}");
    let mut words = HashMap::<_, usize>::new();
    for told in flood {
        *words.entry(word(told.await.unwrap())).or_default() += 1;
    }
    // Two under way and 32 in line; the rest was refused at once.
    assert_eq!(words, HashMap::from([("refused", 34), ("unknown", 66)]));
    assert_eq!(test.asked().len(), 1 + 34 + 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_those_who_left() {
    let test = Test::start(1);
    test.hold();
    let first = test.begin("good one");
    let gone = test.begin("good two");
    let stays = test.begin("good three");
    test.settle().await;
    drop(gone);
    test.release();
    assert_eq!((word(first.await.unwrap()), word(stays.await.unwrap())), ("active", "active"));
    assert_eq!(test.asked(), ["good one", "good three"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_is_not_hammered_and_is_asked_again() {
    let test = Test::start(64);
    for index in 0..50 {
        assert_eq!(test.ask(&format!("away {index}")).await, "unknown");
    }
    assert_eq!(test.asked().len(), 3);
    pass(Duration::from_millis(500)).await;
    for index in 0..50 {
        assert_eq!(test.ask(&format!("away {index}")).await, "unknown");
    }
    assert_eq!(test.asked().len(), 4, "one finds out");
    pass(Duration::from_millis(1000)).await;
    assert_eq!((test.ask("good").await, test.ask("bad").await), ("active", "refused"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_cannot_cope_with_is_the_tokens_own_trouble() {
    let test = Test::start(64);
    for _ in 0..20 {
        assert_eq!(test.ask("broken").await, "unknown");
    }
    assert_eq!(test.asked().len(), 1);
    for index in 0..20 {
        assert_eq!(test.ask(&format!("broken {index}")).await, "unknown");
    }
    assert_eq!(test.ask("good").await, "active");
    pass(Duration::from_secs(1)).await;
    assert_eq!(test.ask("broken").await, "unknown");
    assert_eq!(test.asked().iter().filter(|token| *token == "broken").count(), 2);
}

/// Whoever sends one token after another that the server cannot cope with is the first to ask after each pause.
#[tokio::test(start_paused = true)]
async fn any_answer_ends_an_outage_whatever_it_says_of_the_token() {
    let test = Test::start(64);
    for index in 0..3 {
        assert_eq!(test.ask(&format!("away {index}")).await, "unknown");
    }
    pass(Duration::from_millis(500)).await;
    test.hold();
    let first = test.begin("broken");
    test.settle().await;
    assert_eq!(test.ask("good").await, "unknown", "one finds out");
    test.release();
    assert_eq!(word(first.await.unwrap()), "unknown");
    test.hold();
    let flood: Vec<_> = (0..10).map(|index| test.begin(&format!("broken {index}"))).collect();
    let good = test.begin("good");
    test.settle().await;
    test.release();
    assert_eq!(word(good.await.unwrap()), "active");
    assert_eq!(test.asked().len(), 3 + 1 + flood.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn those_in_line_are_told_when_the_server_is_gone() {
    let test = Test::start(3);
    test.hold();
    let asked: Vec<_> = (0..40).map(|index| test.begin(&format!("away {index}"))).collect();
    test.settle().await;
    test.release();
    for told in asked {
        assert_eq!(word(told.await.unwrap()), "unknown");
    }
    assert_eq!(test.asked().len(), 3 + 2, "two took the places of the first two to fail");
}
