//! What is wrong with a request, one thing at a time.
//!
//! A violation says where and which rule, never what the value was: answers and logs may be read by others than the
//! one who sent it. Names of members are of the client's making too, so they are cut short.

use std::borrow::Cow;

use serde_json::Number;

/// Violations that are told of one request; who has more has enough to do with these.
pub const MOST_VIOLATIONS: usize = 100;

/// Bytes of a pointer and of a message.
const LONGEST: usize = 512;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub place: Place,
    /// Where in it: a JSON Pointer (RFC 6901) into a body, empty for all of it; of a parameter first its name
    /// (`/limit`). What is missing is pointed at where it should be.
    pub pointer: String,
    /// The rule that is broken, in one word: a keyword of JSON Schema such as `required`, or one of ours.
    pub rule: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// What the rule `type` demands.
    pub expected: Option<JsonKind>,
    /// What is there instead: its type, and never itself.
    pub found: Option<JsonKind>,
    /// The bound that a number must keep to.
    pub bound: Option<Number>,
}

/// The types of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Violation {
    pub fn new(
        place: Place,
        pointer: impl Into<String>,
        rule: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Violation {
        let (pointer, message) = (cut(pointer.into()), cut(message.into()));
        Violation { place, pointer, rule: rule.into(), message, expected: None, found: None, bound: None }
    }

    /// With what the rule `type` demands.
    pub fn expecting(mut self, kind: JsonKind) -> Violation {
        self.expected = Some(kind);
        self
    }

    /// With the type of what is there.
    pub fn finding(mut self, kind: Option<JsonKind>) -> Violation {
        self.found = kind;
        self
    }

    /// With the bound that a number must keep to.
    pub fn bounded(mut self, bound: Option<&Number>) -> Violation {
        self.bound = bound.cloned();
        self
    }

    /// The segments of the pointer, unescaped.
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.pointer.split('/').skip(1).map(|segment| match segment.contains('~') {
            true => Cow::Owned(segment.replace("~1", "/").replace("~0", "~")),
            false => Cow::Borrowed(segment),
        })
    }
}

/// Adds a segment to a JSON Pointer.
pub fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

fn cut(text: String) -> String {
    cut_at(text, LONGEST)
}

/// No more than about so many bytes of a text.
pub(crate) fn cut_at(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Body,
    Path,
    Query,
    Header,
    Cookie,
}

impl Place {
    /// As FastAPI calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Body => "body",
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Cookie => "cookie",
        }
    }
}

/// All that is wrong with a request, up to a bound.
#[derive(Debug, Default)]
pub struct Violations {
    list: Vec<Violation>,
    more: bool,
}

impl Violations {
    pub fn push(&mut self, violation: Violation) {
        if self.list.len() < MOST_VIOLATIONS {
            self.list.push(violation);
        } else {
            self.more = true;
        }
    }

    /// Whether no more of them will be told.
    pub fn is_full(&self) -> bool {
        self.more
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn as_slice(&self) -> &[Violation] {
        &self.list
    }

    /// The list; its last member says so when there was more.
    pub fn into_vec(mut self) -> Vec<Violation> {
        if self.more {
            let place = self.list.last().map_or(Place::Body, |last| last.place);
            self.list.push(Violation::new(place, "", "more", "there is more that is wrong"));
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_and_read_back() {
        let mut pointer = String::new();
        for segment in ["a/b", "~1", "", "ü"] {
            push_segment(&mut pointer, segment);
        }
        assert_eq!(pointer, "/a~1b/~01//ü");
        let violation = Violation::new(Place::Body, pointer, "required", "x");
        assert_eq!(violation.segments().collect::<Vec<_>>(), ["a/b", "~1", "", "ü"]);
        assert_eq!(Violation::new(Place::Body, "", "type", "x").segments().count(), 0);
    }

    #[test]
    fn what_the_client_chose_is_cut_short() {
        let violation = Violation::new(Place::Body, format!("/{}", "ü".repeat(10_000)), "type", "m".repeat(10_000));
        assert!(violation.pointer.len() < 520 && violation.message.len() < 520);
    }

    #[test]
    fn a_list_ends_somewhere_and_says_so() {
        let mut violations = Violations::default();
        for index in 0..MOST_VIOLATIONS {
            violations.push(Violation::new(Place::Query, format!("/{index}"), "type", "x"));
        }
        assert!(!violations.is_full());
        violations.push(Violation::new(Place::Query, "/x", "type", "x"));
        let list = violations.into_vec();
        assert_eq!(list.len(), MOST_VIOLATIONS + 1);
        assert_eq!(list.last().map(|last| last.rule.as_ref()), Some("more"));
    }
}
