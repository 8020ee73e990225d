//! Servers that speak HTTP/2, `h2://` and `h2c://`: hypercorn, and gRPC end to end.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use http::Request;
use serde_json::{Value, json};

use crate::harness::backends::python_program;
use crate::harness::http::{Client, head};
use crate::harness::http2::Http2;
use crate::harness::process::Process;
use crate::harness::tls::{Certificate, client_config};
use crate::harness::uwsgi::services;
use crate::harness::{Gateway, Setup, eventually, free_port};

/// A server that says its port on a line behind this text.
fn started(program: &str, arguments: &[&str], before_port: &str) -> (Process, u16) {
    let process = Process::start(&python_program(program), |command| {
        command
            .current_dir(services())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .args(arguments);
    });
    let port = process.output().find("it says where it listens", |line| {
        let (_, after) = line.split_once(before_port)?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    (process, port)
}

fn hypercorn_with(more: &[&str]) -> (Process, u16) {
    let arguments = [&["--bind", "127.0.0.1:0", "asgi:app"], more].concat();
    started("hypercorn", &arguments, "://127.0.0.1:")
}

/// hypercorn without TLS, that tests only talk to.
fn hypercorn() -> u16 {
    static SHARED: OnceLock<(Process, u16)> = OnceLock::new();
    SHARED.get_or_init(|| hypercorn_with(&[])).1
}

fn before(url: String) -> Setup {
    Setup::before([url])
}

fn told(answer: &crate::harness::Response) -> Value {
    assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
    answer.json()
}

#[test]
fn a_service_is_asked_over_http2() {
    let gateway = before(format!("h2c://127.0.0.1:{}", hypercorn())).start();
    let mut client = Client::connect(gateway.port("http"));
    let fields =
        [("Host", "shop.test:8443"), ("Cookie", "a=1"), ("X-Page", "1"), ("Connection", "X-Hop"), ("X-Hop", "1")];
    let answer = told(&client.ask_with("POST", "/told?x=1", &fields, b"body"));
    assert_eq!(
        (&answer["http_version"], &answer["path"], &answer["query"], &answer["body"]),
        (&json!("2"), &json!("/told"), &json!("x=1"), &json!("body"))
    );
    let headers: Vec<(String, String)> = serde_json::from_value(answer["headers"].clone()).unwrap();
    let field = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(field("host").or(field(":authority")), Some("shop.test:8443"), "{headers:?}");
    assert_eq!((field("cookie"), field("x-page"), field("content-length")), (Some("a=1"), Some("1"), Some("4")));
    assert_eq!((field("x-forwarded-for"), field("via")), (Some("127.0.0.1"), Some("1.1 passerelle")));
    for gone in ["connection", "x-hop", "te", "transfer-encoding", "upgrade"] {
        assert_eq!(field(gone), None, "{gone}");
    }
    // Of unknown length.
    client
        .send(head("POST", "/told", &[("Transfer-Encoding", "chunked"), ("TE", "trailers")]))
        .send("3\r\nabc\r\n0\r\n\r\n");
    let answer = told(&client.answer());
    assert_eq!(answer["body"], "abc");
    assert!(answer["headers"].to_string().contains("[\"te\",\"trailers\"]"), "{answer}");
    // Bytes that belong into percent codes, as many clients send them.
    let answer = told(&client.ask("GET", "/told?q=\"x\"&r=<`b>", &[]));
    assert_eq!(answer["query"], "q=%22x%22&r=%3C%60b%3E");
    for status in [204, 304, 404, 500] {
        assert_eq!(client.ask("GET", &format!("/status/{status}"), &[]).status, status);
    }
    assert_eq!(client.ask("HEAD", "/bytes/1000", &[]).body.len(), 0);
    // All of it over one connection, or one of each worker.
    let label =
        |reused: &str| gateway.metric("passerelle_upstream_connections_total", &[&format!("reused=\"{reused}\"")]);
    assert!(label("false") <= 2.0 && label("true") >= 5.0, "{} {}", label("false"), label("true"));
}

#[test]
fn large_bodies_go_both_ways_and_at_once() {
    let unheld = "buffer = { request = false, response = false }";
    let gateway =
        before(format!("h2c://127.0.0.1:{}", hypercorn())).route("max_body = \"1 GiB\"").route(unheld).start();
    let mut client = Client::connect(gateway.port("http"));
    let chunk = vec![b'x'; 1 << 20];
    client.send(head("PUT", "/length", &[("Content-Length", &(chunk.len() * 64).to_string())]));
    for _ in 0..64 {
        client.send(&chunk);
    }
    assert_eq!(client.answer().text(), (64 << 20).to_string());
    client.send(head("GET", "/bytes/67108864", &[]));
    assert_eq!(client.answer().body.len(), 64 << 20);
    // Each piece comes back before the next is sent.
    client.send(head("POST", "/echo", &[("Transfer-Encoding", "chunked")]));
    for number in 0..5 {
        client.send(format!("5\r\nnum {number}\r\n"));
        if number == 0 {
            assert_eq!(client.read_head().unwrap().status, 200);
        }
        assert_eq!(client.read_chunk().unwrap().unwrap(), format!("num {number}").into_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_chunk().unwrap(), None);
}

#[test]
fn tls_is_agreed_on_with_h2_alone() {
    let directory = tempfile::tempdir().unwrap();
    Certificate::new(&["orders.internal"]).write(directory.path(), "server");
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (chain, key) = (path("server.pem"), path("server.key"));
    let with = |port: u16, what: &str| {
        let tls = format!("[upstream.app.tls]\nca = \"{chain}\"\nserver_name = \"orders.internal\"");
        before(format!("{what}://127.0.0.1:{port}")).rest(&tls).start()
    };
    let (_server, port) = hypercorn_with(&["--certfile", &chain, "--keyfile", &key]);
    let gateway = with(port, "h2");
    let answer = told(&gateway.get("/told"));
    assert_eq!((&answer["http_version"], &answer["scheme"]), (&json!("2"), &json!("https")));
    // The same over HTTP/1.1: nothing else changes with the scheme.
    assert_eq!(told(&with(port, "https").get("/told"))["http_version"], "1.1");
    // One that has no HTTP/2.
    let arguments =
        ["--bind", "127.0.0.1:0", "--no-control-socket", "--certfile", &chain, "--keyfile", &key, "wsgi:app"];
    let (server, port) = started("gunicorn", &arguments, "://127.0.0.1:");
    server.output().find("its worker boots", |line| line.contains("Booting worker").then_some(()));
    let answer = with(port, "h2").get("/healthz");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_tls_failed"));
}

#[test]
fn checks_and_time_outs_hold_over_http2() {
    let port = free_port();
    let bind = format!("127.0.0.1:{port}");
    let serve = || {
        let (process, _) = started("hypercorn", &["--bind", &bind, "asgi:app"], "://127.0.0.1:");
        process
    };
    let mut server = serve();
    let gateway = before(format!("h2c://127.0.0.1:{port}"))
        .upstream("timeouts = { response = \"300ms\" }\n[upstream.app.health]\npath = \"/healthz\"\ninterval = \"20ms\"\nfall = 2\nrise = 1")
        .start();
    let up = |value: f64| {
        eventually(&format!("up is {value}"), || {
            (gateway.metric("passerelle_upstream_server_up", &[]) == value).then_some(())
        });
    };
    up(1.0);
    let answer = gateway.get("/sleep");
    assert_eq!((answer.status, answer.cause().as_str()), (504, "upstream_timeout"));
    assert_eq!(gateway.get("/healthz").text(), "ok");
    server.kill();
    up(0.0);
    assert_eq!(gateway.get("/healthz").cause(), "no_healthy_server");
    let _server = serve();
    up(1.0);
    eventually("an answer", || (gateway.get("/healthz").status == 200).then_some(()));
}

#[test]
fn upgrades_are_refused() {
    let gateway = before(format!("h2c://127.0.0.1:{}", hypercorn())).start();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    let answer = Client::connect(gateway.port("http")).ask("GET", "/healthz", &fields);
    assert_eq!((answer.status, answer.cause().as_str()), (501, "upgrade_not_supported"));
}

#[test]
fn who_speaks_something_else_is_found_out() {
    let (server, port) =
        started("gunicorn", &["--bind", "127.0.0.1:0", "--no-control-socket", "wsgi:app"], "://127.0.0.1:");
    server.output().find("its worker boots", |line| line.contains("Booting worker").then_some(()));
    let gateway = before(format!("h2c://127.0.0.1:{port}")).start();
    let answer = gateway.get("/healthz");
    assert_eq!(answer.status, 502, "{answer:?}");
    let record = gateway.access_record(&answer);
    assert!(record["detail"].is_string(), "{record}");
}

/// A gateway with TLS towards clients, in front of this server of gRPC.
fn before_rpc(url: &str, certificate: &Certificate, body_timeout: &str) -> Gateway {
    let config = Setup::before([url.to_owned()])
        .listener(&format!("body_timeout = \"{body_timeout}\"\n[listener.http.tls]\ncertificates = [{{ chain = \"site.pem\", key = \"site.key\" }}]"))
        .route("max_body = \"64 MiB\"")
        .rest(&format!(
            "[upstream.gone]\nservers = [\"h2c://127.0.0.1:{}\"]\n[route.gone]\npath = \"/gone.Service/{{*rest}}\"\nupstream = \"gone\"",
            free_port()
        ))
        .text()
        .replace("path = \"/{*rest}\"", "path = \"/test.Service/{*rest}\"");
    Gateway::start_with(&config, |directory, _| certificate.write(directory, "site"))
}

#[test]
fn grpc_goes_end_to_end() {
    let (_server, port) = started("python", &["rpc.py", "serve"], "port ");
    let certificate = Certificate::new(&["localhost"]);
    let gateway = before_rpc(&format!("h2c://127.0.0.1:{port}"), &certificate, "300ms");
    let called = Command::new(python_program("python"))
        .current_dir(services())
        .args(["rpc.py", "call", &format!("localhost:{}", gateway.port("http"))])
        .arg(gateway.directory().join("site.pem"))
        .env("GRPC_VERBOSITY", "ERROR")
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&called.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&called.stderr)));
    let message = |name: &str| told[name][1].as_str().unwrap().to_owned();
    assert_eq!(told["unary"], json!(["ereht", "1", { "x-trailing": "yes", "x-bytes-bin": [0, 255] }]));
    assert_eq!(told["fails"], json!(["FAILED_PRECONDITION", "not like this: 50% ü"]));
    assert_eq!((&told["deadline"][0], &told["remaining"]), (&json!("DEADLINE_EXCEEDED"), &json!("True")));
    assert_eq!(told["missing"][0], "UNIMPLEMENTED");
    assert_eq!((&told["counts"], &told["adds"], &told["large"]), (&json!(true), &json!("499500"), &json!(true)));
    assert_eq!(told["breaks"], json!(["DATA_LOSS", "broke"]));
    assert_eq!((&told["talk"], &told["many"]), (&json!(true), &json!(true)));
    // Longer than a client may be silent in the body of any other request.
    assert_eq!(told["pauses"], json!(["12", "3"]));
    // What the gateway answers itself is told in gRPC's own way, and recorded as what it is.
    assert_eq!(told["nowhere"][0], "UNAVAILABLE");
    assert!(message("nowhere").starts_with("The server refused the connection. (upstream_connect_refused, request "));
    assert_eq!(told["unrouted"][0], "UNIMPLEMENTED");
    assert!(message("unrouted").contains("no_route"));
    let record = gateway.log_line("its record", |line| line["path"] == "/gone.Service/Unary");
    assert_eq!((&record["status"], &record["cause"]), (&json!(502), &json!("upstream_connect_refused")));
}

