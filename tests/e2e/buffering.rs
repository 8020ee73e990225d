//! What is held of bodies, where, and what happens at each bound.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::http::{Client, head};
use crate::harness::http2::{Http2, open};
use crate::harness::tls::{Certificate, client_config};
use crate::harness::{Fake, Gateway, Setup, eventually};

/// Answers with the length of what came, once it has come.
fn counts() -> Fake {
    Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            let length = request.body.len().to_string();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len()));
        }
    })
}

/// Bytes that tell where they stand.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends `head` and `length` bytes; counts how often it came to the end.
fn sends(head: &'static str, length: usize) -> (Fake, Arc<AtomicUsize>) {
    let done = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&done);
    let body = noise(length);
    let fake = Fake::start(move |mut connection| {
        while connection.read_request().is_some() {
            connection.send(head);
            if !body.chunks(1 << 16).all(|piece| connection.send(piece)) {
                return;
            }
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (fake, done)
}

fn nothing_is_held(gateway: &Gateway) {
    eventually("nothing is held any more", || {
        let held = ["passerelle_buffered_bytes", "passerelle_spooled_bodies"].map(|name| gateway.metric(name, &[]));
        (held == [0.0, 0.0]).then_some(())
    });
}

#[test]
fn a_server_hears_of_an_upload_once_it_has_come_whole() {
    let server = counts();
    let gateway = Setup::before([server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/a", &[("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]));
    assert_eq!(client.read_head().unwrap().status, 100);
    for _ in 0..100 {
        client.send(format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000)));
    }
    gateway.metric_reaches("passerelle_spooled_bytes_total", &["direction=\"request\""], 800_000.0);
    assert_eq!(server.connections(), 0);
    assert_eq!(gateway.status()["bodies"]["spooled"], 1);
    client.send("0\r\n\r\n");
    assert_eq!(client.answer_to("POST").text(), "1000000");
    let request = server.request();
    assert_eq!((request.header("content-length"), request.header("transfer-encoding")), (Some("1000000"), None));
    assert!(request.body.iter().all(|byte| *byte == b'x'));
    nothing_is_held(&gateway);
}

#[test]
fn many_uploads_at_once_are_not_mixed_up() {
    let server = Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            let (first, same) = (request.body[0], request.body.iter().all(|byte| *byte == request.body[0]));
            let answer = format!("{first} {same} {}", request.body.len());
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()));
        }
    });
    let gateway = Setup::before([server.url()]).start();
    let port = gateway.port("http");
    std::thread::scope(|scope| {
        for byte in 0..50_u8 {
            scope.spawn(move || {
                let length = 1000 + usize::from(byte) * 10_000;
                let answer = Client::connect(port).ask_with("POST", "/", &[], &vec![byte; length]);
                assert_eq!(answer.text(), format!("{byte} true {length}"));
            });
        }
    });
    nothing_is_held(&gateway);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_upload_takes_everything_with_it() {
    let server = counts();
    let gateway = Setup::before([server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Content-Length", "1000000")])).send(noise(500_000));
    gateway.metric_reaches("passerelle_spooled_bodies", &[], 1.0);
    drop(client);
    nothing_is_held(&gateway);
    assert_eq!(server.connections(), 0);
    gateway.metric_reaches("passerelle_rejections_total", &["cause=\"client_closed\""], 1.0);
    let record = gateway.log_line("its record", |line| line["cause"] == "client_closed");
    assert_eq!((&record["status"], &record["attempts"]), (&499.into(), &0.into()));
}

#[test]
fn a_large_upload_takes_no_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 200;
    let server = Fake::start(|mut connection| {
        let mut left = PIECE * PIECES;
        connection.read_head();
        while left > 0 {
            left -= connection.read_exactly(left.min(PIECE)).unwrap().len();
        }
        connection.send("HTTP/1.1 204 No Content\r\n\r\n");
    });
    let gateway = Setup::before([server.url()]).route("max_body = \"1 GiB\"").start();
    let most = || {
        let status = std::fs::read_to_string(gateway.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
        line.strip_suffix(" kB").unwrap().parse::<usize>().unwrap() / 1024
    };
    let before = most();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Content-Length", &(PIECE * PIECES).to_string())]));
    let piece = noise(PIECE);
    for _ in 0..PIECES {
        client.send(&piece);
    }
    assert_eq!(client.answer_to("POST").status, 204);
    assert!(most() < before + 32, "from {before} MiB to {} MiB", most());
}

#[test]
fn files_have_no_name_and_are_gone_with_the_process() {
    let server = counts();
    let config = Setup::before([server.url()]).rest("[server]\ntemp_directory = \"spool\"").text();
    let mut gateway = Gateway::start_with(&config, |directory, _| {
        std::fs::create_dir_all(directory.join("spool")).unwrap();
    });
    let spool = gateway.directory().join("spool");
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Content-Length", "1000000")])).send(noise(500_000));
    gateway.metric_reaches("passerelle_spooled_bodies", &[], 1.0);
    let real = std::fs::canonicalize(&spool).unwrap();
    let open: Vec<_> = std::fs::read_dir(gateway.proc("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to.starts_with(&real)))
        .map(|fd| std::fs::metadata(fd).unwrap())
        .collect();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].mode() & 0o777, open[0].nlink()), (0o600, 0));
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    gateway.kill();
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_held_is_refused_with_its_cause() {
    let server = counts();
    let config = Setup::before([server.url()])
        .route("buffer = { memory = \"10 KiB\", disk = \"490 KiB\" }")
        .rest("[server]\ntemp_directory = \"spool\"\ntemp_limit = \"300 KiB\"")
        .text();
    let gateway = Gateway::start_with(&config, |directory, _| {
        std::fs::create_dir_all(directory.join("spool")).unwrap();
    });
    let refused = |body: &[u8]| {
        let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], body);
        let record = gateway.access_record(&answer);
        assert_eq!(record["cause"], answer.cause());
        (answer.status, answer.cause(), record["detail"].as_str().unwrap_or_default().to_owned())
    };
    // At once, by its length.
    let mut early = Client::connect(gateway.port("http"));
    early.send(head("POST", "/", &[("Content-Length", "600000")]));
    assert_eq!(early.answer_to("POST").cause(), "body_past_buffer");
    assert_eq!(refused(&noise(400_000)).1, "temp_limit_reached");
    assert_eq!(refused(&noise(400_000)).0, 507);
    assert_eq!(Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &noise(200_000)).text(), "200000");
    std::fs::remove_dir(gateway.directory().join("spool")).unwrap();
    let (status, cause, detail) = refused(&noise(200_000));
    assert_eq!((status, cause.as_str()), (500, "temp_file_failed"));
    assert!(detail.contains("spool: No such file or directory"), "{detail}");
    assert_eq!(server.requests().len(), 1);
    nothing_is_held(&gateway);
}

