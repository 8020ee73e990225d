//! Addresses, networks, host names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::settings::{Host, HostPattern, ListenAddress};

/// `127.0.0.1:9600`, `[::1]:9600`.
pub(in super::super) fn socket_address(node: &Node<'_>) -> Option<SocketAddr> {
    socket_address_as(node, "an address such as \"127.0.0.1:9600\"")
}

fn socket_address_as(node: &Node<'_>, takes: &str) -> Option<SocketAddr> {
    let text = node.text(takes)?;
    match text.text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("{} takes {takes}, not {}", node.key, text.quoted());
            match help_for_address(&text.text).filter(|_| !text.secret) {
                Some(help) => node.refuse_with(message, help),
                None => node.refuse(message),
            }
        }
    }
}

/// What `text` may have been meant to be.
fn help_for_address(text: &str) -> Option<String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => return Some(format!("add the port: \"{address}:PORT\"")),
        Ok(IpAddr::V6(_)) => {
            return Some("write an IPv6 address in brackets, the port behind them: \"[::1]:8080\"".into());
        }
        Err(_) => {}
    }
    // A port alone.
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    port.parse::<u16>().ok()?;
    match host {
        "" | "*" => Some(format!(
            "write \"127.0.0.1:{port}\" for this machine alone, \"0.0.0.0:{port}\" for all IPv4 addresses, \
             \"[::]:{port}\" for IPv6"
        )),
        "localhost" => Some(format!("write \"127.0.0.1:{port}\"")),
        _ => Some("names are not resolved here: write an IP address".into()),
    }
}

/// A socket address or `systemd:NAME`.
pub(in super::super) fn listen_address(node: &Node<'_>) -> Option<ListenAddress> {
    let takes = "an address such as \"0.0.0.0:8080\"";
    let text = node.text(takes)?;
    let Some(name) = text.text.strip_prefix("systemd:") else {
        return socket_address_as(node, takes).map(ListenAddress::Socket);
    };
    let plain = |c: char| c.is_ascii_graphic() && c != ':';
    if name.is_empty() || name.len() > 255 || !name.chars().all(plain) {
        return node.refuse_with(
            format!("{} does not name a socket of systemd", text.quoted()),
            "write systemd:NAME, where NAME is the FileDescriptorName= of the socket unit",
        );
    }
    Some(ListenAddress::Systemd(name.to_owned()))
}

/// `10.0.0.0/8`, or an address that stands for itself alone.
pub(in super::super) fn network(node: &Node<'_>) -> Option<IpNet> {
    let takes = "a network such as \"10.0.0.0/8\"";
    let text = node.text(takes)?;
    if let Ok(address) = text.text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    let Ok(network) = text.text.parse::<IpNet>() else {
        return node.refuse(format!("{} takes {takes}, not {}", node.key, text.quoted()));
    };
    if network != network.trunc() && !text.secret {
        let message = format!("{} has bits beyond its prefix; it is taken as {}", text.quoted(), network.trunc());
        node.cx.report(Problem::warning(&node.span(), message));
    }
    Some(network.trunc())
}

/// `api.example.com`, `*.example.com`, an IP address; without a port.
pub(in super::super) fn host_pattern(node: &Node<'_>) -> Option<HostPattern> {
    let takes = "a host such as \"api.example.com\" or \"*.example.com\"";
    let text = node.text(takes)?;
    if text.text == "*" {
        return node.refuse_with("`*` is not a host", "leave `host` out to take any host that no route names");
    }
    if let Some(suffix) = text.text.strip_prefix("*.") {
        if let Some(Host::Name(name)) = parse_host(suffix) {
            return Some(HostPattern::Suffix(name));
        }
    } else if let Some(host) = parse_host(&text.text) {
        return Some(HostPattern::Exact(host_text(&host)));
    }
    let message = format!("{} takes {takes}, not {}", node.key, text.quoted());
    match help_for_host(&text.text) {
        Some(help) => node.refuse_with(message, help),
        None => node.refuse(message),
    }
}

fn help_for_host(text: &str) -> Option<&'static str> {
    if text.contains("://") {
        Some("write the host alone, without a scheme")
    } else if text.parse::<Ipv6Addr>().is_ok() {
        Some("write an IPv6 address in brackets")
    } else if text
        .rsplit_once(':')
        .is_some_and(|(host, port)| parse_host(host).is_some() && port.parse::<u16>().is_ok())
    {
        Some("write it without the port: a route serves every port that is listened on")
    } else if !text.is_ascii() {
        Some("write international names in their ASCII form (xn--…)")
    } else if text.ends_with('.') {
        Some("leave the last dot out")
    } else if text.contains('*') {
        Some("a `*` stands for the first labels alone: \"*.example.com\"")
    } else {
        None
    }
}

/// An IPv4 address, an IPv6 address in brackets, or a name (returned in lower case).
pub(in super::super) fn parse_host(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|address| Host::Ip(address.into()));
    }
    if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Ip(address.into()));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // What ends in a number is a mistyped address, which resolvers would read in ways of their own.
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let name = text.len() <= 253 && !numeric && text.split('.').all(label);
    name.then(|| Host::Name(text.to_ascii_lowercase()))
}

/// As it stands in a `Host` field.
pub(in super::super) fn host_text(host: &Host) -> String {
    match host {
        Host::Ip(IpAddr::V4(address)) => address.to_string(),
        Host::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        Host::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(parse_host("Api.Example.com"), Some(Host::Name("api.example.com".into())));
        assert_eq!(parse_host("my_service"), Some(Host::Name("my_service".into())));
        assert_eq!(parse_host("127.0.0.1"), Some(Host::Ip([127, 0, 0, 1].into())));
        assert_eq!(parse_host("[::1]"), Some(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        for wrong in
            ["", ".", "a..b", "a.", "-a", "a-", "127.1", "1", "256.1.1.1", "a b", "::1", "[::1", "é.com", "a/b", "a@b"]
        {
            assert_eq!(parse_host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_get_help() {
        assert!(help_for_address("127.0.0.1").unwrap().contains("127.0.0.1:PORT"));
        assert!(help_for_address(":80").unwrap().contains("0.0.0.0:80"));
        assert!(help_for_address("::1:80").is_some());
        assert_eq!(help_for_address("banana"), None);
    }
}
