//! What apps take of the machine: seen, bounded, and as many workers as there is work. Real gunicorn behind the real gateway.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::Value;

use crate::harness::http::Client;
use crate::harness::{Gateway, eventually};

/// Answers with its own process; on the way it does what the path says, so often, so long, so much as the query does.
const CODE: &str = r#"
import os, time

held = []


def app(environ, start_response):
    amount = float(environ["QUERY_STRING"] or 0)
    if environ["PATH_INFO"] == "/eat":
        held.append(b"x" * int(amount * 1024 * 1024))
    elif environ["PATH_INFO"] == "/sleep":
        time.sleep(amount)
    elif environ["PATH_INFO"] == "/burn":
        until = time.process_time() + amount
        while time.process_time() < until:
            pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"#;

/// An app of one thread a worker; `lines` are of its section.
fn start(lines: &str) -> Gateway {
    let python = PathBuf::from(std::env::var_os("PASSERELLE_TEST_VENV").expect("tests/run sets it")).join("bin/python");
    let user = if getuid().is_root() { "user = \"root\"\n" } else { "" };
    let config = format!(
        "[server]\nstate_directory = \"@dir@/state\"\n\
         [listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [app.shop]\ndirectory = \"@dir@/code\"\nentry = \"shop:app\"\nserver = \"gunicorn\"\npython = {python:?}\n{user}{lines}\n\
         [route.all]\npath = \"/{{*rest}}\"\nupstream = \"shop\"\nauth = \"public\"\n"
    );
    let gateway = Gateway::start_with(&config, |directory, _| {
        std::fs::create_dir_all(directory.join("code")).unwrap();
        std::fs::write(directory.join("code/shop.py"), CODE).unwrap();
    });
    eventually("all workers serve", || {
        let (serving, app) = (serving(&gateway).len(), app(&gateway));
        (serving > 0 && app["wanted"] == serving).then_some(())
    });
    gateway
}

fn app(gateway: &Gateway) -> Value {
    gateway.status()["apps"][0].clone()
}

/// The workers that serve.
fn serving(gateway: &Gateway) -> Vec<Value> {
    let app = app(gateway);
    let workers = app["workers"].as_array().unwrap();
    workers.iter().filter(|worker| worker["state"] == "serving").cloned().collect()
}

/// Gets `path` again and again over `clients` kept connections while `until` goes on; how many requests there were, and what
/// was answered.
fn under_load<T>(
    gateway: &Gateway,
    clients: usize,
    path: &str,
    until: impl FnOnce() -> T,
) -> (usize, BTreeSet<String>, T) {
    let (over, requests, answers) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let result = std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.port("http"));
                while !over.load(Ordering::SeqCst) {
                    let answer = client.ask("GET", path, &[]);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    requests.fetch_add(1, Ordering::SeqCst);
                    answers.lock().unwrap().insert(answer.text());
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(until));
        over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (requests.into_inner(), answers.into_inner().unwrap(), result)
}

#[test]
fn a_worker_that_eats_memory_is_replaced_and_nobody_notices() {
    let gateway = start("workers = 2\nmemory_limit = \"100 MiB\"");
    let restarts = |least| gateway.metric_reaches("passerelle_app_restarts_total", &["reason=\"memory\""], least);
    let before = serving(&gateway);
    let eaten = || {
        gateway.get("/eat?120");
        restarts(1.0);
        eventually("two serve, and the large one is gone", || {
            let app = app(&gateway);
            let workers = app["workers"].as_array().unwrap();
            (workers.len() == 2 && workers.iter().all(|worker| worker["state"] == "serving")).then_some(())
        });
    };
    let (requests, answers, ()) = under_load(&gateway, 4, "/", eaten);
    assert!(requests > 0);
    assert_eq!(answers.len(), 3, "two at first, and the one that took a place: {answers:?}");
    let after = serving(&gateway);
    assert_eq!(after.iter().filter(|worker| before.iter().any(|other| other["pid"] == worker["pid"])).count(), 1);
    let told = gateway.log_line("why", |line| line["message"] == "worker past memory_limit: another takes its place");
    assert!(told["mebibytes"].as_u64().unwrap() > 100, "{told}");
    assert!(told["remedy"].as_str().unwrap().contains("memory_limit"), "{told}");

    // Nobody can wait for one that takes much more than that. What may be sent again would be the next worker's end.
    Client::connect(gateway.port("http")).ask("POST", "/eat?400", &[("Content-Length", "0")]);
    restarts(2.0);
    gateway.log_line("why", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("more than twice its memory_limit of 100 MiB"))
    });
    eventually("two serve", || (serving(&gateway).len() == 2).then_some(()));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.metric("passerelle_app_restarts_total", &[]), 2.0);
}

