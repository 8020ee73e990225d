//! Path patterns and what is built from their parameters.

use super::super::node::{Node, Text};
use super::super::problem::Problem;
use super::super::settings::{At, PathPattern, PatternSegment, RedirectPart};

/// A route's path. Whether `%2F` may be part of it is for the route to say.
pub(in super::super) fn path_pattern(node: &Node<'_>, encoded_slashes: bool) -> Option<At<PathPattern>> {
    let text = node.text("a path such as \"/orders/{*rest}\"")?;
    match parse(&text.text, encoded_slashes) {
        Ok(pattern) => {
            if !text.secret {
                warn_of_other_notations(node, &pattern);
            }
            Some(node.at(pattern))
        }
        Err(wrong) => refuse(node, &text, &wrong),
    }
}

/// `*` and `:name` are wildcards elsewhere, and legitimate characters here.
fn warn_of_other_notations(node: &Node<'_>, pattern: &PathPattern) {
    for segment in &pattern.segments {
        let PatternSegment::Literal(literal) = segment else { continue };
        let (what, help) = if literal.contains('*') {
            ("`*`", "write {name} for any one segment, {*rest} for all that follow".to_owned())
        } else if let Some(name) = literal.strip_prefix(':').filter(|name| is_name(name)) {
            ("`:`", format!("write {{{name}}} for any one segment"))
        } else {
            continue;
        };
        let problem = Problem::warning(&node.span(), format!("{what} stands for itself in a path"));
        return node.cx.report(problem.help(help));
    }
}

/// What is cut from the front of a path: literal segments without a slash at the end.
pub(in super::super) fn prefix(node: &Node<'_>, encoded_slashes: bool) -> Option<(String, Vec<PatternSegment>)> {
    let text = node.text("a path such as \"/orders\"")?;
    let pattern = match parse(&text.text, encoded_slashes) {
        Ok(pattern) => pattern,
        Err(wrong) => return refuse(node, &text, &wrong),
    };
    let mut prefix = String::new();
    for segment in &pattern.segments {
        match segment {
            PatternSegment::Literal(literal) if literal.is_empty() => {
                return node.refuse(format!("{} ends with a slash", text.quoted()));
            }
            PatternSegment::Literal(literal) => {
                prefix.push('/');
                prefix.push_str(literal);
            }
            PatternSegment::Parameter(_) | PatternSegment::Rest(_) => {
                return node.refuse(format!("{} takes literal segments only", node.key));
            }
        }
    }
    Some((prefix, pattern.segments))
}

/// A key of `internal_files`: a path as a service writes it after decoding, without a slash at its end.
///
/// # Errors
/// What is wrong with it, and perhaps what to write instead.
pub(in super::super) fn internal_prefix(text: &str) -> Result<String, (&'static str, Option<String>)> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(("it must begin with a slash", Some(format!("write \"/{text}\""))));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.split('/').any(|name| matches!(name, "." | "..") || (name.is_empty() && !rest.is_empty())) {
        return Err(("it has an empty name or a dot segment", None));
    }
    if rest.contains(['%', '{', '}', '?', '#', '*']) {
        return Err(("it stands for itself, without codes, parameters or a query", None));
    }
    Ok(format!("/{rest}"))
}

fn refuse<T>(node: &Node<'_>, text: &Text, wrong: &Wrong) -> Option<T> {
    let message = format!("{} cannot be a path: {}", text.quoted(), wrong.what);
    match &wrong.help {
        Some(help) if !text.secret => node.refuse_with(message, help.clone()),
        Some(_) | None => node.refuse(message),
    }
}

/// Why a text is not a pattern.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    what: &'static str,
    help: Option<String>,
}

fn wrong<T>(what: &'static str) -> Result<T, Wrong> {
    Err(Wrong { what, help: None })
}

fn wrong_with<T>(what: &'static str, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what, help: Some(help.into()) })
}

fn parse(text: &str, encoded_slashes: bool) -> Result<PathPattern, Wrong> {
    let Some(rest) = text.strip_prefix('/') else {
        return wrong_with("it must begin with a slash", format!("write \"/{text}\""));
    };
    let mut segments = Vec::new();
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        segments.push(segment(part, last, encoded_slashes)?);
    }
    let names: Vec<&str> = segments.iter().filter_map(PatternSegment::name).collect();
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            return wrong("two of its parameters have the same name");
        }
    }
    Ok(PathPattern { segments })
}

