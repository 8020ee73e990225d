//! The attacks of slowhttptest, each with a thousand connections: everybody else is served as if they were not there,
//! though two sync workers are all there is behind the gateway.

use std::time::{Duration, Instant};

use crate::harness::backends::Backend;
use crate::harness::http;
use crate::harness::process::Process;
use crate::harness::{Setup, eventually};

/// Runs slowhttptest with `mode` against `path`, with a thousand connections of which `rate` are made a second, while
/// another client asks again and again; every answer must come within a second.
fn others_are_served_during(mode: &[&str], rate: u32, path: &str) {
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "2"]);
    let gateway = Setup::before([server.url()]).start();
    let url = format!("http://127.0.0.1:{}{path}", gateway.port("http"));
    let mut attack = Process::start("slowhttptest", |command| {
        // To the end a little longer than it takes to make the connections.
        let (rate, seconds) = (rate.to_string(), (1000 / rate + 2).to_string());
        command.args(["-c", "1000", "-r", &rate, "-l", &seconds, "-i", "1", "-p", "5", "-v", "1", "-u", &url]);
        command.args(mode);
    });
    let opened = || gateway.metric("passerelle_connections_opened_total", &["protocol=\"http1\""]);
    eventually("the attack is under way", || (opened() >= 100.0 || attack.has_ended().is_some()).then_some(()));
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while attack.has_ended().is_none() {
        let begun = Instant::now();
        let answer = http::get(gateway.port("http"), "/orders?limit=1");
        assert_eq!(answer.status, 200, "{mode:?}: {answer:?}");
        slowest = slowest.max(begun.elapsed());
        asked += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asked > 20, "{mode:?}: the attack was over before it began:\n{}", attack.output().text());
    assert!(slowest < Duration::from_secs(1), "{mode:?}: the slowest of {asked} took {slowest:?}");
}

#[test]
fn slow_heads() {
    others_are_served_during(&["-H"], 250, "/orders");
}

#[test]
fn slow_bodies() {
    others_are_served_during(&["-B", "-s", "65536"], 250, "/upload");
}

// These have the service answer each connection: more of them a second would be a load that two workers cannot carry,
// however fast its clients.

#[test]
fn many_ranges() {
    others_are_served_during(&["-R"], 60, "/download?bytes=10000");
}

#[test]
fn slow_readers() {
    others_are_served_during(&["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"], 60, "/download?bytes=300000");
}
