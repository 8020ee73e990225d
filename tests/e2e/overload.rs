//! More load than the workers can carry, from clients who give up: what of it is answered in time, compared with what
//! the workers can do. Everything is measured in the same run, so that the speed of the machine cancels out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::harness::backends::Backend;
use crate::harness::{Gateway, Setup};

/// How long a client waits for its answer.
const GIVES_UP: Duration = Duration::from_secs(1);

const WARMING_UP: Duration = Duration::from_secs(1);
const MEASURING: Duration = Duration::from_secs(5);

/// One request over one connection, which keeps its worker busy for so many seconds: by sleeping, since the processor is
/// not what is to be short here. Its status, and whether the connection can be used again.
async fn ask(connection: &mut TcpStream, seconds: f64) -> std::io::Result<(u16, bool)> {
    connection.write_all(format!("GET /slow?seconds={seconds} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if connection.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse::<usize>().unwrap() {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Ok((status, !head.contains("connection: close")));
        }
    }
}

/// Runs `load` on a thread of its own, and counts what it says was answered while it is measured. In a second.
fn measured<F: Future<Output = ()> + 'static>(load: impl FnOnce(Rc<dyn Fn()>) -> F) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let answered = Rc::new(Cell::new(0_u32));
    let count = {
        let answered = Rc::clone(&answered);
        move || {
            if (WARMING_UP..WARMING_UP + MEASURING).contains(&began.elapsed()) {
                answered.set(answered.get() + 1);
            }
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let _ = tokio::time::timeout(WARMING_UP + MEASURING, load(Rc::new(count))).await;
    });
    f64::from(answered.get()) / MEASURING.as_secs_f64()
}

/// What the workers can do: one client for each of them, which asks again as soon as it is answered.
fn capacity(ports: &[u16], seconds: f64) -> f64 {
    let ports = ports.to_vec();
    let capacity = measured(|answered| async move {
        for port in ports {
            for _ in 0..2 {
                let answered = Rc::clone(&answered);
                tokio::task::spawn_local(async move {
                    loop {
                        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                        assert_eq!(ask(&mut connection, seconds).await.unwrap().0, 200);
                        answered();
                    }
                });
            }
        }
        std::future::pending::<()>().await;
    });
    assert!(capacity > 0.0);
    capacity
}

/// So many requests a second, whatever becomes of those before. What is answered with 200 before its client gives up.
fn goodput(port: u16, rate: f64, seconds: f64) -> f64 {
    measured(move |answered| async move {
        let kept: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
        let began = Instant::now();
        let mut sent = 0_u32;
        loop {
            while f64::from(sent) < began.elapsed().as_secs_f64() * rate {
                sent += 1;
                let (kept, answered) = (Rc::clone(&kept), Rc::clone(&answered));
                tokio::task::spawn_local(async move {
                    let one = async {
                        let used = kept.borrow_mut().pop();
                        let mut connection = match used {
                            Some(connection) => connection,
                            None => TcpStream::connect(("127.0.0.1", port)).await?,
                        };
                        let (status, keep) = ask(&mut connection, seconds).await?;
                        if keep {
                            kept.borrow_mut().push(connection);
                        }
                        std::io::Result::Ok(status)
                    };
                    if let Ok(Ok(200)) = tokio::time::timeout(GIVES_UP, one).await {
                        answered();
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// Two servers of two workers each.
fn servers() -> [Backend; 2] {
    [(); 2].map(|()| Backend::gunicorn("orders", "app:app", &["--workers", "2"]))
}

fn gateway(backends: &[Backend; 2], slots: &str) -> Gateway {
    Setup::before([backends[0].url(), backends[1].url()])
        .upstream(&format!("slots = {slots}"))
        .rest("[log]\naccess = false")
        .start()
}

/// One test here at a time: they are about time.
static ALONE: Mutex<()> = Mutex::new(());

/// The best of eight: a machine that is busy with something else disturbs a run, and never makes it better.
fn share(what: &str, least: f64, mut run: impl FnMut() -> f64) {
    let mut seen = Vec::new();
    for _ in 0..8 {
        let share = run();
        seen.push(share);
        if share >= least {
            return;
        }
    }
    panic!("{what}: {seen:.3?} of what the workers can do, and not {least}");
}

#[test]
fn whatever_the_load_the_workers_do_what_is_still_wanted() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let backends = servers();
    let gateway = gateway(&backends, "2");
    let ports = [backends[0].port(), backends[1].port()];
    // Longer requests where the load is high: this shall not measure how fast a debug build refuses. Then there are fewer
    // to count, which end four at a time: the bound leaves room for one such step.
    for (times, seconds, least) in [(2.0, 0.1, 0.98), (5.0, 0.1, 0.98), (20.0, 0.2, 0.95)] {
        share(&format!("at {times} times the load"), least, || {
            let capacity = capacity(&ports, seconds);
            let share = goodput(gateway.port("http"), times * capacity, seconds) / capacity;
            eprintln!("at {times} times the load: {share:.3} of {capacity:.1} a second");
            share
        });
    }
}

#[test]
fn the_number_of_workers_is_learnt() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let backends = servers();
    let (learns, told) = (gateway(&backends, "\"auto\""), gateway(&backends, "2"));
    let rate = 2.0 * capacity(&[backends[0].port(), backends[1].port()], 0.05);
    // Ten seconds to learn in.
    goodput(learns.port("http"), rate, 0.05);
    goodput(learns.port("http"), rate, 0.05);
    share("with what was learnt", 0.95, || {
        let learnt = goodput(learns.port("http"), rate, 0.05);
        let slots = learns.status()["upstreams"][0]["servers"].clone();
        let share = learnt / goodput(told.port("http"), rate, 0.05);
        eprintln!("{share:.3}, {} and {} slots", slots[0]["slots"], slots[1]["slots"]);
        if slots[0]["slots"] == 2 && slots[1]["slots"] == 2 { share } else { 0.0 }
    });
}
