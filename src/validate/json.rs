//! JSON, read strictly: what two parsers could read in two ways is refused.
//!
//! `serde_json` reads RFC 8259 and nothing beside it: no NaN, no trailing bytes, no lone surrogates, no invalid UTF-8,
//! no number that is too large for a float. What is refused in addition is a key that comes twice in one object
//! (spelled with escapes or not), and nesting beyond a bound. What is read is charged to the memory budget as it grows.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::memory::{Full, Held};
use crate::request::violation::{Place, Violation, push_segment};

/// The deepest nesting that can be asked for; `serde_json` itself ends at 127.
pub const DEEPEST: usize = 120;

/// What a value costs in memory, in bytes: itself, and its share of an array that grows by doubling.
const VALUE: usize = 64;
/// An object with a member: its tree's first node.
const OBJECT: usize = 640;
/// One more member, without its key's characters.
const MEMBER: usize = 112;
/// Charged at once, so that the shared count is seldom touched.
const STEP: usize = 64 * 1024;

/// Why a text is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is wrong.
    Wrong(Box<Violation>),
    /// It takes more memory than there is for it.
    Full(Full),
}

impl Unreadable {
    /// For whoever wrote the text: what is wrong and where.
    pub(super) fn told(self) -> String {
        match self {
            Unreadable::Wrong(violation) if violation.pointer.is_empty() => violation.message,
            Unreadable::Wrong(violation) => format!("{} {}", violation.pointer, violation.message),
            Unreadable::Full(_) => "it is too large".to_owned(),
        }
    }
}

/// Reads a whole text. Scalars have no depth, `[]` has one. The pointer of a violation leads to where the text went
/// wrong, as far as it was understood.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(text: &[u8], max_depth: usize, held: &mut Held) -> Result<Value, Unreadable> {
    let reader = Reader {
        max_depth,
        held: RefCell::new(held),
        owed: Cell::new(0),
        way: RefCell::default(),
        refused: RefCell::default(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed { reader: &reader, depth: 0 }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(reader.reason(&error)),
    }
}

struct Reader<'h> {
    max_depth: usize,
    held: RefCell<&'h mut Held>,
    /// Bytes that are not charged yet.
    owed: Cell<usize>,
    /// The way to a failure, from within outwards; empty unless there is one.
    way: RefCell<Vec<Step>>,
    /// Why we refused, where it was not the parser.
    refused: RefCell<Option<Refused>>,
}

enum Step {
    Key(String),
    Index(usize),
}

enum Refused {
    Duplicate,
    TooDeep,
    Full(Full),
}

impl Reader<'_> {
    fn charge(&self, bytes: usize) -> Result<(), Full> {
        let owed = self.owed.get().saturating_add(bytes);
        if owed < STEP {
            self.owed.set(owed);
            return Ok(());
        }
        self.owed.set(0);
        self.held.borrow_mut().grow(owed)
    }

    fn refuse<E: serde::de::Error>(&self, why: Refused) -> E {
        *self.refused.borrow_mut() = Some(why);
        E::custom("refused")
    }

    fn charged<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        self.charge(bytes).map_err(|full| self.refuse(Refused::Full(full)))
    }

    fn reason(&self, error: &serde_json::Error) -> Unreadable {
        let mut pointer = String::new();
        for step in self.way.borrow().iter().rev() {
            match step {
                Step::Key(key) => push_segment(&mut pointer, key),
                Step::Index(index) => push_segment(&mut pointer, itoa::Buffer::new().format(*index)),
            }
        }
        let (line, column) = (error.line(), error.column());
        let (rule, message) = match self.refused.take() {
            Some(Refused::Full(full)) => return Unreadable::Full(full),
            Some(Refused::Duplicate) => ("duplicate_key", format!("comes twice: line {line}, column {column}")),
            Some(Refused::TooDeep) => ("max_depth", format!("is nested deeper than {} levels", self.max_depth)),
            None => ("json", format!("is not valid JSON: {error}")),
        };
        Unreadable::Wrong(Box::new(Violation::new(Place::Body, pointer, rule, message)))
    }
}

#[derive(Clone, Copy)]
struct Seed<'r, 'h> {
    reader: &'r Reader<'h>,
    /// Of what it lies in.
    depth: usize,
}

