//! Request targets and hosts: one reading of them, for matching and for what is sent on.
//!
//! The path that a route matched is the path that the backend gets. So whatever two readers could take for different
//! paths (dot segments, backslashes, control characters, bad percent codes) is refused, raw or encoded, and what is
//! left is brought to one form: unreserved characters decoded, other codes in upper case, doubled slashes merged.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::Method;

use crate::request::rejection::Cause;

/// A request's target, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub path: Path,
    /// Without its question mark.
    pub query: Option<Bytes>,
    /// From an absolute-form target; it goes before `Host` (RFC 9112 section 3.2.2).
    pub authority: Option<Host>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `OPTIONS *`
    Asterisk,
    Normal(NormalPath),
}

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath {
    text: Bytes,
    /// Whether `%2F` stands in it.
    pub encoded_slash: bool,
}

/// No name of a host in DNS is longer, with a port.
pub const LONGEST_NAME: usize = 255 + 6;

/// A valid `Host`: `name`, `name:port`, `[v6]:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    text: Bytes,
    name: usize,
}

impl NormalPath {
    /// ASCII, begins with a slash.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("/")
    }

    /// The path that an upstream sees: without `strip_prefix`, where that ends with a segment. Begins with a slash.
    pub fn behind(&self, strip_prefix: Option<&str>) -> &str {
        let path = self.as_str();
        match strip_prefix.and_then(|prefix| path.strip_prefix(prefix)) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) | None => path,
        }
    }
}

impl Host {
    /// # Errors
    /// `BadHost` for anything but a name or address, and perhaps a port.
    pub fn parse(text: Bytes) -> Result<Host, Cause> {
        let port_at = match text.first() {
            Some(b'[') => {
                let end = memchr::memchr(b']', &text).ok_or(Cause::BadHost)?;
                let inside = text.get(1..end).and_then(|inside| std::str::from_utf8(inside).ok());
                inside.and_then(|inside| inside.parse::<Ipv6Addr>().ok()).ok_or(Cause::BadHost)?;
                end.saturating_add(1)
            }
            Some(_) => memchr::memchr(b':', &text).unwrap_or(text.len()),
            None => return Err(Cause::BadHost),
        };
        let (name, port) = text.split_at_checked(port_at).ok_or(Cause::BadHost)?;
        let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let named = name.first() == Some(&b'[') || name.iter().all(is_name_byte);
        // An empty label: no name of a host has one, and a suffix would match what it was not meant for.
        let gap = name.first() == Some(&b'.') || name.windows(2).any(|two| two == b"..");
        if name.is_empty() || gap || !named || !is_port(port) {
            return Err(Cause::BadHost);
        }
        Ok(Host { name: name.len(), text })
    }

    /// As it came.
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// Without port; case and last dot as they came.
    pub fn name(&self) -> &str {
        self.as_str().get(..self.name).unwrap_or_default()
    }
}

/// Nothing, or a colon and a port that fits.
fn is_port(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', digits)) => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit.wrapping_sub(b'0'))) <= 65535
        }
        Some(_) => false,
    }
}

impl Target {
    /// Reads a target as it stood in a request line (RFC 9112 section 3.2) or in `:path`.
    ///
    /// # Errors
    /// `BadTarget`, or `BadHost` for the authority of an absolute form.
    pub fn parse(method: &Method, raw: &Bytes) -> Result<Target, Cause> {
        if raw.as_ref() == b"*" {
            let allowed = method == Method::OPTIONS;
            let target = Target { path: Path::Asterisk, query: None, authority: None };
            return if allowed { Ok(target) } else { Err(Cause::BadTarget) };
        }
        if raw.first() == Some(&b'/') {
            return Target::origin_form(raw, None);
        }
        let after_scheme = ["http://", "https://"].iter().find_map(|scheme| {
            raw.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme.as_bytes())).map(|_| scheme.len())
        });
        let rest = raw.slice(after_scheme.ok_or(Cause::BadTarget)?..);
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let authority = Host::parse(rest.slice(..end))?;
        let origin = rest.slice(end..);
        match origin.first() {
            Some(b'/') => Target::origin_form(&origin, Some(authority)),
            Some(_) => Target::origin_form(&[b"/", origin.as_ref()].concat().into(), Some(authority)),
            // RFC 9112 section 3.2.4: OPTIONS with neither path nor query is about the server as a whole.
            None if method == Method::OPTIONS => {
                Ok(Target { path: Path::Asterisk, query: None, authority: Some(authority) })
            }
            None => Target::origin_form(&Bytes::from_static(b"/"), Some(authority)),
        }
    }

    fn origin_form(raw: &Bytes, authority: Option<Host>) -> Result<Target, Cause> {
        let mark = memchr::memchr(b'?', raw);
        let path = raw.slice(..mark.unwrap_or(raw.len()));
        let query = mark.map(|mark| raw.slice(mark.saturating_add(1)..));
        let valid = |byte: &u8| (0x21..=0x7e).contains(byte) && *byte != b'#';
        if query.as_ref().is_some_and(|query| !query.iter().all(valid)) {
            return Err(Cause::BadTarget);
        }
        Ok(Target { path: Path::Normal(normalise(path)?), query, authority })
    }
}

