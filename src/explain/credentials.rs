//! What a request shows, so that nothing of it is told by mistake.

use http::header::AUTHORIZATION;

use crate::admit::credential::{Place, cookies, decoded, parameters};
use crate::config::settings::ApiKeyPlace;
use crate::gateway::Gateway;
use crate::request::inbound::Inbound;

/// Nothing shorter is looked for: it would be found in our own words.
const SHORTEST: usize = 6;

/// Whatever any auth might take for a credential, wherever it is written.
pub(super) fn shown(gateway: &Gateway, inbound: &Inbound) -> Vec<String> {
    let query: Vec<u8> = inbound.target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default().to_vec();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for value in inbound.headers.get_all(AUTHORIZATION) {
        let value = value.as_bytes();
        // What stands alone may be one; or the scheme, when the rest was forgotten.
        let behind = value.splitn(2, |byte| *byte == b' ').nth(1);
        let is_scheme = [&b"bearer"[..], b"basic"].iter().any(|scheme| value.eq_ignore_ascii_case(scheme));
        found.extend(behind.or(Some(value).filter(|_| !is_scheme)).map(|text| text.trim_ascii().to_vec()));
    }
    for auth in gateway.auths.values() {
        match auth.kind.place() {
            Place::Cookie(name) => found.extend(cookies(&inbound.headers, name).map(<[u8]>::to_vec)),
            Place::Key(ApiKeyPlace::Header(name)) => {
                found.extend(inbound.headers.get_all(name).map(|value| value.as_bytes().to_vec()));
            }
            Place::Key(ApiKeyPlace::Query(name)) => {
                for value in parameters(&query, name) {
                    found.extend([value.to_vec(), decoded(value).into_owned()]);
                }
            }
            Place::Authorization(_) | Place::Connection => {}
        }
    }
    let found = found.into_iter().filter(|bytes| bytes.len() >= SHORTEST);
    found.filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
}
