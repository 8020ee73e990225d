//! Much at once and all of it bad: nothing is mixed up, nothing is left behind, nobody honest is cut off.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::http::{Client, head};
use crate::harness::{Fake, Gateway, Setup, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Descriptors that the gateway holds.
fn descriptors(gateway: &Gateway) -> f64 {
    gateway.metric("process_open_fds", &[])
}

/// Answers with what it was asked, and every so often does something else.
fn moody() -> Fake {
    let turn = AtomicUsize::new(0);
    Fake::start(move |mut connection| {
        while let Some(request) = connection.read_request() {
            let body = [request.target().as_bytes(), b"|", &request.body].concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let (half, rest) = body.split_at(body.len() / 2);
            match turn.fetch_add(1, Ordering::SeqCst) % 23 {
                3 => return,
                7 => return connection.reset(),
                9 => {
                    connection.send([head.as_bytes(), half].concat());
                    return;
                }
                11 => {
                    connection
                        .send([head.as_bytes(), &body, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"].concat());
                }
                13 => {
                    connection.send([b"HTTP/1.0 200 OK\r\n\r\n", &body[..]].concat());
                    return;
                }
                17 => {
                    let chunk = format!("{:x}\r\n", half.len());
                    let start = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk.as_bytes(), half];
                    connection.send([&start.concat()[..], b"\r\nno size\r\n", rest].concat());
                    return;
                }
                _ => {
                    connection.send([head.as_bytes(), &body].concat());
                }
            }
        }
    })
}

#[test]
fn no_answer_reaches_another_request_and_no_post_is_sent_twice() {
    let fakes = [moody(), moody()];
    let gateway = Setup::before([fakes[0].url(), fakes[1].url()]).upstream("retry = { budget = \"100%\" }").start();
    let (whole, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (gateway, whole, broken) = (&gateway, &whole, &broken);
            scope.spawn(move || {
                let mut client = Client::connect(gateway.port("http"));
                for round in 0..150 {
                    let (method, target) = (["GET", "POST", "PUT"][round % 3], format!("/{thread}-{round}"));
                    let body = vec![b'a' + (round % 26) as u8; if round % 3 == 0 { 0 } else { round * 97 }];
                    let request = head(method, &target, &[("Content-Length", &body.len().to_string())]);
                    if round % 31 == 30 {
                        // This one changes its mind.
                        client.send(&request[..request.len() - 3]);
                        client = Client::connect(gateway.port("http"));
                        continue;
                    }
                    client.send([request.as_bytes(), &body].concat());
                    let keeps = match client.try_answer_to(method) {
                        Ok(answer) if answer.status == 200 => {
                            assert!(answer.body == [target.as_bytes(), b"|", &body].concat(), "{target}: {answer:?}");
                            whole.fetch_add(1, Ordering::SeqCst);
                            answer.header("connection") != Some("close")
                        }
                        Ok(answer) => {
                            assert!((502..=504).contains(&answer.status), "{answer:?}");
                            answer.header("connection") != Some("close")
                        }
                        Err(_) => {
                            broken.fetch_add(1, Ordering::SeqCst);
                            false
                        }
                    };
                    if !keeps {
                        client = Client::connect(gateway.port("http"));
                    }
                }
            });
        }
    });
    assert!(
        whole.load(Ordering::SeqCst) > 400 && broken.load(Ordering::SeqCst) > 0,
        "{whole:?} whole, {broken:?} broken"
    );
    let mut posts: Vec<String> = fakes.iter().flat_map(Fake::requests).map(|request| request.head).collect();
    posts.retain(|head| head.starts_with("POST "));
    let mut targets: Vec<_> = posts.iter().map(|head| head.split(' ').nth(1)).collect();
    targets.sort_unstable();
    let sent = targets.len();
    targets.dedup();
    assert_eq!(targets.len(), sent, "a POST was sent twice");
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let fake = Fake::start(|mut connection| {
        while connection.read_request().is_some() {
            connection.send([b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", &[b'x'; 100_000][..]].concat());
        }
    });
    let gateway = Setup::before([fake.url()]).start();
    gateway.get("/");
    // Files are watched from soon after the start; what answers a reload has begun to.
    assert!(gateway.reload().0.success());
    let before = descriptors(&gateway);
    let starts = [
        "",
        "GET / HT",
        GET,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let mut client = Client::connect(gateway.port("http"));
                    client.send(starts[round % starts.len()]);
                    if round % 7 == 0 {
                        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                }
            });
        }
    });
    // What is kept to the server ends by itself as well.
    eventually("every descriptor is given back", || (descriptors(&gateway) <= before).then_some(()));
    // Those that were still to be accepted had no descriptor yet.
    eventually("no connection is open", || (gateway.metric("passerelle_connections_open", &[]) == 0.0).then_some(()));
    eventually("no request is in flight", || {
        (gateway.metric("passerelle_requests_in_flight", &[]) == 0.0).then_some(())
    });
}

#[test]
fn a_slow_reader_is_served_and_one_that_does_not_read_is_given_up() {
    const LENGTH: usize = 64 << 20;
    let fake = Fake::start(|mut connection| {
        connection.read_request();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
        while connection.send([b'x'; 65536]) {}
    });
    let gateway = Setup::before([fake.url()]).listener("body_timeout = \"1s\"").start();
    let start = |port| {
        let mut client = Client::connect(port);
        SockRef::from(&client.stream).set_recv_buffer_size(64 * 1024).unwrap();
        client.send(GET);
        client
    };
    let mut slow = start(gateway.port("http"));
    let stuck = start(gateway.port("http"));
    // More than what is granted without progress, at a rate that the kernel's own buffers would hide for longer.
    let (until, mut piece) = (Instant::now() + Duration::from_secs(3), vec![0; 32 * 1024]);
    while Instant::now() < until {
        assert!(slow.stream.read(&mut piece).unwrap() > 0);
        std::thread::sleep(Duration::from_millis(50));
    }
    let left = gateway.metric("passerelle_rejections_total", &["cause=\"client_stalled\""]);
    assert_eq!(left, 1.0, "the one that does not read, and no other");
    drop((slow, stuck));
}
