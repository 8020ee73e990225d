//! A request as a connection hands it over, whatever protocol it came by.

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Version};

use super::peer::Peer;
use super::rejection::Cause;
use super::target::{Host, LONGEST_NAME, Target};
use crate::body::RequestBody;
use crate::headers::Headers;
use crate::http1::head::Seen;

/// A request with nothing read into it yet.
pub struct Inbound {
    pub method: Method,
    pub version: Version,
    /// As it stood in the request line, or `:path`.
    pub target: Bytes,
    /// HTTP/2's `:authority`.
    pub authority: Option<Bytes>,
    pub headers: Headers,
    pub seen: Seen,
    pub body: RequestBody,
    /// Whether the connection can become a tunnel.
    pub upgradable: bool,
}

/// The authority that a request is for (RFC 9110 section 7.2).
///
/// # Errors
/// `BadHost` when it is missing where it must not, doubled, malformed, or two places contradict each other.
pub fn authority(inbound: &Inbound, target: &Target, peer: &Peer) -> Result<Option<Host>, Cause> {
    let mut fields = inbound.headers.get_all(HOST);
    let field = fields.next().map(|value| host(value.as_bytes(), peer)).transpose()?;
    if fields.next().is_some() {
        return Err(Cause::BadHost);
    }
    if let Some(authority) = &inbound.authority {
        let authority = host(authority, peer)?;
        let contradicts = field.is_some_and(|field| !field.as_str().eq_ignore_ascii_case(authority.as_str()));
        return if contradicts { Err(Cause::BadHost) } else { Ok(Some(authority)) };
    }
    if field.is_none() && inbound.version > Version::HTTP_10 {
        return Err(Cause::BadHost);
    }
    // RFC 9112 section 3.2.2: the authority of an absolute-form target goes before Host.
    Ok(target.authority.clone().or(field))
}

/// Remembered by the connection in memory of its own: what is kept must not hold the head that it came in, nor be long.
fn host(text: &[u8], peer: &Peer) -> Result<Host, Cause> {
    if let Some(known) = &*peer.host.borrow()
        && known.bytes() == text
    {
        return Ok(known.clone());
    }
    let host = Host::parse(Bytes::copy_from_slice(text))?;
    if text.len() <= LONGEST_NAME {
        *peer.host.borrow_mut() = Some(host.clone());
    }
    Ok(host)
}
