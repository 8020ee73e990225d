//! `date` as every answer of a client has it (RFC 9110 section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use crate::clock;

/// Gives `write` the date, which each thread formats once a second.
pub(super) fn with(write: impl FnOnce(&[u8])) {
    thread_local! {
        static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = clock::recent_wall();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    NOW.with_borrow_mut(|(formatted, text)| {
        if *formatted != second || text.is_empty() {
            *formatted = second;
            *text = httpdate::fmt_http_date(now);
        }
        write(text.as_bytes());
    });
}
