//! What a service is told of a request, and what it is never told.

use serde_json::{Value, json};

use crate::harness::backends;
use crate::harness::http::{Client, get};
use crate::harness::{Fake, Gateway, Setup};

/// What the service saw of a request sent with these headers.
fn seen(gateway: &Gateway, headers: &[(&str, &str)]) -> Value {
    let response = Client::connect(gateway.port("http")).ask("GET", "/echo?x=1", headers);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// The values of a field that the service saw.
fn values<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = seen["headers"].as_array().unwrap().iter();
    let same = fields.filter(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name));
    same.map(|field| field[1].as_str().unwrap()).collect()
}

const SPOOFED: &[(&str, &str)] = &[
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "444"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Real-IP", "203.0.113.9"),
    ("Forwarded", "for=203.0.113.9;proto=https;host=evil.example"),
];

#[test]
fn the_service_learns_who_asked_and_how() {
    let gateway = Setup::before([backends::chat().url()]).start();
    let port = gateway.port("http");
    let host = format!("shop.example:{port}");
    let seen = seen(&gateway, &[("Host", &host)]);
    assert_eq!(values(&seen, "host"), [host.as_str()]);
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen, "x-forwarded-host"), [host.as_str()]);
    assert_eq!(values(&seen, "x-forwarded-port"), [port.to_string().as_str()]);
    assert_eq!(values(&seen, "x-forwarded-prefix"), [""; 0]);
    let forwarded = values(&seen, "forwarded");
    assert_eq!(forwarded.len(), 1);
    for part in ["for=127.0.0.1", "proto=http", &format!("host=\"{host}\"")] {
        assert!(forwarded[0].split(';').any(|found| found.eq_ignore_ascii_case(part)), "{part}: {forwarded:?}");
    }
}

#[test]
fn an_untrusted_peer_cannot_speak_for_another() {
    let gateway = Setup::before([backends::chat().url()]).start();
    let seen = seen(&gateway, SPOOFED);
    let text = seen["headers"].to_string();
    assert!(!text.contains("203.0.113.9") && !text.contains("evil"), "{text}");
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen, "x-forwarded-host"), ["localhost"]);
    assert_eq!(values(&seen, "forwarded").len(), 1);
}

