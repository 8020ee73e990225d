//! What a scrape reads of all that can be counted.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};

use super::catalogue::Family;
use super::*;

struct OneServer;

impl Readings for OneServer {
    fn servers(&self, each: &mut dyn FnMut(ServerReading<'_>)) {
        for (up, in_flight) in [(true, 2), (false, 1)] {
            let (busy, slots) = (in_flight, Some(4));
            let (upstream, server) = ("orders", "http://127.0.0.1:8001");
            each(ServerReading { upstream, server, up, ejected: !up, in_flight, busy, slots });
        }
    }

    fn queues(&self, each: &mut dyn FnMut(&str, usize)) {
        each("orders", 5);
    }

    fn apps(&self) -> Vec<AppReading> {
        let worker = AppWorkerReading { number: 3, age_seconds: 60, memory: Some(1024), open_files: Some(12) };
        vec![AppReading {
            app: "billing".to_owned(),
            release: Some(7),
            releases: vec![("released", 6), ("taken_back", 1)],
            states: vec![("serving", 1), ("leaving", 0)],
            wanted: 2,
            restarts: vec![("memory", 4)],
            cpu_seconds: 12.34,
            build_seconds: Some(30.5),
            start_seconds: Some(1.5),
            memory_limit: Some(2048),
            workers: vec![worker],
        }]
    }
}

/// Keeps the handles, as a snapshot does.
struct Everything {
    metrics: Arc<Metrics>,
    _route: Arc<RouteMetrics>,
    _rule: Arc<RuleMetrics>,
    _listener: Arc<ListenerMetrics>,
    _upstream: Arc<UpstreamMetrics>,
    _server: Arc<ServerMetrics>,
    _keys: Arc<KeysMetrics>,
    _introspection: Arc<IntrospectionMetrics>,
    _document: Arc<DocumentMetrics>,
    _reported: Arc<RuleMetrics>,
    _limit: Arc<dyn LimitReading>,
    _store: Arc<StoreMetrics>,
}

struct OneLimit;

impl LimitReading for OneLimit {
    fn keys(&self) -> usize {
        7
    }