/// A file system of this size, for as long as this lives.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount<'a>(path: &'a Path, size: &str) -> Small<'a> {
        let options = format!("size={size}");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success(), "a small file system can be mounted");
        Small(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}

#[test]
fn a_full_disk_refuses_uploads_and_slows_answers() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can mount a small file system");
        return;
    }
    let small = tempfile::tempdir().unwrap();
    let _mounted = Small::mount(small.path(), "512k");
    let (server, done) = sends("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n", 20_000_000);
    let rest = format!("[server]\ntemp_directory = {:?}", small.path());
    let gateway = Setup::before([server.url()]).rest(&rest).start();
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &noise(2_000_000));
    assert_eq!((answer.status, answer.cause().as_str()), (507, "disk_full"));
    let detail = gateway.access_record(&answer)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("No space left on device"), "{detail}");
    assert_eq!(server.requests().len(), 0);
    // An answer finds no room either; its server has to wait, and it comes whole.
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    gateway.metric_reaches("passerelle_spool_refused_total", &["direction=\"response\""], 1.0);
    assert_eq!(done.load(Ordering::SeqCst), 0);
    assert!(client.answer_to("GET").body == noise(20_000_000));
    gateway.log_line("the trouble", |line| line["cause"] == "disk_full" && line["level"] == "warn");
    nothing_is_held(&gateway);
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk_and_no_end() {
    let server = counts();
    let gateway = Setup::before([server.url()]).start();
    let id = std::fs::read_to_string(gateway.proc("stat")).unwrap().split(' ').next().unwrap().parse().unwrap();
    let limit = rustix::process::Rlimit { current: Some(300_000), maximum: Some(300_000) };
    let process = rustix::process::Pid::from_raw(id);
    rustix::process::prlimit(process, rustix::process::Resource::Fsize, limit).unwrap();
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &noise(1_000_000));
    assert_eq!((answer.status, answer.cause().as_str()), (507, "disk_full"));
    assert_eq!(Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &noise(200_000)).text(), "200000");
}

