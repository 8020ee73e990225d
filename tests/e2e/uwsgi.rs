//! The uwsgi protocol, towards real uWSGI and gunicorn: whatever an HTTP server gets and gives, these do too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};

use crate::harness::gateway::passerelle;
use crate::harness::http::{Client, Response, head};
use crate::harness::tls::{Certificate, client_config, connect};
use crate::harness::uwsgi::{Uwsgi, gunicorn, services, uwsgi};
use crate::harness::{Fake, Gateway, Setup, eventually, free_port};
use crate::identity;

/// The request's variables as the service saw them.
fn environ(answer: &Response) -> BTreeMap<String, String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.json()["environ"].clone()).unwrap()
}

fn before(servers: &[String]) -> Setup {
    Setup { servers: servers.to_vec(), ..Setup::default() }
}

/// The names of variables that differ.
fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names = one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name));
    let mut names: Vec<String> = names.cloned().collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_service_sees_over_uwsgi_what_it_sees_over_http() {
    let both = uwsgi();
    let (over_uwsgi, over_http) =
        (before(&[both.url()]).route("strip_prefix = \"/shop\"").text(), before(&[both.http_url()]));
    let over_http = over_http.route("strip_prefix = \"/shop\"").text();
    let at = |text: &str| Gateway::start(&text.replace("/{*rest}", "/shop/{*rest}"));
    let gateways = [at(&over_uwsgi), at(&over_http)];
    let fields = [
        ("Host", "shop.test"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-Page", "1"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Latin", "caf\u{e9}"),
        ("X-Page", "2"),
        ("X-Empty", ""),
    ];
    for target in ["/shop/environ", "/shop/environ/a%20b/%C3%BC?x=%20&y", "/shop/environ/50%25%20off?"] {
        let [seen_uwsgi, seen_http] = gateways
            .each_ref()
            .map(|gateway| environ(&Client::connect(gateway.port("http")).ask_with("POST", target, &fields, b"told")));
        let told = |name: &str| seen_uwsgi.get(name).map(String::as_str);
        // uWSGI's router of HTTP tells of the connection from the gateway; the packet of the client's. What the gateway
        // strips is in X-Forwarded-Prefix alone there.
        let mut expected = vec![
            "HTTP_CONNECTION",
            // Where it joins lines, it joins cookies by commas.
            "HTTP_COOKIE",
            "HTTP_X_FORWARDED_PORT",
            "HTTP_X_REQUEST_ID",
            "REMOTE_PORT",
            "REQUEST_SCHEME",
            "REQUEST_URI",
            "SCRIPT_NAME",
            "SERVER_NAME",
            "SERVER_PORT",
        ];
        expected.retain(|name| seen_uwsgi.contains_key(*name));
        assert_eq!(differences(&seen_uwsgi, &seen_http), expected, "{seen_uwsgi:#?} {seen_http:#?}");
        assert_eq!(told("SCRIPT_NAME"), Some("/shop"));
        assert_eq!(told("REQUEST_URI"), Some(target));
        assert_eq!(told("SERVER_NAME"), Some("shop.test"));
        assert_eq!(told("SERVER_PORT"), Some(gateways[0].port("http").to_string().as_str()));
        assert_eq!(told("HTTP_COOKIE"), Some("a=1; b=2"));
        assert_eq!(told("CONTENT_LENGTH"), Some("4"));
        assert!(!seen_uwsgi.contains_key("HTTP_CONTENT_TYPE") && !seen_uwsgi.contains_key("HTTP_CONTENT_LENGTH"));
    }
}

#[test]
fn gunicorn_sees_the_same_over_both() {
    let (uwsgi, http) = gunicorn();
    let seen = [format!("uwsgi://127.0.0.1:{uwsgi}"), format!("http://127.0.0.1:{http}")].map(|url| {
        let gateway = before(&[url]).start();
        let fields = [("Host", "shop.test"), ("Cookie", "a=1; b=2"), ("X-Page", "1")];
        let seen =
            environ(&Client::connect(gateway.port("http")).ask_with("POST", "/environ/a%20b?x=1", &fields, b"told"));
        // Another over the same way: gunicorn is not left waiting for more.
        assert_eq!(gateway.get("/healthz").status, 200);
        seen
    });
    let expected = [
        "HTTP_CONNECTION",
        "HTTP_X_FORWARDED_PORT",
        "HTTP_X_REQUEST_ID",
        // gunicorn makes it of what is decoded already.
        "RAW_URI",
        "REMOTE_PORT",
        "SERVER_PORT",
    ];
    assert_eq!(differences(&seen[0], &seen[1]), expected, "{seen:#?}");
}

