use std::sync::atomic::AtomicUsize;

use super::super::issuer::Place;
use super::super::testing::{Signer, jwks};
use super::*;
use crate::config::parse_fetch_url;
use crate::config::settings::JwtAlgorithm;
use crate::config::source::{SourceFile, Span};
use crate::fetch::Tls;
use crate::upstream::tls::SystemRoots;

/// An issuer that says what it is told to, as it had it when it was asked.
struct Script {
    answer: Mutex<Option<String>>,
    takes: Mutex<Duration>,
    asked: AtomicUsize,
}

impl Script {
    fn says(&self, signers: &[&Signer]) {
        *self.answer.lock().unwrap() = Some(jwks(signers.iter().copied()));
    }

    fn is_away(&self) {
        *self.answer.lock().unwrap() = None;
    }

    fn takes(&self, time: Duration) {
        *self.takes.lock().unwrap() = time;
    }

    async fn fetch(&self) -> Result<Fetched, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (answer, takes) = (self.answer.lock().unwrap().clone(), *self.takes.lock().unwrap());
        tokio::time::sleep(takes).await;
        let told = Bytes::from(answer.ok_or("it is away")?);
        let keys = KeySet::parse(&told, &[JwtAlgorithm::Es256]).map_err(|why| why.to_string());
        Ok(Fetched { told, keys, lifetime: Duration::from_secs(3600) })
    }
}

struct Test {
    script: Arc<Script>,
    keys: Arc<Keys>,
}

impl Test {
    /// The issuer has this key.
    async fn start(max_stale: u64, signer: &Signer) -> Test {
        let script = Script { answer: Mutex::default(), takes: Mutex::default(), asked: AtomicUsize::new(0) };
        script.says(&[signer]);
        let test = Test { script: Arc::new(script), keys: Keys::fetched(issuer(max_stale), None) };
        let (keys, script) = (Arc::clone(&test.keys), Arc::clone(&test.script));
        tokio::spawn(async move {
            keys.keep_by(keys.asked.as_ref().unwrap(), || script.fetch()).await;
        });
        test.keys.settled().await;
        assert!(test.has(1));
        test
    }

    fn has(&self, count: usize) -> bool {
        self.keys.current().is_ok_and(|keys| keys.count() == count)
    }

    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }

    /// A token comes by a key that is not known.
    fn refetch(&self) -> impl Future<Output = Refetched> + Send + use<> {
        let keys = Arc::clone(&self.keys);
        async move { keys.refetch(keys.generation()).await }
    }

    /// A hundred of them at one time.
    async fn flood(&self) -> Vec<Refetched> {
        let each: tokio::task::JoinSet<Refetched> = (0..100).map(|_| self.refetch()).collect();
        each.join_all().await
    }
}

fn issuer(max_stale: u64) -> Issuer {
    let span = Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")));
    let client = Client::build(None, Tls::Never, &span, &SystemRoots::default(), None, &mut Vec::new()).unwrap();
    Issuer {
        auth: Arc::from("staff"),
        place: Place::Url(parse_fetch_url("http://127.0.0.1:1/jwks").unwrap()),
        algorithms: vec![JwtAlgorithm::Es256],
        max_stale: Duration::from_secs(max_stale),
        client,
        metrics: Arc::default(),
    }
}