fn segment(part: &str, last: bool, encoded_slashes: bool) -> Result<PatternSegment, Wrong> {
    if part.is_empty() && !last {
        return wrong("it has two slashes in a row, which are merged in every request");
    }
    if !part.contains(['{', '}']) {
        return literal(part, encoded_slashes).map(PatternSegment::Literal);
    }
    let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
        return wrong_with("a parameter is a whole segment", "write \"/{name}/\"");
    };
    let (name, rest) = match name.strip_prefix('*') {
        Some(name) => (name, true),
        None => (name, false),
    };
    if !is_name(name) {
        let what = "a parameter's name is made of letters, digits and `_`, and does not begin with a digit";
        // Starlette's converters.
        let help = name.split_once(':').and_then(|(name, converter)| as_parameter(name, converter));
        return Err(Wrong { what, help });
    }
    match (rest, last) {
        (true, true) => Ok(PatternSegment::Rest(name.to_owned())),
        (true, false) => wrong("`{*name}` must be the last segment"),
        (false, _) => Ok(PatternSegment::Parameter(name.to_owned())),
    }
}

/// How the parameter that a Python framework writes with a converter is written here.
fn as_parameter(name: &str, converter: &str) -> Option<String> {
    let star = if converter == "path" { "*" } else { "" };
    is_name(name).then(|| format!("write {{{star}{name}}}: any text is taken, and the service judges it"))
}

/// The same for Flask's and Django's `<name>` and `<converter:name>`.
fn as_bracketed_parameter(part: &str) -> Option<String> {
    let inner = part.strip_prefix('<')?.strip_suffix('>')?;
    let (converter, name) = inner.split_once(':').unwrap_or(("", inner));
    as_parameter(name, converter)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A literal segment as it stands in a normalised request path.
fn literal(part: &str, encoded_slashes: bool) -> Result<String, Wrong> {
    let mut normal = String::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
                    return wrong("a `%` must be followed by two hexadecimal digits");
                };
                match high.wrapping_mul(16).wrapping_add(low) {
                    b'/' if encoded_slashes => normal.push_str("%2F"),
                    b'/' => {
                        return wrong_with("`%2F` is refused in requests", "set encoded_slashes = true on the route");
                    }
                    b'\\' => return wrong("`%5C` is refused in requests"),
                    0..=0x1f | 0x7f => return wrong("encoded control characters are refused in requests"),
                    byte if is_unreserved(byte) => normal.push(char::from(byte)),
                    byte => normal.push_str(&format!("%{byte:02X}")),
                }
            }
            b'?' | b'#' => return wrong("a query or fragment is no part of it"),
            b'\\' => return wrong("backslashes are refused in requests"),
            byte if is_path_byte(byte) => normal.push(char::from(byte)),
            _ => {
                return wrong_with(
                    "it has a character that a path holds only encoded",
                    as_bracketed_parameter(part).unwrap_or_else(|| format!("write {}", encoded(part))),
                );
            }
        }
    }
    if normal == "." || normal == ".." {
        return wrong("dot segments are refused in requests");
    }
    Ok(normal)
}

