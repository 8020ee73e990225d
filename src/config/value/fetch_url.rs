//! Where something is fetched from: `https://HOST/PATH`, or `http://` on loopback.

use std::net::IpAddr;

use super::super::node::Node;
use super::super::settings::{FetchUrl, Host};
use super::server_url;

/// A URL that may be fetched: nothing that is believed goes over a wire in the clear.
pub(in super::super) fn fetch_url(node: &Node<'_>, example: &str) -> Option<FetchUrl> {
    let text = node.text(&format!("a URL such as \"{example}\""))?;
    if text.text.contains('@') {
        return node.refuse("this URL may not hold a user name or a password");
    }
    let lower = text.text.to_ascii_lowercase();
    let https = lower.starts_with("https://");
    if !https && !lower.starts_with("http://") {
        return node.refuse_with(
            format!("{} takes a URL such as \"{example}\", not {}", node.key, text.quoted()),
            "write the scheme too: https://",
        );
    }
    let rest = text.text.split_once("//").map_or("", |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !plain {
        return node.refuse(format!("{} has a character that a URL holds only encoded, or a fragment", text.quoted()));
    }
    let authority = server_url::parse_authority(authority, if https { 443 } else { 80 });
    let Some(authority) = authority else {
        return node.refuse(format!("{} names no host that can be asked", text.quoted()));
    };
    if !https && !is_loopback(&authority.host) {
        return node.refuse_with(
            format!("{} goes over https, beyond loopback", node.key),
            "write https://; whoever can change the answer could let anybody in",
        );
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(FetchUrl { https, authority, path })
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(IpAddr::V4(ip)) => ip.is_loopback(),
        Host::Ip(IpAddr::V6(ip)) => ip.is_loopback(),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
    }
}