fn signers() -> [Signer; 2] {
    [Signer::new("ES256", "old"), Signer::new("ES256", "new")]
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_serve_no_longer_than_they_may_while_the_issuer_hangs() {
    let test = Test::start(4, &signers()[0]).await;
    test.script.takes(Duration::from_secs(60));
    pass(3_990).await;
    assert!(test.has(1));
    assert_eq!(test.asked(), 2);
    pass(20).await;
    assert!(test.keys.current().is_err());
    // What it says at last is taken.
    test.script.takes(Duration::ZERO);
    pass(60_000).await;
    assert!(test.has(1));
}

/// The issuer may have answered before it had the key.
#[tokio::test(start_paused = true)]
async fn who_comes_while_the_issuer_is_asked_may_have_it_asked_once_more() {
    let [old, new] = signers();
    let test = Test::start(3600, &old).await;
    test.script.takes(Duration::from_secs(2));
    let bogus = tokio::spawn(test.refetch());
    pass(1_000).await;
    assert_eq!(test.asked(), 2);
    test.script.says(&[&old, &new]);
    assert_eq!(test.refetch().await, Refetched::Others, "the next answer has it");
    assert_eq!(bogus.await.unwrap(), Refetched::Same, "and none had that");
    assert!(test.has(2));
    assert_eq!(test.asked(), 3);
    // Neither has another turn within ten seconds of its last.
    for _ in 0..10 {
        assert_eq!(test.refetch().await, Refetched::Same);
    }
    assert_eq!(test.asked(), 3);
    pass(10_000).await;
    assert_eq!(test.refetch().await, Refetched::Same);
    assert_eq!(test.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_flood_makes_two_questions_at_the_most() {
    let [old, _] = signers();
    let test = Test::start(3600, &old).await;
    test.script.takes(Duration::from_secs(1));
    let began = Instant::now();
    // Each has an answer of its own, whatever others have asked since then.
    assert_eq!(test.flood().await, [Refetched::Same; 100]);
    assert_eq!((test.asked(), began.elapsed().as_secs()), (3, 2));
    assert_eq!(test.flood().await, [Refetched::Same; 100]);
    assert_eq!((test.asked(), began.elapsed().as_secs()), (3, 2), "nobody waits in the cool-down");
    // Nobody waits longer than five seconds.
    pass(10_000).await;
    test.script.takes(Duration::from_secs(60));
    let began = Instant::now();
    assert_eq!(test.refetch().await, Refetched::Unanswered);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_the_issuer_takes_back_does_not_serve_on() {
    let [old, new] = signers();
    let test = Test::start(3600, &old).await;
    test.script.is_away();
    assert_eq!(test.refetch().await, Refetched::Unanswered);
    assert!(test.has(1) && test.keys.standing().unwrap().failing.is_some());
    test.script.says(&[]);
    pass(2_000).await;
    assert!(test.keys.current().unwrap_err().contains("it is empty"));
    assert_eq!(test.refetch().await, Refetched::Same, "that was an answer");
    test.script.says(&[&new]);
    pass(31_000).await;
    assert!(test.has(1) && test.keys.standing().unwrap().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn other_settings_of_the_same_issuer_take_over_what_it_told() {
    let other = Signer::new("ES384", "other");
    let [old, new] = signers();
    let test = Test::start(3600, &old).await;
    test.script.says(&[&old, &new, &other]);
    assert_eq!(test.refetch().await, Refetched::Others);
    assert!(test.has(2));
    let next = |change: &dyn Fn(&mut Issuer), before: &Arc<Keys>| {
        let mut next = issuer(3600);
        next.client = Arc::clone(before.client().unwrap());
        change(&mut next);
        Keys::fetched(next, Some(before))
    };
    assert!(Arc::ptr_eq(&next(&|_| (), &test.keys), &test.keys));
    let count = |keys: &Arc<Keys>| keys.current().map(|keys| keys.count());
    let trusting = next(&|issuer| issuer.client = self::issuer(3600).client, &test.keys);
    assert!(!Arc::ptr_eq(&trusting, &test.keys) && trusting.generation() > test.keys.generation());
    assert_eq!(count(&trusting), Ok(2));
    let takes =
        |algorithms: &'static [JwtAlgorithm]| move |issuer: &mut Issuer| issuer.algorithms = algorithms.to_vec();
    let both = next(&takes(&[JwtAlgorithm::Es256, JwtAlgorithm::Es384]), &trusting);
    assert_eq!(count(&both), Ok(3));
    let none = next(&takes(&[JwtAlgorithm::EdDsa]), &both);
    assert!(count(&none).is_err());
    assert_eq!(count(&next(&takes(&[JwtAlgorithm::Es384]), &none)), Ok(1));
    let elsewhere = |issuer: &mut Issuer| {
        issuer.place = Place::Url(parse_fetch_url("http://127.0.0.1:2/jwks").unwrap());
    };
    assert!(count(&next(&elsewhere, &none)).is_err());
    // They do not become younger by that.
    assert_eq!(both.standing().unwrap().fetched, test.keys.standing().unwrap().fetched);
    pass(3_600_000).await;
    assert!(count(&next(&takes(&[JwtAlgorithm::Es384]), &both)).is_err());
}
