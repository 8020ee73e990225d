//! Where the fields of a head lie in it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::{Field, Headers, Marks, Name, Part};
use crate::http1::encode;

/// A place in a head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    from: u32,
    length: u32,
}

impl Span {
    /// Where `part` lies in `whole`, of which it must be a slice, unless it is empty.
    pub fn find(part: &[u8], whole: &[u8]) -> Option<Span> {
        if part.is_empty() {
            return Some(Span::default());
        }
        let from = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let is_within = from.checked_add(part.len())? <= whole.len();
        let span = Span { from: u32::try_from(from).ok()?, length: u32::try_from(part.len()).ok()? };
        is_within.then_some(span)
    }

    /// No head comes near to what a place can be.
    pub fn new(from: usize, length: usize) -> Span {
        let fits = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Span { from: fits(from), length: fits(length) }
    }

    pub(super) fn length(self) -> usize {
        self.length as usize
    }

    pub fn end(self) -> usize {
        (self.from as usize).saturating_add(self.length())
    }

    pub(super) fn of(self, whole: &[u8]) -> &[u8] {
        let from = self.from as usize;
        whole.get(from..from.saturating_add(self.length())).unwrap_or_default()
    }

    fn slice(self, whole: &Bytes) -> Bytes {
        match self.of(whole) {
            [] => Bytes::new(),
            part => whole.slice_ref(part),
        }
    }

    fn of_mut(self, whole: &mut [u8]) -> &mut [u8] {
        let from = self.from as usize;
        whole.get_mut(from..from.saturating_add(self.length())).unwrap_or_default()
    }
}

impl Headers {
    /// Writes those whose names `stay` as lines of HTTP/1.1, in their order. Lines that came in the one form that is
    /// written, and lie one behind the other, are written with one copy.
    pub fn write_lines(&self, out: &mut BytesMut, mut stay: impl FnMut(Name<'_>) -> bool) {
        let mut run = 0..0;
        for field in &self.fields {
            let name = field.name(&self.head);
            if !stay(name) {
                continue;
            }
            match field.line(&self.head) {
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => out.extend_from_slice(of(std::mem::replace(&mut run, line), &self.head)),
                None => {
                    out.extend_from_slice(of(std::mem::take(&mut run), &self.head));
                    encode::field(out, name.as_bytes(), field.value(&self.head).as_bytes());
                }
            }
        }
        out.extend_from_slice(of(run, &self.head));
    }

    /// Another part of the head that they came in.
    pub fn of_head(&self, span: Span) -> Bytes {
        span.slice(&self.head)
    }
}

fn of(range: Range<usize>, head: &[u8]) -> &[u8] {
    head.get(range).unwrap_or_default()
}

impl Field {
    /// Where its line lies in the head, if it came as `name: value` and CRLF without another blank.
    fn line(&self, head: &[u8]) -> Option<Range<usize>> {
        let (Part::Came(name), Part::Came(value)) = (&self.name, &self.value) else { return None };
        let (start, colon, first) = (name.from as usize, name.end(), value.from as usize);
        let end = value.end().saturating_add(2);
        let is_plain = head.get(colon..first) == Some(b": ") && head.get(value.end()..end) == Some(b"\r\n");
        is_plain.then_some(start..end)
    }
}

/// The fields of a head that is being parsed.
pub struct Places {
    fields: Vec<Field>,
    marks: Marks,
}

/// The longest name, as the `http` crate has it too.
pub(super) const LONGEST_NAME: usize = u16::MAX as usize;

impl Places {
    pub fn with_room_for(fields: usize) -> Places {
        Places { fields: Vec::with_capacity(fields), marks: Marks::default() }
    }

    /// Takes the next one, which must be valid. `None`: it does not lie in `head`, or its name is too long.
    pub fn take(&mut self, head: &[u8], name: &[u8], value: &[u8]) -> Option<()> {
        self.add(Span::find(name, head)?, Span::find(value, head)?)
    }

    /// The same by where it lies. `None`: its name is empty or too long.
    fn add(&mut self, name: Span, value: Span) -> Option<()> {
        if name.length() == 0 || name.length() > LONGEST_NAME {
            return None;
        }
        self.fields.push(Field { name: Part::Came(name), value: Part::Came(value) });
        Some(())
    }

    /// The same, whose name is in lower case already: `text`.
    pub fn add_lower(&mut self, name: Span, text: &[u8], value: Span) -> Option<()> {
        self.marks.note(text);
        self.add(name, value)
    }

    /// Once all names are in lower case.
    pub fn of(self, head: BytesMut) -> Headers {
        Headers { head: head.freeze(), fields: self.fields, marks: self.marks }
    }

    /// Makes the names lower case where they lie, and shows each to `look`.
    pub fn settle(mut self, mut head: BytesMut, mut look: impl FnMut(&[u8])) -> Headers {
        for field in &self.fields {
            if let Part::Came(span) = &field.name {
                let name = span.of_mut(&mut head);
                name.make_ascii_lowercase();
                self.marks.note(name);
                look(name);
            }
        }
        self.of(head)
    }
}
