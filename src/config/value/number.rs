//! Numbers with units: durations, sizes, rates, shares.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::node::Node;
use super::super::settings::Rate;

const DURATION: &str = "a duration such as \"30s\"";
const SIZE: &str = "a size such as \"64 KiB\"";
const RATE: &str = "a rate such as \"50/s\"";
const SPEED: &str = "a speed such as \"8 KiB/s\"";
const PERCENT: &str = "a share such as \"20%\"";

/// Ten years: longer is a slip, and a timer that far ahead still fits every clock.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// A duration of zero or more.
pub(in super::super) fn duration(node: &Node<'_>) -> Option<Duration> {
    duration_as(node, DURATION)
}

/// The same, where `takes` says what else is possible.
pub(in super::super) fn duration_as(node: &Node<'_>, takes: &str) -> Option<Duration> {
    if node.is_integer() {
        return node.wrong_type_with(takes, "write a unit too: ms, s, m, h or d, in quotes");
    }
    let text = node.text(takes)?;
    match parse_duration(&text.text) {
        Some(duration) if duration <= LONGEST => Some(duration),
        Some(_) => node.refuse(format!("{} takes at most 3650d", node.key)),
        None => node.refuse_with(
            format!("{} takes {takes}, not {}", node.key, text.quoted()),
            "write a whole number and one of ms, s, m, h, d",
        ),
    }
}

/// A duration of more than zero.
pub(in super::super) fn timeout(node: &Node<'_>) -> Option<Duration> {
    let duration = duration(node)?;
    if duration.is_zero() { node.refuse(format!("{} must be longer than zero", node.key)) } else { Some(duration) }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Bytes, within `bounds`.
pub(in super::super) fn size(node: &Node<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
    let (bytes, shown) = match node.plain_integer() {
        Some(written) => written,
        None => {
            let text = node.text(SIZE)?;
            (parse_size(&text.text), text.quoted())
        }
    };
    let Some(bytes) = bytes else {
        return node.refuse_with(
            format!("{} takes {SIZE}, not {shown}", node.key),
            "write a whole number and one of B, KiB, MiB, GiB, TiB",
        );
    };
    if !bounds.contains(&bytes) {
        let (low, high) = (shown_size(*bounds.start()), shown_size(*bounds.end()));
        return node.refuse(format!("{} takes a size from {low} to {high}, not {shown}", node.key));
    }
    Some(bytes)
}

/// Likewise, for what is held in memory.
pub(in super::super) fn memory_size(node: &Node<'_>, bounds: RangeInclusive<u64>) -> Option<usize> {
    size(node, bounds).and_then(|bytes| usize::try_from(bytes).ok())
}

fn parse_size(text: &str) -> Option<u64> {
    if let Ok(bytes) = text.trim().parse() {
        return Some(bytes);
    }
    let (number, unit) = split_unit(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn shown_size(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", bytes.checked_div(*unit).unwrap_or(0)),
        None => format!("{bytes} B"),
    }
}

/// So many in a second, a minute or an hour.
pub(in super::super) fn rate(node: &Node<'_>) -> Option<Rate> {
    if node.is_integer() {
        return node.wrong_type_with(RATE, "write what it is counted over too: /s, /min or /h, in quotes");
    }
    let text = node.text(RATE)?;
    match parse_rate(&text.text) {
        Some(rate) => Some(rate),
        None => node.refuse_with(
            format!("{} takes {RATE}, not {}", node.key, text.quoted()),
            "write a whole number from 1 and one of /s, /min, /h",
        ),
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (number, unit) = text.split_once('/')?;
    let per = match unit.trim() {
        "s" => 1,
        "min" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    let count = digits(number.trim())?;
    Some(Rate { count: NonZeroU32::new(u32::try_from(count).ok()?)?, per: Duration::from_secs(per) })
}

/// Bytes in a second, at least one.
pub(in super::super) fn speed(node: &Node<'_>) -> Option<NonZeroU64> {
    if node.is_integer() {
        return node.wrong_type_with(SPEED, "write a size and /s, in quotes");
    }
    let text = node.text(SPEED)?;
    match parse_speed(&text.text) {
        Some(speed) => Some(speed),
        None => node.refuse_with(
            format!("{} takes {SPEED}, not {}", node.key, text.quoted()),
            "write a size of at least 1 B, in B, KiB, MiB or GiB, and /s",
        ),
    }
}

fn parse_speed(text: &str) -> Option<NonZeroU64> {
    let size = text.trim().strip_suffix("/s")?;
    split_unit(size)?;
    parse_size(size.trim_end()).and_then(NonZeroU64::new)
}

/// A share of 0 to 100.
pub(in super::super) fn percent(node: &Node<'_>) -> Option<u32> {
    if node.is_integer() {
        return node.wrong_type_with(PERCENT, "write it with a percent sign, in quotes");
    }
    let text = node.text(PERCENT)?;
    let share = text.text.trim().strip_suffix('%').and_then(digits).and_then(|share| u32::try_from(share).ok());
    match share.filter(|share| *share <= 100) {
        Some(share) => Some(share),
        None => node.refuse_with(
            format!("{} takes {PERCENT}, not {}", node.key, text.quoted()),
            "write a whole number from 0 to 100 and a percent sign",
        ),
    }
}

/// An integer from 1 to `high`.
pub(in super::super) fn count(node: &Node<'_>, high: u32) -> Option<NonZeroU32> {
    node.integer(1..=u64::from(high)).and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new)
}

/// Likewise, as a length.
pub(in super::super) fn length(node: &Node<'_>, high: u32) -> Option<NonZeroUsize> {
    count(node, high).and_then(|value| NonZeroUsize::try_from(value).ok())
}

/// "64 KiB" in its parts.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((digits(number)?, unit.trim_start()))
}

/// Digits alone: `parse` would also take a sign.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("24h"), Some(Duration::from_secs(86400)));
        assert_eq!(parse_duration("365d"), Some(Duration::from_secs(365 * 86400)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for wrong in
            ["", "s", "30", "-1s", "+1s", "1.5s", "1h30m", "30 sec", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64 KiB"), Some(65536));
        assert_eq!(parse_size("10MiB"), Some(10 << 20));
        assert_eq!(parse_size("2 GiB"), Some(2 << 30));
        assert_eq!(parse_size("512 B"), Some(512));
        assert_eq!(parse_size("512"), Some(512));
        for wrong in ["", "KiB", "64 KB", "64 kib", "-1 B", "1.5 MiB", "18446744073709551615 TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        assert_eq!(shown_size(1 << 20), "1 MiB");
        assert_eq!(shown_size(1025), "1025 B");
    }

    #[test]
    fn speeds() {
        assert_eq!(parse_speed("8 KiB/s").map(NonZeroU64::get), Some(8192));
        assert_eq!(parse_speed("1MiB /s").map(NonZeroU64::get), Some(1 << 20));
        for wrong in ["", "/s", "8 KiB", "0 B/s", "8/s", "8 KiB/min", "8 kbit/s"] {
            assert_eq!(parse_speed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates() {
        let rate = |count, per| Some(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(per) });
        assert_eq!(parse_rate("50/s"), rate(50, 1));
        assert_eq!(parse_rate("1000/min"), rate(1000, 60));
        assert_eq!(parse_rate("7 / h"), rate(7, 3600));
        for wrong in ["", "50", "0/s", "-1/s", "50/d", "4294967296/s", "/s"] {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
    }
}