#[test]
fn no_client_can_say_what_only_the_gateway_says() {
    let config = before(&[uwsgi().url()])
        .listener("[listener.http.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]")
        .route("auth = [\"ops\"]")
        .rest(identity::OPS)
        .text();
    let certificate = Certificate::new(&["localhost"]);
    let gateway = Gateway::start_with(&config, |directory, _| {
        identity::write_ops(directory);
        certificate.write(directory, "site");
    });
    let spellings = |name: &str| [name.to_owned(), name.replace('-', "_"), name.to_uppercase()];
    let mut fields = vec![("Authorization".to_owned(), identity::basic("alice", "secret"))];
    for name in [
        "Remote-User",
        "Remote-Addr",
        "Https",
        "Script-Name",
        "Path-Info",
        "Request-Uri",
        "Server-Name",
        "Proxy",
        "X-Auth-Subject",
        "X-Auth-Roles",
        "X-Auth-Scopes",
        "X-Auth-Method",
        "X-Forwarded-For",
        "X-Forwarded-Prefix",
        "X-Forwarded-Proto",
        "Uwsgi-Script",
        "Content_Length",
        "Content_Type",
        "Http-X-Auth-Subject",
    ] {
        fields.extend(spellings(name).map(|name| (name, "forged".to_owned())));
    }
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let trusting = client_config(&[&certificate], &["http/1.1"], &[&rustls::version::TLS13]);
    let mut client = connect(gateway.port("http"), "localhost", &trusting).unwrap();
    client.send(head("GET", "/environ", &fields));
    let seen = environ(&client.answer());
    let forged: Vec<&str> =
        seen.iter().filter(|(_, value)| value.contains("forged")).map(|(name, _)| name.as_str()).collect();
    // What arrives under HTTP_ is a field of the client's, and no variable of the server's own.
    assert_eq!(
        forged,
        [
            "HTTP_HTTPS",
            "HTTP_HTTP_X_AUTH_SUBJECT",
            "HTTP_PATH_INFO",
            "HTTP_REMOTE_ADDR",
            "HTTP_REMOTE_USER",
            "HTTP_REQUEST_URI",
            "HTTP_SCRIPT_NAME",
            "HTTP_SERVER_NAME",
            "HTTP_UWSGI_SCRIPT"
        ],
        "{seen:#?}"
    );
    let told = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!(told("REMOTE_USER"), Some("alice"));
    assert_eq!(told("HTTP_X_AUTH_SUBJECT"), Some("alice"));
    assert_eq!(told("REMOTE_ADDR"), Some("127.0.0.1"));
    assert_eq!((told("HTTPS"), told("wsgi.url_scheme")), (Some("on"), Some("https")));
    assert_eq!(told("HTTP_AUTHORIZATION"), None);
}

#[test]
fn a_trusted_peer_says_who_the_client_is() {
    let gateway = before(&[uwsgi().url()]).listener("trusted_proxies = [\"127.0.0.0/8\"]").start();
    let fields = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Prefix", "/outer"),
    ];
    let seen = environ(&Client::connect(gateway.port("http")).ask("GET", "/environ", &fields));
    let told = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!((told("REMOTE_ADDR"), told("REMOTE_PORT")), (Some("192.0.2.7"), None));
    assert_eq!((told("HTTPS"), told("REQUEST_SCHEME"), told("SERVER_PORT")), (Some("on"), Some("https"), Some("443")));
    assert_eq!(told("SCRIPT_NAME"), Some("/outer"));
    // Of anybody else nothing of it is believed.
    let gateway = before(&[uwsgi().url()]).start();
    let seen = environ(&Client::connect(gateway.port("http")).ask("GET", "/environ", &fields));
    let told = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!((told("REMOTE_ADDR"), told("HTTPS"), told("SCRIPT_NAME")), (Some("127.0.0.1"), None, Some("")));
    assert!(seen.contains_key("REMOTE_PORT"));
}

