//! Limits that several gateways count together, in a real Redis that is killed, restarted and made to hang.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::http::{Client, head};
use crate::harness::tls::Certificate;
use crate::harness::{Fake, Gateway, Redis, Response, Setup, eventually};

/// One route with the limit `some`, counted in the store `shared`.
fn shared(fake: &Fake, limit: &str, store: &str) -> Setup {
    Setup::before([fake.url()])
        .route("limits = [\"some\"]")
        .rest(&format!("[limit.some]\n{limit}\nstore = \"shared\"\n[store.shared]\n{store}"))
}

fn at(redis: &Redis) -> String {
    // Tests run on machines that are busy with other tests.
    format!("url = \"redis://127.0.0.1:{}\"\ntimeout = \"2s\"", redis.port())
}

/// Waits until every worker counts in the store.
fn is_up(gateway: &Gateway) {
    eventually("the store is counted in", || {
        gateway.get("/");
        let up = gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 1.0;
        let asked = gateway.metric("passerelle_store_decisions_total", &["result=\"admitted\""])
            + gateway.metric("passerelle_store_decisions_total", &["result=\"refused\""]);
        (up && asked > 0.0).then_some(())
    });
}

/// A server whose answer to `/held` has no end.
fn halting() -> Fake {
    Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            match request.target() {
                "/held" => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
                    connection.hold();
                }
                _ => _ = connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            }
        }
    })
}

/// The key of the places that are held of a limit.
fn key_held(redis: &Redis, limit: &str) -> Option<String> {
    let keys = redis.command("KEYS *held");
    keys.lines().find(|line| line.contains(limit)).map(str::to_owned)
}

fn is_counted_in(gateway: &Gateway) {
    eventually("it is counted in", || {
        (gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 1.0).then_some(())
    });
}

#[test]
fn gateways_count_together() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    let setup = shared(&fake, "rate = \"1/h\"\nburst = 3", &at(&redis));
    let (one, two) = (setup.start(), setup.start());
    let answers = [one.get("/"), two.get("/"), one.get("/"), two.get("/"), one.get("/")];
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(answers[0].header("ratelimit"), Some("\"some\";r=2;t=3600"));
    // As long as the requests took, the bucket has filled meanwhile.
    let seconds = |answer: &Response, before: &str| -> u64 {
        answer.header("ratelimit").unwrap().strip_prefix(before).unwrap().parse().unwrap()
    };
    assert!((7100..=7200).contains(&seconds(&answers[1], "\"some\";r=1;t=")), "{:?}", answers[1]);
    let wait = seconds(&answers[3], "\"some\";r=0;t=");
    assert!((3500..=3600).contains(&wait), "{wait}");
    let retry_after = answers[3].header("retry-after").map(str::to_owned);
    assert_eq!((answers[3].cause(), retry_after), ("rate_limited".to_owned(), Some(wait.to_string())));
    let keys = redis.command("KEYS *");
    let ours: Vec<&str> = keys.lines().filter(|line| line.contains("some")).collect();
    assert_eq!(ours.len(), 1, "{keys}");
    assert!(
        ours[0].starts_with("passerelle:{some:") && ours[0].ends_with("}:rate") && !ours[0].contains("127"),
        "{keys}"
    );
    let left: i64 = redis.command(&format!("TTL {}", ours[0])).trim_start_matches(':').parse().unwrap();
    assert!((10_000..=10_800).contains(&left), "it expires when it says nothing any more: {left}");
}

