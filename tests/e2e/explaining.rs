//! `passerelle explain` against the gateway itself: what is said of a request is what becomes of it, and saying it
//! sends and counts nothing.

use std::net::TcpStream;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use passerelle::explain::{Asked, Decision, Explanation, Moment, Outcome, Step, explain};
use serde_json::Value;

use super::harness::gateway::passerelle;
use super::harness::http::Client;
use super::harness::idp;
use super::harness::tls::Certificate;
use super::harness::{Fake, Gateway, Response, Setup, eventually};

/// The configuration of `tests/explain`, in front of `server`, without its store.
fn shop(server: &str) -> Gateway {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain");
    let mut config = std::fs::read_to_string(source.join("passerelle.toml")).unwrap().replace('@', "");
    for listener in ["https", "http"] {
        let place = format!("[listener.{listener}]\naddress = \"127.0.0.1:");
        config = config.replace(&format!("{place}0\""), &format!("{place}@{listener}@\""));
    }
    let servers = config.lines().find(|line| line.starts_with("servers = ")).unwrap().to_owned();
    config = config
        .replace("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"127.0.0.1:@admin@\"")
        .replace("trusted_proxies = [\"10.9.0.0/16\"]", "")
        .replace(&servers, &format!("servers = [\"{server}\"]"))
        .replace("store = \"shared\"", "")
        // A fast gateway is asked more than a hundred times a second below.
        .replace("burst = 100", "burst = 1000");
    Gateway::start_with(&config, |directory, _| {
        std::fs::create_dir(directory.join("drawn")).unwrap();
        for file in ["order.json", "drawn/host", "drawn/to"] {
            std::fs::copy(source.join(file), directory.join(file)).unwrap();
        }
    })
}

/// A request, for the gateway and for whoever explains it.
#[derive(Clone, Debug)]
struct Request {
    listener: &'static str,
    method: &'static str,
    target: &'static str,
    headers: Vec<(String, String)>,
    body: &'static str,
}

impl Request {
    fn send(&self, gateway: &Gateway) -> Response {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut client = Client::connect(gateway.port(self.listener));
        client.send(
            [super::harness::http::head(self.method, self.target, &headers).as_bytes(), self.body.as_bytes()].concat(),
        );
        client.answer_to(self.method)
    }

    fn asked(&self) -> Asked {
        Asked {
            method: self.method.to_owned(),
            tls: false,
            host: None,
            target: self.target.to_owned(),
            headers: self.headers.clone(),
            body: (!self.body.is_empty()).then(|| STANDARD.encode(self.body)),
            client: None,
            listener: Some(self.listener.to_owned()),
        }
    }
}

/// Asks the admin listener.
fn post(gateway: &Gateway, body: &[u8], headers: &[(&str, &str)]) -> Response {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    Client::connect(gateway.port("admin")).ask_with("POST", "/explain", &all, body)
}

