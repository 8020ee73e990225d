//! Lists of entity tags (RFC 9110 section 8.8.3).

/// The entity tags of a list, each with its quotes and its `W/`. What is malformed ends it.
pub fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        while let Some(behind) = rest.strip_prefix(b",") {
            rest = behind.trim_ascii_start();
        }
        let weak = if rest.starts_with(b"W/") { 2 } else { 0 };
        let opaque = rest.get(weak..)?.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', opaque)?;
        // `W/`, two quotes and what is between them.
        let (tag, behind) = rest.split_at_checked(weak.saturating_add(end).saturating_add(2))?;
        rest = behind;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_list_of_tags_comes_to_an_end(line in "[W/\", a*\\\\]{0,40}") {
            for tag in tags(line.as_bytes()) {
                proptest::prop_assert!(tag.ends_with(b"\"") && tag.len() >= 2);
            }
        }
    }
}