#[test]
fn who_waits_brings_workers_and_idle_ones_go() {
    // How long a worker takes to start is the machine's business: who waits for it is answered all the same.
    let gateway = start("workers = { min = 1, max = 3, idle = \"500ms\" }\nqueue = { max_wait = \"50s\" }");
    assert_eq!(serving(&gateway).len(), 1);
    let three = || eventually("three workers serve", || (serving(&gateway).len() == 3).then_some(()));
    let (_, answers, ()) = under_load(&gateway, 6, "/sleep?0.1", three);
    assert!(!answers.is_empty());
    let one = || {
        eventually("one worker is left", || {
            let app = app(&gateway);
            let workers = app["workers"].as_array().unwrap();
            (workers.len() == 1 && app["wanted"] == 1).then_some(())
        });
    };
    // One client is never more than one is enough for.
    let (requests, _, ()) = under_load(&gateway, 1, "/sleep?0.02", one);
    assert!(requests > 0);
    assert_eq!(gateway.metric("passerelle_app_restarts_total", &[]), 0.0);
    assert_eq!(gateway.metric("passerelle_app_workers", &["state=\"serving\""]), 1.0);
    assert_eq!(gateway.metric("passerelle_app_workers_wanted", &["app=\"shop\""]), 1.0);
}

#[test]
fn what_an_app_takes_is_told() {
    let gateway = start("workers = 1");
    let cpu = || gateway.metric("passerelle_app_cpu_seconds_total", &["app=\"shop\""]);
    gateway.metric_reaches("passerelle_app_cpu_seconds_total", &[], 0.01);
    let before = cpu();
    gateway.get("/burn?0.5");
    gateway.metric_reaches("passerelle_app_cpu_seconds_total", &[], before + 0.5);
    gateway.metric_reaches("passerelle_app_worker_age_seconds", &["worker=\"1\""], 1.0);
    let resident = gateway.metric("passerelle_app_resident_bytes", &["app=\"shop\"", "worker=\"1\""]);
    assert!((8e6..200e6).contains(&resident), "{resident}");
    let files = gateway.metric("passerelle_app_open_files", &["app=\"shop\"", "worker=\"1\""]);
    assert!((6.0..200.0).contains(&files), "{files}");
    assert_eq!(gateway.metric("passerelle_app_release", &["app=\"shop\""]), 1.0);
    assert_eq!(gateway.metric("passerelle_app_releases_total", &["outcome=\"released\""]), 1.0);
    assert!(gateway.metric("passerelle_app_build_seconds", &["app=\"shop\""]) > 0.0);
    assert!(gateway.metric("passerelle_app_start_seconds", &["app=\"shop\""]) > 0.0);
    let figures = serving(&gateway)[0].clone();
    assert!(figures["memory_bytes"].as_u64().unwrap() > 0 && figures["open_files"].as_u64().unwrap() > 0, "{figures}");

    // One that is killed is started again, and what it has used stays used.
    let used = cpu();
    let pid = i32::try_from(figures["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    gateway.metric_reaches("passerelle_app_restarts_total", &["reason=\"exited\""], 1.0);
    eventually("another serves", || serving(&gateway).first().filter(|worker| worker["pid"] != pid).map(|_| ()));
    gateway.metric_reaches("passerelle_app_cpu_seconds_total", &[], used + 0.01);
    let (_, told) = crate::harness::gateway::passerelle(&["apps", "--config", gateway.config_path().to_str().unwrap()]);
    assert!(told.contains("1 restarts (1 exited)") && told.contains(" MiB "), "{told}");
}