#[test]
fn no_word_of_a_client_lets_its_upload_hold_a_worker() {
    let server = counts();
    let gateway = Setup::before([server.url()]).start();
    for field in [
        ("X-Accel-Buffering", "no"),
        ("Content-Type", "text/event-stream"),
        ("Content-Type", "application/grpc"),
        ("Content-Type", "multipart/x-mixed-replace"),
    ] {
        let mut client = Client::connect(gateway.port("http"));
        let before = gateway.metric("passerelle_spooled_total", &["direction=\"request\""]);
        client.send(head("POST", "/", &[("Content-Length", "1000000"), field])).send(noise(500_000));
        gateway.metric_reaches("passerelle_spooled_total", &["direction=\"request\""], before + 1.0);
        assert_eq!(server.connections(), 0, "{field:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_more_is_told_from_one_that_left() {
    let (server, _) = sends("HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n", 40_000_000);
    let setup = Setup::before([server.url()]).listener("body_timeout = \"200ms\"");
    let gateway = setup.start();
    let mut client = asks(&gateway);
    let answer = client.read_head().unwrap();
    assert_eq!(gateway.access_record(&answer)["cause"], "client_stalled");
    nothing_is_held(&gateway);
}

/// Asks for `/` without reading the answer.
fn asks(gateway: &Gateway) -> Client<std::net::TcpStream> {
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    client
}

#[test]
fn a_server_is_done_with_a_response_that_its_client_does_not_read() {
    let (server, done) = sends("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n", 20_000_000);
    let gateway = Setup::before([server.url()]).rest("[server]\nworkers = 1").start();
    let mut client = asks(&gateway);
    eventually("the server has written everything", || (done.load(Ordering::SeqCst) == 1).then_some(()));
    eventually("its place is free", || {
        (gateway.metric("passerelle_upstream_requests_in_flight", &[]) == 0.0).then_some(())
    });
    assert_eq!(gateway.metric("passerelle_requests_in_flight", &["route=\"all\""]), 1.0);
    assert_eq!(gateway.metric("passerelle_spooled_bodies", &[]), 1.0);
    // Its connection serves the next one meanwhile.
    assert!(gateway.get("/").body == noise(20_000_000));
    assert_eq!(server.connections(), 1);
    let answer = client.answer_to("GET");
    assert!(answer.body == noise(20_000_000));
    let record = gateway.access_record(&answer);
    assert!(record["upstream_duration"].as_f64() < record["duration"].as_f64(), "{record}");
    nothing_is_held(&gateway);
}

#[test]
fn a_request_that_is_being_answered_is_held_no_longer() {
    let server = Fake::start(|mut connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        connection.hold();
    });
    let gateway = Setup::before([server.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("POST", "/", &[("Content-Length", "1000000")])).send(noise(1_000_000));
    assert_eq!(client.read_head().unwrap().status, 200);
    assert_eq!(client.read_exactly(5).unwrap(), b"first");
    nothing_is_held(&gateway);
    assert_eq!(gateway.metric("passerelle_spooled_total", &["direction=\"request\""]), 1.0);
}

#[test]
fn an_answer_that_nobody_reads_leaves_room_for_uploads_and_for_other_answers() {
    let answer = noise(40_000_000);
    let server = Fake::start(move |mut connection| {
        while let Some(request) = connection.read_request() {
            let body = if request.target() == "/large" { &answer[..] } else { b"ok" };
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
        }
    });
    let gateway = Setup::before([server.url()]).rest("[server]\ntemp_limit = \"8 MiB\"").start();
    let mut slow: Vec<_> = (0..3).map(|_| Client::connect(gateway.port("http"))).collect();
    for client in &mut slow {
        let before = gateway.metric("passerelle_spooled_bodies", &[]);
        client.send(head("GET", "/large", &[]));
        // However much the one before takes.
        gateway.metric_reaches("passerelle_spooled_bodies", &[], before + 1.0);
    }
    gateway.metric_reaches("passerelle_spool_refused_total", &["direction=\"response\""], 3.0);
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], &noise(1_500_000));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    for mut client in slow {
        assert!(client.answer_to("GET").body == noise(40_000_000));
    }
    nothing_is_held(&gateway);
}

