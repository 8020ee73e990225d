//! The fields of a message, as the request path has them: places in the very bytes of the head that they came in, and
//! beside these what the gateway adds.
//!
//! A head has few fields, and most of them are only passed on. So nothing is hashed, counted or copied for one that
//! came: the parser has found where its name and its value lie, and all of them share the head. A look-up compares
//! lengths, then bytes. Fields keep the order in which they came, those of different names too.
//!
//! `http::HeaderMap` is what the library of HTTP/2 towards servers takes and gives; it is converted where that begins.

mod places;
#[cfg(test)]
mod tests;
mod views;
mod written;

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::places::{Places, Span};
pub use self::views::{Iter, Name, NotText, Value};
pub use self::written::Written;

/// The fields of one message.
#[derive(Clone, Default)]
pub struct Headers {
    /// The head that they came in; empty where all are ours.
    head: Bytes,
    fields: Vec<Field>,
    /// Of the names that there are, and perhaps of some that were: most look-ups are for what is not there.
    marks: Marks,
}

/// Which names there may be: a bit of 64 for each, chosen by its length and its last letter.
#[derive(Clone, Copy, Default)]
struct Marks(u64);

impl Marks {
    fn of(name: &[u8]) -> Marks {
        let letter = name.last().copied().map_or(0, usize::from);
        Marks(1 << (name.len().wrapping_mul(3).wrapping_add(letter) % 64))
    }

    fn note(&mut self, name: &[u8]) {
        self.0 |= Marks::of(name).0;
    }

    fn may_have(self, name: &[u8]) -> bool {
        self.0 & Marks::of(name).0 != 0
    }
}

#[derive(Clone)]
struct Field {
    name: Part<HeaderName>,
    value: Part<HeaderValue>,
}

/// A name or a value.
#[derive(Clone)]
enum Part<T> {
    /// It lies in the head; names there are in lower case.
    Came(Span),
    Ours(T),
}

impl Field {
    fn is_named(&self, head: &[u8], name: &[u8]) -> bool {
        match &self.name {
            Part::Came(span) => span.length() == name.len() && span.of(head) == name,
            Part::Ours(ours) => ours.as_str().as_bytes() == name,
        }
    }

    fn name<'h>(&'h self, head: &'h Bytes) -> Name<'h> {
        match &self.name {
            Part::Came(span) => Name::came(span.of(head)),
            Part::Ours(name) => name.into(),
        }
    }

    fn value<'h>(&'h self, head: &'h Bytes) -> Value<'h> {
        match &self.value {
            Part::Came(span) => Value::came(span.of(head), head),
            Part::Ours(value) => value.into(),
        }
    }
}

/// What a field is looked up by.
pub trait Named {
    /// The name in lower case.
    fn text(&self) -> &[u8];
}

impl Named for HeaderName {
    fn text(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl Named for &HeaderName {
    fn text(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// Which must be in lower case.
impl Named for &str {
    fn text(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Headers {
    pub fn new() -> Headers {
        Headers::default()
    }

    /// How many there are: every line counts.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The first of this name.
    pub fn get<N: Named>(&self, name: N) -> Option<Value<'_>> {
        let field = self.position(name.text()).and_then(|at| self.fields.get(at));
        field.map(|field| field.value(&self.head))
    }

    /// All of this name, in their order.
    pub fn get_all<N: Named>(&self, name: N) -> impl Iterator<Item = Value<'_>> {
        let fields = if self.marks.may_have(name.text()) { &*self.fields } else { &[] };
        let named = fields.iter().filter(move |field| field.is_named(&self.head, name.text()));
        named.map(|field| field.value(&self.head))
    }

    pub fn contains_key<N: Named>(&self, name: N) -> bool {
        self.position(name.text()).is_some()
    }

    /// All, in their order.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(&self.head, &self.fields)
    }

    /// All, sorted by their names, so that those of one name stand one behind the other, in their order.
    pub fn sorted(&self) -> Vec<(Name<'_>, Value<'_>)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
        all
    }

    /// The name of every line.
    pub fn keys(&self) -> impl Iterator<Item = Name<'_>> {
        self.fields.iter().map(|field| field.name(&self.head))
    }

    /// The value of every line.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        self.fields.iter().map(|field| field.value(&self.head))
    }

