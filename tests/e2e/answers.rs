//! What the gateway answers by itself: redirects, fixed answers, CORS, security headers, and errors in every form.

use serde_json::json;

use crate::harness::http::Client;
use crate::harness::{Fake, Gateway, Response, Setup, free_port};

fn ask(gateway: &Gateway, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask(method, target, headers)
}

#[test]
fn redirects_carry_the_path_and_the_query() {
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[route.old]\npath = \"/old/{*rest}\"\nredirect = { to = \"https://shop.example/{rest}\" }\n\
         [route.seen]\npath = \"/seen/{id}\"\nredirect = { to = \"/orders/{id}\", status = 302 }",
    );
    let gateway = setup.start();
    let answer = ask(&gateway, "GET", "/old/a/b%20c?d=e", &[]);
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://shop.example/a/b%20c?d=e"));
    let answer = ask(&gateway, "GET", "/seen/7", &[]);
    assert_eq!((answer.status, answer.header("location")), (302, Some("/orders/7")));
    assert!(fake.requests().is_empty());
}

#[test]
fn a_redirect_leads_to_no_other_host_than_its_own() {
    let setup =
        Setup::before([Fake::ok().url()]).rest("[route.old]\npath = \"/old/{*rest}\"\nredirect = { to = \"/{rest}\" }");
    let gateway = setup.start();
    for target in ["/old//evil.example", "/old///evil.example/", "/old/%2F/evil.example", "/old/\\evil.example"] {
        let answer = ask(&gateway, "GET", target, &[]);
        let location = answer.header("location").unwrap_or("/");
        assert!(!location.starts_with("//") && !location.starts_with("/\\"), "{target}: {location}");
    }
}

#[test]
fn fixed_answers_say_what_the_file_says() {
    let setup = Setup::before([Fake::ok().url()]).rest(
        "[route.closed]\npath = \"/closed\"\n\
         respond = { status = 503, body = \"Back at noon.\\n\", content_type = \"text/plain\", headers = { Retry-After = \"3600\" } }",
    );
    let gateway = setup.start();
    let answer = ask(&gateway, "GET", "/closed", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (503, "Back at noon.\n"));
    assert_eq!((answer.header("retry-after"), answer.header("content-type")), (Some("3600"), Some("text/plain")));
    let head = ask(&gateway, "HEAD", "/closed", &[]);
    assert_eq!((head.status, head.header("content-length").unwrap_or("14")), (503, "14"));
}

#[test]
fn a_method_that_no_route_takes_is_405_with_allow() {
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[route.read]\npath = \"/orders\"\nmethods = [\"GET\"]\nupstream = \"app\"\n\
         [route.write]\npath = \"/orders\"\nmethods = [\"POST\"]\nupstream = \"app\"",
    );
    let gateway = setup.start();
    let answer = ask(&gateway, "DELETE", "/orders", &[]);
    assert_eq!((answer.status, answer.cause().as_str()), (405, "method_not_allowed"));
    let mut allowed: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed.iter().filter(|method| **method != "OPTIONS").collect::<Vec<_>>(), [&"GET", &"HEAD", &"POST"]);
    assert_eq!(ask(&gateway, "HEAD", "/orders", &[]).status, 200);
}

#[test]
fn hosts_are_told_apart() {
    let respond = |name: &str, host: &str| {
        format!(
            "[route.{name}]\n{host}\npath = \"/{{*rest}}\"\nrespond = {{ status = 200, body = \"{name}\", content_type = \"text/plain\" }}\n"
        )
    };
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n{}{}{}",
        respond("exact", "host = [\"shop.example\", \"127.0.0.1\"]"),
        respond("wild", "host = \"*.shop.example\""),
        respond("any", ""),
    );
    let gateway = Gateway::start(&text);
    for (host, name) in [
        ("shop.example", "exact"),
        ("SHOP.example:8080", "exact"),
        ("127.0.0.1", "exact"),
        ("a.shop.example", "wild"),
        ("a.b.shop.example", "wild"),
        ("notshop.example", "any"),
        ("[::1]:8080", "any"),
    ] {
        assert_eq!(ask(&gateway, "GET", "/", &[("Host", host)]).text(), name, "{host}");
    }
}

#[test]
fn no_route_is_a_404_and_nothing_is_contacted() {
    let fake = Fake::ok();
    let setup = Setup { servers: vec![fake.url()], ..Setup::default() };
    let gateway = Gateway::start(&setup.text().replace("path = \"/{*rest}\"", "path = \"/only/this\""));
    let answer = ask(&gateway, "GET", "/that", &[]);
    assert_eq!((answer.status, answer.cause().as_str()), (404, "no_route"));
    assert_eq!(fake.connections(), 0);
}