/// What two gateways let through together is what one would, within 1%.
#[test]
fn two_gateways_let_through_what_one_would() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    let setup = shared(&fake, "rate = \"300/s\"\nburst = 300\nkey = \"route\"", &at(&redis));
    let gateways = [setup.start(), setup.start()];
    for gateway in &gateways {
        is_up(gateway);
    }
    let mut first = Client::connect(gateways[0].port("http"));
    while first.ask("GET", "/", &[]).status == 200 {}
    // From an empty bucket on, a stretch of time that ends with the last answer.
    let began = Instant::now();
    let admitted: Vec<(u32, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = gateways
            .iter()
            .map(|gateway| {
                scope.spawn(|| {
                    let mut client = Client::connect(gateway.port("http"));
                    let (mut admitted, mut last) = (0, Duration::ZERO);
                    while last < Duration::from_secs(4) {
                        admitted += u32::from(client.ask("GET", "/", &[]).status == 200);
                        last = began.elapsed();
                    }
                    (admitted, last)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for gateway in &gateways {
        let missed = ["timeout", "failure", "away"]
            .map(|result| gateway.metric("passerelle_store_decisions_total", &[&format!("result=\"{result}\"")]));
        assert_eq!(missed, [0.0; 3], "each decision was the store's");
    }
    let expected = 300.0 * admitted.iter().map(|(_, last)| last.as_secs_f64()).fold(0.0, f64::max);
    let total = f64::from(admitted.iter().map(|(admitted, _)| admitted).sum::<u32>());
    assert!((total - expected).abs() <= expected * 0.01, "{admitted:?} of {expected}");
    assert!(admitted.iter().all(|(admitted, _)| *admitted > 0), "{admitted:?}");
}

#[test]
fn places_are_held_across_gateways_until_the_answer_has_ended() {
    let (fake, redis) = (halting(), Redis::start());
    let setup = shared(&fake, "concurrent = 1", &at(&redis));
    let (one, two) = (setup.start(), setup.start());
    let mut client = Client::connect(one.port("http"));
    let held = client.send(head("GET", "/held", &[])).read_head().unwrap();
    assert_eq!(held.header("ratelimit"), Some("\"some/concurrent\";r=0"));
    for gateway in [&one, &two] {
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.cause().as_str()), (429, "too_many_at_once"));
    }
    drop(client);
    eventually("the place is free again", || (two.get("/").status == 200).then_some(()));
    // Nor does a gateway that dies hold it for ever: what it held has an end.
    let mut client = Client::connect(one.port("http"));
    eventually("the place is had", || {
        client = Client::connect(one.port("http"));
        (client.send(head("GET", "/held", &[])).read_head().unwrap().status == 200).then_some(())
    });
    let key = key_held(&redis, "some").expect("a place is held");
    let left: i64 = redis.command(&format!("PTTL {key}")).trim_start_matches(':').parse().unwrap();
    assert!((1..=30_000).contains(&left), "{left}");
}

/// As many clients as may run at once, who ask as fast as they can: whoever has an answer has given its place back
/// before it asks again, however far away the store is. And that leaves time for the places of those who run for long.
#[test]
fn places_are_given_back_as_fast_as_they_are_taken_and_others_are_renewed() {
    const CLIENTS: usize = 16;
    let (fake, redis) = (halting(), Redis::start());
    let port = redis.far_away(Duration::from_millis(1));
    let store = format!("url = \"redis://127.0.0.1:{port}\"\ntimeout = \"2s\"");
    let limits = "[limit.long]\nconcurrent = 1\nstore = \"shared\"\n\
        [route.long]\npath = \"/held\"\nupstream = \"app\"\nlimits = [\"long\"]";
    let gateway = shared(&fake, &format!("concurrent = {CLIENTS}\nkey = \"route\""), &store).rest(limits).start();
    is_up(&gateway);
    let mut long = Client::connect(gateway.port("http"));
    assert_eq!(long.send(head("GET", "/held", &[])).read_head().unwrap().status, 200);
    let began = Instant::now();
    let most = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.port("http"));
                while began.elapsed() < Duration::from_secs(13) {
                    assert_eq!(client.ask("GET", "/", &[]).status, 200);
                }
            });
        }
        let mut most = 0;
        while began.elapsed() < Duration::from_secs(13) {
            let counted = key_held(&redis, "some")
                .map_or(0, |key| redis.command(&format!("ZCARD {key}")).trim_start_matches(':').parse().unwrap());
            most = most.max(counted);
        }
        most
    });
    assert!(most <= CLIENTS, "{most} places are held");
    let left = redis.command(&format!("PTTL {}", key_held(&redis, "long").expect("it is held")));
    let left: i64 = left.trim_start_matches(':').parse().unwrap();
    assert!(left > 20_000, "it was renewed: {left}");
}