#[test]
fn a_client_may_send_everything_before_it_reads_the_first_answer() {
    const MESSAGES: usize = 500;
    let (_server, port) = started("python", &["rpc.py", "serve"], "port ");
    let certificate = Certificate::new(&["localhost"]);
    let gateway = before_rpc(&format!("h2c://127.0.0.1:{port}"), &certificate, "60s");
    let trusting = client_config(&[&certificate], &["h2"], &[&rustls::version::TLS13]);
    let mut client = Http2::connect(gateway.port("http"), "localhost", &trusting);
    let request = Request::post("https://localhost/test.Service/Hoards")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let message: Vec<u8> = [0, 0, 0, 0x20, 0].into_iter().chain(std::iter::repeat_n(b'm', 8 * 1024)).collect();
    let answered = client.run(async |sender| {
        let (answer, mut sending) = crate::harness::http2::open(sender, request, false).await.unwrap();
        // Far more than the answers that fit into the client's window.
        for _ in 0..MESSAGES {
            let mut left = bytes::Bytes::from(message.clone());
            while !left.is_empty() {
                sending.reserve_capacity(left.len());
                let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
                sending.send_data(left.split_to(room.min(left.len())), false).unwrap();
            }
        }
        sending.send_data(bytes::Bytes::new(), true).unwrap();
        let (mut body, mut length) = (answer.await.unwrap().into_body(), 0);
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            length += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        (length, body.trailers().await.unwrap().unwrap()["grpc-status"].clone())
    });
    assert_eq!(answered, (MESSAGES * message.len(), "0".parse().unwrap()));
}

#[test]
fn a_client_that_resets_its_stream_has_the_servers_reset_too() {
    let (_server, port) = started("python", &["rpc.py", "serve"], "port ");
    let certificate = Certificate::new(&["localhost"]);
    let gateway = before_rpc(&format!("h2c://127.0.0.1:{port}"), &certificate, "300ms");
    let trusting = client_config(&[&certificate], &["h2"], &[&rustls::version::TLS13]);
    let mut client = Http2::connect(gateway.port("http"), "localhost", &trusting);
    let uri = "https://localhost/test.Service/Sleeps";
    let request =
        Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    client.run(async |sender| {
        let (answer, mut sending) = crate::harness::http2::open(sender, request, false).await.unwrap();
        sending.send_data(vec![0, 0, 0, 0, 0].into(), true).unwrap();
        drop(answer);
        sending.send_reset(h2::Reason::CANCEL);
    });
    eventually("nothing is in flight", || {
        (gateway.metric("passerelle_upstream_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

#[test]
fn the_page_about_upstreams_names_every_scheme() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    for scheme in ["http://", "https://", "http+unix:", "uwsgi://", "uwsgi+unix:", "h2://", "h2c://"] {
        assert!(page.contains(&format!("`{scheme}`")), "{scheme}");
    }
}
