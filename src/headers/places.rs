//! Where the fields of a head lie in it.

use bytes::{Bytes, BytesMut};

use super::{Field, Headers, Part};

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

    pub(super) fn length(self) -> usize {
        self.length as usize
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
    /// Another part of the head that they came in.
    pub fn of_head(&self, span: Span) -> Bytes {
        span.slice(&self.head)
    }
}

/// The fields of a head that is being parsed.
pub struct Places {
    fields: Vec<Field>,
}

/// The longest name, as the `http` crate has it too.
const LONGEST_NAME: usize = u16::MAX as usize;

impl Places {
    pub fn with_room_for(fields: usize) -> Places {
        Places { fields: Vec::with_capacity(fields) }
    }

    /// Takes the next one, which must be valid. `None`: it does not lie in `head`, or its name is too long.
    pub fn take(&mut self, head: &[u8], name: &[u8], value: &[u8]) -> Option<()> {
        if name.len() > LONGEST_NAME {
            return None;
        }
        let (name, value) = (Span::find(name, head)?, Span::find(value, head)?);
        self.fields.push(Field { name: Part::Came(name), value: Part::Came(value) });
        Some(())
    }

    /// Makes the names lower case where they lie, and shows each to `look`.
    pub fn settle(self, mut head: BytesMut, mut look: impl FnMut(&[u8])) -> Headers {
        for field in &self.fields {
            if let Part::Came(span) = &field.name {
                let name = span.of_mut(&mut head);
                name.make_ascii_lowercase();
                look(name);
            }
        }
        Headers { head: head.freeze(), fields: self.fields }
    }
}