fn live(gateway: &Gateway, asked: &Asked) -> Explanation {
    let answer = post(gateway, &serde_json::to_vec(asked).unwrap(), &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// By the file alone, as the command does it, without a process for each.
fn offline(snapshot: &passerelle::gateway::Gateway, asked: &Asked) -> Explanation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(explain(snapshot, asked, Moment::Offline)).unwrap()
}

fn snapshot(gateway: &Gateway) -> passerelle::gateway::Gateway {
    let metrics = passerelle::observe::metrics::Metrics::new(1);
    let (built, problems) = passerelle::config::load(&gateway.config_path())
        .build(|settings, problems| passerelle::gateway::Gateway::build(settings, None, &metrics, problems));
    built.unwrap_or_else(|| panic!("{problems:?}"))
}

fn field(name: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain/fields").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let (name, value) = text.lines().next().unwrap().split_once(": ").unwrap();
    (name.to_owned(), value.to_owned())
}

/// More than the route of orders takes.
const LARGE: &str = match std::str::from_utf8(&[b'7'; 2000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Every mixture of methods, targets, hosts, credentials and bodies.
fn requests() -> Vec<Request> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let json = ("Content-Type", "application/json");
    let bodies: [(&str, Vec<(String, String)>); 6] = [
        ("", Vec::new()),
        (LARGE, own(&[json, ("Content-Length", "2000")])),
        ("{\"item\": \"x\", \"count\": 1}", own(&[json, ("Content-Length", "25")])),
        ("{\"count\": 0}", own(&[json, ("Content-Length", "12")])),
        ("hello", own(&[("Content-Length", "5")])),
        ("5\r\nhello\r\n0\r\n\r\n", own(&[("Transfer-Encoding", "chunked"), ("Content-Length", "5")])),
    ];
    let credentials: Vec<Vec<(String, String)>> = ["reader", "writer", "expired", "forged", "session", "acme"]
        .into_iter()
        .map(|name| vec![field(name)])
        .chain([
            Vec::new(),
            own(&[("X-API-Key", "nobody's")]),
            own(&[("Authorization", "Basic\tYQ==")]),
            vec![field("reader"), field("acme")],
            [vec![field("session")], own(&[("Origin", "http://api.example.com")])].concat(),
            own(&[("Origin", "https://shop.example.com"), ("Access-Control-Request-Method", "GET")]),
            own(&[("X-Forwarded-For", "10.1.2.3"), ("Expect", "100-continue")]),
            own(&[("Expect", "miracles")]),
        ])
        .collect();
    let targets = [
        ("api.example.com", "/orders"),
        ("API.example.com:443", "//orders/42"),
        ("api.example.com", "/orders/%34%32?a=b"),
        ("api.example.com", "/orders/a%2Fb"),
        ("api.example.com", "/orders/../inside"),
        ("api.example.com", "/inside"),
        ("api.example.com", "/session"),
        ("api.example.com", "/link?key=hidden-key-of-link"),
        ("api.example.com", "/link?key=hidden-key-of-lint"),
        ("api.example.com", "/nowhere"),
        ("www.example.org", "/a?b=c"),
        ("other.example.com", "/orders"),
        ("a b", "/orders"),
        ("api.example.com", "http://www.example.org/x"),
    ];
    let mut requests = Vec::new();
    for (number, method) in ["GET", "POST", "OPTIONS", "DELETE", "TRACE"].into_iter().enumerate() {
        for (host, target) in targets {
            for (index, credential) in credentials.iter().enumerate() {
                // Each body with each other thing in turn; all of them where a body is judged.
                let chosen = (index + number + target.len()) % bodies.len();
                for (place, (body, framing)) in bodies.iter().enumerate() {
                    if place == chosen || (method == "POST" && target == "/orders") {
                        let listener = if (index + number + place) % 9 == 0 { "http" } else { "https" };
                        let headers = [own(&[("Host", host)]), credential.clone(), framing.clone()].concat();
                        requests.push(Request { listener, method, target, headers, body });
                    }
                }
            }
        }
    }
    requests
}

/// The heart of it: offline and from the running gateway, an explanation foretells the answer.
#[test]
fn what_is_said_of_a_request_becomes_of_it() {
    let backend = Fake::ok();
    let gateway = shop(&backend.url());
    let snapshot = snapshot(&gateway);
    let mut causes = std::collections::BTreeSet::new();
    for request in requests() {
        let asked = request.asked();
        let (by_the_file, by_the_gateway) = (offline(&snapshot, &asked), live(&gateway, &asked));
        let answer = request.send(&gateway);
        let cause = (answer.header("content-type") == Some("application/problem+json")).then(|| answer.cause());
        let became = (answer.status, cause.clone());
        for explanation in [by_the_file, by_the_gateway] {
            assert!(explanation.provided.is_empty(), "{request:?} {explanation:?}");
            let (status, cause) = explanation.verdict();
            let said = (status.unwrap_or(200), cause.map(str::to_owned));
            assert_eq!(said, became, "{request:?}\n{}", explanation.human());
        }
        causes.insert(cause.unwrap_or_else(|| answer.status.to_string()));
    }
    assert!(causes.len() >= 20, "{causes:?}");
}

fn step<'e>(explanation: &'e Explanation, name: &str) -> &'e Step {
    let found = explanation.steps.iter().find(|step| step.step == name);
    found.unwrap_or_else(|| panic!("no step {name}:\n{}", explanation.human()))
}