#[test]
fn errors_take_the_form_that_is_asked_for() {
    let with = |lines: &str| Setup::before([format!("http://127.0.0.1:{}", free_port())]).route(lines).start();
    let gateway = with("");
    let answer = ask(&gateway, "GET", "/", &[]);
    let problem = answer.json();
    assert_eq!(problem["status"], json!(502));
    assert_eq!(problem["cause"], json!("upstream_connect_refused"));
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"));
    assert!(problem["title"].is_string(), "{problem}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.text().contains("127.0.0.1"), "something internal leaks: {problem}");

    let browser = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
    let page = ask(&gateway, "GET", "/<script>", &browser);
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert!(page.text().contains("<html") && !page.text().contains("<script>"), "{}", page.text());
    assert!(page.text().contains(page.header("x-request-id").unwrap()));

    assert!(ask(&with("errors = \"fastapi\""), "GET", "/", &[]).json()["detail"].is_string());
    assert!(ask(&with("errors = \"drf\""), "GET", "/", &[]).json()["detail"].is_string());
    let plain = ask(&with("errors = \"plain\""), "GET", "/", &[]);
    assert!(plain.header("content-type").unwrap().starts_with("text/plain"), "{plain:?}");
    assert!(plain.text().contains("upstream_connect_refused"), "{}", plain.text());
    let head = ask(&gateway, "HEAD", "/", &[]);
    assert_eq!((head.status, head.body.len()), (502, 0));
}

#[test]
fn the_log_says_what_to_change_and_the_client_is_not_told() {
    let gateway = Setup::before([format!("http://127.0.0.1:{}", free_port())]).start();
    let answer = gateway.get("/");
    let record = gateway.access_record(&answer);
    assert_eq!((&record["cause"], &record["blame"]), (&json!("upstream_connect_refused"), &json!("upstream")));
    let remedy = record["remedy"].as_str().unwrap();
    assert!(remedy.contains("servers of the upstream"), "{record}");
    assert!(!answer.text().contains(remedy));
}

const ALLOWED: &str = "https://shop.example";

#[test]
fn a_preflight_is_answered_without_the_service() {
    let fake = Fake::ok();
    let setup = Setup::before([fake.url()]).rest(
        "[defaults.cors]\norigins = [\"https://shop.example\"]\nmethods = [\"GET\", \"PUT\"]\nheaders = [\"Content-Type\"]\n\
         credentials = true\nmax_age = \"10m\"",
    );
    let gateway = setup.start();
    let preflight = |origin: &str, method: &str| {
        ask(
            &gateway,
            "OPTIONS",
            "/orders",
            &[
                ("Origin", origin),
                ("Access-Control-Request-Method", method),
                ("Access-Control-Request-Headers", "content-type"),
            ],
        )
    };
    let allowed = preflight(ALLOWED, "PUT");
    assert!([200, 204].contains(&allowed.status), "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-origin"), Some(ALLOWED));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(allowed.header("access-control-max-age"), Some("600"));
    assert!(allowed.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert!(allowed.header("access-control-allow-headers").unwrap().eq_ignore_ascii_case("content-type"));
    assert!(allowed.header("vary").unwrap().to_lowercase().contains("origin"));
    assert_eq!(preflight("https://evil.example", "PUT").header("access-control-allow-origin"), None);
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[test]
fn an_answer_names_the_origin_that_may_read_it() {
    let fake = Fake::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\nContent-Length: 3\r\n\r\nok\n",
    );
    let setup = Setup::before([fake.url()]).rest("[defaults.cors]\norigins = [\"https://shop.example\"]");
    let gateway = setup.start();
    let answer = ask(&gateway, "GET", "/", &[("Origin", ALLOWED)]);
    assert_eq!(answer.headers_named("access-control-allow-origin"), [ALLOWED]);
    assert!(answer.headers_named("vary").join(",").to_lowercase().contains("origin"), "{answer:?}");
    assert!(answer.headers_named("vary").join(",").to_lowercase().contains("accept"), "{answer:?}");
    let stranger = ask(&gateway, "GET", "/", &[("Origin", "https://evil.example")]);
    assert_ne!(stranger.headers_named("access-control-allow-origin"), ["https://evil.example"]);
    // Errors of the gateway can be read too.
    let missing = ask(&gateway, "GET", "/%zz", &[("Origin", ALLOWED)]);
    assert_eq!(missing.status, 400);
}

#[test]
fn security_headers_are_added_but_never_over_the_service_s_own() {
    let fake = Fake::answering("HTTP/1.1 200 OK\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Length: 3\r\n\r\nok\n");
    let gateway = Setup::before([fake.url()]).start();
    let answer = gateway.get("/");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
    assert!(answer.header("referrer-policy").is_some());
    assert_eq!(answer.header("strict-transport-security"), None);
    let without = Setup::before([fake.url()]).route("security_headers = false").start().get("/");
    assert_eq!(without.header("x-content-type-options"), None);
    let error = Setup::before([format!("http://127.0.0.1:{}", free_port())]).start().get("/");
    assert_eq!(error.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn addresses_are_let_in_and_kept_out() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).route("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.5\"]").start();
    let from = |address: &str| Client::connect_from(address, gateway.port("http")).ask("GET", "/", &[]).status;
    assert_eq!((from("127.0.0.1"), from("127.0.0.4"), from("127.0.0.5")), (200, 200, 403));
    let gateway = Setup::before([fake.url()]).route("allow = [\"10.0.0.0/8\"]").start();
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.cause().as_str()), (403, "address_denied"));
}
