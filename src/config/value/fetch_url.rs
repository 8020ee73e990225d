//! Where something is fetched from: `https://HOST/PATH`, or `http://` on loopback.

use std::net::IpAddr;

use super::super::node::Node;
use super::super::settings::{FetchUrl, Host};
use super::server_url;

/// Why a text is no URL that may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFetched {
    Credentials,
    Scheme,
    Character,
    Host,
    /// `http://` to another machine.
    InTheClear,
}

impl NotFetched {
    /// As it goes on after the URL's name.
    pub fn as_str(self) -> &'static str {
        match self {
            NotFetched::Credentials => "holds a user name or a password",
            NotFetched::Scheme => "is no https:// URL",
            NotFetched::Character => "has a character that a URL holds only encoded, or a fragment",
            NotFetched::Host => "names no host that can be asked",
            NotFetched::InTheClear => "goes over http:// to another machine, where whoever is between can change it",
        }
    }
}

/// A URL that may be fetched: nothing that is believed goes over a wire in the clear.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<FetchUrl, NotFetched> {
    if text.contains('@') {
        return Err(NotFetched::Credentials);
    }
    let lower = text.to_ascii_lowercase();
    let https = lower.starts_with("https://");
    if !https && !lower.starts_with("http://") {
        return Err(NotFetched::Scheme);
    }
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(NotFetched::Character);
    }
    let authority = server_url::parse_authority(authority, if https { 443 } else { 80 }).ok_or(NotFetched::Host)?;
    if !https && !is_loopback(&authority.host) {
        return Err(NotFetched::InTheClear);
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(FetchUrl { https, authority, path })
}

/// The same as a value of the file.
pub(in super::super) fn fetch_url(node: &Node<'_>, example: &str) -> Option<FetchUrl> {
    let text = node.text(&format!("a URL such as \"{example}\""))?;
    match parse(&text.text) {
        Ok(url) => Some(url),
        Err(NotFetched::Credentials) => node.refuse("this URL may not hold a user name or a password"),
        Err(NotFetched::Scheme) => node.refuse_with(
            format!("{} takes a URL such as \"{example}\", not {}", node.key, text.quoted()),
            "write the scheme too: https://",
        ),
        Err(wrong @ (NotFetched::Character | NotFetched::Host)) => {
            node.refuse(format!("{} {}", text.quoted(), wrong.as_str()))
        }
        Err(NotFetched::InTheClear) => node.refuse_with(
            format!("{} goes over https, beyond loopback", node.key),
            "write https://; whoever can change the answer could let anybody in",
        ),
    }
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(IpAddr::V4(ip)) => ip.is_loopback(),
        Host::Ip(IpAddr::V6(ip)) => ip.is_loopback(),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_fetched() {
        let shown = |text: &str| parse(text).unwrap().to_string();
        assert_eq!(shown("https://login.example.com"), "https://login.example.com:443/");
        assert_eq!(shown("HTTPS://Login.example.com/keys?secret=1"), "https://login.example.com:443/keys");
        assert_eq!(parse("https://a.test?x=1").unwrap().path, "/?x=1");
        for text in ["http://127.0.0.1:8080/keys", "http://[::1]:8080/keys", "http://localhost/keys"] {
            assert!(!parse(text).unwrap().https, "{text}");
        }
        let wrong = [
            ("http://login.example.com/keys", NotFetched::InTheClear),
            ("http://localhost.example.com/", NotFetched::InTheClear),
            ("http://10.0.0.1/", NotFetched::InTheClear),
            ("https://user:pass@example.com/", NotFetched::Credentials),
            ("ftp://example.com/", NotFetched::Scheme),
            ("/keys", NotFetched::Scheme),
            ("https:///keys", NotFetched::Host),
            ("https://example.com/a b", NotFetched::Character),
            ("https://example.com/#keys", NotFetched::Character),
        ];
        for (text, why) in wrong {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
