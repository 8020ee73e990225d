//! The grammar of HTTP/1.1 (RFC 9112), strict, for both sides.
//!
//! Every byte of a head or a chunk that a client or a server sends is judged here and nowhere else: there is no
//! second parser that could read the same bytes in another way, which is how requests are smuggled. (The short way for
//! plain heads, `at_once`, refuses nothing and takes nothing that `head` would read differently; `properties` holds it
//! to that.)

pub mod at_once;
pub mod buffer;
pub mod chunked;
pub mod connection;
pub mod encode;
pub mod framing;
pub mod head;
#[cfg(test)]
mod properties;
pub mod queue;
pub mod tags;
pub mod timer;