#[test]
fn a_gateway_that_ends_gives_back_what_it_holds() {
    let (fake, redis) = (halting(), Redis::start());
    let gateway = shared(&fake, "concurrent = 3", &at(&redis)).rest("[server]\nshutdown_grace = \"1s\"").start();
    let mut clients = [Client::connect(gateway.port("http")), Client::connect(gateway.port("http"))];
    for client in &mut clients {
        assert_eq!(client.send(head("GET", "/held", &[])).read_head().unwrap().status, 200);
    }
    let key = key_held(&redis, "some").expect("places are held");
    assert_eq!(redis.command(&format!("ZCARD {key}")), ":2");
    gateway.stop();
    assert_eq!(key_held(&redis, "some"), None);
}

/// Those who run are counted again by a store that has forgotten them.
#[test]
fn a_store_that_comes_back_empty_is_told_who_runs() {
    let (fake, mut redis) = (halting(), Redis::start());
    let gateway = shared(&fake, "concurrent = 1", &at(&redis)).start();
    is_up(&gateway);
    let mut client = Client::connect(gateway.port("http"));
    eventually("the place is had", || {
        client = Client::connect(gateway.port("http"));
        (client.send(head("GET", "/held", &[])).read_head().unwrap().status == 200).then_some(())
    });
    redis.restart();
    eventually("it is held again", || key_held(&redis, "some"));
    is_counted_in(&gateway);
    assert_eq!(gateway.get("/").status, 429);
    drop(client);
    eventually("the place is free", || key_held(&redis, "some").is_none().then_some(()));
}

/// One round trip fits the time-out, two do not.
#[test]
fn a_store_is_used_whose_one_round_trip_is_fast_enough() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    let port = redis.far_away(Duration::from_millis(100));
    let store = format!("url = \"redis://127.0.0.1:{port}\"\ntimeout = \"350ms\"");
    let gateway = shared(&fake, "rate = \"1000/s\"", &store).start();
    is_up(&gateway);
}

/// A store that is killed under load and comes back, with each `when_unreachable`.
#[test]
fn a_store_that_dies_and_comes_back() {
    for (when, meanwhile) in [("local", [200, 429]), ("allow", [200, 200]), ("deny", [503, 503])] {
        let (fake, mut redis) = (Fake::ok(), Redis::start());
        let limit = "rate = \"1/h\"\nkey = \"header:X-Key\"";
        let store = format!("{}\nwhen_unreachable = \"{when}\"", at(&redis));
        let gateway = shared(&fake, limit, &store).start();
        is_up(&gateway);
        let ask = |key: &str| Client::connect(gateway.port("http")).ask("GET", "/", &[("X-Key", key)]);
        assert_eq!([ask("a").status, ask("a").status], [200, 429], "{when}");
        redis.kill();
        // Whatever comes while the connection breaks is decided as the file says, and nothing fails in another way.
        eventually("it is found to be away", || {
            assert!(matches!(ask("b").status, 200 | 429 | 503));
            (gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 0.0).then_some(())
        });
        assert_eq!([ask("c").status, ask("c").status], meanwhile, "{when}");
        if when == "deny" {
            let denied = ask("c");
            assert_eq!((denied.cause().as_str(), denied.header("retry-after")), ("limit_store_unavailable", Some("1")));
        }
        redis.restart();
        eventually("it is counted in again", || {
            (gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 1.0).then_some(())
        });
        assert_eq!([ask("d").status, ask("d").status], [200, 429], "{when}");
        let says = |line: &Value, text: &str| line["message"].as_str().is_some_and(|message| message.contains(text));
        gateway.log_line("that it is back", |line| says(line, "limits is back"));
        let told = |text: &str| gateway.log().iter().filter(|line| says(line, text)).count();
        assert_eq!((told("limits is away"), told("limits is back")), (1, 1), "once a change");
    }
}

