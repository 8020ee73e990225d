//! Workers that come and go: recycled after some requests, killed in the middle of one, stuck beyond their time. What a
//! client sees of it are the failures of requests that cannot be sent again safely, each with its cause.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;

use crate::harness::backends::Backend;
use crate::harness::http::{Client, Response};
use crate::harness::{Gateway, Setup};

/// From eight clients, each request over a connection of its own: GET and POST by turns. What did not succeed, by method
/// and cause.
fn mixed_load(gateway: &Gateway, requests: usize) -> BTreeMap<(&'static str, String), usize> {
    let failures = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in 0..requests {
                    let mut client = Client::connect(gateway.port("http"));
                    let (method, answer) = if number % 2 == 0 {
                        ("GET", client.ask("GET", "/download?bytes=5000", &[]))
                    } else {
                        ("POST", client.ask_with("POST", "/upload", &[], &[b'x'; 5000]))
                    };
                    if answer.status != 200 {
                        *failures.lock().unwrap().entry((method, answer.cause())).or_insert(0) += 1;
                    } else if method == "GET" {
                        assert_eq!(answer.body.len(), 5000);
                    } else {
                        assert_eq!(answer.json()["length"], json!(5000));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn workers_recycled_by_max_requests_cost_no_get_and_hardly_a_post() {
    for kind in [&["--workers", "2"][..], &["--workers", "2", "--threads", "4"]] {
        let recycling = ["--max-requests", "30", "--max-requests-jitter", "15"];
        let server = || Backend::gunicorn("orders", "app:app", &[kind, &recycling].concat());
        let (first, second) = (server(), server());
        let gateway = Setup::before([first.url(), second.url()]).start();
        let failures = mixed_load(&gateway, 30);
        for ((method, cause), count) in failures {
            let lost = ["upstream_closed_early", "upstream_kept_connection_closed"].contains(&cause.as_str());
            assert!(method == "POST" && lost, "{method} {cause} {kind:?}");
            assert!(count <= 6, "{count} of 120 POST failed with {kind:?}");
        }
    }
}

fn ask(gateway: &Gateway, method: &str, path: &str) -> Response {
    Client::connect(gateway.port("http")).ask(method, path, &[])
}

/// As when the memory of its control group is used up: the kernel ends the worker in the middle of the request, and
/// its socket with it.
#[test]
fn a_worker_that_is_killed_in_mid_request_costs_what_cannot_be_sent_again() {
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "2"]);
    let gateway = Setup::before([server.url()]).start();
    let answer = ask(&gateway, "GET", "/crash");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    let record = gateway.access_record(&answer);
    assert_eq!((&record["attempts"], &record["blame"]), (&json!(3), &json!("upstream")), "a GET is tried again");
    assert_eq!(ask(&gateway, "GET", "/healthz").status, 200);
    let failed = gateway.metric("passerelle_rejections_total", &["cause=\"upstream_closed_early\""]);
    assert_eq!(failed, 1.0);
}

#[test]
fn a_worker_that_is_stuck_beyond_its_time_is_told_from_one_that_is_slow() {
    // gunicorn's own time-out ends the worker, which still says so where it can.
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "1", "--timeout", "1"]);
    let gateway = Setup::before([server.url()]).upstream("retry = { attempts = 0 }").start();
    let answer = ask(&gateway, "GET", "/slow?seconds=30");
    assert_eq!((answer.status, answer.header("content-type")), (500, Some("text/html")), "the worker's own answer");
    assert!(server.said("WORKER TIMEOUT"));
    // The gateway's comes first.
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "1"]);
    let gateway = Setup::before([server.url()]).upstream("timeouts = { response = \"500ms\" }").start();
    let answer = ask(&gateway, "GET", "/slow?seconds=2");
    assert_eq!((answer.status, answer.cause().as_str()), (504, "upstream_timeout"));
    assert_eq!(gateway.access_record(&answer)["attempts"], json!(1), "a request that may still run is not sent again");
}