#[test]
fn a_trusted_peer_is_believed_up_to_the_rightmost_untrusted_address() {
    let setup = Setup::before([backends::chat().url()]).listener(r#"trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]"#);
    let gateway = setup.route(r#"deny = ["198.51.100.7"]"#).start();
    let chain = |chain: &str| {
        let headers =
            [("X-Forwarded-For", chain), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")];
        Client::connect(gateway.port("http")).ask("GET", "/echo", &headers)
    };
    let answer = chain("198.51.100.7, 203.0.113.9, 10.1.2.3");
    assert_eq!(answer.status, 200, "what stands left of the client is only what the client said");
    let saw = answer.json();
    assert!(values(&saw, "x-forwarded-for")[0].contains("203.0.113.9"), "{saw}");
    assert_eq!(values(&saw, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&saw, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(gateway.access_record(&answer)["client"], json!("203.0.113.9"));

    assert_eq!(chain("203.0.113.9, 198.51.100.7").status, 403, "the client is the rightmost untrusted address");
    assert_eq!(chain("203.0.113.9, 198.51.100.7, 10.1.2.3").cause(), "address_denied");
}

#[test]
fn a_real_framework_sees_the_client_and_the_scheme() {
    let flask = Setup::before([backends::orders_threads().url()]).start();
    let saw = seen(&flask, SPOOFED);
    assert_eq!(
        (&saw["client"], &saw["scheme"], &saw["host"]),
        (&json!("127.0.0.1"), &json!("http"), &json!("localhost"))
    );
    let django = Setup::before([backends::invoices().url()]).start();
    let saw = get(django.port("http"), "/echo?a=b").json();
    assert_eq!(saw["absolute"], json!("http://localhost/echo?a=b"));
}

#[test]
fn hop_by_hop_fields_stop_at_the_gateway() {
    let fake = Fake::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X-Internal\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nX-Kept: 2\r\n\r\nok\n",
    );
    let gateway = Setup::before([fake.url()]).start();
    let headers = [
        ("Connection", "X-Secret, keep-alive"),
        ("X-Secret", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "gzip, trailers"),
        ("Proxy-Authorization", "Basic AAAA"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Kept", "2"),
    ];
    let answer = Client::connect(gateway.port("http")).ask("GET", "/", &headers);
    for name in ["x-internal", "keep-alive", "connection", "proxy-authenticate"] {
        assert_eq!(answer.headers_named(name), [""; 0], "{name}: {answer:?}");
    }
    assert_eq!(answer.header("x-kept"), Some("2"));
    let request = fake.request();
    for name in ["x-secret", "keep-alive", "connection", "proxy-authorization", "proxy-connection"] {
        assert_eq!(request.headers_named(name), [""; 0], "{name}: {}", request.head);
    }
    assert!(request.header("te").is_none_or(|te| te == "trailers"), "{}", request.head);
    assert_eq!(request.header("x-kept"), Some("2"));
}

#[test]
fn connection_cannot_strike_out_what_the_gateway_says() {
    let gateway = Setup::before([backends::chat().url()]).start();
    let headers = [("Connection", "X-Forwarded-For, X-Forwarded-Proto, Forwarded, Host, X-Request-ID, close")];
    let saw = seen(&gateway, &headers);
    for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded", "host", "x-request-id"] {
        assert_eq!(values(&saw, name).len(), 1, "{name}: {saw}");
    }
}

#[test]
fn names_with_underscores_are_dropped() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).start();
    let headers = [("X_Forwarded_For", "203.0.113.9"), ("X_Auth", "admin"), ("X-Auth", "none")];
    assert_eq!(Client::connect(gateway.port("http")).ask("GET", "/", &headers).status, 200);
    let head = fake.request().head;
    assert!(!head.contains('_') && head.contains("none"), "{head}");
}

#[test]
fn a_request_has_an_identifier_that_everyone_sees() {
    let gateway = Setup::before([backends::chat().url()]).start();
    let answer = Client::connect(gateway.port("http")).ask("GET", "/echo", &[("X-Request-ID", "chosen-by-the-client")]);
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert_ne!(id, "chosen-by-the-client");
    assert_eq!(values(&answer.json(), "x-request-id"), [id.as_str()]);
    assert_eq!(gateway.access_record(&answer)["request_id"], json!(id));
    assert_ne!(gateway.get("/echo").header("x-request-id"), Some(id.as_str()));
}

#[test]
fn a_trusted_peer_s_identifier_is_kept_when_it_is_short_and_plain() {
    let gateway = Setup::before([backends::chat().url()]).listener(r#"trusted_proxies = ["127.0.0.1"]"#).start();
    let ask = |id: &str| {
        let answer = Client::connect(gateway.port("http")).ask("GET", "/echo", &[("X-Request-ID", id)]);
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(ask("0af7651916cd43dd-8448eb211c80319c"), "0af7651916cd43dd-8448eb211c80319c");
    for bad in [&"x".repeat(1000), "two words", "\"quoted\"", "a;b={}"] {
        assert_ne!(&ask(bad), bad);
    }
}

#[test]
fn trace_context_passes_and_is_logged() {
    let gateway = Setup::before([backends::chat().url()]).start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", parent), ("tracestate", "vendor=1")];
    let answer = Client::connect(gateway.port("http")).ask("GET", "/echo", &headers);
    let saw = answer.json();
    assert_eq!((values(&saw, "traceparent"), values(&saw, "tracestate")), (vec![parent], vec!["vendor=1"]));
    let record = gateway.access_record(&answer).to_string();
    assert!(record.contains("0af7651916cd43dd8448eb211c80319c"), "{record}");
}

#[test]
fn the_host_is_what_the_upstream_says() {
    let ask = |lines: &str| {
        let fake = Fake::ok();
        let gateway = Setup::before([fake.url()]).upstream(lines).start();
        assert_eq!(Client::connect(gateway.port("http")).ask("GET", "/", &[("Host", "shop.example")]).status, 200);
        (fake.request().header("host").unwrap().to_owned(), fake.port())
    };
    assert_eq!(ask("").0, "shop.example");
    assert_eq!(ask("host = \"preserve\"").0, "shop.example");
    assert_eq!(ask("host = \"orders.internal\"").0, "orders.internal");
    let (host, port) = ask("host = \"server\"");
    assert_eq!(host, format!("127.0.0.1:{port}"));
}

#[test]
fn a_prefix_is_cut_off_and_told() {
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()])
        .rest("[route.billing]\npath = \"/billing/{*rest}\"\nstrip_prefix = \"/billing\"\nupstream = \"app\"");
    let gateway = setup.start();
    assert_eq!(gateway.get("/billing/invoices/3?a=b").status, 200);
    assert_eq!(gateway.get("/billing").status, 200);
    let requests = fake.requests();
    assert_eq!((requests[0].target(), requests[0].header("x-forwarded-prefix")), ("/invoices/3?a=b", Some("/billing")));
    assert_eq!(requests[1].target(), "/");
}

#[test]
fn headers_are_set_and_removed_as_the_route_says() {
    let fake = Fake::answering(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nCache-Control: public\r\nContent-Length: 3\r\n\r\nok\n",
    );
    let setup = Setup::before([fake.url()]).rest(
        "[route.all.headers]\n\
         request = { set = { X-Tenant = \"shop\" }, remove = [\"X-Debug\"] }\n\
         response = { set = { Cache-Control = \"no-store\" }, remove = [\"Server\"] }",
    );
    let gateway = setup.start();
    let headers = [("X-Tenant", "other"), ("X-Debug", "1")];
    let answer = Client::connect(gateway.port("http")).ask("GET", "/", &headers);
    assert_eq!((answer.header("cache-control"), answer.header("server")), (Some("no-store"), None));
    let request = fake.request();
    assert_eq!((request.header("x-tenant"), request.header("x-debug")), (Some("shop"), None));
}

#[test]
fn cookies_are_neither_merged_nor_lost() {
    let gateway = Setup::before([backends::orders_threads().url()]).start();
    let answer = gateway.get("/cookies");
    assert_eq!(answer.headers_named("set-cookie").len(), 2, "{answer:?}");
}