impl<'r, 'h> Seed<'r, 'h> {
    /// For what lies in the container that this is for.
    fn within<E: serde::de::Error>(self) -> Result<Seed<'r, 'h>, E> {
        let depth = self.depth.saturating_add(1);
        if depth > self.reader.max_depth {
            return Err(self.reader.refuse(Refused::TooDeep));
        }
        Ok(Seed { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.reader.charged(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.reader.charged(value.capacity())?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut list = Vec::new();
        loop {
            match members.next_element_seed(within) {
                Ok(Some(member)) => {
                    self.reader.charged(VALUE)?;
                    list.push(member);
                }
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    self.reader.way.borrow_mut().push(Step::Index(list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let within = self.within()?;
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if map.contains_key(&key) {
                self.reader.way.borrow_mut().push(Step::Key(key));
                return Err(self.reader.refuse(Refused::Duplicate));
            }
            let node = if map.is_empty() { OBJECT } else { MEMBER };
            self.reader.charged(node.saturating_add(key.len()))?;
            match members.next_value_seed(within) {
                Ok(value) => map.insert(key, value),
                Err(error) => {
                    self.reader.way.borrow_mut().push(Step::Key(key));
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::Budget;
    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> Result<Value, Unreadable> {
        read(text.as_ref(), 64, &mut Held::nothing())
    }

    /// The pointer and the rule of what is wrong.
    fn wrong(text: impl AsRef<[u8]>) -> (String, String) {
        match parse(text.as_ref()) {
            Err(Unreadable::Wrong(violation)) => (violation.pointer, violation.rule.into_owned()),
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(text.as_ref())),
        }
    }

    fn is(pointer: &str, rule: &str) -> (String, String) {
        (pointer.to_owned(), rule.to_owned())
    }

    #[test]
    fn what_is_valid_is_read_whole() {
        let text = r#" {"a": [1, -2, 3.5e2, true, null, "\u00fc\ud83d\ude00"], "": {}, "big": 18446744073709551615} "#;
        assert_eq!(parse(text), Ok(serde_json::from_str(text).expect("JSON")));
    }

    #[test]
    fn what_two_parsers_could_read_in_two_ways_is_refused() {
        assert_eq!(wrong(r#"{"a":1,"b":{"x":1,"x":2}}"#), is("/b/x", "duplicate_key"));
        assert_eq!(wrong(r#"[{"id":1,"\u0069d":2}]"#), is("/0/id", "duplicate_key"));
        for text in
            ["", " ", "{", "[1,]", "{\"a\":1,}", "NaN", "-Infinity", "[1] 2", "'a'", "01", "1.", "+1", "tru", "// x\n1"]
        {
            assert_eq!(wrong(text).1, "json", "{text}");
        }
        for text in [&b"\"\xff\""[..], b"\"\xc0\xaf\"", b"\"\xed\xa0\x80\"", b"\xef\xbb\xbf1", b"\"\x01\"", b"1\0"] {
            assert_eq!(wrong(text).1, "json", "{text:?}");
        }
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#"{"\ud800":1}"#, r#""\x""#] {
            assert_eq!(wrong(text).1, "json", "{text}");
        }
        assert_eq!(wrong("[0, [1, 1e999]]"), is("/1/1", "json"));
        assert_eq!(wrong(r#"{"a~/b": [0, tru]}"#), is("/a~0~1b/1", "json"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(64)).is_ok());
        assert_eq!(wrong(nested(65)).1, "max_depth");
        assert_eq!(wrong("[".repeat(1_000_000)).1, "max_depth");
        assert!(read(nested(DEEPEST).as_bytes(), DEEPEST, &mut Held::nothing()).is_ok());
        let objects = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
        assert_eq!(wrong(objects), is(&"/a".repeat(64), "max_depth"));
    }

    #[test]
    fn messages_do_not_quote_the_body() {
        let Err(Unreadable::Wrong(violation)) = parse(r#"{"password": hunter2}"#) else { panic!("it is wrong") };
        assert!(!violation.message.contains("hunter"), "{violation:?}");
        assert!(violation.message.contains("line 1 column"), "{violation:?}");
    }

    #[test]
    fn memory_is_charged_as_it_grows() {
        static SMALL: Budget = Budget::new(1 << 20, 1 << 19);
        let text = format!("[{}{{}}]", "{\"a\":1},".repeat(5000));
        let mut held = SMALL.hold_nothing();
        assert_eq!(read(text.as_bytes(), 64, &mut held), Err(Unreadable::Full(Full::One)));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(".{0,4}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Whether `serde_json` takes it, and what of that we refuse beside.
    fn agrees(text: &[u8]) -> Result<(), TestCaseError> {
        match (parse(text), serde_json::from_slice::<Value>(text)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(Unreadable::Wrong(violation)), Ok(_)) => {
                prop_assert!(matches!(&*violation.rule, "duplicate_key" | "max_depth"), "{:?}", violation);
            }
            (Err(Unreadable::Wrong(_)), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_back(value in any_json()) {
            let text = serde_json::to_vec(&value).expect("it can be written");
            prop_assert_eq!(parse(&text).ok(), serde_json::from_slice(&text).ok());
        }

        #[test]
        fn any_text_is_judged_as_serde_json_does(text in "[\\[\\]{}:,\"\\\\u0-9a-fA-F.eE+ truefalsn-]{0,40}") {
            agrees(text.as_bytes())?;
        }

        #[test]
        fn any_damage_is_judged_as_serde_json_does(value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = serde_json::to_vec(&value).expect("it can be written");
            let place = at.index(text.len());
            text[place] = byte;
            agrees(&text)?;
        }
    }
}
