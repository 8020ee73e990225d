//! JSON as `jsonschema` sees it here: every step into a value is counted, and after so many there is nothing more to
//! be seen.
//!
//! A schema whose branches (`anyOf`, `oneOf`) lead back to itself takes time that doubles with each level of a body
//! that fits none of them, once all that is wrong is looked for; and a body of a million wrong values would yield a
//! million errors. With the count, work and memory are bounded whatever schema and body are: when it is used up,
//! containers look empty, so that what is under way ends at once. Nothing follows from a verdict then
//! ([`Meter::is_spent`]), and errors that were found later are marked ([`is_genuine`]). What judging takes of the stack
//! is bounded in the same way.

use std::borrow::Cow;
use std::cell::Cell;

use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp, unique};
use jsonschema::{JsonType, ValidationError};
use serde_json::{Map, Number, Value};

/// What values look like in errors: nothing of a body gets into them, and nothing is copied.
static HIDDEN: Value = Value::Null;
/// The same once the count is used up.
static MARKED: Value = Value::Bool(true);

/// Whether what an error says follows from the value, and not from the end of the count.
pub(super) fn is_genuine(error: &ValidationError<'_>) -> bool {
    error.instance().is_null()
}

/// Bytes of the stack that judging may take before the next step into a value, of the two megabytes that a thread has.
/// What a schema demands of one value comes on top, and is bounded by how deep that may be (`extent.rs`).
const STACK: usize = 512 * 1024;

/// How many steps and errors are left.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    errors: Cell<u32>,
    /// Where the stack ended when judging began.
    stack: usize,
}

/// About where the stack ends.
fn stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

impl Meter {
    pub(super) fn new(steps: u64, errors: u32) -> Meter {
        Meter { left: Cell::new(steps), errors: Cell::new(errors), stack: stack() }
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    fn step(&self) -> bool {
        // A value may be as deep as its schema: neither is too deep alone.
        let too_deep = stack().abs_diff(self.stack) > STACK;
        let left = if too_deep { 0 } else { self.left.get().saturating_sub(1) };
        self.left.set(left);
        left > 0
    }

    /// An error is made, which shows the value as this.
    fn error(&self) -> &'static Value {
        if self.is_spent() {
            return &MARKED;
        }
        let errors = self.errors.get().saturating_sub(1);
        self.errors.set(errors);
        if errors == 0 {
            self.left.set(0);
        }
        &HIDDEN
    }
}

/// The representation.
pub(super) struct Metered;

/// A value under a meter; names of members have none.
#[derive(Clone, Copy)]
pub(super) struct MeteredNode<'a> {
    value: &'a Value,
    meter: Option<&'a Meter>,
}

impl<'a> MeteredNode<'a> {
    pub(super) fn new(value: &'a Value, meter: &'a Meter) -> MeteredNode<'a> {
        MeteredNode { value, meter: Some(meter) }
    }

    fn child(meter: Option<&'a Meter>, value: &'a Value) -> Option<MeteredNode<'a>> {
        meter.is_none_or(Meter::step).then_some(MeteredNode { value, meter })
    }
}

impl Json for Metered {
    type Node<'a> = MeteredNode<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(MeteredNode<'_>) -> T) -> T {
        *buffer = Value::String(string.to_owned());
        f(MeteredNode { value: buffer, meter: None })
    }
}

impl<'a> Node<'a, Metered> for MeteredNode<'a> {
    type Object = MeteredObject<'a>;
    type Array = MeteredArray<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<MeteredObject<'a>> {
        self.value.as_object().map(|members| MeteredObject { members, meter: self.meter })
    }

    fn as_array(&self) -> Option<MeteredArray<'a>> {
        self.value.as_array().map(|elements| MeteredArray { elements, meter: self.meter })
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.value.as_str().map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<&'a Number> {
        self.value.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn json_type(&self) -> JsonType {
        match self.value {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        cmp::equal(self.value, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Borrowed(self.meter.map_or(&HIDDEN, Meter::error))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.value).addr()))
    }
}

/// An object's members.
#[derive(Clone, Copy)]
pub(super) struct MeteredObject<'a> {
    members: &'a Map<String, Value>,
    meter: Option<&'a Meter>,
}

/// Each of them in turn, as long as there are steps.
pub(super) struct Members<'a> {
    members: serde_json::map::Iter<'a>,
    meter: Option<&'a Meter>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, MeteredNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.members.next()?;
        MeteredNode::child(self.meter, value).map(|node| (name.as_str(), node))
    }
}

impl<'a> Object<'a, Metered> for MeteredObject<'a> {
    type Node = MeteredNode<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, key: &String) -> Option<MeteredNode<'a>> {
        MeteredNode::child(self.meter, self.members.get(key)?)
    }

    fn members(&self) -> Members<'a> {
        Members { members: self.members.iter(), meter: self.meter }
    }
}

/// An array's elements.
#[derive(Clone, Copy)]
pub(super) struct MeteredArray<'a> {
    elements: &'a [Value],
    meter: Option<&'a Meter>,
}

/// Each of them in turn, as long as there are steps.
pub(super) struct Elements<'a> {
    elements: std::slice::Iter<'a, Value>,
    meter: Option<&'a Meter>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = MeteredNode<'a>;

    fn next(&mut self) -> Option<MeteredNode<'a>> {
        MeteredNode::child(self.meter, self.elements.next()?)
    }
}

impl<'a> Array<'a, Metered> for MeteredArray<'a> {
    type Node = MeteredNode<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.elements.len()
    }

    fn elements(&self) -> Elements<'a> {
        Elements { elements: self.elements.iter(), meter: self.meter }
    }

    fn is_unique(&self) -> bool {
        unique::is_unique(self.elements)
    }
}
