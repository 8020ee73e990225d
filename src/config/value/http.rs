//! Words of HTTP: field names and values, methods, status codes.

use std::ops::RangeInclusive;

use ::http::{HeaderName, HeaderValue, Method, StatusCode};

use super::super::node::Node;
use super::net;

/// The name of a field, as a key of the file has it.
pub(in super::super) fn header_name(node: &Node<'_>, name: &str) -> Option<HeaderName> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => {
            let message = format!("`{}` is not the name of a header field", name.escape_debug());
            node.cx.report(super::super::problem::Problem::error(&node.cx.span(&node.key_range), message));
            None
        }
    }
}

/// The name of a field, as a value of the file has it.
pub(in super::super) fn header_name_value(node: &Node<'_>) -> Option<HeaderName> {
    let text = node.text("the name of a header field")?;
    match HeaderName::from_bytes(text.text.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => node.refuse(format!("{} is not the name of a header field", text.quoted())),
    }
}

/// The value of a field. One that was drawn from a secret source hides itself in debug prints.
pub(in super::super) fn header_value(node: &Node<'_>) -> Option<HeaderValue> {
    value_of(node, "a header field")
}

/// The value of `what`, of the same characters and as well hidden.
pub(in super::super) fn value_of(node: &Node<'_>, what: &str) -> Option<HeaderValue> {
    let text = node.text("a string")?;
    if text.text != text.text.trim_matches([' ', '\t']) {
        return node.refuse(format!("the value of {what} may not begin or end with a blank"));
    }
    let Ok(mut value) = HeaderValue::from_str(&text.text) else {
        return node.refuse(format!("the value of {what} holds visible ASCII characters and blanks only"));
    };
    value.set_sensitive(text.secret);
    Some(value)
}

/// What may stand in a `Host` field: a host and perhaps a port.
pub(in super::super) fn host_value(node: &Node<'_>, takes: &str) -> Option<HeaderValue> {
    let text = node.text(takes)?;
    let host = match text.text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => host,
        Some(_) | None => text.text.as_str(),
    };
    let value = net::parse_host(host).and_then(|_| HeaderValue::from_str(&text.text).ok());
    match value {
        Some(value) => Some(value),
        None => node.refuse(format!("{} takes {takes}, not {}", node.key, text.quoted())),
    }
}

pub(in super::super) fn method(node: &Node<'_>) -> Option<Method> {
    let text = node.text("a method such as \"GET\"")?;
    let Ok(method) = Method::from_bytes(text.text.as_bytes()) else {
        return node.refuse(format!("{} is not a method", text.quoted()));
    };
    if method == Method::CONNECT || method == Method::TRACE {
        return node.refuse(format!("{method} is never served"));
    }
    // Methods are case-sensitive: `get` would be one that no client sends.
    if text.text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let upper = text.text.to_ascii_uppercase();
        let message = format!("methods are written in capitals, not {}", text.quoted());
        return if text.secret {
            node.refuse(message)
        } else {
            node.refuse_with(message, format!("write \"{upper}\""))
        };
    }
    Some(method)
}

/// A list of methods without repetition.
pub(in super::super) fn methods(node: &Node<'_>) -> Option<Vec<Method>> {
    let methods = node.list_of("a list of methods such as [\"GET\", \"POST\"]", method)?;
    if methods.is_empty() {
        return node.refuse_with(format!("{} is empty", node.key), "leave it out to take any method");
    }
    for (index, method) in methods.iter().enumerate() {
        if methods.iter().take(index).any(|earlier| earlier == method) {
            return node.refuse(format!("{method} is listed twice"));
        }
    }
    Some(methods)
}

/// A status that answers a request for good: 200 to 599.
pub(in super::super) fn status(node: &Node<'_>) -> Option<StatusCode> {
    let code = node.integer(200..=599)?;
    StatusCode::from_u16(u16::try_from(code).ok()?).ok()
}

/// `"200-399"`, `"200,204"`, `200`, or a list of these.
pub(in super::super) fn status_ranges(node: &Node<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let ranges = node.one_or_more(|member| {
        if member.is_integer() {
            let code = u16::try_from(member.integer(100..=599)?).ok()?;
            return Some(vec![code..=code]);
        }
        let takes = "status codes such as \"200-399\"";
        let text = member.text(takes)?;
        match parse_ranges(&text.text) {
            Some(ranges) => Some(ranges),
            None => member.refuse_with(
                format!("{} takes {takes}, not {}", member.key, text.quoted()),
                "write codes from 100 to 599, ranges from the lower to the higher",
            ),
        }
    })?;
    Some(ranges.into_iter().flatten().collect())
}

fn parse_ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let code = |text: &str| {
        let text = text.trim();
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|code| digits && (100..=599).contains(code))
    };
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (code(low)?, code(high)?);
        (low <= high).then_some(low..=high)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_status_codes() {
        assert_eq!(parse_ranges("200-399"), Some(vec![200..=399]));
        assert_eq!(parse_ranges("200, 204,300-302"), Some(vec![200..=200, 204..=204, 300..=302]));
        for wrong in ["", "200-", "399-200", "99", "600", "2xx", "200,,204", "+20"] {
            assert_eq!(parse_ranges(wrong), None, "{wrong}");
        }
    }
}