#[test]
fn the_operator_sets_variables_of_his_own() {
    let gateway = before(&[uwsgi().url()])
        .upstream("uwsgi_params = { UWSGI_SCHEME = \"https\", SERVER_NAME = \"fixed.test\", SHOP = \"${env:SHOP}\" }")
        .text();
    let gateway = Gateway::start_with(&gateway, |_, command| {
        command.env("SHOP", "north");
    });
    let seen = environ(&gateway.get("/environ"));
    assert_eq!(seen["wsgi.url_scheme"], "https");
    assert_eq!((seen["SERVER_NAME"].as_str(), seen["SHOP"].as_str()), ("fixed.test", "north"));
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    let gateway = before(&[uwsgi().url()]).route("max_body = \"1 GiB\"").start();
    let (chunk, count) = (vec![b'x'; 1 << 20], 200);
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("PUT", "/digest", &[("Content-Length", &(chunk.len() * count).to_string())]));
    for _ in 0..count {
        client.send(&chunk);
    }
    let told = client.answer().json();
    assert_eq!(told["length"], 200 << 20);
    for target in ["/bytes/209715200", "/bytes/209715200?sized"] {
        client.send(head("GET", target, &[]));
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 200 << 20));
        assert_eq!(answer.header("content-length").is_some(), target.ends_with("sized"));
    }
    // The last of a worker's threads is free again.
    assert_eq!(client.ask("GET", "/healthz", &[]).text(), "ok");
}

