//! Limits that are counted in the process: by what, how often, how many at once, and what a client is told.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::http::{Client, head};
use crate::harness::{Fake, Gateway, Response, Setup, eventually};

/// One route with the limit `some`.
fn limited(fake: &Fake, limit: &str) -> Setup {
    Setup::before([fake.url()]).route("limits = [\"some\"]").rest(&format!("[limit.some]\n{limit}"))
}

fn ask(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask("GET", target, headers)
}

fn statuses(count: usize, mut ask: impl FnMut() -> Response) -> Vec<u16> {
    (0..count).map(|_| ask().status).collect()
}

#[test]
fn a_request_too_many_is_refused_and_told_when_to_come_again() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"\nburst = 2").start();
    let first = gateway.get("/");
    assert_eq!((first.status, first.header("retry-after")), (200, None));
    assert_eq!(first.header("ratelimit-policy"), Some("\"some\";q=2;w=7200"));
    assert_eq!(first.header("ratelimit"), Some("\"some\";r=1;t=3600"));
    assert_eq!(gateway.get("/").status, 200);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.cause().as_str()), (429, "rate_limited"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"some\";r=0;t={wait}").as_str()));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"some\";q=2;w=7200"));
    assert_eq!(fake.requests().len(), 2, "what is refused reaches no server");
    let record = gateway.access_record(&refused);
    assert_eq!((record["cause"].as_str(), record["detail"].as_str()), (Some("rate_limited"), Some("limit `some`")));
    gateway.metric_reaches("passerelle_denied_total", &["route=\"all\"", "rule=\"limit.some\""], 1.0);
    assert_eq!(gateway.metric("passerelle_limit_keys", &["limit=\"some\""]), 1.0);
}

#[test]
fn a_bucket_fills_at_its_rate() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"50/s\"\nburst = 50").start();
    let mut client = Client::connect(gateway.port("http"));
    let began = Instant::now();
    let mut admitted = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        match client.ask("GET", "/", &[]).status {
            200 => admitted += 1,
            other => assert_eq!(other, 429),
        }
    }
    let most = 50.0 + 50.0 * began.elapsed().as_secs_f64();
    // It asks all the time: even if it has to stand still for a while, the bucket is never full and nothing is lost.
    assert!(f64::from(admitted) <= most && f64::from(admitted) >= most * 0.8, "{admitted} of {most}");
}

#[test]
fn without_a_burst_a_second_s_worth_may_come_at_once() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"150/min\"\nkey = \"route\"").start();
    assert_eq!(gateway.get("/").header("ratelimit"), Some("\"some\";r=2;t=1"));
}

#[test]
fn clients_are_counted_by_address() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"").start();
    let from = |address: &str| Client::connect_from(address, gateway.port("http")).ask("GET", "/", &[]).status;
    let statuses: Vec<u16> = ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.3"].map(from).to_vec();
    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[test]
fn ipv6_clients_are_counted_by_network_and_mapped_ones_as_ipv4() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"").listener("trusted_proxies = [\"127.0.0.1\"]").start();
    let from = |client: &str| ask(&gateway, "/", &[("X-Forwarded-For", client)]).status;
    assert_eq!((from("2001:db8::1"), from("2001:db8::ffff:1"), from("2001:db8:0:1::1")), (200, 429, 200));
    assert_eq!((from("192.0.2.1"), from("::ffff:192.0.2.1"), from("192.0.2.2")), (200, 429, 200));
}

#[test]
fn fields_are_counted_by_value_and_their_absence_too() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"\nkey = \"header:X-Tenant\"").start();
    let with = |values: &[&str]| {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("X-Tenant", *value)).collect();
        ask(&gateway, "/", &headers).status
    };
    assert_eq!((with(&["a"]), with(&["b"]), with(&["a"])), (200, 200, 429));
    assert_eq!((with(&[]), with(&[]), with(&[""])), (200, 429, 200));
    assert_eq!((with(&["c", "d"]), with(&["c, d"]), with(&["d", "c"])), (200, 429, 200));
}

#[test]
fn routes_share_a_limit_unless_it_counts_by_route() {
    let fake = Fake::ok();
    let other = "[route.other]\npath = \"/other\"\nupstream = \"app\"\nlimits = [\"some\"]";
    let gateway = limited(&fake, "rate = \"1/h\"").rest(other).start();
    assert_eq!((gateway.get("/").status, gateway.get("/other").status), (200, 429));
    let gateway = limited(&fake, "rate = \"1/h\"\nkey = \"route\"").rest(other).start();
    assert_eq!((gateway.get("/").status, gateway.get("/other").status), (200, 200));
    assert_eq!((gateway.get("/").status, gateway.get("/other").status), (429, 429));
}

