//! Where clients arrive: worker threads, listening sockets, TLS, connections, drain.

mod accept;
pub mod bind;
mod connection;
pub mod drain;
pub mod http1;
pub mod listener;
mod open;
pub mod stream;
pub mod threads;
pub mod worker;

/// The number of a data-plane thread, from zero: which metric cells it counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(pub usize);