#[test]
fn a_body_of_unknown_length_is_measured_first() {
    let gateway = before(&[uwsgi().url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client
        .send(head("POST", "/environ", &[("Transfer-Encoding", "chunked")]))
        .send("3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n");
    let answer = client.answer();
    assert_eq!((environ(&answer)["CONTENT_LENGTH"].as_str(), answer.json()["body"].as_str()), ("5", Some("abcde")));
    client.send(head("POST", "/environ", &[("Transfer-Encoding", "chunked")])).send("0\r\n\r\n");
    assert_eq!(client.answer().json()["body"], "");
}

#[test]
fn answers_keep_their_form() {
    let gateway = before(&[uwsgi().url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    for status in [200, 201, 204, 304, 404, 500] {
        let answer = client.ask("GET", &format!("/status/{status}"), &[]);
        assert_eq!((answer.status, answer.header("x-told")), (status, Some("yes")));
    }
    let answer = client.ask("HEAD", "/bytes/17?sized", &[]);
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("17"), 0));
    // An answer that the service gives before it has read the body.
    let answer = client.ask_with("POST", "/unread", &[], &[b'x'; 300_000]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "not read"));
}

#[test]
fn answers_are_passed_on_as_they_come() {
    let state = tempfile::tempdir().unwrap();
    let gateway = before(&[uwsgi().url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", &format!("/slowly?until={}", state.path().display()), &[]));
    assert_eq!(client.read_head().unwrap().status, 200);
    for name in ["one", "two", "three"] {
        assert_eq!(client.read_chunk().unwrap(), Some(format!("{name}\n").into_bytes()));
        std::fs::write(state.path().join(name), "").unwrap();
    }
    assert_eq!(client.read_chunk().unwrap(), None);
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let server = Uwsgi::start(&[]);
    let gateway = before(&[server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/broken", &[]));
    let error = client.try_answer_to("GET").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
    let record = gateway.log_line("its record", |line| line["path"] == "/broken");
    assert_eq!(record["cause"], "upstream_cut_short");
}

#[test]
fn variables_that_do_not_fit_are_explained() {
    let server = Uwsgi::start(&[]);
    let gateway = before(&[server.url()]).listener("max_header_bytes = \"128 KiB\"").start();
    let big = |bytes: usize| {
        let value = "x".repeat(bytes);
        Client::connect(gateway.port("http")).ask("GET", "/environ", &[("X-Big", &value)])
    };
    assert_eq!(big(2000).status, 200);
    for _ in 0..5 {
        let answer = big(5000);
        assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
        let detail = gateway.access_record(&answer)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("buffer-size (4096 by default) is smaller"), "{detail}");
    }
    // The server is not to blame.
    assert_eq!(gateway.metric("passerelle_upstream_ejections_total", &[]), 0.0);
    assert_eq!(big(2000).status, 200);
    let answer = big(70_000);
    assert_eq!((answer.status, answer.cause().as_str()), (431, "uwsgi_variables_too_large"));
    // More room is uWSGI's to give.
    let server = Uwsgi::start(&["--buffer-size", "65535"]);
    let gateway = before(&[server.url()]).listener("max_header_bytes = \"128 KiB\"").start();
    let answer = Client::connect(gateway.port("http")).ask("GET", "/environ", &[("X-Big", &"x".repeat(60_000))]);
    assert_eq!(environ(&answer)["HTTP_X_BIG"].len(), 60_000);
}

#[test]
fn a_unix_socket_serves_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uwsgi.sock");
    let _server = Uwsgi::start(&["--socket", path.to_str().unwrap()]);
    let gateway = before(&[format!("uwsgi+unix:{}", path.display())]).start();
    let seen = environ(&gateway.get("/environ"));
    assert_eq!(seen["PATH_INFO"], "/environ");
}

#[test]
fn checks_are_sent_as_packets() {
    let port = free_port();
    let config = before(&[format!("uwsgi://127.0.0.1:{port}")]).upstream(
        "[upstream.app.health]\npath = \"/probed?x=1\"\nhost = \"checks.test\"\nheaders = { X-Probe = \"1\" }\n\
                   interval = \"20ms\"\nfall = 2\nrise = 1",
    );
    let mut server = Uwsgi::start_on(port, &[]);
    let gateway = config.start();
    let up = |value: f64| {
        eventually(&format!("up is {value}"), || {
            (gateway.metric("passerelle_upstream_server_up", &[]) == value).then_some(())
        });
    };
    up(1.0);
    assert_eq!(gateway.get("/healthz").status, 200);
    server.kill();
    up(0.0);
    assert_eq!(gateway.get("/healthz").cause(), "no_healthy_server");
    drop(server);
    let _server = Uwsgi::start_on(port, &[]);
    up(1.0);
    eventually("an answer", || (gateway.get("/healthz").status == 200).then_some(()));
}

#[test]
fn what_a_worker_drops_is_sent_again_where_that_is_safe() {
    let server = Uwsgi::start(&[]);
    let gateway = before(&[server.url()]).start();
    // A GET that kills its worker does so at each attempt.
    let answer = gateway.get("/die");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    assert_eq!(gateway.access_record(&answer)["attempts"], 3);
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/die", &[], b"x");
    assert_eq!(answer.status, 502);
    assert_eq!(gateway.access_record(&answer)["attempts"], 1);
    // A server that is not there costs nothing.
    let gateway = before(&[format!("uwsgi://127.0.0.1:{}", free_port()), server.url()]).start();
    for _ in 0..6 {
        assert_eq!(Client::connect(gateway.port("http")).ask_with("POST", "/digest", &[], b"x").status, 200);
    }
}

#[test]
fn servers_of_both_protocols_make_one_upstream() {
    let gateway = before(&[uwsgi().url(), uwsgi().http_url()]).upstream("balance = \"round_robin\"").start();
    for _ in 0..8 {
        let answer = Client::connect(gateway.port("http")).ask_with("POST", "/environ", &[], b"told");
        assert_eq!(answer.json()["body"], "told");
    }
    for url in [uwsgi().url(), uwsgi().http_url()] {
        let label = format!("server=\"{url}\"");
        assert!(gateway.metric("passerelle_upstream_connections_total", &[&label]) >= 2.0, "{url}");
    }
}

#[test]
fn a_server_that_does_not_answer_in_time_is_told_apart() {
    let server = Uwsgi::start(&[]);
    let gateway = before(&[server.url()]).upstream("timeouts = { response = \"200ms\" }").start();
    let answer = gateway.get("/sleep/30.0");
    assert_eq!((answer.status, answer.cause().as_str()), (504, "upstream_timeout"));
}

#[test]
fn the_document_of_a_service_is_fetched_over_uwsgi() {
    let gateway = before(&[uwsgi().url()]).route("[route.all.validate]\nopenapi = \"upstream:/openapi.json\"").start();
    eventually("the document", || (gateway.get("/bytes/5").status == 200).then_some(()));
    assert_eq!(gateway.get("/bytes/50").cause(), "invalid_request");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let gateway = before(&[uwsgi().url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    let answer = client.ask("GET", "/echo", &[("Connection", "Upgrade"), ("Upgrade", "echo")]);
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    assert_eq!(client.read_exactly(9).unwrap(), b"switched\n");
    client.send("there and back");
    assert_eq!(client.read_exactly(14).unwrap(), b"there and back");
    client.end();
    client.expect_close();
}

/// What uWSGI and gunicorn would not send.
#[test]
fn answers_that_are_no_answers_are_refused() {
    for (answer, cause) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "upstream_invalid_response"),
        ("Status: 200 OK\r\n\r\nx", "upstream_invalid_response"),
        ("HTTP/2.0 200 OK\r\n\r\nx", "upstream_invalid_response"),
        ("", "upstream_closed_early"),
    ] {
        let fake = Fake::start(move |mut connection| {
            // The header of a packet says how long it is.
            let Some(header) = connection.read_exactly(4) else { return };
            connection.read_exactly(usize::from(u16::from_le_bytes([header[1], header[2]])));
            connection.send(answer);
        });
        let gateway = before(&[format!("uwsgi://127.0.0.1:{}", fake.port())]).start();
        assert_eq!(gateway.get("/").cause(), cause, "{answer:?}");
    }
}

#[test]
fn the_page_about_uwsgi_has_a_configuration_that_works() {
    let page = std::fs::read_to_string(services().join("../../docs/uwsgi.md")).unwrap();
    let ini = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an ini");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uwsgi.ini");
    let socket = directory.path().join("app.sock");
    let mut text = ini.replace("/run/orders/uwsgi.sock", socket.to_str().unwrap());
    text = text.replace("orders.wsgi:application", "wsgi:app");
    writeln!(text, "chdir = {}", services().display()).unwrap();
    std::fs::write(&path, text).unwrap();
    let _server = Uwsgi::start(&["--ini", path.to_str().unwrap()]);
    let gateway = before(&[format!("uwsgi+unix:{}", socket.display())]).start();
    let answer = Client::connect(gateway.port("http")).ask("GET", "/environ", &[("X-Big", &"x".repeat(20_000))]);
    assert_eq!(environ(&answer)["HTTP_X_BIG"].len(), 20_000);
}

#[test]
fn check_says_what_is_wrong_with_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("passerelle.toml");
    std::fs::write(&path, before(&["uwsgi://127.0.0.1".to_owned()]).text().replace("@http@", "8080")).unwrap();
    let (status, text) = passerelle(&["check", "--config", path.to_str().unwrap()]);
    assert!(!status.success() && text.contains("write the port too: \"uwsgi://127.0.0.1:3031\""), "{text}");
}

#[test]
fn a_client_that_leaves_gives_the_worker_back() {
    let server = Uwsgi::start(&[]);
    let gateway = before(&[server.url()]).start();
    for _ in 0..4 {
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("GET", "/bytes/1000000000", &[]));
        let mut piece = [0; 1000];
        client.stream.read_exact(&mut piece).unwrap();
        client.stream.flush().unwrap();
    }
    assert_eq!(gateway.get("/healthz").status, 200);
    eventually("nothing is in flight", || {
        (gateway.metric("passerelle_upstream_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

/// gunicorn takes the variables for still encoded: what is public here would be guarded there.
#[test]
fn a_path_that_could_be_decoded_twice_is_refused() {
    let (port, _) = gunicorn();
    let gateway = before(&[format!("uwsgi://127.0.0.1:{port}")]).start();
    for target in ["/%2565nviron", "/environ/%252e%252e", "/environ/%25252e"] {
        let answer = gateway.get(target);
        assert_eq!((answer.status, answer.cause().as_str()), (400, "bad_target"), "{target}");
    }
    assert_eq!(environ(&gateway.get("/environ/100%25%20cotton"))["PATH_INFO"], "/environ/100% cotton");
}

/// uWSGI closes without having read the request, and the system throws away what was on its way: a part of an answer that
/// ends with its connection is not passed off as the whole. Over a Unix socket nothing is thrown away.
#[test]
fn an_answer_that_was_cut_is_not_passed_off_as_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uwsgi.sock");
    let server = Uwsgi::start(&["--socket", path.to_str().unwrap()]);
    let unix = format!("uwsgi+unix:{}", path.display());
    for url in [server.url(), unix.clone()] {
        // Held bodies are sent at once, and the server has read none of it when it closes.
        let gateway = before(std::slice::from_ref(&url)).start();
        for size in [100_000, 3_000_000] {
            for _ in 0..4 {
                let mut client = Client::connect(gateway.port("http"));
                client.send(head("POST", "/unread/400000", &[("Content-Length", &size.to_string())]));
                client.send(vec![b'x'; size]);
                let whole = client.try_answer_to("POST").map(|answer| (answer.status, answer.body.len()));
                match whole {
                    Ok(whole) => assert_eq!(whole, (200, 400_000), "{url} {size}"),
                    Err(_) => assert_ne!(url, unix, "{size}"),
                }
            }
        }
    }
}
