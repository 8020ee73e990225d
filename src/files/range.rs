//! `Range` (RFC 9110 section 14.2).

use std::ops::Range;

use http::header::RANGE;

use crate::headers::Headers;

/// Ranges of one request. Readers of PDF files ask for some dozens.
const MOST: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, one that is no range, or more of them than anybody needs.
    Whole,
    /// At least one, none empty, as they were asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads what is wanted of `length` bytes.
pub fn wanted(request: &Headers, length: u64) -> Wanted {
    let mut lines = request.get_all(RANGE);
    let (Some(line), None) = (lines.next(), lines.next()) else { return Wanted::Whole };
    parse(line.as_bytes(), length).unwrap_or(Wanted::Whole)
}

/// `None` for what is malformed, or of another unit than bytes.
fn parse(line: &[u8], length: u64) -> Option<Wanted> {
    let line = std::str::from_utf8(line).ok()?;
    let (unit, set) = line.split_once('=')?;
    if !unit.trim_end().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut parts = Vec::new();
    let mut count = 0usize;
    for part in set.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        count = count.saturating_add(1);
        if count > MOST {
            return None;
        }
        let (first, last) = part.split_once('-')?;
        let range = if first.is_empty() {
            let last = number(last)?;
            // Of nothing the last bytes are nothing, which no Content-Range can say.
            if length == 0 && last > 0 {
                return None;
            }
            length.saturating_sub(last)..length
        } else {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        };
        if range.start < range.end {
            parts.push(range);
        }
    }
    // Whoever asks for the same bytes again and again wants to make work.
    let sum = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.end.saturating_sub(part.start)));
    match (count, parts.is_empty()) {
        (0, _) => None,
        (_, true) => Some(Wanted::Unsatisfiable),
        (_, false) if sum > length => Some(Wanted::Whole),
        (_, false) => Some(Wanted::Parts(parts)),
    }
}

/// Digits alone; what is past any length is the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> Option<Vec<(u64, u64)>> {
        match parse(line.as_bytes(), 100) {
            Some(Wanted::Parts(parts)) => Some(parts.into_iter().map(|part| (part.start, part.end)).collect()),
            _ => None,
        }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parts("bytes=0-0"), Some(vec![(0, 1)]));
        assert_eq!(parts("bytes=10-"), Some(vec![(10, 100)]));
        assert_eq!(parts("bytes=-10"), Some(vec![(90, 100)]));
        assert_eq!(parts("bytes=-1000"), Some(vec![(0, 100)]));
        assert_eq!(parts("bytes=90-1000"), Some(vec![(90, 100)]));
        assert_eq!(parts("BYTES=5-6 , ,7-8,"), Some(vec![(5, 7), (7, 9)]));
        assert_eq!(parts("bytes=50-59,0-9,200-"), Some(vec![(50, 60), (0, 10)]));
        assert_eq!(parts("bytes=0-18446744073709551616"), Some(vec![(0, 100)]));
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        for line in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1-2-3",
            "bytes= 1 - 2",
            "bytes=+1-2",
            "lines=1-2",
            "bytes=1-2,x",
            "bytes:1-2",
            "bytes=0x1-2",
        ] {
            assert_eq!(parse(line.as_bytes(), 100), None, "{line}");
        }
        assert_eq!(parse(b"bytes=-5", 0), None);
    }

    #[test]
    fn nothing_that_is_there() {
        for line in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=18446744073709551616-"] {
            assert_eq!(parse(line.as_bytes(), 100), Some(Wanted::Unsatisfiable), "{line}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Some(Wanted::Unsatisfiable));
    }

    #[test]
    fn whoever_asks_for_more_than_there_is_gets_what_there_is() {
        assert_eq!(parse(b"bytes=0-,0-", 100), Some(Wanted::Whole));
        assert_eq!(parse(b"bytes=0-59,40-99", 100), Some(Wanted::Whole));
        let many = |count: u64| {
            let list: Vec<String> = (0..count).map(|at| format!("{at}-{at}")).collect();
            parse(format!("bytes={}", list.join(",")).as_bytes(), 100)
        };
        assert!(matches!(many(64), Some(Wanted::Parts(parts)) if parts.len() == 64));
        assert_eq!(many(65), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_sent_is_never_more_than_there_is(line in "bytes=[0-9,-]{0,30}", length in 0u64..1000) {
            if let Some(Wanted::Parts(parts)) = parse(line.as_bytes(), length) {
                let sum: u64 = parts.iter().map(|part| part.end - part.start).sum();
                proptest::prop_assert!(sum <= length && !parts.is_empty());
                proptest::prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            }
        }
    }
}