#[test]
fn callers_of_open_routes_count_by_address_in_a_space_of_their_own() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"\nkey = \"subject\"")
        .rest("[limit.by_address]\nrate = \"1/h\"")
        .rest("[route.both]\npath = \"/both\"\nupstream = \"app\"\nlimits = [\"by_address\"]")
        .start();
    assert_eq!(statuses(2, || gateway.get("/")), [200, 429]);
    assert_eq!(statuses(2, || gateway.get("/both")), [200, 429]);
    assert_eq!(Client::connect_from("127.0.0.2", gateway.port("http")).ask("GET", "/", &[]).status, 200);
}

#[test]
fn all_limits_of_a_route_hold_and_are_told() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()])
        .rest("[limit.wide]\nrate = \"10/h\"\nburst = 10\n[limit.narrow]\nrate = \"1/min\"\nconcurrent = 4")
        .rest("[defaults]\nlimits = [\"wide\", \"narrow\"]")
        .rest("[route.free]\npath = \"/free\"\nupstream = \"app\"\nlimits = []")
        .start();
    let first = gateway.get("/");
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"wide\";q=10;w=3600, \"narrow\";q=1;w=60, \"narrow/concurrent\";q=4;qu=\"concurrent-requests\"")
    );
    assert_eq!(first.header("ratelimit"), Some("\"wide\";r=9;t=360, \"narrow\";r=0;t=60, \"narrow/concurrent\";r=3"));
    gateway.access_record(&first); // its place is given back once the answer has ended
    let refused = gateway.get("/");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 429 && (50..=60).contains(&wait), "{refused:?}");
    let told = refused.header("ratelimit").unwrap();
    assert!(told.ends_with("\"narrow/concurrent\";r=4"), "what is refused holds no place: {told}");
    assert_eq!(gateway.access_record(&refused)["detail"].as_str(), Some("limit `narrow`"));
    let free = gateway.get("/free");
    assert_eq!((free.status, free.header("ratelimit"), free.header("ratelimit-policy")), (200, None, None));
}

#[test]
fn a_route_may_take_the_fields_away() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"")
        .route("headers = { response = { remove = [\"RateLimit\", \"RateLimit-Policy\"] } }")
        .start();
    let answers = [gateway.get("/"), gateway.get("/")];
    assert_eq!([answers[0].status, answers[1].status], [200, 429]);
    for answer in &answers {
        assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), (None, None));
    }
    assert!(answers[1].header("retry-after").is_some());
}

/// A server whose answers stay without their end until they are told to go on.
fn halting() -> (Fake, impl Fn()) {
    let (sender, receiver) = channel::<()>();
    let receiver = Arc::new(Mutex::new(receiver));
    let fake = Fake::start(move |mut connection| {
        while let Some(request) = connection.read_request() {
            if request.target() == "/quick" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            } else {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
                let _ = receiver.lock().unwrap().recv();
                connection.send("half");
            }
        }
    });
    (fake, move || sender.send(()).unwrap())
}

#[test]
fn a_place_is_held_until_the_answer_has_ended() {
    let (fake, go_on) = halting();
    let gateway = limited(&fake, "concurrent = 1").start();
    let mut first = Client::connect(gateway.port("http"));
    let answer = first.send(head("GET", "/", &[])).read_head().unwrap();
    assert_eq!(answer.header("ratelimit"), Some("\"some/concurrent\";r=0"));
    let refused = gateway.get("/quick");
    assert_eq!((refused.status, refused.cause().as_str()), (429, "too_many_at_once"));
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit")),
        (Some("1"), Some("\"some/concurrent\";r=0"))
    );
    assert_eq!(Client::connect_from("127.0.0.2", gateway.port("http")).ask("GET", "/quick", &[]).status, 200);
    go_on();
    assert_eq!(first.read_exactly(8).unwrap(), b"halfhalf");
    eventually("the place is free again", || (gateway.get("/quick").status == 200).then_some(()));
    eventually("no key is left", || {
        (gateway.metric("passerelle_limit_keys", &["limit=\"some\""]) == 0.0).then_some(())
    });
}

#[test]
fn a_place_is_given_back_when_the_client_leaves() {
    let (fake, _go_on) = halting();
    let gateway = limited(&fake, "concurrent = 1\nrate = \"1000/s\"\nburst = 100000").start();
    let mut first = Client::connect(gateway.port("http"));
    first.send(head("GET", "/", &[])).read_head().unwrap();
    assert_eq!(gateway.get("/quick").status, 429);
    drop(first);
    eventually("the place is free again", || (gateway.get("/quick").status == 200).then_some(()));
}

