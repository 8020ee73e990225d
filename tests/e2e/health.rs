//! Which servers are asked: balancing, checks, ejection, return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::backends::{self, Backend};
use crate::harness::http::{Client, get, head};
use crate::harness::{Fake, Gateway, Setup, eventually, free_port};

/// A server that tells its name, and can be made to fail.
struct Member {
    fake: Fake,
    ill: Arc<AtomicBool>,
}

fn member(name: &str) -> Member {
    let ill = Arc::new(AtomicBool::new(false));
    let told = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    let fake = Fake::start({
        let ill = Arc::clone(&ill);
        move |mut connection| {
            while connection.read_request().is_some() {
                if ill.load(Ordering::SeqCst) {
                    connection.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
                } else {
                    connection.send(&told);
                }
            }
        }
    });
    Member { fake, ill }
}

/// How often each name answered `count` requests.
fn answers(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let answer = gateway.get("/");
        assert_eq!(answer.status, 200, "{answer:?}");
        *names.entry(answer.text()).or_default() += 1;
    }
    names
}

#[test]
fn requests_are_spread_by_weight() {
    let (a, b) = (member("a"), member("b"));
    let servers = format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[server]\nworkers = 1\n\
         [upstream.app]\nbalance = \"round_robin\"\nservers = [\"{}\", {{ url = \"{}\", weight = 3 }}]\n\
         [route.all]\npath = \"/{{*rest}}\"\nupstream = \"app\"",
        a.fake.url(),
        b.fake.url()
    );
    let names = answers(&Gateway::start(&servers), 80);
    assert_eq!((names["a"], names["b"]), (20, 60), "{names:?}");
}

#[test]
fn every_way_of_balancing_reaches_every_server() {
    for balance in ["least_requests", "round_robin", "random_two"] {
        let (a, b) = (member("a"), member("b"));
        let gateway = Setup::before([a.fake.url(), b.fake.url()]).upstream(&format!("balance = \"{balance}\"")).start();
        let names = answers(&gateway, 40);
        assert!(names["a"] >= 5 && names["b"] >= 5, "{balance}: {names:?}");
    }
}

#[test]
fn a_hash_sticks_to_its_server() {
    let members = [member("a"), member("b"), member("c")];
    let urls = [members[0].fake.url(), members[1].fake.url(), members[2].fake.url()];
    for (balance, header) in [("hash:header:X-User", "X-User"), ("hash:cookie:user", "Cookie")] {
        let gateway = Setup::before(urls.clone()).upstream(&format!("balance = \"{balance}\"")).start();
        let ask = |user: usize| {
            let value = if header == "Cookie" { format!("other=1; user={user}") } else { user.to_string() };
            Client::connect(gateway.port("http")).ask("GET", "/", &[(header, &value)]).text()
        };
        let first: Vec<String> = (0..30).map(ask).collect();
        let second: Vec<String> = (0..30).map(ask).collect();
        assert_eq!(first, second, "{balance}");
        for name in ["a", "b", "c"] {
            assert!(first.iter().any(|found| found == name), "{balance}: nobody is sent to {name}");
        }
    }
    let gateway = Setup::before(urls).upstream("balance = \"hash:client_ip\"").start();
    assert_eq!(answers(&gateway, 10).len(), 1);
}

#[test]
fn the_least_busy_server_is_asked() {
    let (slow, quick) = (backends::orders_threads(), member("quick"));
    let gateway = Setup::before([slow.url(), quick.fake.url()]).start();
    // Requests that hang at one server leave the other to answer the rest.
    let mut hanging: Vec<Client<_>> = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("GET", "/slow?seconds=3", &[]));
        hanging.push(client);
    }
    eventually("the slow one has work", || {
        let busy = gateway.metric("passerelle_upstream_requests_in_flight", &[&format!(":{}", slow.port())]);
        (busy >= 1.0).then_some(())
    });
    let statuses: Vec<u16> = (0..20).map(|_| get(gateway.port("http"), "/healthz").status).collect();
    assert!(statuses.iter().all(|&status| status == 200));
    let asked = quick.fake.requests().iter().filter(|request| request.target() == "/healthz").count();
    assert!(asked >= 15, "the idle server was asked {asked} times of 20");
}

const CHECKED: &str = "health = { path = \"/healthz\", interval = \"100ms\", timeout = \"1s\", fall = 2, rise = 2 }";