/// Servers and limits as they are now, and which server is next.
#[test]
fn a_running_gateway_tells_its_state() {
    let backend = Fake::ok();
    let gateway = Setup::before([backend.url(), "http://127.0.0.1:1".to_owned()])
        .upstream("health = { path = \"/\", interval = \"100ms\", fall = 1, rise = 1 }")
        .route("limits = [\"few\"]")
        .rest("[limit.few]\nrate = \"2/h\"\nburst = 2\n")
        .start();
    let request = Request { listener: "http", method: "GET", target: "/", headers: vec![field("reader")], body: "" };
    let request = Request { headers: [vec![("Host".into(), "a".into())], request.headers.clone()].concat(), ..request };
    let ask = || live(&gateway, &request.asked());
    eventually("the second server is down", || {
        let explanation = ask();
        let down = step(&explanation, "server http://127.0.0.1:1");
        (down.decision == Decision::Refused && down.text.starts_with("down for ")).then_some(())
    });
    let explanation = ask();
    assert!(step(&explanation, &format!("server {}", backend.url())).text.starts_with("up for "));
    let Outcome::Forwarded(sent) = &explanation.outcome else { panic!("{}", explanation.human()) };
    assert_eq!(sent.next.as_deref(), Some(backend.url().as_str()));
    let in_force = explanation.in_force.as_ref().unwrap();
    assert_eq!((in_force.generation, in_force.last_reload_failed), (1, false));
    assert!(in_force.file.ends_with("/passerelle.toml"));

    let left = |explanation: &Explanation| step(explanation, "limit few").text.clone();
    assert_eq!(left(&explanation), "2/h, bursts of 2 by client_ip; all 2 left");
    assert_eq!(request.send(&gateway).status, 200);
    // Among checks, which have none.
    let port = backend.requests().iter().find_map(|request| request.header("x-forwarded-port").map(str::to_owned));
    let port = port.unwrap();
    assert!(sent.head.contains(&format!("x-forwarded-port: {port}")), "the listener's, not the URL's: {:?}", sent.head);
    assert!(left(&ask()).contains("; 1 left, full again in "), "{}", left(&ask()));
    assert_eq!(request.send(&gateway).status, 200);
    for _ in 0..5 {
        let explanation = ask();
        assert_eq!(explanation.verdict(), (Some(429), Some("rate_limited")));
        assert!(left(&explanation).contains("; nothing left for "));
    }
    assert_eq!(request.send(&gateway).cause(), "rate_limited");

    // Five times refused, and nobody was counted: neither that nor any request.
    assert_eq!(gateway.metric("passerelle_rejections_total", &["cause=\"rate_limited\""]), 1.0);
    assert_eq!(gateway.metric("passerelle_requests_total", &[]), 3.0);
    assert_eq!(gateway.log().iter().filter(|line| line.get("request_id").is_some()).count(), 3);
}

