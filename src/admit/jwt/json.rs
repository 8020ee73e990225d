//! JSON as tokens hold it, read strictly.
//!
//! RFC 7515 section 4 and RFC 7519 section 4 let a reader take the last of two members of one name. Then whoever
//! issued a token and whoever reads it may see two different ones, so here there are no two.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and lists within one another; claims have few.
const MAX_DEPTH: usize = 16;

/// What was read is no JSON object, or not one in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

/// The object that `text` is, white space around it aside.
///
/// # Errors
/// It is none, is deeper than any claim has reason to be, or names a member twice.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, NotAnObject> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|_| NotAnObject)?;
    reader.end().map_err(|_| NotAnObject)?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Err(NotAnObject),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Strict, E> {
        let depth = self.depth.saturating_add(1);
        if depth > MAX_DEPTH { Err(E::custom("too deep")) } else { Ok(Strict { depth }) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(within)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let within = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom("a member is there twice"));
            }
            let value = map.next_value_seed(within)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_and_nothing_else() {
        let text = br#" {"a": [1, -2, 1.5, null, true, {"b": "\u00e9"}], "c": {}} "#;
        let expected = json!({"a": [1, -2, 1.5, null, true, {"b": "\u{e9}"}], "c": {}});
        assert_eq!(object(text).map(Value::Object), Ok(expected));
        for text in ["", "[]", "1", "null", "{", "{} {}", "{}x", r#"{"a":1,}"#, "{\"a\":\"\n\"}", "\u{feff}{}"] {
            assert_eq!(object(text.as_bytes()), Err(NotAnObject), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(NotAnObject), "not UTF-8");
    }

    #[test]
    fn no_member_is_there_twice() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"a":1,"b":2,"a":3}}"#, r#"{"x":[{"":1,"":1}]}"#]
        {
            assert_eq!(object(text.as_bytes()), Err(NotAnObject), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(object(nested(MAX_DEPTH).as_bytes()), Err(NotAnObject));
        assert_eq!(object(nested(100_000).as_bytes()), Err(NotAnObject));
    }
}