#[test]
fn a_server_that_fails_its_checks_is_left_alone_until_it_passes_them() {
    let (a, b) = (member("a"), member("b"));
    let gateway = Setup::before([a.fake.url(), b.fake.url()]).upstream(CHECKED).start();
    let label = format!(":{}", a.fake.port());
    let up = |gateway: &Gateway| gateway.metric("passerelle_upstream_server_up", &[&label]);
    a.ill.store(true, Ordering::SeqCst);
    eventually("a is down", || (up(&gateway) == 0.0).then_some(()));
    assert_eq!(answers(&gateway, 20), BTreeMap::from([("b".to_owned(), 20)]));
    let status = gateway.status().to_string();
    assert!(status.contains(&label), "{status}");
    a.ill.store(false, Ordering::SeqCst);
    eventually("a is up again", || (up(&gateway) == 1.0).then_some(()));
    eventually("a is asked again", || (gateway.get("/").text() == "a").then_some(()));
}

#[test]
fn checks_are_sent_as_the_file_says() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()])
        .rest(
            "[upstream.app.health]\npath = \"/ready?deep=1\"\nhost = \"orders.internal\"\nheaders = { X-Probe = \"1\" }\n\
             interval = \"100ms\"",
        )
        .start();
    let probe = eventually("a check arrives", || fake.requests().first().cloned());
    assert_eq!((probe.target(), probe.header("host")), ("/ready?deep=1", Some("orders.internal")));
    assert_eq!(probe.header("x-probe"), Some("1"));
    drop(gateway);
}

#[test]
fn with_no_healthy_server_the_answer_is_503_at_once() {
    let a = member("a");
    a.ill.store(true, Ordering::SeqCst);
    let gateway = Setup::before([a.fake.url()]).upstream(CHECKED).start();
    let refused = eventually("the server is down", || {
        let answer = gateway.get("/");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.cause(), "no_healthy_server");
    a.ill.store(false, Ordering::SeqCst);
    eventually("it answers again", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn busy_is_not_dead() {
    // One sync worker, busy for longer than fall x (interval + timeout): its checks time out behind the request, and
    // it must not be ejected while it is answering.
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "1"]);
    let gateway = Setup::before([server.url()])
        .upstream("health = { path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\", fall = 2, rise = 1 }")
        .start();
    let port = gateway.port("http");
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| (0..4).map(|_| get(port, "/slow?seconds=0.6").status).collect::<Vec<u16>>());
        let other = scope.spawn(|| (0..3).map(|_| get(port, "/healthz").status).collect::<Vec<u16>>());
        assert_eq!(busy.join().unwrap(), [200; 4]);
        assert_eq!(other.join().unwrap(), [200; 3]);
    });
}

#[test]
fn a_server_that_keeps_failing_is_ejected_without_any_check() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let b = member("b");
    let gateway = Setup::before([dead.clone(), b.fake.url()]).start();
    assert_eq!(answers(&gateway, 30), BTreeMap::from([("b".to_owned(), 30)]));
    let port = dead.rsplit(':').next().unwrap().to_owned();
    gateway.metric_reaches("passerelle_upstream_ejections_total", &[&format!(":{port}")], 1.0);
    assert_eq!(gateway.metric("passerelle_upstream_server_ejected", &[&format!(":{port}")]), 1.0);
    let failures = gateway.metric("passerelle_upstream_connect_failures_total", &[&format!(":{port}")]);
    assert!(failures <= 15.0, "an ejected server is asked again and again: {failures}");
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gunicorn.sock");
    let server = Backend::gunicorn_on_socket(&path, "orders", "app:app");
    let gateway = Setup::before([format!("http+unix:{}", path.display())]).start();
    assert_eq!(gateway.get("/healthz").text(), "ok\n");
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/upload", &[], &vec![7; 1_000_000]);
    assert_eq!(answer.json()["length"], 1_000_000);
    drop(server);
    let gone = eventually("the server is gone", || {
        let answer = gateway.get("/healthz");
        (answer.status != 200).then_some(answer)
    });
    assert!([502, 503].contains(&gone.status));
}

#[test]
fn a_retry_budget_bounds_the_load_on_a_failing_upstream() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
    });
    let gateway = Setup::before([fake.url()]).upstream("retry = { attempts = 2, budget = \"0%\" }").start();
    let begun = std::time::Instant::now();
    for _ in 0..60 {
        assert!([502, 503].contains(&gateway.get("/").status));
    }
    let retries = gateway.metric("passerelle_upstream_retries_total", &["upstream=\"app\""]);
    // Ten a second are always allowed.
    let allowed = 10.0 * (begun.elapsed() + Duration::from_secs(1)).as_secs_f64().ceil();
    assert!(retries <= allowed.max(100.0), "{retries} retries");
}
