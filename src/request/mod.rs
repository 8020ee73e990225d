//! What happens to a request between a connection and an upstream.

pub mod buffering;
pub mod client;
pub mod cors;
pub mod decisions;
mod dialect;
pub mod files;
pub mod grpc;
pub mod handle;
pub mod inbound;
pub mod limited;
pub mod names;
pub mod onward;
pub mod outgoing;
mod pace;
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