#[test]
fn a_store_that_hangs_delays_requests_no_longer_than_its_time_out() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    let store = format!("url = \"redis://127.0.0.1:{}\"\ntimeout = \"50ms\"", redis.port());
    let gateway = shared(&fake, "rate = \"100/h\"\nburst = 10000", &store).start();
    is_up(&gateway);
    redis.stop();
    let mut client = Client::connect(gateway.port("http"));
    let began = Instant::now();
    for _ in 0..500 {
        assert_eq!(client.ask("GET", "/", &[]).status, 200);
    }
    let took = began.elapsed();
    let metric = |result: &str| gateway.metric("passerelle_store_decisions_total", &[&format!("result=\"{result}\"")]);
    // Every worker has a connection of its own, and its own patience; this one has a client on one of them alone.
    assert!((1.0..=3.0).contains(&metric("timeout")), "{}", metric("timeout"));
    assert!(metric("away") >= 490.0, "who knows that it is away does not wait");
    assert!(took < Duration::from_secs(10), "{took:?}");
    redis.go_on();
    eventually("it is counted in again", || {
        (gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 1.0).then_some(())
    });
    let before = metric("admitted");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(metric("admitted"), before + 1.0);
}

/// From the start on, and over a reload that changes the store, nobody waits longer for it than the file says; and it is
/// not told to be up before anybody has reached it.
#[test]
fn a_store_that_was_never_reached_delays_requests_no_longer_than_its_time_out() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    redis.stop();
    let with = |timeout: &str| {
        let store = format!("url = \"redis://127.0.0.1:{}\"\ntimeout = \"{timeout}\"", redis.port());
        shared(&fake, "rate = \"1000/s\"", &store)
    };
    let mut gateway = with("50ms").start();
    let up = |gateway: &Gateway| gateway.metric("passerelle_store_up", &["store=\"shared\""]);
    let ask = |gateway: &Gateway| {
        let mut client = Client::connect(gateway.port("http"));
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(client.ask("GET", "/", &[]).status, 200);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
    };
    assert_eq!(up(&gateway), 0.0);
    ask(&gateway);
    assert_eq!(up(&gateway), 0.0);
    gateway.write_config(&with("60ms").text());
    assert!(gateway.reload().0.success());
    ask(&gateway);
    assert_eq!(up(&gateway), 0.0);
    redis.go_on();
    is_counted_in(&gateway);
}

/// What is known of a store outlives a reload: that it was away, and that it is back.
#[test]
fn a_reload_that_mends_a_store_s_password() {
    let (fake, redis) = (Fake::ok(), Redis::start_with(&["--requirepass", "right"]));
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", redis.port());
    let setup = shared(&fake, "rate = \"1000/s\"", "url = \"${file:@dir@/url}\"\ntimeout = \"2s\"");
    let wrong = |directory: &Path, _: &mut Command| std::fs::write(directory.join("url"), url("wrong")).unwrap();
    let gateway = Gateway::start_with(&setup.text(), wrong);
    let says = |line: &Value, text: &str| line["message"].as_str().is_some_and(|message| message.contains(text));
    gateway.log_line("that it is away", |line| says(line, "limits is away"));
    std::fs::write(gateway.directory().join("url"), url("right")).unwrap();
    assert!(gateway.reload().0.success());
    // No request comes: the workers look by themselves.
    is_counted_in(&gateway);
    gateway.log_line("that it is back", |line| says(line, "limits is back"));
    let told = |text: &str| gateway.log().iter().filter(|line| says(line, text)).count();
    assert_eq!((told("limits is away"), told("limits is back")), (1, 1), "once a change");
}

#[test]
fn a_gateway_starts_without_its_store() {
    let fake = Fake::ok();
    let mut redis = Redis::start();
    redis.kill();
    let gateway = shared(&fake, "rate = \"1/h\"", &at(&redis)).start();
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 429]);
    redis.restart();
    eventually("it is counted in", || {
        (gateway.metric("passerelle_store_up", &["store=\"shared\""]) == 1.0).then_some(())
    });
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 429], "the store has counted nothing yet");
}

