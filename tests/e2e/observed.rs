//! Metrics, status and the access record: what an operator sees.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::http::{Client, head};
use crate::harness::{Fake, Gateway, Setup, eventually, free_port};

/// What promtool says of these metrics; nothing when it finds nothing wrong.
fn promtool(metrics: &str) -> Result<(), String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; ./tests/run fetches it before it runs the tests"));
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() && text.is_empty() { Ok(()) } else { Err(text) }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url(), format!("http://127.0.0.1:{}", free_port())]).start();
    for _ in 0..10 {
        gateway.get("/");
    }
    Client::connect(gateway.port("http")).send("garbage\r\n\r\n");
    let answer = gateway.admin("/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{answer:?}");
    if let Err(problems) = promtool(&answer.text()) {
        panic!("{problems}\n{}", answer.text());
    }
    assert!(promtool("a_metric_total{} x\n").is_err(), "promtool judges nothing");
}

#[test]
fn requests_are_counted_by_route_method_and_status() {
    let fake = Fake::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello");
    let gateway = Setup::before([fake.url()]).start();
    for _ in 0..3 {
        assert_eq!(Client::connect(gateway.port("http")).ask_with("POST", "/x", &[], b"0123456789").status, 404);
    }
    let labels = ["route=\"all\"", "method=\"POST\"", "status=\"4xx\""];
    gateway.metric_reaches("passerelle_requests_total", &labels, 3.0);
    assert_eq!(gateway.metric("passerelle_request_body_bytes_total", &["route=\"all\""]), 30.0);
    assert_eq!(gateway.metric("passerelle_response_body_bytes_total", &["route=\"all\""]), 15.0);
    assert_eq!(gateway.metric("passerelle_request_duration_seconds_count", &["route=\"all\""]), 3.0);
    assert_eq!(gateway.metric("passerelle_upstream_duration_seconds_count", &["route=\"all\""]), 3.0);
    assert_eq!(gateway.metric("passerelle_requests_in_flight", &["route=\"all\""]), 0.0);
    let reused = gateway.metric("passerelle_upstream_connections_total", &["reused=\"true\""]);
    let new = gateway.metric("passerelle_upstream_connections_total", &["reused=\"false\""]);
    assert_eq!(reused + new, 3.0);
    assert!(gateway.metric("passerelle_connections_opened_total", &["listener=\"http\"", "protocol=\"http1\""]) >= 3.0);
    assert_eq!(gateway.metric("passerelle_build_info", &[]), 1.0);
    assert!(gateway.metric("process_resident_memory_bytes", &[]) > 0.0);
    assert!(gateway.metric("process_open_fds", &[]) > 0.0);
}

#[test]
fn rejections_are_counted_by_cause() {
    let gateway = Setup::before([format!("http://127.0.0.1:{}", free_port())]).start();
    gateway.get("/");
    gateway.get("/a/../b");
    gateway.metric_reaches(
        "passerelle_rejections_total",
        &["cause=\"upstream_connect_refused\"", "blame=\"upstream\""],
        1.0,
    );
    gateway.metric_reaches("passerelle_rejections_total", &["cause=\"bad_target\"", "blame=\"client\""], 1.0);
}

#[test]
fn what_is_in_flight_is_counted_and_no_longer_when_it_is_over() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_requests_in_flight", &["route=\"all\""], 1.0);
    gateway.metric_reaches("passerelle_upstream_requests_in_flight", &[], 1.0);
    drop(client);
    eventually("nothing is in flight", || {
        let left = gateway.metric("passerelle_requests_in_flight", &[])
            + gateway.metric("passerelle_upstream_requests_in_flight", &[])
            + gateway.metric("passerelle_connections_open", &["listener=\"http\""]);
        (left == 0.0).then_some(())
    });
}

