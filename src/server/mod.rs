//! Where clients arrive: worker threads, listening sockets, TLS, connections, drain.

mod accept;
pub mod bind;
mod certificates;
mod client_auth;
mod client_certificate;
mod connection;
mod counted;
mod date;
mod farewell;
pub mod http1;
mod http2;
pub mod listener;
mod open;
mod proxy_protocol;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod tls;
pub mod turns;
