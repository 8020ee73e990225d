//! Where a server of an upstream is and what it speaks: `http://HOST:PORT`, `uwsgi+unix:/PATH` and the like.

use std::path::PathBuf;

use super::super::hints;
use super::super::node::{Node, Text};
use super::super::settings::{Authority, Endpoint};
use super::super::suggest;
use super::{fits_socket, net};

const TAKES: &str = "a URL such as \"http://127.0.0.1:8001\" or \"http+unix:/run/app.sock\"";

const SCHEMES: [&str; 7] = ["http", "https", "http+unix", "uwsgi", "uwsgi+unix", "h2", "h2c"];

pub(in super::super) fn endpoint(node: &Node<'_>) -> Option<Endpoint> {
    let text = node.text(TAKES)?;
    let Some((scheme, rest)) = text.text.split_once(':') else {
        return wrong(node, &text, None);
    };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" => authority(node, &text, "http", rest, Some(80)).map(Endpoint::Http),
        "https" => authority(node, &text, "https", rest, Some(443)).map(Endpoint::Https),
        "http+unix" => unix(node, &text, "http+unix", rest).map(Endpoint::HttpUnix),
        "uwsgi" => authority(node, &text, "uwsgi", rest, None).map(Endpoint::Uwsgi),
        "uwsgi+unix" => unix(node, &text, "uwsgi+unix", rest).map(Endpoint::UwsgiUnix),
        "h2" => authority(node, &text, "h2", rest, Some(443)).map(Endpoint::H2),
        "h2c" => authority(node, &text, "h2c", rest, Some(80)).map(Endpoint::H2c),
        "unix" => {
            wrong(node, &text, Some(format!("say what it speaks: \"http+unix:{rest}\" or \"uwsgi+unix:{rest}\"")))
        }
        _ if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            wrong(node, &text, Some(format!("write the scheme too: \"http://{}\"", text.text)))
        }
        _ => {
            let hint = hints::of_scheme(&scheme).map(str::to_owned);
            let slip = || suggest::closest(&scheme, SCHEMES).map(|known| format!("did you mean `{known}`?"));
            wrong(node, &text, hint.or_else(slip))
        }
    }
}

/// `default_port`: `None` where a port must be written.
fn authority(node: &Node<'_>, text: &Text, scheme: &str, rest: &str, default_port: Option<u16>) -> Option<Authority> {
    let Some(rest) = rest.strip_prefix("//") else {
        return wrong(node, text, Some(format!("write \"{scheme}://HOST:PORT\"")));
    };
    if rest.starts_with('/') && matches!(scheme, "http" | "uwsgi") {
        return wrong(node, text, Some(format!("a Unix socket is \"{scheme}+unix:{rest}\"")));
    }
    if rest.contains('@') {
        // Not even the line is shown with it.
        return node.refuse("a server's URL may not hold a user name or a password");
    }
    if let Some(end) = rest.find(['/', '?', '#']) {
        let authority = rest.get(..end).unwrap_or("");
        return wrong(
            node,
            text,
            Some(format!("a server has no path, query or fragment: write \"{scheme}://{authority}\"")),
        );
    }
    let (host, port) = parse_port(rest);
    if port == Some(0) {
        return wrong(node, text, Some("a port is a number from 1 to 65535".into()));
    }
    let Some(port) = port.or(default_port) else {
        let host = if host.is_empty() { "HOST" } else { host };
        return wrong(node, text, Some(format!("write the port too: \"{scheme}://{host}:3031\"")));
    };
    match net::parse_host(host) {
        Some(host) => Some(Authority { host, port }),
        None if host.contains(':') => wrong(node, text, Some("write an IPv6 address in brackets".into())),
        None => wrong(node, text, None),
    }
}

/// A host and perhaps a port, nothing else.
pub(super) fn parse_authority(text: &str, default_port: u16) -> Option<Authority> {
    let (host, port) = parse_port(text);
    let port = port.unwrap_or(default_port);
    net::parse_host(host).filter(|_| port != 0).map(|host| Authority { host, port })
}

/// The port is 0 where it is none.
fn parse_port(authority: &str) -> (&str, Option<u16>) {
    match split_port(authority) {
        Some((host, port)) => (host, Some(port.parse::<u16>().unwrap_or(0))),
        None => (authority, None),
    }
}

/// Host and port, where there is a colon outside brackets.
fn split_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    // `[::1]` and a bare `::1` have colons of their own.
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (bracketed || !host.contains(':')).then_some((host, port))
}

fn unix(node: &Node<'_>, text: &Text, scheme: &str, path: &str) -> Option<PathBuf> {
    if path.starts_with("//") {
        let path = path.trim_start_matches('/');
        return wrong(node, text, Some(format!("write \"{scheme}:/{path}\", without slashes for a host")));
    }
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return wrong(node, text, Some(format!("write the path of the socket behind `{scheme}:`")));
    }
    fits_socket(node, node.cx.base.join(path))
}

fn wrong<T>(node: &Node<'_>, text: &Text, help: Option<String>) -> Option<T> {
    // Whatever has an `@` may hold a password, even where it is not a URL.
    let shown = if text.text.contains('@') { "this value".into() } else { text.quoted() };
    let message = format!("{} takes {TAKES}, not {shown}", node.key);
    match help.filter(|_| !text.secret && !text.text.contains('@')) {
        Some(help) => node.refuse_with(message, help),
        None => node.refuse(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_outside_brackets() {
        assert_eq!(split_port("a:80"), Some(("a", "80")));
        assert_eq!(split_port("[::1]:80"), Some(("[::1]", "80")));
        assert_eq!(split_port("[::1]"), None);
        assert_eq!(split_port("::1"), None);
        assert_eq!(split_port("a"), None);
        assert_eq!(split_port("a:"), Some(("a", "")));
    }
}
