//! Start, reload, drain, and what signals do.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::backends;
use crate::harness::gateway::passerelle;
use crate::harness::http::{Client, get, head, try_get};
use crate::harness::process::Process;
use crate::harness::{Fake, Gateway, Setup, eventually};
use crate::websocket::WebSocket;

#[test]
fn a_hundred_reloads_under_load_cost_nothing() {
    let setup = Setup::before([backends::chat().url(), backends::orders_threads().url()])
        .rest("[upstream.chat]\nservers = [\"CHAT\"]\n[route.ws]\npath = \"/ws\"\nupstream = \"chat\"");
    let text = setup.text().replace("CHAT", &backends::chat().url());
    let mut gateway = Gateway::start(&text);
    let port = gateway.port("http");
    let mut sockets: Vec<WebSocket> = (0..5).map(|_| WebSocket::open(port, "/ws")).collect();
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (over, asked) = (&over, &asked);
            scope.spawn(move || {
                let mut client = Client::connect(port);
                while !over.load(Ordering::SeqCst) {
                    // Half of them over connections that are kept, half over new ones.
                    let answer = match number % 2 {
                        0 => client.ask("GET", "/healthz", &[]),
                        _ => get(port, "/healthz"),
                    };
                    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Whatever fails in here must end the load too.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..100 {
                let route = format!("headers = {{ response = {{ set = {{ X-Generation = \"{number}\" }} }} }}");
                let next = setup.clone().route(&route).text().replace("CHAT", &backends::chat().url());
                gateway.write_config(&next);
                let (status, output) = gateway.reload();
                assert!(status.success(), "{output}");
                assert_eq!(get(port, "/healthz").header("x-generation"), Some(number.to_string().as_str()));
                if number % 10 == 0 {
                    for socket in &mut sockets {
                        socket.echo(&format!("after reload {number}"));
                    }
                }
            }
        }));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    for socket in &mut sockets {
        socket.echo("at the end");
    }
    assert!(asked.load(Ordering::SeqCst) > 200, "hardly any load");
    assert!(gateway.metric("passerelle_reloads_total", &["result=\"success\""]) >= 100.0);
    assert_eq!(gateway.metric("passerelle_reloads_total", &["result=\"failure\""]), 0.0);
}

fn respond(text: &str) -> String {
    format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[route.all]\npath = \"/{{*rest}}\"\n\
         respond = {{ status = 200, body = \"{text}\", content_type = \"text/plain\" }}\n"
    )
}

#[test]
fn the_file_is_watched_and_sighup_reloads_too() {
    let mut gateway = Gateway::start(&respond("one"));
    assert_eq!(gateway.get("/").text(), "one");
    gateway.write_config(&respond("two"));
    eventually("the change is noticed", || (gateway.get("/").text() == "two").then_some(()));
    gateway.write_config(&respond("three"));
    gateway.signal(Signal::HUP);
    eventually("SIGHUP reloads", || (gateway.get("/").text() == "three").then_some(()));
}

#[test]
fn a_change_that_was_asked_for_is_not_noticed_once_more() {
    let mut gateway = Gateway::start(&respond("one"));
    let generation = |gateway: &Gateway| gateway.status()["configuration"]["generation"].as_u64();
    gateway.write_config(&respond("two"));
    let (status, output) = gateway.reload();
    assert!(status.success(), "{output}");
    // As long as files are left alone before they are read, and as long again for what must not happen.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(generation(&gateway), Some(2));
    gateway.write_config(&respond("three"));
    eventually("the next one is", || (gateway.get("/").text() == "three").then_some(()));
    assert_eq!(generation(&gateway), Some(3));
}

