//! Header compression (RFC 7541), as a server needs it.

pub mod decode;
pub mod encode;
mod huffman;
mod integer;
mod table;
#[cfg(test)]
mod tests;
