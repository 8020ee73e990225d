//! Where a store is: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS.

use percent_encoding::percent_decode_str;

use super::super::node::Node;
use super::super::settings::{Secret, StoreUrl};
use super::server_url;

const TAKES: &str = "a URL such as \"redis://127.0.0.1:6379\" or \"rediss://USER:PASSWORD@HOST\"";

/// Nothing of it is ever shown: it may hold a password.
pub(in super::super) fn store_url(node: &Node<'_>) -> Option<StoreUrl> {
    let text = node.secret_text(TAKES)?;
    let lower = text.text.to_ascii_lowercase();
    let (tls, rest) = if lower.starts_with("redis://") {
        (false, text.text.get("redis://".len()..))
    } else if lower.starts_with("rediss://") {
        (true, text.text.get("rediss://".len()..))
    } else {
        return node.refuse_with(format!("{} takes {TAKES}", node.key), "it begins with redis:// or rediss://");
    };
    let rest = rest.unwrap_or_default();
    // A password may hold anything but what must be encoded, so the last of these ends it.
    let (user_info, rest) = rest.rsplit_once('@').map_or((None, rest), |(user_info, rest)| (Some(user_info), rest));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, password) = match user_info.map(|user_info| user_info.split_once(':').unwrap_or((user_info, ""))) {
        Some((user, password)) => (secret(node, user)?, secret(node, password)?),
        None => (None, None),
    };
    if user.is_some() && password.is_none() {
        return node.refuse_with(
            format!("{} has a user name and no password", node.key),
            "write redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for the default user",
        );
    }
    let Some(authority) = server_url::parse_authority(authority, 6379) else {
        return node.refuse_with(
            format!("{} names no host that can be asked", node.key),
            "write redis://HOST:PORT, an IPv6 address in brackets; encode / and @ in a password as %2F and %40",
        );
    };
    let plain = path.bytes().all(|byte| byte.is_ascii_digit());
    let Some(database) = (if path.is_empty() { Some(0) } else { path.parse().ok() }).filter(|_| plain) else {
        return node.refuse_with(
            format!("what stands behind the host in {} is not the number of a database", node.key),
            "write redis://HOST:PORT/0, or leave it out",
        );
    };
    Some(StoreUrl { tls, authority, database, user, password })
}

/// `Some(None)`: it is empty.
#[expect(clippy::option_option, reason = "the outer one says that it is wrong, and that this was reported")]
fn secret(node: &Node<'_>, encoded: &str) -> Option<Option<Secret>> {
    let digits = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let decoded = percent_decode_str(encoded).decode_utf8().ok();
    let Some(decoded) = decoded.filter(|_| encoded.split('%').skip(1).all(digits)) else {
        return node.refuse_with(
            format!("the user name or the password in {} is not encoded as in URLs", node.key),
            "write % as %25",
        );
    };
    Some((!decoded.is_empty()).then(|| Secret::new(decoded.into_owned())))
}
