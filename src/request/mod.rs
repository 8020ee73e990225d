//! What happens to a request between a connection and an upstream.

pub mod client;
pub mod cors;
mod dialect;
pub mod files;
pub mod handle;
pub mod inbound;
pub mod limited;
mod measured;
pub mod names;
pub mod outgoing;
pub mod peer;
pub mod plain;
pub mod record;
pub mod refusal;
pub mod rejection;
pub mod route;
pub mod routes;
pub mod style;
pub mod target;
pub mod violation;