/// By the file alone a signature whose key is fetched is not judged; the running gateway has the keys.
#[test]
fn a_running_gateway_verifies_tokens() {
    let (provider, backend) = (idp::shared(), Fake::ok());
    let gateway = Setup::before([backend.url()])
        .route("auth = [\"staff\"]\nroles = [\"reader\"]")
        .rest(&format!("[auth.staff]\nkind = \"jwt\"\nissuer = \"{}\"\naudience = [\"orders\"]\nroles_claim = \"realm_access.roles\"\n", provider.issuer()))
        .start();
    let token = provider.token("olga", "orders:read", "alg=ES256&roles=clerk,reader");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let explained = |token: &str, more: &[&str]| -> Explanation {
        let (config, authorization) = (gateway.config_path(), format!("Authorization: Bearer {token}"));
        let mut arguments = vec!["explain", "--config", config.to_str().unwrap(), "--format", "json", "http://a/"];
        arguments.extend(["-H", &authorization]);
        arguments.extend(more);
        let (status, output) = passerelle(&arguments);
        assert!(status.success(), "{output}");
        assert!(!output.contains(token) && !output.contains(signature), "{output}");
        serde_json::from_str(&output).unwrap()
    };
    eventually("the keys are fetched", || (super::oidc::ask(&gateway, &token).status == 200).then_some(()));
    for token in [&token, &forged] {
        let by_the_file = explained(token, &[]);
        assert_eq!(step(&by_the_file, "auth staff").decision, Decision::Unknown);
        assert!(
            step(&by_the_file, "auth staff").text.contains("not verified, it says: subject olga, roles clerk reader")
        );
        assert_eq!(by_the_file.provided, ["the signature of the token is valid by the keys of [auth.staff]"]);
    }
    let verified = explained(&token, &["--live"]);
    assert_eq!(step(&verified, "auth staff").decision, Decision::Passed);
    assert!(verified.provided.is_empty() && matches!(verified.outcome, Outcome::Forwarded(_)));
    let asked_before = provider.asked("/jwks");
    let refused = explained(&forged, &["--live"]);
    assert_eq!(refused.verdict(), (Some(401), Some("invalid_credentials")));
    assert_eq!(provider.asked("/jwks"), asked_before, "nobody was asked for newer keys");
}

/// Whoever could be asked counts who connects.
#[test]
fn nothing_is_sent() {
    let (server, issuer, introspection, store) = (Fake::ok(), Fake::ok(), Fake::ok(), Fake::ok());
    let config = Setup::before([server.url()])
        .route(
            "auth = [\"staff\", \"opaque\"]\nlimits = [\"few\"]\nvalidate = { openapi = \"upstream:/openapi.json\" }",
        )
        .rest(&format!(
            "[auth.staff]\nkind = \"jwt\"\nissuer = \"https://login.example.com\"\naudience = [\"orders\"]\n\
             jwks_url = \"{}/keys\"\n\
             [auth.opaque]\nkind = \"introspection\"\nurl = \"{}/\"\nclient_id = \"a\"\nclient_secret = \"hidden-b\"\n\
             [limit.few]\nrate = \"2/h\"\nstore = \"shared\"\n[store.shared]\nurl = \"redis://127.0.0.1:{}\"\n",
            issuer.url(),
            introspection.url(),
            store.port()
        ));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("passerelle.toml");
    std::fs::write(&file, config.text().replace("@http@", "0")).unwrap();
    let claims =
        "eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIiwiYXVkIjoib3JkZXJzIiwic3ViIjoiYSIsImV4cCI6NDEwMjQ0NDgwMH0";
    let jwt = format!("Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.{claims}.c2ln");
    for token in [jwt.as_str(), "Authorization: Bearer opaque-token", "Accept: a"] {
        let (status, output) = passerelle(&["explain", "--config", file.to_str().unwrap(), "http://a/b", "-H", token]);
        assert!(status.success(), "{output}");
    }
    for nobody in [&server, &issuer, &introspection, &store] {
        assert_eq!(nobody.connections(), 0);
    }

    // The running gateway asks for keys and documents, and reaches for its store, but not because of this.
    let gateway = config.start();
    let asked = |value: &str| Request {
        listener: "http",
        method: "GET",
        target: "/b",
        headers: vec![("Host".into(), "a".into()), ("Authorization".into(), value.into())],
        body: "",
    };
    eventually("the keys were asked for", || (issuer.connections() > 0).then_some(()));
    let before = issuer.requests().len();
    for _ in 0..5 {
        let explanation = live(&gateway, &asked("Bearer opaque-token").asked());
        let told = step(&explanation, "auth opaque");
        assert!(told.text.contains(&format!("would ask {}/", introspection.url())), "{}", told.text);
        live(&gateway, &asked(jwt.split_once(": ").unwrap().1).asked());
    }
    assert_eq!(introspection.connections(), 0);
    assert!(issuer.requests().len() <= before + 1, "it asks again by itself, once a second at the most");
    assert!(server.requests().iter().all(|request| request.target() == "/openapi.json"));
}

