//! Reloads of large configurations, while requests come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::http::Client;
use crate::harness::{Fake, Gateway, Setup};

/// With so many routes, each with what routes have.
fn start(url: String, routes: usize) -> Gateway {
    let more: String = (0..routes)
        .map(|number| {
            let host = if number % 4 == 0 { format!("host = \"h{}.example\"\n", number % 20) } else { String::new() };
            format!(
                "[route.r{number}]\npath = \"/service{number}/items/{{id}}\"\n{host}methods = [\"GET\", \"POST\"]\n\
                 upstream = \"app\"\nlimits = [\"per_client\"]\n\
                 [route.r{number}.headers.response]\nset = {{ \"X-Service\" = \"service{number}\" }}\n"
            )
        })
        .collect();
    let limit = "[limit.per_client]\nrate = \"1000000/s\"\nkey = \"client_ip\"\n";
    Setup::before([url]).rest(limit).rest(&more).start()
}

/// The thread that compiles snapshots: what it has run so far, and by how much it yields.
fn aside(gateway: &Gateway) -> (Duration, i64) {
    let threads = std::fs::read_dir(gateway.proc("task")).unwrap().map(|thread| thread.unwrap().path());
    let mut named = threads.filter(|thread| std::fs::read_to_string(thread.join("comm")).unwrap().trim() == "aside");
    let thread = named.next().expect("a thread for reloads");
    let ran = std::fs::read_to_string(thread.join("schedstat")).unwrap();
    let stat = std::fs::read_to_string(thread.join("stat")).unwrap();
    // The name, in brackets, is the second field; the nineteenth is what is looked for.
    let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
    (Duration::from_nanos(ran.split(' ').next().unwrap().parse().unwrap()), nice)
}

/// Reloads some times; the processor time that each took of that thread.
fn cost(gateway: &Gateway) -> Duration {
    const TIMES: u32 = 4;
    let before = aside(gateway).0;
    for _ in 0..TIMES {
        let (status, output) = gateway.reload();
        assert!(status.success(), "{output}");
    }
    (aside(gateway).0 - before) / TIMES
}

#[test]
fn a_thousand_routes_are_reloaded_beside_requests() {
    let fake = Fake::ok();
    let (few, many) = (start(fake.url(), 250), start(fake.url(), 1000));
    let stop = AtomicBool::new(false);
    let (cost_of_few, cost_of_many, slowest, asked) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut client = Client::connect(many.port("http"));
            let (mut slowest, mut asked) = (Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = client.ask("GET", "/service1/items/7", &[]);
                slowest = slowest.max(begun.elapsed());
                assert_eq!(answer.header("x-service"), Some("service1"), "{answer:?}");
                asked += 1;
            }
            (slowest, asked)
        });
        let costs = (cost(&few), cost(&many));
        stop.store(true, Ordering::Relaxed);
        let (slowest, asked) = asking.join().unwrap();
        (costs.0, costs.1, slowest, asked)
    });
    println!("250 routes {cost_of_few:?}, 1000 routes {cost_of_many:?}, slowest of {asked} requests {slowest:?}");
    assert_eq!(aside(&many).1, 5, "what compiles yields to what serves");
    // Four times as many; sixteen times as much would be each compared with all.
    assert!(cost_of_many < 8 * cost_of_few, "250 routes take {cost_of_few:?}, 1000 take {cost_of_many:?}");
    assert!(asked > 10 && slowest < Duration::from_secs(1), "the slowest of {asked} requests took {slowest:?}");
}
