use std::sync::atomic::AtomicUsize;

use super::super::issuer::Place;
use super::super::testing::{Signer, jwks};
use super::*;
use crate::config::parse_fetch_url;
use crate::config::settings::JwtAlgorithm;
use crate::config::source::{SourceFile, Span};
use crate::observe::metrics::KeysMetrics;
use crate::upstream::tls::SystemRoots;

const LIFETIME: Duration = Duration::from_secs(900);
const ALGORITHMS: [JwtAlgorithm; 1] = [JwtAlgorithm::Es256];

fn issuer(max_stale: Duration, client: &Arc<Client>) -> Issuer {
    Issuer {
        auth: Arc::from("staff"),
        place: Place::Url(parse_fetch_url("http://127.0.0.1:1/jwks").unwrap()),
        algorithms: ALGORITHMS.to_vec(),
        max_stale,
        client: Arc::clone(client),
        metrics: Arc::new(KeysMetrics::default()),
    }
}

fn client() -> Arc<Client> {
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    Client::build(None, false, &span, &SystemRoots::default(), None, &mut Vec::new()).unwrap()
}

/// An issuer whose answers the test decides, and when it was asked.
struct Test {
    keys: Arc<Keys>,
    script: Arc<Script>,
    began: Instant,
}

#[derive(Default)]
struct Script {
    /// A JWK Set, or why there is none.
    answer: Mutex<Option<String>>,
    /// How long it takes.
    takes: Mutex<Duration>,
    asked: Mutex<Vec<Instant>>,
}

impl Test {
    fn start(max_stale: Duration, answer: Option<String>) -> Test {
        let keys = Keys::fetched(issuer(max_stale, &client()), None);
        let script = Arc::new(Script { answer: Mutex::new(answer), ..Script::default() });
        tokio::spawn({
            let (keys, script) = (Arc::clone(&keys), Arc::clone(&script));
            async move { keys.keep_by(keys.asked.as_ref().unwrap(), || script.fetch()).await }
        });
        Test { keys, script, began: Instant::now() }
    }

    fn answers(&self, answer: Option<String>) {
        *self.script.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.script.asked.lock().unwrap().len()
    }

    /// When it was asked, in seconds since the start.
    fn times(&self) -> Vec<f64> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().map(|at| at.duration_since(self.began).as_secs_f64()).collect()
    }

    /// An unknown key turns up in keys of this moment.
    async fn refetch(&self) -> bool {
        self.keys.refetch(self.keys.generation()).await
    }
}

impl Script {
    async fn fetch(&self) -> Result<Fetched, String> {
        self.asked.lock().unwrap().push(Instant::now());
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        let answer = self.answer.lock().unwrap().clone().ok_or("it is away")?;
        Ok(Fetched { keys: KeySet::parse(answer.as_bytes(), &ALGORITHMS)?, lifetime: LIFETIME })
    }
}

