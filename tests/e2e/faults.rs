//! Servers that are killed, restarted, hang, answer garbage or stop in the middle: a clear error or a replay, never a
//! hang, never a wrong body.

use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::backends::Backend;
use crate::harness::http::{Client, head};
use crate::harness::{Fake, Setup, eventually, free_port};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// Asks until told to stop, and counts the answers and how many were not 200. A 200 must be whole and right; an answer
/// that breaks off, which a server that dies in the middle of it must lead to, counts as a failure.
fn load<T>(port: u16, threads: usize, during: impl FnOnce() -> T) -> (usize, usize) {
    let over = AtomicBool::new(false);
    let (answers, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                while !over.load(Ordering::SeqCst) {
                    client.send(head("GET", "/download?bytes=20000", &[]));
                    let keeps = match client.try_answer_to("GET") {
                        Ok(answer) => {
                            match answer.status {
                                200 => check_download(&answer.body, 20_000),
                                502..=504 => {
                                    failures.fetch_add(1, Ordering::SeqCst);
                                    assert!(!answer.cause().is_empty());
                                }
                                other => panic!("{other}: {answer:?}"),
                            }
                            answer.header("connection") != Some("close")
                        }
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::WouldBlock, "an answer hangs");
                            failures.fetch_add(1, Ordering::SeqCst);
                            false
                        }
                    };
                    if !keeps {
                        client = Client::connect(port);
                    }
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        during();
        over.store(true, Ordering::SeqCst);
    });
    (answers.into_inner(), failures.into_inner())
}

fn check_download(body: &[u8], length: usize) {
    assert_eq!(body.len(), length);
    assert!(body.iter().enumerate().all(|(at, &byte)| byte as usize == at % 251), "a wrong body");
}

#[test]
fn a_server_killed_under_load_is_hardly_noticed() {
    let mut first = Backend::gunicorn("orders", "app:app", &["--workers", "2"]);
    let second = Backend::gunicorn("orders", "app:app", &["--threads", "8"]);
    let gateway = Setup::before([first.url(), second.url()]).start();
    let (answers, failures) = load(gateway.port("http"), 4, || {
        std::thread::sleep(Duration::from_millis(500));
        first.kill();
        std::thread::sleep(Duration::from_millis(1500));
        first.start_again();
        std::thread::sleep(Duration::from_millis(500));
    });
    assert!(answers > 50, "hardly any load: {answers}");
    // Every GET that lost its server is replayed on the other; only an answer that had already begun is past saving.
    assert!(failures <= 4 + answers / 100, "{failures} of {answers} failed");
}

#[test]
fn workers_that_are_recycled_under_load_cost_no_request() {
    let server = Backend::gunicorn("orders", "app:app", &["--workers", "2", "--threads", "4"]);
    let gateway = Setup::before([server.url()]).start();
    let (answers, failures) = load(gateway.port("http"), 4, || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(600));
            server.recycle();
        }
        std::thread::sleep(Duration::from_millis(600));
    });
    assert_eq!(failures, 0, "of {answers}");
}

#[test]
fn a_server_that_is_not_there_is_named_so() {
    let gateway = Setup::before([format!("http://127.0.0.1:{}", free_port())]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_connect_refused"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let later = gateway.get("/");
    assert!([502, 503].contains(&later.status), "{later:?}");
}

#[test]
fn a_request_of_which_nothing_was_sent_goes_to_another_server_whatever_its_method() {
    let fake = Fake::ok();
    let gateway = Setup::before([format!("http://127.0.0.1:{}", free_port()), fake.url()]).start();
    for number in 0..10 {
        let answer = Client::connect(gateway.port("http")).ask_with("POST", &format!("/{number}"), &[], b"once");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(fake.requests().len(), 10);
    assert!(fake.requests().iter().all(|request| request.body == b"once"));
}

/// A server that reads a request and closes, the first so many times.
fn closes_first(times: usize) -> Fake {
    let left = AtomicUsize::new(times);
    Fake::start(move |mut connection| {
        while connection.read_request().is_some() {
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return;
            }
            connection.send(OK);
        }
    })
}

#[test]
fn an_idempotent_request_without_an_answer_is_replayed() {
    for method in ["GET", "PUT", "DELETE"] {
        let fake = closes_first(2);
        let gateway = Setup::before([fake.url()]).start();
        let answer = Client::connect(gateway.port("http")).ask_with(method, "/", &[], b"again");
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        assert_eq!(fake.requests().len(), 3);
        assert!(fake.requests().iter().all(|request| request.body == b"again"));
    }
}

#[test]
fn any_other_request_without_an_answer_is_never_replayed() {
    let fake = closes_first(1);
    let gateway = Setup::before([fake.url()]).start();
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], b"once");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn a_large_body_that_is_held_is_replayed() {
    let fake = closes_first(1);
    let gateway = Setup::before([fake.url()]).start();
    let answer = Client::connect(gateway.port("http")).ask_with("PUT", "/", &[], &vec![b'x'; 300_000]);
    assert_eq!(answer.status, 200);
    let requests = fake.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.body == vec![b'x'; 300_000]));
}

