//! Where the fields of a message are written to, whatever the protocol: who decides which fields there are need not know
//! how they travel.

use http::{HeaderName, HeaderValue};

/// Takes fields, in their order. Fields of the same name come one behind the other.
pub trait Fields {
    /// `parts` make up the value, one behind the other.
    fn put(&mut self, name: &HeaderName, parts: &[&[u8]]);

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.put(name, &[value.as_bytes()]);
    }
}