/// Brings a path to its one form.
///
/// # Errors
/// `BadTarget` for whatever could be read in two ways.
pub fn normalise(path: Bytes) -> Result<NormalPath, Cause> {
    let mut plain = path.first() == Some(&b'/');
    let mut before = 0u8;
    for &byte in &path {
        if !(0x21..=0x7e).contains(&byte) || matches!(byte, b'\\' | b'#' | b'?') {
            return Err(Cause::BadTarget);
        }
        // What may need work: a code, a doubled slash, a segment that begins with a dot.
        plain &= byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
    }
    if plain {
        return Ok(NormalPath { text: path, encoded_slash: false });
    }
    let mut text = Vec::with_capacity(path.len());
    let mut encoded_slash = false;
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'/' if text.last() == Some(&b'/') => {}
            b'%' => {
                let value = code(rest.next(), rest.next()).ok_or(Cause::BadTarget)?;
                match value {
                    0..=0x1f | 0x7f | b'\\' => return Err(Cause::BadTarget),
                    b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => text.push(value),
                    _ => {
                        encoded_slash |= value == b'/';
                        text.extend_from_slice(&[b'%', upper_hex(value >> 4), upper_hex(value & 0xf)]);
                    }
                }
            }
            _ => text.push(byte),
        }
    }
    if text.first() != Some(&b'/') || has_dot_segment(&text, encoded_slash) {
        return Err(Cause::BadTarget);
    }
    Ok(NormalPath { text: text.into(), encoded_slash })
}

/// Whether a segment is `.` or `..`. An encoded slash counts as a separator too, since the backend may decode it.
fn has_dot_segment(path: &[u8], encoded_slash: bool) -> bool {
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    path.split(|&byte| byte == b'/').any(|segment| {
        if encoded_slash {
            std::str::from_utf8(segment).is_ok_and(|text| text.split("%2F").any(|part| is_dots(part.as_bytes())))
        } else {
            is_dots(segment)
        }
    })
}

