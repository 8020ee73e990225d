//! What the tests are made of: processes, the gateway, backends, clients.

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

pub use fake::Fake;
pub use gateway::{Gateway, Setup};
pub use http::Response;
pub use redis::Redis;

/// Longer than anything here takes, even on a busy machine: what has not happened by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `look` again and again until it finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody listened on a moment ago, and that no other test here is given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