/// The question is guarded like `/status`, and bounded.
#[test]
fn only_who_may_see_the_status_may_ask() {
    let backend = Fake::ok();
    let config = "[admin]\naddress = \"127.0.0.1:@admin@\"\ntoken = \"s3cret-admin-token\"\n".to_owned()
        + &Setup::before([backend.url()]).text();
    let gateway = Gateway::start(&config);
    let question = br#"{"method": "GET", "tls": false, "host": "a", "target": "/"}"#;
    let token = ("Authorization", "Bearer s3cret-admin-token");
    assert_eq!(post(&gateway, question, &[]).status, 401);
    assert_eq!(post(&gateway, question, &[token]).status, 200);
    let plain = [("Content-Type", "text/plain"), token];
    assert_eq!(Client::connect(gateway.port("admin")).ask_with("POST", "/explain", &plain, question).status, 415);
    assert_eq!(Client::connect(gateway.port("admin")).ask("GET", "/explain", &[token]).status, 405);
    let wrong: Value = post(&gateway, b"{\"method\": \"GET\"}", &[token]).json();
    assert_eq!((&wrong["status"], wrong["detail"].as_str().unwrap().contains("missing field")), (&400.into(), true));
    assert_eq!(post(&gateway, &vec![b' '; 2 * 1024 * 1024 + 1], &[token]).status, 413);
    let path = gateway.config_path();
    let ask = |more: &[&str]| passerelle(&[&["explain", "--config", path.to_str().unwrap(), "--live"], more].concat());
    let (status, output) = ask(&["http://a/"]);
    assert!(status.success() && output.contains("As the running gateway has it: "), "{output}");
    let (status, output) = ask(&["http://a/", "--listener", "none"]);
    assert_eq!(
        (status.code(), output.as_str()),
        (Some(2), "passerelle: there is no listener `none`: there are http\n")
    );
    gateway.stop();
    let (status, output) = ask(&["http://a/"]);
    assert_eq!(status.code(), Some(2), "the directory went with the gateway: {output}");
}

/// A gateway that does not run cannot be asked.
#[test]
fn nobody_there_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("passerelle.toml");
    let address = format!("127.0.0.1:{}", super::harness::free_port());
    std::fs::write(&file, format!("[admin]\naddress = \"{address}\"\n")).unwrap();
    let (status, output) = passerelle(&["explain", "--config", file.to_str().unwrap(), "--live", "http://a/"]);
    assert_eq!(status.code(), Some(1));
    assert!(
        output.starts_with(&format!("passerelle: {address} does not explain as a gateway that runs: ")),
        "{output}"
    );
}

