//! The protocol of HTTP/2 (RFC 9113) as its server speaks it: frames, header compression, windows, what makes up a
//! request. No sockets, no policy, no clock: `server/http2/` drives it.

pub mod flow;
pub mod frame;
pub mod hpack;
#[cfg(test)]
mod properties;
pub mod request;
pub mod trailers;