fn some_keys() -> Option<String> {
    Some(jwks([&Signer::new("ES256", "one")]))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_before_they_age() {
    let test = Test::start(DAY, some_keys());
    test.keys.settled().await;
    let generation = test.keys.generation();
    tokio::time::sleep(LIFETIME * 10).await;
    let times = test.times();
    assert!((10..=13).contains(&times.len()), "{times:?}");
    assert!(times.windows(2).all(|two| (720.0..=900.1).contains(&(two[1] - two[0]))), "{times:?}");
    assert_eq!(test.keys.generation(), generation, "the same keys are no others");
    test.answers(some_keys());
    tokio::time::sleep(LIFETIME).await;
    assert_eq!(test.keys.generation(), generation + 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_followed_by_attempts_further_and_further_apart() {
    let test = Test::start(DAY, None);
    test.keys.settled().await;
    assert!(test.keys.current().is_err());
    tokio::time::sleep(Duration::from_secs(300)).await;
    let times = test.times();
    let pauses: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    for (pause, most) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
        assert!((most * 0.79..=most + 0.1).contains(pause), "{pauses:?}");
    }
    test.answers(some_keys());
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(test.keys.current().is_ok() && test.keys.standing().unwrap().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_make_one_question_and_then_none_for_ten_seconds() {
    let test = Test::start(DAY, some_keys());
    test.keys.settled().await;
    assert!(!test.refetch().await);
    assert_eq!(test.asked(), 2);
    for _ in 0..100 {
        assert!(!test.refetch().await);
    }
    assert_eq!((test.asked(), test.began.elapsed() < Duration::from_secs(1)), (2, true), "and nobody waits");
    tokio::time::sleep(Duration::from_secs(11)).await;
    test.answers(some_keys());
    assert!(test.refetch().await);
    assert_eq!(test.asked(), 3);
    // Whoever judged by the keys of before needs no question.
    assert!(test.keys.refetch(0).await);
    assert_eq!(test.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_meanwhile_waits_for_the_same_answer_and_not_for_ever() {
    let test = Test::start(DAY, some_keys());
    test.keys.settled().await;
    test.answers(some_keys());
    *test.script.takes.lock().unwrap() = Duration::from_secs(3);
    let seen = test.keys.generation();
    let found = Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (keys, found) = (Arc::clone(&test.keys), Arc::clone(&found));
            tokio::spawn(async move { found.fetch_add(usize::from(keys.refetch(seen).await), Ordering::SeqCst) })
        })
        .collect();
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!((found.load(Ordering::SeqCst), test.asked()), (50, 2));
    tokio::time::sleep(Duration::from_secs(20)).await;
    *test.script.takes.lock().unwrap() = Duration::from_secs(60);
    let before = Instant::now();
    assert!(!test.refetch().await);
    assert_eq!(before.elapsed().as_secs(), PATIENCE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_are_given_up_at_max_stale() {
    let max_stale = Duration::from_secs(3600);
    let test = Test::start(max_stale, some_keys());
    test.keys.settled().await;
    let generation = test.keys.generation();
    test.answers(None);
    tokio::time::sleep(max_stale - Duration::from_secs(1)).await;
    assert!(test.keys.current().is_ok() && test.keys.standing().unwrap().failing.is_some());
    assert_eq!(test.keys.generation(), generation);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(test.keys.current().is_err_and(|why| why.contains("older than max_stale")));
    assert_ne!(test.keys.generation(), generation, "what they proved counts no more");
    test.answers(some_keys());
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(test.keys.current().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_short_max_stale_makes_questions_more_frequent() {
    let test = Test::start(Duration::from_secs(10), some_keys());
    test.keys.settled().await;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(test.keys.current().is_ok());
    }
    assert!((12..=16).contains(&test.asked()), "{}", test.asked());
}

#[tokio::test(start_paused = true)]
async fn the_same_issuer_is_asked_by_the_next_snapshot_too() {
    let client = client();
    let first = Keys::fetched(issuer(DAY, &client), None);
    assert!(Arc::ptr_eq(&Keys::fetched(issuer(DAY, &client), Some(&first)), &first));
    // What it gave serves on where only max_stale is another.
    let asked = first.asked.as_ref().unwrap();
    first.learn(asked, KeySet::parse(some_keys().unwrap().as_bytes(), &ALGORITHMS).unwrap());
    let second = Keys::fetched(issuer(DAY / 2, &client), Some(&first));
    assert!(!Arc::ptr_eq(&second, &first) && second.current().is_ok());
    // With another trust, or for other algorithms, it must be asked again.
    assert!(Keys::fetched(issuer(DAY, &super::tests::client()), Some(&first)).current().is_err());
    let other = Issuer { algorithms: vec![JwtAlgorithm::Rs256], ..issuer(DAY, &client) };
    assert!(Keys::fetched(other, Some(&first)).current().is_err());
}