#[test]
fn a_bad_file_changes_nothing_and_says_so() {
    let mut gateway = Gateway::start(&respond("good"));
    let bad = respond("bad").replace("respond", "upstram = \"nowhere\"\nrespond");
    gateway.write_config(&bad);
    let (status, output) = gateway.reload();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("upstram") && output.contains("passerelle.toml"), "{output}");
    assert_eq!(gateway.get("/").text(), "good");
    gateway.metric_reaches("passerelle_reloads_total", &["result=\"failure\""], 1.0);
    let reload = &gateway.status()["configuration"]["last_reload"];
    assert_eq!(reload["result"], json!("failure"), "{reload}");
    gateway.write_config(&respond("better"));
    eventually("it recovers", || (gateway.get("/").text() == "better").then_some(()));
}

#[test]
fn a_reload_may_move_a_listener() {
    let mut gateway = Gateway::start(&respond("here"));
    let old = gateway.port("http");
    let mut kept = Client::connect(old);
    assert_eq!(kept.ask("GET", "/", &[]).text(), "here");
    gateway.write_config(&respond("there").replace("@http@", "@other@"));
    let (status, output) = gateway.reload();
    assert!(status.success(), "{output}");
    assert_eq!(get(gateway.port("other"), "/").text(), "there");
    eventually("the old address is given up", || try_get(old, "/").is_err().then_some(()));

    // A new address that cannot be had keeps everything as it is.
    let taken = Fake::ok();
    gateway.write_config(&respond("nowhere").replace("@http@", &taken.port().to_string()));
    let (status, output) = gateway.reload();
    assert!(!status.success());
    assert!(output.contains(&taken.port().to_string()), "{output}");
    assert_eq!(get(gateway.port("other"), "/").text(), "there");
}

#[test]
fn an_address_that_another_process_holds_is_a_clear_error() {
    let first = Gateway::start(&respond("first"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("second.toml");
    let text = respond("second").replace("@http@", &first.port("http").to_string());
    std::fs::write(&path, format!("[admin]\naddress = \"127.0.0.1:0\"\n{text}")).unwrap();
    let (status, output) = passerelle(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1), "{output}");
    let address = format!("127.0.0.1:{}", first.port("http"));
    assert!(output.contains(&address) && output.to_lowercase().contains("in use"), "{output}");
}

#[test]
fn sigterm_lets_requests_finish() {
    let gateway = Setup::before([backends::orders_threads().url()]).start();
    let port = gateway.port("http");
    let mut running = Client::connect(port);
    running.send(head("GET", "/slow?seconds=1.5", &[]));
    let mut idle = Client::connect(port);
    assert_eq!(idle.ask("GET", "/healthz", &[]).status, 200);
    eventually("it is in flight", || (gateway.metric("passerelle_requests_in_flight", &[]) >= 1.0).then_some(()));
    gateway.signal(Signal::TERM);
    idle.expect_close();
    eventually("no new connection is taken", || try_get(port, "/healthz").is_err().then_some(()));
    let answer = running.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    let (status, output) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn what_does_not_finish_in_time_is_ended() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway = Setup::before([fake.url()]).rest("[server]\nshutdown_grace = \"500ms\"").start();
    let mut running = Client::connect(gateway.port("http"));
    running.send(head("GET", "/", &[]));
    eventually("it is in flight", || (gateway.metric("passerelle_requests_in_flight", &[]) >= 1.0).then_some(()));
    let begun = Instant::now();
    let (status, output) = gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "the grace was 500 ms");
    assert!(status.code().is_some(), "{output}");
    assert!(running.try_answer_to("GET").map_or(true, |answer| answer.status == 503));
}

#[test]
fn who_still_waits_for_a_slot_when_the_grace_is_over_is_told_so() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway = Setup::before([fake.url()])
        .upstream("slots = 1\nqueue = { max_wait = \"60s\" }")
        .rest("[server]\nshutdown_grace = \"500ms\"")
        .start();
    let mut running = Client::connect(gateway.port("http"));
    running.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_upstream_slots_busy", &[], 1.0);
    let mut waiting = Client::connect(gateway.port("http"));
    waiting.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_upstream_queue_length", &[], 1.0);
    let (status, output) = gateway.stop();
    assert!(status.code().is_some(), "{output}");
    let answer = waiting.answer_to("GET");
    assert_eq!((answer.status, answer.cause().as_str()), (503, "shut_down"));
}