/// Slots, and who waits for them.
#[test]
fn a_running_gateway_tells_who_waits() {
    let backend = Fake::start(|mut connection| {
        connection.read_request();
        connection.hold();
    });
    let gateway =
        Setup::before([backend.url()]).upstream("slots = 1\nqueue = { size = 7, max_wait = \"60s\" }").start();
    let request =
        Request { listener: "http", method: "GET", target: "/", headers: vec![("Host".into(), "a".into())], body: "" };
    let server = |explanation: &Explanation| step(explanation, &format!("server {}", backend.url())).text.clone();
    let idle = live(&gateway, &request.asked());
    assert!(server(&idle).ends_with("; 0 in flight, 0 of 1 slots busy"), "{}", server(&idle));
    assert!(idle.provided.is_empty());
    let mut clients = Vec::new();
    for reached in [1.0, 2.0, 3.0] {
        clients.push(one_more(&gateway, reached));
    }
    let full = live(&gateway, &request.asked());
    assert!(server(&full).ends_with("; 1 in flight, 1 of 1 slots busy"), "{}", server(&full));
    assert_eq!(step(&full, "queue").text, "no slot is free: 2 of at most 7 wait, none for more than 60s");
    assert_eq!(full.provided, ["a slot is free in time"]);
    assert_eq!(gateway.metric("passerelle_upstream_queue_length", &[]), 2.0, "who only asks does not wait");
}

/// A client whose request is at the server or in the queue, as `reached` are with it.
fn one_more(gateway: &Gateway, reached: f64) -> Client<TcpStream> {
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is served or waits", || {
        let (busy, waits) = ("passerelle_upstream_slots_busy", "passerelle_upstream_queue_length");
        (gateway.metric(busy, &[]) + gateway.metric(waits, &[]) == reached).then_some(())
    });
    client
}

fn asked(method: &str, headers: &[(&str, &str)], body: Option<&str>) -> Asked {
    Asked {
        method: method.to_owned(),
        tls: false,
        host: Some("a".to_owned()),
        target: "/".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.map(|body| STANDARD.encode(body)),
        client: None,
        listener: None,
    }
}

/// Where no place is left the request is refused, and so says the explanation.
#[test]
fn full_places_are_told() {
    let backend = Fake::start(|mut connection| {
        let Some(request) = connection.read_request() else { return };
        if request.header("upgrade").is_some() {
            connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
        }
        connection.hold();
    });
    let gateway = Setup::before([backend.url()])
        .upstream("slots = 1\nqueue = { size = 1, max_wait = \"60s\" }\nmax_upgraded = 1");
    let gateway = gateway.start();
    let upgrade = [("Connection", "upgrade"), ("Upgrade", "lines")];
    let verdict = |headers: &[(&str, &str)]| {
        let explanation = live(&gateway, &asked("GET", headers, None));
        let (status, cause) = explanation.verdict();
        (status, cause.map(str::to_owned))
    };
    let answered = |headers: &[(&str, &str)]| {
        let answer = Client::connect(gateway.port("http")).ask("GET", "/", headers);
        (Some(answer.status), Some(answer.cause()))
    };
    assert_eq!(verdict(&upgrade), (None, None));
    let mut tunnel = Client::connect(gateway.port("http"));
    assert_eq!(tunnel.ask("GET", "/", &upgrade).status, 101);
    let full = (Some(503), Some("too_many_upgraded".to_owned()));
    assert_eq!((verdict(&upgrade), answered(&upgrade)), (full.clone(), full));

    let mut clients = Vec::new();
    for reached in [1.0, 2.0] {
        assert_eq!(verdict(&[]), (None, None));
        clients.push(one_more(&gateway, reached));
    }
    let full = (Some(503), Some("queue_full".to_owned()));
    assert_eq!((verdict(&[]), answered(&[])), (full.clone(), full));
}

