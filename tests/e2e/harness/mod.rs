//! What the tests are made of: processes, the gateway, backends, clients.

pub mod apps;
pub mod backends;
pub mod fake;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod idp;
pub mod process;
pub mod redis;
pub mod tls;
pub mod uwsgi;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use apps::Site;
pub use fake::Fake;
pub use gateway::{Gateway, Setup};
pub use http::Response;
pub use redis::Redis;

/// Longer than anything here takes, even on a busy machine: what has not happened by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `look` again and again until it finds something.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_every(Duration::from_millis(10), what, look)
}

/// The same, for what is a lot of work to look at.
pub fn eventually_every<T>(pause: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen within {PATIENCE:?}: {what}");
        std::thread::sleep(pause);
    }
}

/// A port that nobody listened on a moment ago, that no other test here is given, and that the kernel gives to nobody by
/// itself: whatever asks it for a port in the meantime gets another.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut range = range.split_ascii_whitespace().map(|end| end.parse::<u16>().unwrap());
    let (first, last) = (range.next().unwrap(), range.next().unwrap());
    loop {
        // Any of them, since another run of the tests may look at the same time.
        let port = fastrand::u16(10_000..);
        if (first..=last).contains(&port) || TcpListener::bind(("127.0.0.1", port)).is_err() {
            continue;
        }
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