fn code(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

fn upper_hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + (nibble - 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<String, Cause> {
        normalise(Bytes::copy_from_slice(text.as_bytes())).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn paths_have_one_form() {
        for (text, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("//", "/"),
            ("///a", "/a"),
            ("/a/", "/a/"),
            ("/%61%7E%2d", "/a~-"),
            ("/%c3%A9", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a", "/..a"),
            ("/a..", "/a.."),
            ("/...", "/..."),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a;b=c/@:!$&'()*+,=", "/a;b=c/@:!$&'()*+,="),
        ] {
            assert_eq!(path(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_is_behind_a_prefix_is_a_path() {
        for (text, prefix, behind) in [
            ("/a/b", None, "/a/b"),
            ("/a/b", Some("/a"), "/b"),
            ("/a", Some("/a"), "/"),
            ("/a/", Some("/a"), "/"),
            ("/ab/c", Some("/a"), "/ab/c"),
            ("/b", Some("/a"), "/b"),
        ] {
            let path = normalise(Bytes::from_static(text.as_bytes())).expect("accepted");
            assert_eq!(path.behind(prefix), behind, "{text} {prefix:?}");
        }
    }

    #[test]
    fn a_form_is_stable() {
        for text in ["/a//b/%41%2f%c3", "/x%25y", "/%7e//"] {
            let once = path(text).expect("accepted");
            assert_eq!(path(&once).as_ref(), Ok(&once));
        }
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_refused() {
        for text in [
            "/.",
            "/..",
            "/../",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e",
            "/a/%2e./b",
            "/a%2f..",
            "/..%2Fa",
            "/a%2f%2e%2e%2fb",
            "/a\\b",
            "/a%5cb",
            "/%00",
            "/a%0d%0a",
            "/%7f",
            "/%1F",
            "/%",
            "/%2",
            "/%zz",
            "/%2g",
            "/a b",
            "/a\u{7f}",
            "/\u{e9}",
            "/a#b",
            "a",
            "",
            "/a%",
        ] {
            assert_eq!(path(text), Err(Cause::BadTarget), "{text:?}");
        }
    }

    fn target(method: Method, text: &'static str) -> Result<Target, Cause> {
        Target::parse(&method, &Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn absolute_forms_name_the_host() {
        let read = target(Method::GET, "HTTP://Example.com:80/a?b").expect("accepted");
        assert_eq!(read.authority.map(|host| host.name().to_owned()).as_deref(), Some("Example.com"));
        assert_eq!(read.query.as_deref(), Some(&b"b"[..]));
        let bare = target(Method::GET, "http://example.com").expect("accepted");
        assert!(matches!(bare.path, Path::Normal(path) if path.as_str() == "/"));
        let query = target(Method::GET, "http://example.com?x").expect("accepted");
        assert_eq!(query.query.as_deref(), Some(&b"x"[..]));
        assert!(matches!(target(Method::OPTIONS, "http://example.com").map(|t| t.path), Ok(Path::Asterisk)));
        for text in ["http://", "http:///a", "http://user@host/", "ftp://a/", "example.com:80", "http://a b/", "a/b"] {
            assert!(target(Method::GET, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_asterisk_is_for_options() {
        assert!(matches!(target(Method::OPTIONS, "*").map(|t| t.path), Ok(Path::Asterisk)));
        assert_eq!(target(Method::GET, "*"), Err(Cause::BadTarget));
    }

    #[test]
    fn queries_are_kept_but_not_control() {
        assert_eq!(
            target(Method::GET, "/?a=%00&b=/../").map(|t| t.query),
            Ok(Some(Bytes::from_static(b"a=%00&b=/../")))
        );
        assert_eq!(target(Method::GET, "/?a#b"), Err(Cause::BadTarget));
        assert_eq!(target(Method::GET, "/?\u{e9}"), Err(Cause::BadTarget));
    }

    #[test]
    fn hosts() {
        for (text, name) in [
            ("a", "a"),
            ("A.b:80", "A.b"),
            ("[::1]:8", "[::1]"),
            ("[::1]", "[::1]"),
            ("a:", "a"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(Host::parse(Bytes::from_static(text.as_bytes())).expect("valid").name(), name);
        }
        for text in [
            "", ".", "..", ".a", "a..b", "a..", ":80", "a b", "a,b", "a/b", "a@b", "a:b", "a:99999", "a:123456",
            "[::1", "[::1]a", "[zz]", "a%20", "é", "a:80:80",
        ] {
            assert_eq!(Host::parse(Bytes::copy_from_slice(text.as_bytes())), Err(Cause::BadHost), "{text:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_is_accepted_is_in_its_one_form(text in "/([./%a-b~\\\\]|%2[eEfF5]|%5[cC]|%c3|%61|//){0,12}") {
            if let Ok(once) = normalise(Bytes::from(text)) {
                proptest::prop_assert_eq!(normalise(once.text.clone()), Ok(once.clone()));
                let decoded = once.as_str().replace("%2F", "/");
                proptest::prop_assert!(once.as_str().starts_with('/') && !once.as_str().contains("//"));
                proptest::prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."), "{decoded}");
                proptest::prop_assert!(!once.as_str().contains(['\\', '\0']) && !once.as_str().contains("%5C"));
                proptest::prop_assert_eq!(once.encoded_slash, once.as_str().contains("%2F"));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let bytes = Bytes::from(bytes);
            let _ = Host::parse(bytes.clone());
            for prefix in [&b""[..], b"/", b"http://", b"http://a/"] {
                let _ = Target::parse(&Method::GET, &Bytes::from([prefix, &bytes].concat()));
            }
        }
    }
}
