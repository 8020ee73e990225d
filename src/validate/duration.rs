//! `format: duration` in documents: ISO 8601 as Python services write it, with a sign and fractions, which the grammar of
//! RFC 3339 lacks.

/// Whether it is one such as `P3DT2H5.5S`, `PT0.5S` or `-P1W`.
pub(super) fn is_duration(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let Some(text) = text.strip_prefix('P') else { return false };
    let (days, time) = match text.split_once('T') {
        // Nothing follows the T.
        Some((_, "")) => return false,
        Some((days, time)) => (days, time),
        None => (text, ""),
    };
    let is_there = !(days.is_empty() && time.is_empty());
    // Only the last number may have a fraction.
    is_there && is_run(days, "YMWD", time.is_empty()) && is_run(time, "HMS", true)
}

/// Numbers, each with one of `units`, in their order.
fn is_run(text: &str, units: &str, may_end_in_fraction: bool) -> bool {
    let (mut rest, mut units) = (text, units);
    while !rest.is_empty() {
        let end = rest.find(|character: char| character.is_ascii_uppercase());
        let Some((number, after)) = end.and_then(|end| rest.split_at_checked(end)) else { return false };
        let mut characters = after.chars();
        let unit = characters.next().and_then(|unit| units.split_once(unit));
        rest = characters.as_str();
        let Some((_, smaller)) = unit else { return false };
        units = smaller;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = match number.split_once('.') {
            Some((whole, fraction)) => rest.is_empty() && may_end_in_fraction && digits(whole) && digits(fraction),
            None => digits(number),
        };
        if !fits {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pydantic_writes() {
        for text in
            ["PT0.5S", "-PT1S", "P3DT2H5.5S", "P1D", "PT1M", "+P1Y2M3DT4H5M6S", "P1W", "PT0S", "P0D", "-P3DT0.000001S"]
        {
            assert!(is_duration(text), "{text}");
        }
        for text in [
            "", "P", "PT", "P1DT", "1D", "P1", "P1H", "PT1D", "PT1S1M", "P1.5DT1S", "PT.5S", "PT1.S", "P-1D", "p1d",
            "P1D ", "PTS",
        ] {
            assert!(!is_duration(text), "{text}");
        }
    }
}