#[test]
fn a_store_with_a_password_and_a_user() {
    let fake = Fake::ok();
    let redis = Redis::start_with(
        &[
            ["--requirepass", "p@ss/w%rd"].as_slice(),
            &["--user", "gate", "on", ">secret", "~passerelle:*", "+@all"],
            &["--user", "poor", "on", ">secret", "~passerelle:*", "+get"],
        ]
        .concat(),
    );
    for (user_info, up) in
        [(":p%40ss%2Fw%25rd", true), ("gate:secret", true), ("gate:wrong", false), ("poor:secret", false), ("", false)]
    {
        let at = if user_info.is_empty() { "" } else { "@" };
        let url = format!("redis://{user_info}{at}127.0.0.1:{}/0", redis.port());
        let setup = shared(&fake, "rate = \"1000/s\"", "url = \"${env:STORE}\"\ntimeout = \"2s\"");
        let gateway = Gateway::start_with(&setup.text(), |_, command| _ = command.env("STORE", &url));
        if up {
            is_up(&gateway);
        } else {
            let line = gateway.log_line("it cannot be counted in", |line| {
                line["message"].as_str().is_some_and(|message| message.contains("is away"))
            });
            let detail = line["detail"].as_str().unwrap();
            assert!(["authentication failed", "NOAUTH", "NOPERM"].iter().any(|why| detail.contains(why)), "{line}");
            assert_eq!(gateway.get("/").status, 200);
        }
        let log = gateway.log().iter().map(ToString::to_string).collect::<String>();
        for secret in ["p@ss", "secret", "wrong", "gate ", "poor"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}

#[test]
fn a_store_over_tls() {
    let (fake, directory) = (Fake::ok(), tempfile::tempdir().unwrap());
    Certificate::new(&["127.0.0.1"]).write(directory.path(), "redis");
    let (chain, key) = (directory.path().join("redis.pem"), directory.path().join("redis.key"));
    let redis = Redis::start_with_tls(&chain, &key);
    let url = |scheme: &str| format!("url = \"{scheme}://127.0.0.1:{}\"\ntimeout = \"2s\"", redis.port());
    let trusted = format!("{}\nca = \"{}\"", url("rediss"), chain.display());
    is_up(&shared(&fake, "rate = \"1000/s\"", &trusted).start());
    let untrusted = shared(&fake, "rate = \"1000/s\"", &url("rediss")).start();
    let line = untrusted.log_line("it is not trusted", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("is away"))
    });
    assert!(line["detail"].as_str().unwrap().contains("certificate"), "{line}");
}

#[test]
fn a_cluster_is_counted_in_as_one() {
    let (fake, redis) = (Fake::ok(), Redis::start_cluster());
    let gateway =
        shared(&fake, "rate = \"2/h\"\nburst = 2\nconcurrent = 5\nkey = \"header:X-Key\"", &at(&redis)).start();
    is_up(&gateway);
    for key in ["a", "b", "c", "d"] {
        let ask = || Client::connect(gateway.port("http")).ask("GET", "/", &[("X-Key", key)]).status;
        assert_eq!([ask(), ask(), ask()], [200, 200, 429]);
    }
}

#[test]
fn a_reload_takes_stores_in_and_lets_them_go() {
    let (fake, redis) = (Fake::ok(), Redis::start());
    let mut gateway = Setup::before([fake.url()]).start();
    let clients = || redis.command("CLIENT LIST").lines().filter(|line| line.contains("addr=")).count();
    let alone = clients();
    gateway.write_config(&shared(&fake, "rate = \"1/h\"", &at(&redis)).text());
    assert!(gateway.reload().0.success());
    eventually("requests are counted in the store", || (gateway.get("/").status == 429).then_some(()));
    assert!(clients() > alone);
    gateway.write_config(&Setup::before([fake.url()]).text());
    assert!(gateway.reload().0.success());
    eventually("its connections are closed", || (clients() == alone).then_some(()));
    assert!(!gateway.admin("/metrics").text().contains("passerelle_store_up{"), "it is told of no more");
}