    /// Adds one behind all others.
    pub fn append(&mut self, name: impl Into<HeaderName>, value: HeaderValue) {
        let name = name.into();
        self.marks.note(name.text());
        self.fields.push(Field { name: Part::Ours(name), value: Part::Ours(value) });
    }

    /// Puts it in the place of all of its name.
    pub fn insert(&mut self, name: impl Into<HeaderName>, value: HeaderValue) {
        let name = name.into();
        match self.position(name.text()) {
            None => self.append(name, value),
            Some(first) => {
                self.remove_from(first.saturating_add(1), name.text());
                if let Some(field) = self.fields.get_mut(first) {
                    field.value = Part::Ours(value);
                }
            }
        }
    }

    /// Adds it unless there is one of its name.
    pub fn insert_if_absent(&mut self, name: impl Into<HeaderName>, value: HeaderValue) {
        let name = name.into();
        if !self.contains_key(&name) {
            self.append(name, value);
        }
    }

    /// Takes away all of this name.
    pub fn remove<N: Named>(&mut self, name: N) {
        let name = name.text();
        if let Some(first) = self.position(name) {
            self.remove_from(first, name);
        }
    }

    /// Takes away all of this name; the value of the first.
    pub fn take<N: Named>(&mut self, name: N) -> Option<HeaderValue> {
        let name = name.text();
        let first = self.position(name)?;
        let value = self.fields.get(first).map(|field| field.value(&self.head).owned());
        self.remove_from(first, name);
        value
    }

    /// Takes away all but those whose names `stay`.
    pub fn retain(&mut self, mut stay: impl FnMut(Name<'_>) -> bool) {
        let Headers { head, fields, .. } = self;
        fields.retain(|field| stay(field.name(head)));
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        if !self.marks.may_have(name) {
            return None;
        }
        self.fields.iter().position(|field| field.is_named(&self.head, name))
    }

    /// Takes away those of this name from the line `first` on.
    fn remove_from(&mut self, first: usize, name: &[u8]) {
        let Headers { head, fields, .. } = self;
        let mut line = 0_usize;
        fields.retain(|field| {
            let stays = line < first || !field.is_named(head, name);
            line = line.saturating_add(1);
            stays
        });
    }
}

impl Extend<(HeaderName, HeaderValue)> for Headers {
    /// Each goes behind all others.
    fn extend<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(&mut self, fields: I) {
        fields.into_iter().for_each(|(name, value)| self.append(name, value));
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Headers {
        let mut headers = Headers::new();
        headers.extend(fields);
        headers
    }
}

impl<'h> IntoIterator for &'h Headers {
    type Item = (Name<'h>, Value<'h>);
    type IntoIter = Iter<'h>;

    fn into_iter(self) -> Iter<'h> {
        self.iter()
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Headers {
        let mut headers = Headers { fields: Vec::with_capacity(map.len()), ..Headers::default() };
        let mut last = None;
        for (name, value) in map {
            // Of several lines of one name only the first has it.
            last = name.or(last);
            if let Some(name) = &last {
                headers.append(name, value);
            }
        }
        headers
    }
}

impl From<Headers> for HeaderMap {
    /// Without what is past the bound that a map has, far beyond all that a head may hold.
    fn from(headers: Headers) -> HeaderMap {
        let Headers { head, fields, .. } = headers;
        let mut map = HeaderMap::with_capacity(fields.len());
        for Field { name, value } in fields {
            let name = match name {
                Part::Came(span) => Name::came(span.of(&head)).owned(),
                Part::Ours(name) => Some(name),
            };
            let value = match value {
                Part::Came(span) => Value::came(span.of(&head), &head).owned(),
                Part::Ours(value) => value,
            };
            if let Some(name) = name {
                let _ = map.try_append(name, value);
            }
        }
        map
    }
}

/// The same lines in the same order.
impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// The names alone: a value may be a secret.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}
