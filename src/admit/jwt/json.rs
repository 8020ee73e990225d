//! JSON as tokens hold it, read as strictly as bodies are.
//!
//! RFC 7515 section 4 and RFC 7519 section 4 let a reader take the last of two members of one name. Then whoever
//! issued a token and whoever reads it may see two different ones, so here there are no two.

use serde_json::{Map, Value};

use crate::validate::json::read;
use crate::validate::memory::Budget;

/// Objects and lists within one another; claims have few.
const MAX_DEPTH: usize = 16;

/// Of no bound: how long what is read here may be is bounded already, and bodies that use up theirs must not make tokens
/// unreadable.
static BUDGET: Budget = Budget::new(usize::MAX, usize::MAX);

/// What was read is no JSON object, or not one in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

/// The object that `text` is, white space around it aside.
///
/// # Errors
/// It is none, is deeper than any claim has reason to be, or names a member twice.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, NotAnObject> {
    match read(text, MAX_DEPTH, &mut BUDGET.hold_nothing()) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
            Err(NotAnObject)
        }
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
