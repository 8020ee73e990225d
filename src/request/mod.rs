//! What happens to a request between a connection and an upstream.

pub mod rejection;
pub mod routes;
pub mod target;
