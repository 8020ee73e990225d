//! Where clients arrive: worker threads, listening sockets, TLS, connections, drain.

pub mod drain;
pub mod listener;
pub mod stream;
pub mod worker;

/// The number of a data-plane thread, from zero: which metric cells it counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);
