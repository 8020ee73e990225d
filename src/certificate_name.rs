//! Names in certificates as text: parts of a subject as RFC 4514 writes them, such as `CN=batch`, and alternative
//! names behind what they are, such as `DNS:batch.internal`.
//!
//! Whoever compares such names compares text, so each has one form: what has a meaning in it is escaped, types have one
//! spelling, and DNS names are in lower case. No value can look like another name.

use std::fmt::Write;
use std::net::IpAddr;

/// RFC 4514 section 3, and what else certificates of clients tend to have. Other types are written as numbers.
const TYPES: [(&str, &str); 12] = [
    ("CN", "2.5.4.3"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("STREET", "2.5.4.9"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("serialNumber", "2.5.4.5"),
    ("title", "2.5.4.12"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
];

/// A part of a subject: `value` is its text, or its whole encoding where it is none.
pub fn part(oid: &str, value: Result<&str, &[u8]>) -> String {
    let known = TYPES.iter().find(|(_, number)| *number == oid).map(|(name, _)| *name);
    match value {
        Ok(text) => format!("{}={}", known.unwrap_or(oid), escaped(text)),
        Err(encoding) => {
            let mut part = format!("{}=#", known.unwrap_or(oid));
            for byte in encoding {
                // Writing to a string does not fail.
                let _ = write!(part, "{byte:02x}");
            }
            part
        }
    }
}

/// An alternative name that is a DNS name.
pub fn dns(name: &str) -> String {
    format!("DNS:{}", name.to_ascii_lowercase())
}

/// RFC 4514 section 2.4; control characters too.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', c]),
            ' ' if index == 0 || index == last => escaped.push_str("\\ "),
            '#' if index == 0 => escaped.push_str("\\#"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(escaped, "\\{byte:02x}");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The one form of a name that a person wrote: a part of a subject, a whole subject (`CN=batch,O=Shop`), or an
/// alternative name. `None`: it is none of these.
pub fn normal(text: &str) -> Option<String> {
    let end = text.find([':', '='])?;
    let (kind, rest) = text.split_at_checked(end)?;
    let Some(value) = rest.strip_prefix(':') else { return subject(text) };
    if value.is_empty() || value.trim() != value {
        return None;
    }
    match kind.to_ascii_uppercase().as_str() {
        "DNS" => value.is_ascii().then(|| dns(value)),
        "IP" => value.parse::<IpAddr>().ok().map(|ip| format!("IP:{ip}")),
        "URI" => Some(format!("URI:{value}")),
        "EMAIL" => Some(format!("EMAIL:{value}")),
        _ => None,
    }
}

fn subject(text: &str) -> Option<String> {
    let mut rest = text;
    let mut normal = String::new();
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let known = TYPES.iter().find(|(known, number)| known.eq_ignore_ascii_case(name) || *number == name);
        let number = name.contains('.') && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        normal.push_str(known.map(|(known, _)| *known).or(number.then_some(name))?);
        normal.push('=');
        let (value, separator, after) = value(after)?;
        normal.push_str(&value);
        match separator {
            None => return Some(normal),
            Some(separator) => normal.push(separator),
        }
        rest = after;
    }
}

/// A value in its one form, and what separates it from what comes after.
fn value(text: &str) -> Option<(String, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    let mut bytes: Vec<u8> = Vec::new();
    // What was escaped is no blank at the end.
    let mut end = 0;
    let mut rest = text.chars();
    let separator = loop {
        match rest.next() {
            None => break None,
            Some(separator @ (',' | '+')) => break Some(separator),
            Some('"' | ';' | '<' | '>') => return None,
            Some('\\') => {
                match rest.next()? {
                    c @ ('"' | '+' | ',' | ';' | '<' | '>' | '\\' | ' ' | '#' | '=') => {
                        bytes.push(u8::try_from(c).ok()?)
                    }
                    high => {
                        let (high, low) = (high.to_digit(16)?, rest.next()?.to_digit(16)?);
                        bytes.push(u8::try_from(high << 4 | low).ok()?);
                    }
                }
                end = bytes.len();
            }
            Some(c) => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                if c != ' ' {
                    end = bytes.len();
                }
            }
        }
    };
    bytes.truncate(end);
    let value = String::from_utf8(bytes).ok()?;
    let normal = match value.strip_prefix('#').filter(|_| text.starts_with('#')) {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            format!("#{}", digits.to_ascii_lowercase())
        }
        Some(_) => return None,
        None => escaped(&value),
    };
    Some((normal, separator, rest.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_value_looks_like_another_name() {
        let cn = |text| part("2.5.4.3", Ok(text));
        assert_eq!(cn("batch"), "CN=batch");
        assert_eq!(cn("batch,O=Shop"), "CN=batch\\,O=Shop");
        assert_eq!(cn("a+OU=b"), "CN=a\\+OU=b");
        assert_eq!(cn(" a "), "CN=\\ a\\ ");
        assert_eq!(cn("#0c01"), "CN=\\#0c01");
        assert_eq!(cn("a\0b\n"), "CN=a\\00b\\0a");
        assert_eq!(cn("a\\,b"), "CN=a\\\\\\,b");
        assert_eq!(part("1.2.3", Ok("x")), "1.2.3=x");
        assert_eq!(part("2.5.4.3", Err(&[0x1e, 0x02, 0xd8, 0x00])), "CN=#1e02d800");
    }

    #[test]
    fn what_people_write_has_one_form() {
        for (written, form) in [
            ("CN=batch", "CN=batch"),
            ("cn=batch", "CN=batch"),
            ("2.5.4.3=batch", "CN=batch"),
            ("EMAILADDRESS=a@b", "emailAddress=a@b"),
            ("CN = batch , O = Shop", "CN=batch,O=Shop"),
            ("CN=a:b", "CN=a:b"),
            ("CN=Shop\\, Inc.", "CN=Shop\\, Inc."),
            ("CN=Shop\\2c Inc.", "CN=Shop\\, Inc."),
            ("CN=\\ a\\20", "CN=\\ a\\ "),
            ("CN=Gr\\c3\\b6\\c3\\9fe", "CN=Größe"),
            ("1.2.3=#0C0161", "1.2.3=#0c0161"),
            ("CN=\\#0C", "CN=\\#0C"),
            ("CN=", "CN="),
            ("dns:Batch.Internal", "DNS:batch.internal"),
            ("IP:2001:DB8:0:0::1", "IP:2001:db8::1"),
            ("URI:spiffe://shop/batch", "URI:spiffe://shop/batch"),
            ("EMAIL:A@b", "EMAIL:A@b"),
        ] {
            assert_eq!(normal(written).as_deref(), Some(form), "{written}");
        }
        for wrong in [
            "", "batch", "X=batch", "DNS:", "IP:batch", "MAIL:a", "CN=a;b", "CN=a\\", "CN=a\\zz", "CN=#zz", "CN=a,b",
            "CN=\\ff", "DNS: a",
        ] {
            assert_eq!(normal(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(text in any::<String>()) {
            let written = part("2.5.4.3", Ok(&text));
            prop_assert_eq!(normal(&written), Some(written.clone()));
            prop_assert!(written.chars().all(|c| !c.is_control()));
        }

        #[test]
        fn any_text_is_read_or_not(text in "(CN|O|DNS)?[=:,+\\\\#\" a0é]{0,12}") {
            if let Some(once) = normal(&text) {
                prop_assert_eq!(normal(&once), Some(once.clone()));
            }
        }
    }
}