/// What is found too long only while it comes, and what validation reads of it.
#[test]
fn bodies_fare_as_is_told() {
    let backend = Fake::ok();
    let json = "validate = { content_types = [\"application/json\"], max_body = \"4 KiB\" }\n";
    let schema = "validate = { body_schema = \"any.json\" }\n";
    let small = "buffer = { memory = \"1 KiB\", disk = \"0 B\" }\n";
    let body = |length: usize| format!("\"{}\"", "7".repeat(length - 2));
    for (route, length, expected) in [
        ("max_body = \"2 KiB\"", 1000, None),
        ("max_body = \"2 KiB\"", 3000, Some("body_too_large")),
        ("max_body = \"2 KiB\"\nbuffer = { request = false }", 3000, Some("body_too_large")),
        (small, 1000, None),
        (small, 3000, Some("body_past_buffer")),
        (&format!("{json}{small}"), 3000, Some("body_past_buffer")),
        (&format!("{json}{small}"), 5000, Some("body_too_large")),
        (&format!("{schema}{small}"), 1000, None),
        (&format!("{schema}{small}"), 3000, Some("body_past_buffer")),
    ] {
        let gateway = Gateway::start_with(&Setup::before([backend.url()]).route(route).text(), |directory, _| {
            std::fs::write(directory.join("any.json"), "{}").unwrap();
        });
        let (snapshot, body) = (snapshot(&gateway), body(length));
        for stated in [true, false] {
            let stated_length = length.to_string();
            let framing = if stated { ("Content-Length", &*stated_length) } else { ("Transfer-Encoding", "chunked") };
            let headers = [("Content-Type", "application/json"), framing];
            let question = asked("POST", &headers, Some(&body));
            let sent = if stated { body.clone() } else { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") };
            let mut client = Client::connect(gateway.port("http"));
            client.send(super::harness::http::head("POST", "/", &headers) + &sent);
            let answer = client.answer();
            let became = (answer.status != 200).then(|| answer.cause());
            assert_eq!(became.as_deref(), expected, "{route} {length} {stated}: {}", answer.text());
            for explanation in [offline(&snapshot, &question), live(&gateway, &question)] {
                let (_, cause) = explanation.verdict();
                assert_eq!(cause, expected, "{route} {length} {stated}\n{}", explanation.human());
            }
        }
    }
}

/// Whoever cannot be asked is told with the key to look at.
#[test]
fn who_else_answers_is_told() {
    let backend = Fake::ok();
    let config = "[admin]\naddress = \"127.0.0.1:@admin@\"\ntoken = \"s3cret-admin-token\"\n\
                  [listener.https]\naddress = \"127.0.0.1:@https@\"\n\
                  [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]\n"
        .to_owned()
        + &Setup::before([backend.url()]).text();
    let certificate = Certificate::new(&["localhost"]);
    let gateway = Gateway::start_with(&config, |directory, _| certificate.write(directory, "site"));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("passerelle.toml");
    let ask = |listener: &str, token: &str| {
        let text = format!("[admin]\naddress = \"127.0.0.1:{}\"\n{token}\n", gateway.port(listener));
        std::fs::write(&file, text).unwrap();
        let (status, output) = passerelle(&["explain", "--config", file.to_str().unwrap(), "--live", "http://a/"]);
        assert_eq!(status.code(), Some(1), "{output}");
        output
    };
    for token in ["", "token = \"s3cret-other-token-\""] {
        let told = ask("admin", token);
        assert!(told.ends_with("; token of [admin] must be the one that it runs with\n"), "{told}");
    }
    for listener in ["http", "https"] {
        let told = ask(listener, "");
        assert!(told.ends_with("; address of [admin] says where it is\n"), "{told}");
    }
}

/// Of a server whose address is drawn from a secret only its number is told.
#[test]
fn a_secret_address_is_not_told() {
    let backend = Fake::ok();
    let gateway = shop(&backend.url());
    let host = Some("drawn.example.com".to_owned());
    let explanation = live(&gateway, &Asked { host, listener: Some("https".into()), ..asked("GET", &[], None) });
    assert_eq!(step(&explanation, "server 1").decision, Decision::Passed);
    assert!(matches!(&explanation.outcome, Outcome::Forwarded(sent) if sent.next.as_deref() == Some("server 1")));
    assert!(!format!("{explanation:?}").contains("127.0.0.77"), "{explanation:?}");
}
