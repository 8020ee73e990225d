//! `RateLimit` and `RateLimit-Policy`, by which clients can slow down by themselves
//! (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! Both are lists of structured fields (RFC 9651), an item a rule. Names of limits are plain, so they stand in quotes
//! as they are; what counts requests at the same time is called `NAME/concurrent`, which no limit can be.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

use super::gcra::Room;
use crate::config::settings::{LimitRules, RateLimit};

pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a limit says of itself.
pub fn policy(name: &str, rules: &LimitRules) -> String {
    let mut text = String::new();
    if let Some(limit) = rules.rate() {
        let (quota, window) = quota(limit);
        // Writing to a string does not fail.
        let _ = write!(text, "\"{name}\";q={quota};w={window}");
    }
    if let Some(at_once) = rules.concurrent() {
        let between = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{between}\"{name}/concurrent\";q={at_once};qu=\"concurrent-requests\"");
    }
    text
}

/// The rate as it is configured, unless more than that may come at once: then the burst, and the seconds in which that
/// many may come.
fn quota(limit: &RateLimit) -> (u64, u64) {
    let (count, burst, per) =
        (u64::from(limit.rate.count.get()), u64::from(limit.burst.get()), limit.rate.per.as_secs());
    if burst <= count { (count, per) } else { (burst, burst.saturating_mul(per).div_ceil(count)) }
}

/// The policies of several limits as one value.
pub fn joined<'a>(policies: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let all: Vec<&str> = policies.collect();
    if all.is_empty() {
        return None;
    }
    HeaderValue::try_from(all.join(", ")).ok()
}

/// What is left of a rate: adds an item to the value of `RateLimit`.
pub fn write_rate(out: &mut Vec<u8>, name: &str, room: Room, second: u64) {
    let seconds = room.until.div_ceil(second.max(1));
    begin(out, name, b"");
    number(out, b";r=", room.left);
    number(out, b";t=", seconds);
}

/// How many more may come at the same time.
pub fn write_concurrent(out: &mut Vec<u8>, name: &str, left: u64) {
    begin(out, name, b"/concurrent");
    number(out, b";r=", left);
}

fn begin(out: &mut Vec<u8>, name: &str, what: &[u8]) {
    if out.is_empty() {
        out.reserve(name.len().saturating_add(32));
    } else {
        out.extend_from_slice(b", ");
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(what);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, parameter: &[u8], number: u64) {
    // RFC 9651 section 3.3.1: an integer has at most fifteen digits.
    const LARGEST: u64 = 999_999_999_999_999;
    out.extend_from_slice(parameter);
    out.extend_from_slice(itoa::Buffer::new().format(number.min(LARGEST)).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::settings::Rate;

    fn rate(count: u32, per: u64, burst: u32) -> RateLimit {
        let (count, burst) = (NonZeroU32::new(count).unwrap(), NonZeroU32::new(burst).unwrap());
        RateLimit { rate: Rate { count, per: Duration::from_secs(per) }, burst }
    }

    #[test]
    fn policies() {
        let ten = NonZeroU32::new(10).unwrap();
        assert_eq!(policy("a", &LimitRules::Rate(rate(1000, 60, 17))), "\"a\";q=1000;w=60");
        assert_eq!(policy("a", &LimitRules::Rate(rate(50, 1, 100))), "\"a\";q=100;w=2");
        assert_eq!(policy("a", &LimitRules::Rate(rate(2, 1, 5))), "\"a\";q=5;w=3");
        assert_eq!(policy("a", &LimitRules::Concurrent(ten)), "\"a/concurrent\";q=10;qu=\"concurrent-requests\"");
        assert_eq!(
            policy("a", &LimitRules::Both(rate(5, 1, 5), ten)),
            "\"a\";q=5;w=1, \"a/concurrent\";q=10;qu=\"concurrent-requests\""
        );
    }

    #[test]
    fn what_is_left() {
        let mut out = Vec::new();
        write_rate(&mut out, "a", Room { left: 99, until: 20_000_001 }, 1_000_000_000);
        write_concurrent(&mut out, "b", 3);
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\";r=99;t=1, \"b/concurrent\";r=3");
    }
}
