//! The answers that the gateway gives for itself, and what the log says of them.

use serde_json::{Value, json};

use crate::harness::http::{Client, head};
use crate::harness::{Fake, Gateway, Setup, eventually};

/// A gateway with these `[defaults]` and a route that only takes GET.
fn with_defaults(defaults: &str) -> Gateway {
    Gateway::start(&format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [route.get]\npath = \"/get\"\nmethods = [\"GET\"]\nrespond = {{ status = 200 }}\n\
         cors = {{ origins = [\"https://shop.example\"] }}\n\
         [route.drf]\npath = \"/drf\"\nmethods = [\"GET\"]\nrespond = {{ status = 200 }}\nerrors = \"drf\"\n\
         security_headers = false\n[defaults]\n{defaults}\n"
    ))
}

#[test]
fn what_no_route_answers_looks_as_the_defaults_say() {
    let gateway = with_defaults("errors = \"fastapi\"");
    let nowhere = gateway.get("/nowhere");
    assert_eq!((nowhere.status, nowhere.header("content-type")), (404, Some("application/json")));
    assert_eq!(nowhere.json()["detail"], "Nothing is served here.");
    assert_eq!(nowhere.header("x-frame-options"), Some("SAMEORIGIN"));
    let mut malformed = Client::connect(gateway.port("http"));
    malformed.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(malformed.answer_to("GET").json()["cause"], "bad_host");

    let plain = with_defaults("errors = \"plain\"\nsecurity_headers = false").get("/nowhere");
    assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(plain.header("x-frame-options"), None);
}

#[test]
fn a_method_that_is_not_allowed_is_answered_in_the_style_of_its_path() {
    let gateway = with_defaults("errors = \"plain\"");
    let ask =
        |path: &str| Client::connect(gateway.port("http")).ask("DELETE", path, &[("Origin", "https://shop.example")]);
    let refused = ask("/drf");
    assert_eq!((refused.status, refused.header("content-type")), (405, Some("application/json")));
    assert_eq!(refused.header("x-frame-options"), None);
    // A script of the allowed origin may see why.
    let refused = ask("/get");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://shop.example"));
}

#[test]
fn every_refusal_has_its_remedy_in_the_log() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).rest("[defaults]\nmax_body = \"1 KiB\"").start();
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &[b'x'; 2000]);
    assert_eq!(answer.status, 413);
    let record = gateway.access_record(&answer);
    assert_eq!((&record["cause"], &record["blame"]), (&json!("body_too_large"), &json!("client")));
    assert!(record["remedy"].as_str().unwrap().contains("max_body"), "{record}");
}

#[test]
fn without_access_records_failures_are_told_once_in_a_while() {
    // A privileged port that no test can come to hold.
    let setup = Setup::before(["http://127.0.0.1:1".to_owned()]).rest("[log]\naccess = false");
    let gateway = setup.start();
    let warnings = |gateway: &Gateway| -> Vec<Value> {
        let log = gateway.log().into_iter();
        log.filter(|line| line["cause"] == "upstream_connect_refused").collect()
    };
    let first = gateway.get("/?secret=hunter2");
    // Before the next: it is told once the answer is sent, and another worker might be faster.
    let told = gateway.log_line("a warning", |line| line["cause"] == "upstream_connect_refused");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 502);
    }
    assert_eq!((&told["level"], &told["route"], &told["status"]), (&json!("warn"), &json!("all"), &json!(502)));
    assert_eq!(told["request_id"], first.header("x-request-id").unwrap());
    assert!(told["remedy"].as_str().unwrap().contains("servers"), "{told}");
    assert!(warnings(&gateway).len() < 10, "{:?}", warnings(&gateway));
    assert!(gateway.log().iter().all(|line| line["target"] != "access"));
    // Those that were left out are told of with the next.
    eventually("it is told how many were left out", || {
        gateway.get("/");
        warnings(&gateway).iter().any(|line| line["left_out"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn a_client_too_many_is_told_counted_and_logged() {
    let gateway = Gateway::start(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\nmax_connections = 1\n\
         [route.all]\npath = \"/{*rest}\"\nrespond = { status = 200 }\n",
    );
    let mut first = Client::connect(gateway.port("http"));
    assert_eq!(first.ask("GET", "/", &[]).status, 200);
    let mut second = Client::connect(gateway.port("http"));
    second.send(head("GET", "/", &[]));
    let answer = second.answer_to("GET");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let problem = answer.json();
    assert_eq!((&problem["cause"], &problem["blame"]), (&json!("too_many_connections"), &json!("gateway")));
    assert_eq!(problem["request_id"], answer.header("x-request-id").unwrap());
    gateway.metric_reaches("passerelle_rejections_total", &["cause=\"too_many_connections\""], 1.0);
    gateway.metric_reaches("passerelle_connections_turned_away_total", &["listener=\"http\""], 1.0);
    let told = gateway.log_line("a warning", |line| line["cause"] == "too_many_connections");
    assert!(told["remedy"].as_str().unwrap().contains("max_connections"), "{told}");
}

#[test]
fn a_request_that_the_grace_cuts_off_is_not_the_client_s_fault() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway = Setup::before([fake.url()]).rest("[server]\nshutdown_grace = \"200ms\"").start();
    let mut running = Client::connect(gateway.port("http"));
    running.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_requests_in_flight", &["route=\"all\""], 1.0);
    let (status, output) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{output}");
    let mut records = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let record = records.find(|line| line["target"] == "access").unwrap();
    assert_eq!((&record["cause"], &record["blame"]), (&json!("shut_down"), &json!("gateway")), "{record}");
    assert!(record["remedy"].as_str().unwrap().contains("shutdown_grace"), "{record}");
}

#[test]
fn a_user_agent_that_is_not_text_is_told_all_the_same() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(&b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: caf\xc3\xa9 \xff \xe2\x80\xae\"\r\n\r\n"[..]);
    let record = gateway.access_record(&client.answer_to("GET"));
    assert_eq!(record["user_agent"], "caf\u{e9} \u{fffd} \u{202e}\"");
}