#[test]
fn a_tunnel_holds_its_place_to_its_end() {
    let fake = Fake::start(|mut connection| {
        let request = connection.read_request().unwrap();
        if request.header("upgrade").is_some() {
            connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
            connection.hold();
        } else {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let gateway = limited(&fake, "concurrent = 1").start();
    let mut tunnel = Client::connect(gateway.port("http"));
    assert_eq!(tunnel.ask("GET", "/", &[("Connection", "upgrade"), ("Upgrade", "x")]).status, 101);
    assert_eq!(gateway.get("/").status, 429);
    drop(tunnel);
    eventually("the place is free again", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn keys_without_room_share_one_bucket_and_none_is_evicted() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"\nburst = 2\nkey = \"header:X-Tenant\"\nmax_keys = 2").start();
    let from = |tenant: &str| ask(&gateway, "/", &[("X-Tenant", tenant)]).status;
    assert_eq!((from("a"), from("b")), (200, 200));
    assert_eq!(["c", "d", "e", "f"].map(from), [200, 200, 429, 429], "these share");
    assert_eq!([from("a"), from("b"), from("a"), from("b")], [200, 200, 429, 429], "these have their own");
    assert_eq!(gateway.metric("passerelle_limit_keys", &["limit=\"some\""]), 2.0);
    assert_eq!(gateway.metric("passerelle_limit_overflow_total", &["limit=\"some\""]), 4.0);
}

#[test]
fn a_reload_keeps_what_was_counted_where_the_limit_stays_the_same() {
    let fake = Fake::ok();
    let setup = limited(&fake, "rate = \"2/h\"\nburst = 1");
    let mut gateway = setup.start();
    assert_eq!(statuses(2, || gateway.get("/")), [200, 429]);
    gateway.write_config(&setup.clone().route("methods = [\"GET\"]").text());
    assert!(gateway.reload().0.success());
    assert_eq!(gateway.get("/").status, 429);
    gateway.write_config(&limited(&fake, "rate = \"2/h\"\nburst = 2").text());
    assert!(gateway.reload().0.success());
    assert_eq!(statuses(3, || gateway.get("/")), [200, 200, 429], "another limit begins anew");
}

/// Two partners, with these keys.
const PARTNERS: &str = "[auth.partners]\nkind = \"api_key\"\nheader = \"X-API-Key\"\nkeys = [\n\
    { name = \"acme\", hash = \"sha256:d8f1b86a08a78d73da63ff7cd6e5bfec64cbe49f8db0f22e3fff5a2fb6462715\" },\n\
    { name = \"bolt\", hash = \"sha256:d7a662d8c5b55431a45f604c7f526a687c95b293844e42315edaae95ce228016\" },\n]\n";
const ACME: &str = "acme-key-0123456789abcdef0123456789";
const BOLT: &str = "bolt-key-0123456789abcdef0123456789";

#[test]
fn callers_count_by_who_they_are_and_only_once_that_is_known() {
    for key in ["subject", "api_key"] {
        let fake = Fake::ok();
        let gateway = limited(&fake, &format!("rate = \"1/h\"\nkey = \"{key}\""))
            .route("auth = [\"partners\"]")
            .rest(PARTNERS)
            .start();
        let with = |key: &str| ask(&gateway, "/", &[("X-API-Key", key)]).status;
        for _ in 0..3 {
            assert_eq!(with("acme-key-of-somebody-else-012345678901"), 401, "whoever is not known uses nothing up");
        }
        assert_eq!([with(ACME), with(ACME), with(BOLT), with(BOLT)], [200, 429, 200, 429], "{key}");
        let from = Client::connect_from("127.0.0.2", gateway.port("http")).ask("GET", "/", &[("X-API-Key", ACME)]);
        assert_eq!(from.status, 429, "wherever they come from");
        assert_eq!(gateway.metric("passerelle_limit_keys", &["limit=\"some\""]), 2.0);
    }
}

#[test]
fn a_flood_of_bad_credentials_is_stopped_before_they_are_judged() {
    let fake = Fake::ok();
    let gateway = limited(&fake, "rate = \"1/h\"\nburst = 3").route("auth = [\"partners\"]").rest(PARTNERS).start();
    let with = |key: &str| ask(&gateway, "/", &[("X-API-Key", key)]);
    let statuses: Vec<u16> = (0..6).map(|index| with(&format!("made-up-{index}")).status).collect();
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429]);
    assert_eq!(with(ACME).status, 429, "the client is refused, not the credential");
    assert_eq!(gateway.metric("passerelle_denied_total", &["rule=\"auth\""]), 3.0, "the others were not judged");
    assert!(fake.requests().is_empty());
}