#[test]
fn a_server_that_breaks_off_is_told_after_what_it_had_sent() {
    let fake = Fake::start({
        let body = noise(20_000_000);
        move |mut connection| {
            connection.read_request();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n");
            connection.send(&body);
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = asks(&gateway);
    eventually("the server is done with", || {
        let spooled = gateway.metric("passerelle_spooled_bodies", &[]) == 1.0;
        (spooled && gateway.metric("passerelle_upstream_requests_in_flight", &[]) == 0.0).then_some(())
    });
    let head = client.read_head().unwrap();
    assert_eq!(head.header("content-length"), Some("30000000"));
    assert!(client.read_exactly(20_000_000).unwrap() == noise(20_000_000));
    assert!(client.read_exactly(1).is_err());
    assert_eq!(gateway.access_record(&head)["cause"], "upstream_cut_short");
}

#[test]
fn streams_are_read_no_faster_than_their_clients_take_them() {
    for (head, route) in [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 20000000\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nContent-Length: 20000000\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n", "buffer = { response = false }"),
    ] {
        let (server, done) = sends(head, 20_000_000);
        let gateway = Setup::before([server.url()]).route(route).start();
        let mut client = asks(&gateway);
        let answer = client.read_head().unwrap();
        assert_eq!(answer.header("x-accel-buffering"), head.contains("Accel").then_some("no"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(done.load(Ordering::SeqCst), 0, "{head}");
        assert_eq!(gateway.metric("passerelle_spooled_total", &[]), 0.0);
        assert!(client.read_exactly(20_000_000).unwrap() == noise(20_000_000));
    }
}

#[test]
fn an_answer_that_pauses_is_a_stream_from_then_on() {
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let goes = std::sync::Mutex::new(goes);
    let (server, done) = {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let fake = Fake::start(move |mut connection| {
            connection.read_request();
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            goes.lock().unwrap().recv().unwrap();
            let chunk = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
            if (0..400).all(|_| connection.send(&chunk)) {
                connection.send("0\r\n\r\n");
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        (fake, done)
    };
    let gateway = Setup::before([server.url()]).route("buffer = { stream_after = \"50ms\" }").start();
    let mut client = asks(&gateway);
    client.read_head().unwrap();
    assert_eq!(client.read_chunk().unwrap(), Some(b"first".to_vec()), "each piece comes at once");
    std::thread::sleep(Duration::from_millis(100));
    go.send(()).unwrap();
    let mut length = client.read_chunk().unwrap().unwrap().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((done.load(Ordering::SeqCst), gateway.metric("passerelle_spooled_total", &[])), (0, 0.0));
    while let Some(chunk) = client.read_chunk().unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, 400 << 16);
}

#[test]
fn over_http2_a_stream_that_is_not_read_holds_no_server() {
    let (server, done) = sends("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", 2_000_000);
    let certificate = Certificate::new(&["localhost"]);
    let config = Setup::before([server.url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    let gateway = Gateway::start_with(&config.text(), |directory, _| certificate.write(directory, "site"));
    let mut client = Http2::connect(
        gateway.port("https"),
        "localhost",
        &client_config(&[&certificate], &["h2"], &[&rustls::version::TLS13]),
    );
    client.run(async |sender| {
        let request = http::Request::get("https://localhost/").body(()).unwrap();
        let (answer, _) = open(sender, request, true).await.unwrap();
        // Its window is never opened any further than at first, by 64 KiB.
        let mut stream = answer.await.unwrap().into_body();
        let wait = std::thread::spawn(move || {
            eventually("the server has written everything", || (done.load(Ordering::SeqCst) == 1).then_some(()));
        });
        while !wait.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        wait.join().unwrap();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece.unwrap();
            stream.flow_control().release_capacity(piece.len()).unwrap();
            body.extend_from_slice(&piece);
        }
        assert!(body == noise(2_000_000));
    });
    nothing_is_held(&gateway);
}

#[test]
fn uploads_that_trickle_end_and_those_that_are_fast_enough_do_not() {
    let server = counts();
    let gateway = Setup::before([server.url()]).route("min_upload_rate = \"4 KiB/s\"").start();
    let port = gateway.port("http");
    let honest = std::thread::spawn(move || {
        let mut client = Client::connect(port);
        client.send(head("POST", "/honest", &[("Content-Length", "65536")]));
        for _ in 0..64 {
            std::thread::sleep(Duration::from_millis(110));
            client.send([b'x'; 1024]);
        }
        client.answer_to("POST").text()
    });
    let mut client = Client::connect(port);
    client.send(head("POST", "/trickling", &[("Content-Length", "65536")]));
    client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (began, mut answer) = (Instant::now(), Vec::new());
    while !answer.ends_with(b"}\n") && began.elapsed() < Duration::from_secs(30) {
        let _ = client.stream.write_all(b"x");
        let mut piece = [0; 4096];
        if let Ok(read) = client.stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..read]);
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"upload_too_slow\""), "{answer}");
    assert!(began.elapsed() >= Duration::from_secs(5), "some seconds are granted: {:?}", began.elapsed());
    assert_eq!(honest.join().unwrap(), "65536");
    assert!(server.requests().iter().all(|request| request.target() == "/honest"));
}
