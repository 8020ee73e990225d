//! Versions of Python, and what projects demand of them: the part of PEP 440 that `requires-python` uses.

use std::cmp::Ordering;
use std::fmt;

/// The numbers of a release; what follows them (a release candidate's mark) is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(Vec<u32>);

impl Version {
    pub(super) fn new(numbers: &[u32]) -> Version {
        Version(numbers.to_vec())
    }

    /// `3.12`, `3.12.1`, `3.13.0rc1`; `None`: it does not begin with a number.
    pub(super) fn parse(text: &str) -> Option<Version> {
        let mut numbers = Vec::new();
        for part in text.trim().split('.') {
            let digits = part.len().saturating_sub(part.trim_start_matches(|c: char| c.is_ascii_digit()).len());
            let (number, rest) = part.split_at(digits);
            match number.parse() {
                Ok(number) => numbers.push(number),
                Err(_) => break,
            }
            if !rest.is_empty() {
                break;
            }
        }
        (!numbers.is_empty()).then_some(Version(numbers))
    }

    /// As PEP 440 has it: `3.12` and `3.12.0` are the same.
    fn compare(&self, other: &Version) -> Ordering {
        let length = self.0.len().max(other.0.len());
        self.padded(length).cmp(other.padded(length))
    }

    fn padded(&self, length: usize) -> impl Iterator<Item = u32> {
        self.0.iter().copied().chain(std::iter::repeat(0)).take(length)
    }

    pub(super) fn is_at_least(&self, other: &Version) -> bool {
        self.compare(other) != Ordering::Less
    }

    /// Whether it begins with these numbers.
    fn is_within(&self, series: &[u32]) -> bool {
        self.padded(series.len()).eq(series.iter().copied())
    }

    /// The first two numbers, by which interpreters are named: `3.12`.
    pub(super) fn minor(&self) -> Version {
        Version(self.0.iter().copied().take(2).collect())
    }

    pub(super) fn is_of_series(&self, series: &Version) -> bool {
        self.is_within(&series.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// What `.python-version` asks for: `3.12`, `3.12.1`, `cpython-3.12`. The first line that names a version counts; other
/// names (`system`, a virtual environment of pyenv) ask for nothing.
pub(super) fn of_hint(text: &str) -> Option<Version> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bare = |line: &str| {
        let without = ["cpython", "python"].iter().find_map(|name| line.strip_prefix(name)).unwrap_or(line);
        Version::parse(without.trim_start_matches(['-', '@']))
    };
    lines.filter_map(bare).next()
}

/// `>=3.10,<4`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    written: String,
    clauses: Vec<(Relation, Version)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
    NotEqual,
    /// `== 3.12.*`
    Within,
    /// `!= 3.12.*`
    NotWithin,
    /// `~= 3.12.1`
    Compatible,
}

/// The longer ones first: each begins like a shorter one.
const RELATIONS: [(&str, Relation); 8] = [
    ("===", Relation::Equal),
    ("~=", Relation::Compatible),
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Below),
    (">", Relation::Above),
];

impl Demand {
    /// `None`: this is no list of version specifiers.
    pub(super) fn parse(text: &str) -> Option<Demand> {
        let clauses = text.split(',').map(str::trim).filter(|clause| !clause.is_empty());
        let clauses = clauses.map(clause).collect::<Option<Vec<_>>>()?;
        Some(Demand { written: text.trim().to_owned(), clauses })
    }

    pub(super) fn is_met_by(&self, version: &Version) -> bool {
        self.clauses.iter().all(|(relation, than)| {
            let order = version.compare(than);
            match relation {
                Relation::AtLeast => order != Ordering::Less,
                Relation::AtMost => order != Ordering::Greater,
                Relation::Above => order == Ordering::Greater,
                Relation::Below => order == Ordering::Less,
                Relation::Equal => order == Ordering::Equal,
                Relation::NotEqual => order != Ordering::Equal,
                Relation::Within => version.is_within(&than.0),
                Relation::NotWithin => !version.is_within(&than.0),
                Relation::Compatible => {
                    let series = than.0.split_last().map_or(&[][..], |(_, series)| series);
                    order != Ordering::Less && version.is_within(series)
                }
            }
        })
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

fn clause(text: &str) -> Option<(Relation, Version)> {
    let (relation, rest) =
        RELATIONS.iter().find_map(|(sign, relation)| Some((*relation, text.strip_prefix(sign)?.trim())))?;
    let (relation, rest) = match (relation, rest.strip_suffix(".*")) {
        (Relation::Equal, Some(series)) => (Relation::Within, series),
        (Relation::NotEqual, Some(series)) => (Relation::NotWithin, series),
        (_, Some(_)) => return None,
        (relation, None) => (relation, rest),
    };
    Some((relation, Version::parse(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn demands_are_met_as_pep_440_says() {
        let cases = [
            (">=3.10", "3.10.0", true),
            (">=3.10", "3.9.18", false),
            (">=3.10,<4", "3.14.1", true),
            (" >= 3.10 , < 3.12 ", "3.12", false),
            ("~=3.11", "3.13.1", true),
            ("~=3.11.2", "3.11.9", true),
            ("~=3.11.2", "3.12.0", false),
            ("==3.11.*", "3.11.4", true),
            ("==3.11.*", "3.1", false),
            ("==3.11", "3.11.0", true),
            ("==3.11", "3.11.1", false),
            ("!=3.11.*,>=3.9", "3.11.4", false),
            ("!=3.11.*,>=3.9", "3.12.0", true),
            (">3.10", "3.10", false),
            ("<=3.12", "3.12.0", true),
            (">=3.13", "3.13.0rc1", true),
            ("", "3.8", true),
        ];
        for (demand, offered, met) in cases {
            assert_eq!(Demand::parse(demand).unwrap().is_met_by(&version(offered)), met, "{demand} by {offered}");
        }
        for wrong in ["^3.10", "3.10", ">=x", ">=3.*"] {
            assert_eq!(Demand::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hint_names_a_version_or_nothing() {
        for (text, found) in [
            ("3.12\n", Some("3.12")),
            ("# pyenv\n3.11.4\n3.10\n", Some("3.11.4")),
            ("cpython-3.13\n", Some("3.13")),
            ("cpython@3.13\n", Some("3.13")),
            ("system\n3.9\n", Some("3.9")),
            ("billing-env\n", None),
            ("", None),
        ] {
            assert_eq!(of_hint(text).map(|found| found.to_string()).as_deref(), found, "{text}");
        }
        assert!(version("3.11.2").is_of_series(&version("3.11.4").minor()));
        assert!(!version("3.1.2").is_of_series(&version("3.11").minor()));
    }
}
