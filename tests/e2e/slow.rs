//! The attacks of slowhttptest, each with a thousand connections: everybody else is served as if they were not there,
//! though two sync workers are all there is behind the gateway.

use std::time::{Duration, Instant};

use crate::harness::backends::Backend;
use crate::harness::http;
use crate::harness::process::Process;
use crate::harness::{Setup, eventually};

/// Runs slowhttptest with `mode` against `path` while another client asks again and again; every answer must come
/// within a second.
fn others_are_served_during(mode: &[&str], path: &str) {
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "2"]);
    let gateway = Setup::before([server.url()]).start();
    let url = format!("http://127.0.0.1:{}{path}", gateway.port("http"));
    let mut attack = Process::start("slowhttptest", |command| {
        // A thousand connections within two seconds, for six seconds, with a little data each second.
        command.args(["-c", "1000", "-r", "500", "-l", "6", "-i", "1", "-p", "5", "-v", "1", "-u", &url]).args(mode);
    });
    let open = || gateway.metric("passerelle_connections_open", &["protocol=\"http1\""]);
    // Those that were answered leave: not all of them are there at the same time in each mode.
    eventually("the attack is under way", || (open() >= 100.0 || attack.has_ended().is_some()).then_some(()));
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
    others_are_served_during(&["-H"], "/orders");
}

#[test]
fn slow_bodies() {
    others_are_served_during(&["-B", "-s", "65536"], "/upload");
}

#[test]
fn many_ranges() {
    others_are_served_during(&["-R"], "/download?bytes=100000");
}

#[test]
fn slow_readers() {
    others_are_served_during(&["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"], "/download?bytes=1000000");
}
