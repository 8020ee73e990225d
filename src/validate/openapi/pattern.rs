//! Patterns of documents. They are matched in linear time, which leaves out looking ahead and back; but the usual ways
//! of looking ahead can be said in another way, and what cannot is left out and told.

use serde_json::{Value, json};

use crate::validate::schema::{Formats, Schema as Rules, Surroundings};

/// What a pattern becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// It can be used as it is.
    Plain,
    /// Schemas that must all hold instead.
    Split(Vec<Value>),
    /// It cannot be matched in linear time.
    Unusable,
}

/// `^(?=.*[0-9])(?!admin).{8,}$` says three things of one text: each can be looked for on its own, as long as nothing
/// stands before the looking ahead and there are no alternatives to the whole.
pub(super) fn read(pattern: &str) -> Pattern {
    if is_usable(pattern) {
        return Pattern::Plain;
    }
    let split = split(pattern).filter(|parts| parts.iter().all(|(_, part)| is_usable(part)));
    split.map_or(Pattern::Unusable, |parts| Pattern::Split(parts.into_iter().map(schema).collect()))
}

fn is_usable(pattern: &str) -> bool {
    Rules::compile_measured(&json!({"pattern": pattern}), Surroundings::default(), Formats::Ignore).is_ok()
}

/// Whether the text must match, or must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    Match,
    Differ,
}

fn schema((demand, pattern): (Demand, String)) -> Value {
    match demand {
        Demand::Match => json!({"pattern": pattern}),
        // Of what is no string nothing is said.
        Demand::Differ => json!({"not": {"type": "string", "pattern": pattern}}),
    }
}

fn split(pattern: &str) -> Option<Vec<(Demand, String)>> {
    let mut rest = pattern.strip_prefix('^')?;
    let mut parts = Vec::new();
    loop {
        let (demand, after) = match (rest.strip_prefix("(?="), rest.strip_prefix("(?!")) {
            (Some(after), _) => (Demand::Match, after),
            (None, Some(after)) => (Demand::Differ, after),
            (None, None) => break,
        };
        let end = ends(after).close?;
        parts.push((demand, format!("^(?:{})", after.get(..end)?)));
        rest = after.get(end.saturating_add(1)..)?;
        // A group that may come any number of times says nothing.
        if rest.starts_with(['*', '?', '+', '{']) {
            return None;
        }
    }
    if parts.is_empty() || ends(rest).alternative {
        return None;
    }
    parts.push((Demand::Match, format!("^{rest}")));
    Some(parts)
}

struct Ends {
    /// Where the group closes that the text stands in.
    close: Option<usize>,
    /// Whether a `|` stands outside of all further groups.
    alternative: bool,
}

fn ends(text: &str) -> Ends {
    let (mut depth, mut class, mut alternative) = (0_usize, false, false);
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' if depth == 0 => return Ends { close: Some(at), alternative },
            ')' => depth -= 1,
            '|' if depth == 0 => alternative = true,
            _ => {}
        }
    }
    Ends { close: None, alternative }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a text is valid by what a pattern becomes.
    fn takes(pattern: &str, text: &str) -> bool {
        let Pattern::Split(parts) = read(pattern) else { panic!("{pattern}: {:?}", read(pattern)) };
        let rules = Rules::compile(&json!({"allOf": parts}), Surroundings::default(), Formats::Ignore).unwrap();
        assert!(rules.accepts(&json!(7)), "no string");
        rules.accepts(&json!(text))
    }

    #[test]
    fn looking_ahead_first_is_said_in_another_way() {
        // Pydantic's for Decimal.
        let decimal = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$";
        for (text, valid) in [("1.5", true), ("-07", true), ("", false), ("+.", false), ("1.5.", false), ("x", false)] {
            assert_eq!(takes(decimal, text), valid, "{text}");
        }
        let password = r"^(?=.*[a-z|)])(?=.*\d)(?!.*\()[^ ]{4,}$";
        for (text, valid) in [("abc1", true), ("1|||", true), ("abcd", false), ("ab1", false), ("ab1(", false)] {
            assert_eq!(takes(password, text), valid, "{text}");
        }
    }

    #[test]
    fn what_means_something_else_is_not_taken_apart() {
        assert_eq!(read("^a+$"), Pattern::Plain);
        for pattern in [r"a(?!b)", r"^(?!a)b|c", r"^(?=a)*b", r"(a)\1", r"^(?!(?!a)b)c", r"(?<=a)b", r"^(?=a"] {
            assert_eq!(read(pattern), Pattern::Unusable, "{pattern}");
        }
    }
}