    fn overflowed(&self) -> u64 {
        0
    }
}

fn everything() -> Everything {
    let metrics = Metrics::new(2);
    let worker = WorkerId(1);
    let route = metrics.route("orders \"quoted\"\nand broken");
    route.began(worker);
    route.finished(
        worker,
        Finished {
            method: &Method::GET,
            status: StatusCode::OK,
            duration: Duration::from_millis(12),
            upstream_duration: Some(Duration::from_millis(11)),
            received: 10,
            sent: 1024,
        },
    );
    let rule = metrics.rule("orders", "roles");
    rule.denied(worker);
    let listener = metrics.listener("https");
    listener.opened(worker, Protocol::Http2);
    let upstream = metrics.upstream("orders");
    let server = upstream.server("http://127.0.0.1:8001");
    server.connection_used(worker, false);
    let keys = metrics.keys("staff");
    keys.fetched(2);
    let introspection = metrics.introspection("opaque");
    introspection.asks();
    introspection.answered(Introspected::Inactive);
    let document = metrics.document("billing");
    document.fetched(DocumentFetch::Unusable);
    let reported = metrics.reported("billing", "validate.body");
    let limit: Arc<dyn LimitReading> = Arc::new(OneLimit);
    metrics.read_limit_from("per_client", &limit);
    let store = metrics.store("shared");
    store.asked(worker, Asked::Admitted);
    store.took(worker, Duration::from_millis(1));
    metrics.rejected(worker, Cause::NoRoute);
    metrics.reloaded(ReloadResult::Failure);
    metrics.log_lost(LogLoss::QueueFull, 3);
    metrics.read_servers_from(Box::new(OneServer));
    Everything {
        metrics,
        _route: route,
        _rule: rule,
        _listener: listener,
        _upstream: upstream,
        _server: server,
        _keys: keys,
        _introspection: introspection,
        _document: document,
        _reported: reported,
        _limit: limit,
        _store: store,
    }
}

#[test]
fn every_family_of_the_catalogue_is_told() {
    let text = everything().metrics.render().unwrap();
    for family in Family::ALL {
        let row = family.row();
        assert!(text.contains(&format!("# HELP {} {}\n", row.name, row.help)), "{} in\n{text}", row.name);
    }
    assert!(text.contains("process_start_time_seconds"));
}

#[test]
fn values_and_labels() {
    let text = everything().metrics.render().unwrap();
    for line in [
        r#"passerelle_requests_total{method="GET",route="orders \"quoted\"\nand broken",status="2xx"} 1"#,
        r#"passerelle_request_duration_seconds_bucket{route="orders \"quoted\"\nand broken",le="0.01"} 0"#,
        r#"passerelle_request_duration_seconds_bucket{route="orders \"quoted\"\nand broken",le="0.025"} 1"#,
        r#"passerelle_request_duration_seconds_sum{route="orders \"quoted\"\nand broken"} 0.012"#,
        r#"passerelle_requests_in_flight{route=""} 0"#,
        r#"passerelle_connections_open{listener="https",protocol="http2"} 1"#,
        r#"passerelle_rejections_total{cause="no_route",blame="client"} 1"#,
        r#"passerelle_reloads_total{result="failure"} 1"#,
        r#"passerelle_log_records_lost_total{reason="queue_full"} 3"#,
        r#"passerelle_upstream_server_up{upstream="orders",server="http://127.0.0.1:8001"} 1"#,
        r#"passerelle_upstream_server_ejected{upstream="orders",server="http://127.0.0.1:8001"} 0"#,
        r#"passerelle_upstream_requests_in_flight{upstream="orders",server="http://127.0.0.1:8001"} 3"#,
        r#"passerelle_upstream_slots_busy{upstream="orders",server="http://127.0.0.1:8001"} 3"#,
        r#"passerelle_upstream_slots{upstream="orders",server="http://127.0.0.1:8001"} 8"#,
        r#"passerelle_upstream_queue_length{upstream="orders"} 5"#,
        r#"passerelle_upstream_queue_dropped_total{upstream="orders",reason="full"} 0"#,
        r#"passerelle_app_workers{app="billing",state="serving"} 1"#,
        r#"passerelle_app_workers_wanted{app="billing"} 2"#,
        r#"passerelle_app_restarts_total{app="billing",reason="memory"} 4"#,
        r#"passerelle_app_cpu_seconds_total{app="billing"} 12.34"#,
        r#"passerelle_app_resident_bytes{app="billing",worker="3"} 1024"#,
        r#"passerelle_app_memory_limit_bytes{app="billing"} 2048"#,
        r#"passerelle_app_open_files{app="billing",worker="3"} 12"#,
        r#"passerelle_app_worker_age_seconds{app="billing",worker="3"} 60"#,
        r#"passerelle_app_release{app="billing"} 7"#,
        r#"passerelle_app_releases_total{app="billing",outcome="taken_back"} 1"#,
        r#"passerelle_app_build_seconds{app="billing"} 30.5"#,
        r#"passerelle_app_start_seconds{app="billing"} 1.5"#,
        r#"passerelle_upstream_connections_total{upstream="orders",server="http://127.0.0.1:8001",reused="false"} 1"#,
    ] {
        // The order of labels within a line is not ours.
        let sorted = |line: &str| {
            let mut parts: Vec<_> = line.split(['{', '}', ',']).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert!(text.lines().any(|found| sorted(found) == sorted(line)), "{line} in\n{text}");
    }
}

#[test]
fn counters_outlive_a_snapshot() {
    let metrics = Metrics::new(1);
    let old = metrics.listener("http");
    old.turned_away(WorkerId(0));
    let new = metrics.listener("http");
    drop(old);
    assert!(metrics.render().unwrap().contains(r#"passerelle_connections_turned_away_total{listener="http"} 1"#));
    drop(new);
    assert!(!metrics.render().unwrap().contains(r#"listener="http""#));
}

/// Debian's package `prometheus` has promtool.
#[test]
fn promtool_accepts_it() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian package prometheus)");
    let text = everything().metrics.render().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "");
}
