//! A name and a value as they are looked at, wherever they lie.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Field, Named};

/// A field's name, in lower case.
#[derive(Clone, Copy)]
pub struct Name<'h> {
    text: &'h [u8],
    ours: Option<&'h HeaderName>,
}

impl<'h> Name<'h> {
    pub(super) fn came(text: &'h [u8]) -> Name<'h> {
        Name { text, ours: None }
    }

    pub fn as_bytes(self) -> &'h [u8] {
        self.text
    }

    pub fn as_str(self) -> &'h str {
        match self.ours {
            Some(name) => name.as_str(),
            // All of a name is ASCII.
            None => std::str::from_utf8(self.text).unwrap_or_default(),
        }
    }

    /// As the libraries have it. `None` is for what cannot be: what parses heads takes no other names than they do.
    pub fn owned(self) -> Option<HeaderName> {
        self.ours.cloned().or_else(|| HeaderName::from_bytes(self.text).ok())
    }
}

impl<'h> From<&'h HeaderName> for Name<'h> {
    fn from(name: &'h HeaderName) -> Name<'h> {
        Name { text: name.as_str().as_bytes(), ours: Some(name) }
    }
}

impl Named for Name<'_> {
    fn text(&self) -> &[u8] {
        self.text
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Name<'_>) -> bool {
        self.text == other.text
    }
}

impl PartialEq<HeaderName> for Name<'_> {
    fn eq(&self, other: &HeaderName) -> bool {
        self.text == other.as_str().as_bytes()
    }
}

impl PartialEq<Name<'_>> for HeaderName {
    fn eq(&self, other: &Name<'_>) -> bool {
        other == self
    }
}

/// In lower case.
impl PartialEq<str> for Name<'_> {
    fn eq(&self, other: &str) -> bool {
        self.text == other.as_bytes()
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A field's value.
#[derive(Clone, Copy)]
pub struct Value<'h> {
    bytes: &'h [u8],
    origin: Origin<'h>,
}

#[derive(Clone, Copy)]
enum Origin<'h> {
    /// It lies in this.
    Head(&'h Bytes),
    Ours(&'h HeaderValue),
}

/// A value has other bytes than visible ASCII, blanks and tabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

impl<'h> Value<'h> {
    pub(super) fn came(bytes: &'h [u8], head: &'h Bytes) -> Value<'h> {
        Value { bytes, origin: Origin::Head(head) }
    }

    pub fn as_bytes(self) -> &'h [u8] {
        self.bytes
    }

    /// # Errors
    /// It has other characters than visible ones of ASCII, blanks and tabs.
    pub fn to_str(self) -> Result<&'h str, NotText> {
        let is_text = self.bytes.iter().all(|&byte| matches!(byte, b' '..=b'~' | b'\t'));
        if is_text { std::str::from_utf8(self.bytes).map_err(|_| NotText) } else { Err(NotText) }
    }

    /// Its bytes to keep; those of a head are shared.
    pub fn bytes(self) -> Bytes {
        match self.origin {
            Origin::Head(_) if self.bytes.is_empty() => Bytes::new(),
            Origin::Head(head) => head.slice_ref(self.bytes),
            Origin::Ours(_) => Bytes::copy_from_slice(self.bytes),
        }
    }

    /// One to keep, which shares the bytes.
    pub fn owned(self) -> HeaderValue {
        match self.origin {
            // What parses heads takes no other values than the library does.
            Origin::Head(_) => HeaderValue::from_maybe_shared(self.bytes()).unwrap_or(HeaderValue::from_static("")),
            Origin::Ours(value) => value.clone(),
        }
    }
}

impl<'h> From<&'h HeaderValue> for Value<'h> {
    fn from(value: &'h HeaderValue) -> Value<'h> {
        Value { bytes: value.as_bytes(), origin: Origin::Ours(value) }
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Value<'_>) -> bool {
        self.bytes == other.bytes
    }
}

impl PartialEq<HeaderValue> for Value<'_> {
    fn eq(&self, other: &HeaderValue) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, other: &str) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.bytes == other.as_bytes()
    }
}

/// Its length alone: it may be a secret.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.bytes.len())
    }
}

/// All fields of a message.
#[derive(Clone)]
pub struct Iter<'h> {
    head: &'h Bytes,
    fields: std::slice::Iter<'h, Field>,
}

impl<'h> Iter<'h> {
    pub(super) fn new(head: &'h Bytes, fields: &'h [Field]) -> Iter<'h> {
        Iter { head, fields: fields.iter() }
    }
}

impl<'h> Iterator for Iter<'h> {
    type Item = (Name<'h>, Value<'h>);

    fn next(&mut self) -> Option<Self::Item> {
        self.fields.next().map(|field| (field.name(self.head), field.value(self.head)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}