#[test]
fn a_large_body_that_is_no_longer_held_is_not_replayed() {
    let fake = closes_first(1);
    let gateway = Setup::before([fake.url()]).route("buffer = { request = false }").start();
    let answer = Client::connect(gateway.port("http")).ask_with("PUT", "/", &[], &vec![b'x'; 300_000]);
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn replays_stop_where_the_attempts_end() {
    let fake = closes_first(100);
    let gateway = Setup::before([fake.url()]).upstream("retry = { attempts = 1 }").start();
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn a_kept_connection_that_closes_as_it_is_used_costs_no_request() {
    // Each connection answers once and then closes on the second request: what gunicorn does when its keep-alive runs
    // out at the wrong moment.
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send(OK);
        connection.read_head();
        connection.reset();
    });
    let gateway = Setup::before([fake.url()]).start();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
}

/// What is not sent again says that it was a kept connection: nothing has to be wrong with the server.
#[test]
fn a_post_that_a_kept_connection_loses_is_told_from_one_that_a_worker_loses() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send(OK);
        connection.read_head();
        connection.reset();
    });
    let gateway = Setup::before([fake.url()]).start();
    assert_eq!(gateway.get("/").status, 200);
    let cause = "upstream_kept_connection_closed";
    // Its worker may have another thread's connections kept.
    let lost = eventually("a kept connection is used", || {
        let answer = Client::connect(gateway.port("http")).ask("POST", "/", &[("Content-Length", "0")]);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((lost.status, lost.cause().as_str()), (502, cause));
    let record = gateway.access_record(&lost);
    assert_eq!((record["cause"].as_str(), record["attempts"].as_u64()), (Some(cause), Some(1)));
    assert_eq!(gateway.metric("passerelle_rejections_total", &[&format!("cause=\"{cause}\"")]), 1.0);
    assert_eq!(gateway.status()["upstreams"][0]["servers"][0]["state"], "up");
}

#[test]
fn connections_are_kept_and_given_up_before_the_server_closes_them() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()]).upstream("timeouts = { keep_alive = \"300ms\" }").start();
    let mut client = Client::connect(gateway.port("http"));
    for _ in 0..5 {
        assert_eq!(client.ask("GET", "/", &[]).status, 200);
    }
    assert_eq!(fake.connections(), 1);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.ask("GET", "/", &[]).status, 200);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn what_is_not_an_answer_is_a_502() {
    let cases: &[(&str, &str, &str)] = &[
        ("garbage", "this is not HTTP\r\n\r\n", "upstream_invalid_response"),
        ("an old version", "HTTP/0.9 200 OK\r\n\r\n", "upstream_invalid_response"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", "upstream_invalid_response"),
        ("a status of no kind", "HTTP/1.1 999999 OK\r\nContent-Length: 0\r\n\r\n", "upstream_invalid_response"),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n",
            "upstream_invalid_response",
        ),
        ("an odd length", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nok\n", "upstream_invalid_response"),
        (
            "a length beside chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
            "upstream_invalid_response",
        ),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx", "upstream_invalid_response"),
        ("a folded field", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n", "upstream_invalid_response"),
        (
            "a blank before a colon",
            "HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 0\r\n\r\n",
            "upstream_invalid_response",
        ),
        (
            "a control character",
            "HTTP/1.1 200 OK\r\nX: \u{7}\r\nContent-Length: 0\r\n\r\n",
            "upstream_invalid_response",
        ),
        ("another protocol", "-ERR unknown command\r\n", "upstream_invalid_response"),
        ("one letter of it", "S", "upstream_invalid_response"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le", "upstream_closed_early"),
        ("nothing", "", "upstream_closed_early"),
        (
            "an upgrade that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "upstream_invalid_response",
        ),
    ];
    for (what, bytes, cause) in cases {
        let bytes = bytes.to_string();
        let fake = Fake::start(move |mut connection| {
            connection.read_request();
            connection.send(&bytes);
        });
        let gateway = Setup::before([fake.url()]).start();
        // A POST is not replayed, so the first answer is the last.
        let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], b"x");
        assert_eq!((answer.status, answer.cause().as_str()), (502, *cause), "{what}");
        let record = gateway.access_record(&answer);
        assert!(record.to_string().contains(cause), "{what}: {record}");
    }
}

#[test]
fn large_heads_pass_and_huge_ones_are_named_so() {
    let with = |length: usize| {
        let cookie = "x".repeat(length);
        Fake::answering(format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 3\r\n\r\nok\n"))
    };
    let large = with(60_000);
    let gateway = Setup::before([large.url()]).start();
    let answer = gateway.get("/");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("set-cookie").unwrap().len(), 60_000);

    let huge = with(65_536);
    let gateway = Setup::before([huge.url()]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_headers_too_large"));
}

#[test]
fn a_body_that_ends_too_early_is_never_passed_off_as_whole() {
    let cut = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n0\r\n",
    ];
    for bytes in cut {
        let fake = Fake::start(move |mut connection| {
            connection.read_request();
            connection.send(bytes);
        });
        let gateway = Setup::before([fake.url()]).start();
        let mut client = Client::connect(gateway.port("http"));
        client.send(head("GET", "/", &[]));
        match client.try_answer_to("GET") {
            Err(_) => {}
            // Where no byte of the body had left yet, the gateway may still say so.
            Ok(answer) => assert_eq!(answer.status, 502, "{bytes:?}: {answer:?}"),
        }
    }
}

#[test]
fn bytes_after_an_answer_end_the_connection_and_reach_nobody() {
    let fake = Fake::start(|mut connection| {
        while connection.read_request().is_some() {
            connection.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil\n",
            );
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    for _ in 0..5 {
        assert_eq!(client.ask("GET", "/", &[]).text(), "ok\n");
    }
    assert_eq!(fake.connections(), 5);
}

#[test]
fn a_server_that_hangs_is_given_up_in_time() {
    let fake = Fake::start(|mut connection| connection.hold());
    let gateway =
        Setup::before([fake.url()]).upstream("timeouts = { response = \"400ms\" }\nretry = { attempts = 0 }").start();
    let begun = Instant::now();
    let answer = Client::connect(gateway.port("http")).ask_with("POST", "/", &[], b"x");
    assert_eq!((answer.status, answer.cause().as_str()), (504, "upstream_timeout"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_route_s_own_time_outs_hold() {
    let fake = Fake::start(|mut connection| connection.hold());
    let setup = Setup::before([fake.url()])
        .upstream("retry = { attempts = 0 }")
        .rest("[route.quick]\npath = \"/quick\"\nupstream = \"app\"\ntimeouts = { response = \"200ms\" }");
    let answer = Client::connect(setup.start().port("http")).ask("GET", "/quick", &[]);
    assert_eq!((answer.status, answer.cause().as_str()), (504, "upstream_timeout"));
}

#[test]
fn a_body_that_stalls_is_cut_off() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        connection.hold();
    });
    let gateway = Setup::before([fake.url()]).upstream("timeouts = { between_bytes = \"400ms\" }").start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    let begun = Instant::now();
    assert!(client.try_answer_to("GET").map_or(true, |answer| answer.status == 504));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_frozen_server_is_a_504_and_answers_again_when_it_thaws() {
    let server = Backend::gunicorn("orders", "app:app", &["--threads", "4"]);
    let gateway = Setup::before([server.url()])
        .upstream("timeouts = { response = \"500ms\", connect = \"500ms\" }\nretry = { attempts = 0 }")
        .start();
    assert_eq!(gateway.get("/healthz").status, 200);
    server.freeze();
    let answer = gateway.get("/healthz");
    assert_eq!(answer.status, 504, "{answer:?}");
    server.thaw();
    crate::harness::eventually("it answers again", || (gateway.get("/healthz").status == 200).then_some(()));
}

#[test]
fn a_slow_client_head_and_a_slow_client_body_are_given_up() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()])
        .listener("header_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"")
        .start();
    let mut silent = Client::connect(gateway.port("http"));
    silent.send("GET / HTTP/1.1\r\nHost: a\r\nX-Unfini");
    let answer = silent.answer();
    assert_eq!((answer.status, answer.cause().as_str()), (408, "header_timeout"));
    silent.expect_close();

    let mut stalled = Client::connect(gateway.port("http"));
    stalled.send(head("POST", "/", &[("Content-Length", "10")])).send("half");
    let answer = stalled.answer_to("POST");
    assert_eq!((answer.status, answer.cause().as_str()), (408, "body_timeout"));
    stalled.expect_close();

    // Nothing is owed to a connection that has asked for nothing.
    let mut idle = Client::connect(gateway.port("http"));
    assert_eq!(idle.ask("GET", "/", &[]).status, 200);
    idle.expect_close();
}

#[test]
fn a_client_that_leaves_ends_the_request_at_the_server() {
    let (gone, told) = std::sync::mpsc::channel();
    let gone = Mutex::new(gone);
    let fake = Fake::start(move |mut connection| {
        connection.read_request();
        connection.hold();
        let _ = gone.lock().unwrap().send(());
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    client.send(head("GET", "/", &[]));
    crate::harness::eventually("the request arrives", || (!fake.requests().is_empty()).then_some(()));
    drop(client);
    told.recv_timeout(Duration::from_secs(10)).expect("the server is left alone");
}

/// What is not HTTP is not waited for, and told of.
#[test]
fn another_protocol_is_told_at_once() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send("SSH-2.0-OpenSSH_9.2\r\n");
        connection.hold();
    });
    let gateway = Setup::before([fake.url()]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_invalid_response"));
    assert_eq!(gateway.access_record(&answer)["detail"], "it begins with \"SSH-2.0-OpenSSH_9.2\\r\\n\"");
}

/// Of two attempts, the second's failure is told by itself.
#[test]
fn what_was_said_of_an_attempt_is_not_said_of_the_next() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.hold();
    });
    let refused = free_port();
    let gateway = Setup::before([format!("http://127.0.0.1:{refused}"), fake.url()])
        .upstream("balance = \"round_robin\"\ntimeouts = { response = \"200ms\" }")
        .start();
    let record = (0..2)
        .map(|_| gateway.access_record(&gateway.get("/")))
        .find(|record| record["attempts"] == 2)
        .expect("one of two begins with the first server");
    assert_eq!(
        (&record["cause"], &record["detail"]),
        (&"upstream_timeout".into(), &serde_json::Value::Null),
        "{record}"
    );
}

/// A worker that dies over its work is another matter than a connection whose time was up.
#[test]
fn a_kept_connection_that_closes_long_after_it_was_asked_is_a_worker_that_died() {
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        connection.read_request();
        std::thread::sleep(Duration::from_millis(500));
    });
    let gateway = Setup::before([fake.url()]).start();
    let mut client = Client::connect(gateway.port("http"));
    assert_eq!(client.ask("GET", "/", &[]).status, 200);
    let answer = client.ask_with("POST", "/", &[], b"once");
    assert_eq!((answer.status, answer.cause().as_str()), (502, "upstream_closed_early"));
    assert_eq!(fake.connections(), 1);
}
