//! Where the fields of a message are written to, whatever the protocol: who decides which fields there are need not know
//! how they travel.

use bytes::BytesMut;

use crate::headers::{Name, Value};

/// Takes fields, in their order.
pub trait Fields {
    /// Whether those of one name must come one behind the other.
    const SORTED: bool = false;

    /// `parts` make up the value, one behind the other.
    fn put<'n>(&mut self, name: impl Into<Name<'n>>, parts: &[&[u8]]);

    /// Where they are lines of HTTP/1.1 (`name: value`, CRLF): what is ready as such may be put there as it is.
    fn lines(&mut self) -> Option<&mut BytesMut> {
        None
    }

    fn add<'n, 'v>(&mut self, name: impl Into<Name<'n>>, value: impl Into<Value<'v>>) {
        self.put(name, &[value.into().as_bytes()]);
    }
}