#[test]
fn the_access_record_tells_one_request() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let answer = Client::connect(gateway.port("http")).ask_with(
        "POST",
        "/orders/7?token=hunter2",
        &[("Host", "shop.example"), ("User-Agent", "tests/1.0")],
        b"0123456789",
    );
    let record = gateway.access_record(&answer);
    for (key, value) in [
        ("client", json!("127.0.0.1")),
        ("listener", json!("http")),
        ("route", json!("all")),
        ("upstream", json!("app")),
        ("method", json!("POST")),
        ("host", json!("shop.example")),
        ("path", json!("/orders/7")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("received", json!(10)),
        ("sent", json!(3)),
        ("attempts", json!(1)),
        ("user_agent", json!("tests/1.0")),
    ] {
        assert_eq!(record[key], value, "{key}: {record}");
    }
    assert!(record["server"].as_str().unwrap().contains(&fake.port().to_string()), "{record}");
    assert!(
        record["duration"].as_f64().unwrap() > 0.0 && record["upstream_duration"].as_f64().unwrap() > 0.0,
        "{record}"
    );
    assert!(!record.to_string().contains("hunter2"));
}

#[test]
fn there_is_one_record_for_each_request() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    let ids: Vec<String> =
        (0..50).map(|_| client.ask("GET", "/", &[]).header("x-request-id").unwrap().to_owned()).collect();
    let records = |gateway: &Gateway| -> Vec<String> {
        let with_status = gateway.log().into_iter().filter(|line| line.get("status").is_some());
        with_status.filter_map(|line| line.get("request_id").and_then(Value::as_str).map(str::to_owned)).collect()
    };
    eventually("all records", || (records(&gateway).len() >= 50).then_some(()));
    assert_eq!(records(&gateway), ids);
}

#[test]
fn status_tells_routes_servers_and_health() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()])
        .rest("[route.secret]\npath = \"/secret\"\nrespond = { status = 200, body = \"hunter2\", content_type = \"text/plain\" }")
        .start();
    let status = gateway.status();
    assert_eq!(status["version"], json!(env!("CARGO_PKG_VERSION")));
    let routes: Vec<&str> =
        status["routes"].as_array().unwrap().iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(routes, ["all", "secret"]);
    let server = &status["upstreams"][0]["servers"][0];
    assert!(server["server"].as_str().unwrap().contains(&fake.port().to_string()), "{status}");
    assert!(!status.to_string().contains("hunter2"), "{status}");
    assert_eq!(gateway.admin("/nothing").status, 404);
}

#[test]
fn secrets_stay_secret() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "hunter2-the-token\n").unwrap();
    let fake = Fake::ok();
    let text = format!(
        "[admin]\naddress = \"127.0.0.1:@admin@\"\ntoken = \"${{file:{}/token}}\"\n[log]\nlevel = \"debug\"\n{}",
        directory.path().display(),
        Setup::before([fake.url()])
            .rest(&format!(
                "[route.all.headers]\nrequest = {{ set = {{ X-Key = \"${{file:{}/token}}\" }} }}",
                directory.path().display()
            ))
            .text()
    );
    let gateway = Gateway::start(&text);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(fake.request().header("x-key"), Some("hunter2-the-token"));
    assert_eq!(gateway.admin("/status").status, 401);
    let status =
        Client::connect(gateway.port("admin")).ask("GET", "/status", &[("Authorization", "Bearer hunter2-the-token")]);
    assert_eq!(status.status, 200);
    assert!(!status.text().contains("hunter2"));
    let (_, log) = gateway.stop();
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    // stdout is a pipe with no reader that moves: the gateway must serve on and count what it could not write.
    let fake = Fake::ok();
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let held = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let gateway = Gateway::start(&format!(
        "[log]\nformat = \"json\"\noutput = \"{}\"\n{}",
        pipe.display(),
        Setup::before([fake.url()]).text()
    ));
    let mut client = Client::connect(gateway.port("http"));
    let agent = "x".repeat(250);
    eventually("records are lost, and requests are not", || {
        for _ in 0..500 {
            assert_eq!(client.ask("GET", "/", &[("User-Agent", &agent)]).status, 200);
        }
        (gateway.metric("passerelle_log_records_lost_total", &[]) > 0.0).then_some(())
    });
    drop(held);
}