/// `part` with every byte that a path cannot hold percent-encoded.
fn encoded(part: &str) -> String {
    let encode = |byte: u8| if is_path_byte(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    part.bytes().take(120).map(encode).collect()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 without percent codes, and `%` itself.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@%".contains(&byte)
}

impl PatternSegment {
    /// The name of a parameter.
    pub(in super::super) fn name(&self) -> Option<&str> {
        match self {
            PatternSegment::Literal(_) => None,
            PatternSegment::Parameter(name) | PatternSegment::Rest(name) => Some(name),
        }
    }
}

/// Where a redirect leads: an absolute URL or a path, with parameters of the route's path beyond the host.
pub(in super::super) fn redirect_target(node: &Node<'_>) -> Option<Vec<RedirectPart>> {
    let takes = "a URL such as \"https://example.com/{rest}\" or a path such as \"/new/{rest}\"";
    let text = node.text(takes)?;
    match parse_target(&text.text) {
        Ok(parts) => Some(parts),
        Err(wrong) => {
            let message = format!("{} cannot be a redirect's target: {}", text.quoted(), wrong.what);
            match wrong.help {
                Some(help) if !text.secret => node.refuse_with(message, help),
                Some(_) | None => node.refuse(message),
            }
        }
    }
}

fn parse_target(text: &str) -> Result<Vec<RedirectPart>, Wrong> {
    let allowed = |byte: u8| is_path_byte(byte) || b"/?#[]{}".contains(&byte);
    if !text.bytes().all(allowed) {
        return wrong("it has a character that a URL holds only encoded");
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return wrong_with("a `{` without its `}`", "a literal brace is written %7B or %7D");
        };
        if before.contains('}') {
            return wrong_with("a `}` without its `{`", "a literal brace is written %7B or %7D");
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        if !is_name(name) {
            return wrong("in braces stands the name of one of the path's parameters");
        }
        if !before.is_empty() {
            parts.push(RedirectPart::Text(before.to_owned()));
        }
        parts.push(RedirectPart::Parameter(name.to_owned()));
        rest = after;
    }
    if rest.contains('}') {
        return wrong_with("a `}` without its `{`", "a literal brace is written %7B or %7D");
    }
    if !rest.is_empty() {
        parts.push(RedirectPart::Text(rest.to_owned()));
    }
    match parts.first() {
        Some(RedirectPart::Text(start)) => begins_well(start, parts.len() == 1)?,
        Some(RedirectPart::Parameter(_)) | None => return wrong("it must begin with https://, http:// or a slash"),
    }
    Ok(parts)
}

/// The host must be written out, or a request could choose where it is sent.
fn begins_well(start: &str, alone: bool) -> Result<(), Wrong> {
    let Some(rest) = start.strip_prefix("https://").or_else(|| start.strip_prefix("http://")) else {
        if start.starts_with("//") {
            return wrong("it must begin with https://, http:// or a single slash");
        }
        if !start.starts_with('/') {
            return wrong("it must begin with https://, http:// or a slash");
        }
        return Ok(());
    };
    let authority = match rest.split_once('/') {
        Some((authority, _)) => authority,
        None if alone => rest,
        None => return wrong("a parameter may not be part of its host"),
    };
    if super::net::parse_host(without_port(authority)).is_none() {
        return wrong("its host is malformed");
    }
    Ok(())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal_of(text: &str) -> PatternSegment {
        PatternSegment::Literal(text.into())
    }

    #[test]
    fn patterns() {
        let segments = |text| parse(text, false).map(|pattern| pattern.segments);
        assert_eq!(segments("/"), Ok(vec![literal_of("")]));
        assert_eq!(segments("/orders/"), Ok(vec![literal_of("orders"), literal_of("")]));
        assert_eq!(
            segments("/a/{id}/{*rest}"),
            Ok(vec![literal_of("a"), PatternSegment::Parameter("id".into()), PatternSegment::Rest("rest".into())])
        );
        assert_eq!(segments("/%7e%41/%c3%a9;a=b"), Ok(vec![literal_of("~A"), literal_of("%C3%A9;a=b")]));
    }

    #[test]
    fn what_no_request_can_match_is_refused() {
        for text in [
            "",
            "orders",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/%2e%2E/a",
            "/a\\b",
            "/%5c",
            "/%00",
            "/%7F",
            "/%2F",
            "/%",
            "/%4",
            "/%zz",
            "/a b",
            "/é",
            "/a?b",
            "/a#b",
            "/{",
            "/}",
            "/a{b}",
            "/{b}c",
            "/{}",
            "/{*}",
            "/{1a}",
            "/{*a}/b",
            "/{a}/{a}",
        ] {
            assert!(parse(text, false).is_err(), "{text}");
        }
        assert_eq!(parse("/a%2fb", true).map(|pattern| pattern.segments), Ok(vec![literal_of("a%2Fb")]));
    }

    #[test]
    fn redirect_targets() {
        let text = |text: &str| RedirectPart::Text(text.into());
        assert_eq!(
            parse_target("https://shop.example.com/{rest}?x"),
            Ok(vec![text("https://shop.example.com/"), RedirectPart::Parameter("rest".into()), text("?x")])
        );
        assert_eq!(parse_target("https://shop.example.com"), Ok(vec![text("https://shop.example.com")]));
        assert_eq!(parse_target("/new"), Ok(vec![text("/new")]));
        for wrong in [
            "",
            "new",
            "{rest}",
            "//evil",
            "javascript:alert(1)",
            "https://{rest}",
            "https://a.{rest}",
            "https://{a}/b",
            "/a b",
            "/a\r\nb",
            "/{",
            "/}",
            "/{a}}",
            "/\\b",
            "https:///x",
            "ftp://a/",
            "https://a{b}",
            "https://a?{b}",
        ] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
