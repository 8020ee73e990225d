//! Unpacking a block of fields (RFC 7541 sections 3 and 6).
//!
//! Fields are handed out one by one, as slices of the block, of a table, or of room that all connections of a thread
//! share: nothing is made of one that nobody keeps.

use std::cell::RefCell;

use super::table::{Entry, Table};
use super::{huffman, integer};

/// The dynamic table of a client takes so much, which is what a client may count on unless it is told otherwise
/// (RFC 9113 section 6.5.2).
pub const TABLE: usize = 4096;

/// What the shared room keeps for the next block.
const KEEP: usize = 16 * 1024;

/// What is known of a field's text: whoever takes fields has found it valid before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Nothing,
    Name,
    Field,
}

/// Takes the fields of a block, in their order.
pub trait Take {
    /// What is now known of it, which is remembered with it where it is put into the table.
    fn take(&mut self, name: &[u8], value: &[u8], checked: Checked) -> Checked;
}

/// The block cannot be unpacked, nor any that comes behind it: a `COMPRESSION_ERROR` (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// One direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { table: Table::new(TABLE) }
    }
}

thread_local! {
    static ROOM: RefCell<Room> = const { RefCell::new(Room { name: Vec::new(), value: Vec::new() }) };
}

/// Where strings are unpacked to.
struct Room {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// Unpacks a whole block. Work is bounded by the block's length and that of the table's entries; what of it is kept
    /// is for `take` to bound.
    ///
    /// # Errors
    /// [`Undecodable`].
    pub fn decode(&mut self, block: &[u8], take: &mut impl Take) -> Result<(), Undecodable> {
        ROOM.with_borrow_mut(|room| {
            let decoded = self.decode_in(block, room, take).ok_or(Undecodable);
            for part in [&mut room.name, &mut room.value] {
                if part.capacity() > KEEP {
                    *part = Vec::new();
                }
            }
            decoded
        })
    }

    fn decode_in(&mut self, block: &[u8], room: &mut Room, take: &mut impl Take) -> Option<()> {
        let mut rest = block;
        let mut may_resize = true;
        while let Some((&first, behind)) = rest.split_first() {
            rest = behind;
            match Form::of(first) {
                Form::Indexed => {
                    let field = self.table.get(integer::read(first, 7, &mut rest)?)?;
                    take.take(field.name, field.value, field.checked);
                }
                Form::Added => self.literal(first, 6, &mut rest, room, take, true)?,
                Form::Resized => {
                    // RFC 7541 section 4.2: only where a block begins, and no larger than was granted.
                    let most = integer::read(first, 5, &mut rest)?;
                    if !may_resize || most > TABLE {
                        return None;
                    }
                    self.table.resize(most);
                    continue;
                }
                Form::Literal => self.literal(first, 4, &mut rest, room, take, false)?,
            }
            may_resize = false;
        }
        Some(())
    }

    fn literal(
        &mut self,
        first: u8,
        prefix: u32,
        rest: &mut &[u8],
        room: &mut Room,
        take: &mut impl Take,
        is_added: bool,
    ) -> Option<()> {
        let index = integer::read(first, prefix, rest)?;
        let (name, known) = match index {
            0 => (string(rest, &mut room.name)?, Checked::Nothing),
            index => {
                let field = self.table.get(index)?;
                let known = if field.checked == Checked::Nothing { Checked::Nothing } else { Checked::Name };
                (field.name, known)
            }
        };
        let value = string(rest, &mut room.value)?;
        let checked = take.take(name, value, known);
        if is_added {
            // The copy first: the name may be that of an entry which makes room.
            let entry = Entry::new(name, value, checked);
            self.table.add(entry);
        }
        Some(())
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> (usize, Vec<String>) {
        self.table.shown()
    }
}

/// What a field's first byte says of it.
enum Form {
    /// Section 6.1.
    Indexed,
    /// Section 6.2.1: a literal that is added to the table.
    Added,
    /// Section 6.3.
    Resized,
    /// Sections 6.2.2 and 6.2.3.
    Literal,
}

impl Form {
    fn of(first: u8) -> Form {
        match first.leading_zeros() {
            0 => Form::Indexed,
            1 => Form::Added,
            2 => Form::Resized,
            _ => Form::Literal,
        }
    }
}

/// A string (section 5.2), in `room` if it has to be unpacked.
fn string<'s, 'b: 's>(rest: &mut &'b [u8], room: &'s mut Vec<u8>) -> Option<&'s [u8]> {
    let (&first, behind) = rest.split_first()?;
    *rest = behind;
    let length = integer::read(first, 7, rest)?;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    if first & 0x80 == 0 {
        return Some(text);
    }
    room.clear();
    huffman::unpack(text, room)?;
    Some(room)
}