#[test]
fn an_open_websocket_lives_on_while_draining_and_not_beyond() {
    let gateway = Setup::before([backends::chat().url()]).rest("[server]\nshutdown_grace = \"3s\"").start();
    let port = gateway.port("http");
    let mut socket = WebSocket::open(port, "/ws");
    gateway.signal(Signal::TERM);
    eventually("no new connection is taken", || try_get(port, "/healthz").is_err().then_some(()));
    socket.echo("still here");
    let begun = Instant::now();
    let (status, output) = gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "the grace was 3 s");
    assert!(status.code().is_some(), "{output}");
}

#[test]
fn a_tunnel_that_is_cut_off_is_recorded_with_what_it_carried() {
    let gateway = Setup::before([backends::chat().url()]).rest("[server]\nshutdown_grace = \"500ms\"").start();
    let mut socket = WebSocket::open(gateway.port("http"), "/ws");
    socket.echo("some words");
    gateway.signal(Signal::TERM);
    let record = gateway.log_line("the tunnel's record", |line| line["status"] == 101);
    assert!(record["received"].as_u64() >= Some(10) && record["sent"].as_u64() >= Some(10), "{record}");
    assert_eq!(gateway.stop().0.code(), Some(0));
}

/// Makes the opening of a file block, as on a disk that hangs: the process returned holds a lease on it, and says when
/// somebody wants it.
fn hang(file: &Path) -> Process {
    const HOLD: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: print('wanted', flush=True))
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
while True:
    signal.pause()
";
    let holder = Process::start("python3", |command| {
        command.args(["-c", HOLD]).arg(file);
    });
    holder.output().find("the lease is held", |line| (line == "held").then_some(()));
    holder
}

#[test]
fn a_reload_that_hangs_on_a_disk_does_not_hold_up_the_end() {
    let gateway = Setup::before([backends::orders_threads().url()]).start();
    let holder = hang(&gateway.config_path());
    gateway.signal(Signal::HUP);
    holder.output().find("the reload hangs", |line| (line == "wanted").then_some(()));
    let begun = Instant::now();
    let (status, output) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(10), "nothing was open");
}

