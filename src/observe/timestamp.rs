//! Times as RFC 3339 writes them.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time as text, in UTC with microseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::new();
    timestamp(&mut out, time);
    String::from_utf8(out).unwrap_or_default()
}

/// The same without parts of a second.
pub fn rfc3339_seconds(time: SystemTime) -> String {
    let text = rfc3339(time);
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Appends an RFC 3339 time in UTC with microseconds.
pub(super) fn timestamp(out: &mut Vec<u8>, now: SystemTime) {
    thread_local! {
        /// The last second that was written, and how.
        static SECOND: RefCell<(u64, [u8; 20])> = const { RefCell::new((u64::MAX, [0; 20])) };
    }
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            let mut fresh = text.as_mut_slice();
            let (year, month, day) = date(since.as_secs() / 86_400);
            let of_day = since.as_secs() % 86_400;
            let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            let _ = write!(fresh, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.");
        }
        out.extend_from_slice(text);
    });
    let _ = write!(out, "{:06}Z", since.subsec_micros());
}

/// Year, month and day of the Gregorian calendar, by the count of days since 1970-01-01. Years begin in March here, so
/// that the odd day of a leap year comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(20_454), (2026, 1, 1));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let mut out = Vec::new();
        timestamp(&mut out, UNIX_EPOCH + Duration::new(1_700_000_000, 1_002_000));
        timestamp(&mut out, UNIX_EPOCH + Duration::new(1_700_000_000, 999_999_999));
        timestamp(&mut out, UNIX_EPOCH + Duration::new(1_700_000_001, 0));
        let expected = "2023-11-14T22:13:20.001002Z2023-11-14T22:13:20.999999Z2023-11-14T22:13:21.000000Z";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