#[test]
fn while_draining_is_delayed_it_serves_on_but_is_not_ready() {
    let gateway = Gateway::start(&format!("[server]\ndrain_delay = \"2s\"\n{}", respond("still here")));
    assert_eq!(gateway.admin("/ready").status, 200);
    gateway.signal(Signal::TERM);
    let told = eventually("it is not ready", || {
        let answer = gateway.admin("/ready");
        (answer.status == 503).then_some(answer)
    });
    assert!(told.text().contains("draining"), "{told:?}");
    assert_eq!(gateway.admin("/live").status, 200);
    assert_eq!(gateway.get("/").text(), "still here");
    let (status, output) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn readiness_asks_for_the_upstreams_that_it_requires() {
    let fake = Fake::ok();
    let port = fake.port();
    let text = Setup::before([fake.url()])
        .upstream("health = { path = \"/\", interval = \"100ms\", fall = 1, rise = 1 }")
        .text();
    let text = format!(
        "[admin]\naddress = \"127.0.0.1:@admin@\"\nprobe_address = \"127.0.0.1:@probe@\"\nready_requires = [\"app\"]\n{text}"
    );
    let gateway = Gateway::start(&text);
    eventually("it is ready", || (gateway.admin("/ready").status == 200).then_some(()));
    assert_eq!(get(gateway.port("probe"), "/ready").status, 200);
    assert_eq!(get(gateway.port("probe"), "/live").status, 200);
    assert_eq!(get(gateway.port("probe"), "/metrics").status, 404);
    drop(fake);
    let told = eventually("it is not ready", || {
        let answer = gateway.admin("/ready");
        (answer.status == 503).then_some(answer)
    });
    assert!(told.text().contains("no_healthy_server"), "{told:?}");
    assert_eq!(gateway.admin("/live").status, 200);
    let _again = Fake::start_at(port, |mut connection| {
        while connection.read_request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    eventually("it is ready again", || (gateway.admin("/ready").status == 200).then_some(()));
}

#[test]
fn sockets_that_systemd_passes_are_served() {
    let text = respond("activated").replace("127.0.0.1:@http@", "systemd:web");
    let gateway = Gateway::start_with_sockets(&text, &["web"]);
    for _ in 0..20 {
        assert_eq!(get(gateway.port("web"), "/").text(), "activated");
    }
    let (status, output) = gateway.reload();
    assert!(status.success(), "{output}");
    assert_eq!(get(gateway.port("web"), "/").text(), "activated");
}

#[test]
fn a_socket_that_systemd_did_not_pass_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("passerelle.toml");
    let text = respond("x").replace("127.0.0.1:@http@", "systemd:web");
    std::fs::write(&path, format!("[admin]\naddress = \"127.0.0.1:0\"\n{text}")).unwrap();
    let (status, output) = passerelle(&["run", "--config", path.to_str().unwrap()]);
    assert!(!status.success());
    assert!(output.contains("web"), "{output}");
}

#[test]
fn systemd_is_told_when_it_is_ready_reloading_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let mut told = {
        let mut seen = String::new();
        move |word: &str| {
            while !seen.contains(word) {
                let mut message = [0; 4096];
                let length = socket.recv(&mut message).unwrap_or_else(|error| panic!("no {word}: {error} in {seen:?}"));
                seen.push_str(&String::from_utf8_lossy(&message[..length]));
                seen.push('\n');
            }
        }
    };
    let gateway = Gateway::start_with(&respond("x"), |_, command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    told("READY=1");
    gateway.reload();
    told("RELOADING=1");
    gateway.signal(Signal::TERM);
    told("STOPPING=1");
}

#[test]
fn the_log_file_is_reopened_on_sigusr1() {
    let gateway =
        Gateway::start(&format!("[log]\noutput = \"@dir@/gateway.log\"\nformat = \"json\"\n{}", respond("x")));
    let (log, moved) = (gateway.directory().join("gateway.log"), gateway.directory().join("gateway.log.1"));
    let holds = |path: &std::path::Path, id: &str| std::fs::read_to_string(path).unwrap_or_default().contains(id);
    let id = |response: crate::harness::Response| response.header("x-request-id").unwrap().to_owned();
    let first = id(gateway.get("/"));
    eventually("the first record", || holds(&log, &first).then_some(()));
    std::fs::rename(&log, &moved).unwrap();
    gateway.signal(Signal::USR1);
    eventually("the file is made anew", || log.exists().then_some(()));
    let second = id(gateway.get("/"));
    eventually("the second record", || holds(&log, &second).then_some(()));
    assert!(holds(&moved, &first) && !holds(&log, &first));
}

#[test]
fn http2_connections_are_told_to_go_away() {
    use crate::harness::http2::{Http2, exchange};
    use crate::harness::tls::{Certificate, client_config};
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([backends::orders_threads().url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _| certificate.write(directory, "site"));
    let config = client_config(&[&certificate], &["h2"], &[&rustls::version::TLS13]);
    let mut http2 = Http2::connect(gateway.port("https"), "localhost", &config);
    let signal = || gateway.signal(Signal::TERM);
    let (answer, later) = http2.run(async |sender| {
        let uri = "https://localhost/slow?seconds=1";
        let running = exchange(sender.clone(), http::Request::get(uri).body(()).unwrap(), b"");
        let term = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            signal();
        };
        let (answer, ()) = tokio::join!(running, term);
        let again = http::Request::get("https://localhost/healthz").body(()).unwrap();
        (answer, exchange(sender, again, b"").await)
    });
    assert_eq!(answer.unwrap().status(), 200);
    assert!(later.is_err(), "a new stream after GOAWAY: {later:?}");
    let (status, output) = gateway.stop();
    assert_eq!(status.code(), Some(0), "{output}");
}
