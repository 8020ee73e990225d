//! `multipart/form-data` (RFC 7578), read strictly: what two parsers could read in two ways is refused.

use memchr::memmem;

use super::form::MOST_FIELDS;
use crate::validate::content::MediaType;

/// Lines of a part's head, and its bytes.
const MAX_FIELDS: usize = 16;
const MAX_HEAD: usize = 16 * 1024;

/// One field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'t> {
    pub(super) name: String,
    pub(super) content_type: Option<String>,
    /// Whether it has a file's name: frameworks put it among the files then, and nowhere else.
    pub(super) is_file: bool,
    pub(super) content: &'t [u8],
}

/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(super) fn read<'t>(text: &'t [u8], boundary: Option<&str>) -> Result<Vec<Part<'t>>, &'static str> {
    let boundary = boundary.ok_or("needs a boundary in its Content-Type")?;
    // RFC 2046 section 5.1.1.
    if boundary.is_empty() || boundary.len() > 70 || !boundary.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Err("has a boundary that is none");
    }
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    let mut rest = text.strip_prefix(delimiter.as_bytes().get(2..).unwrap_or_default());
    let mut parts = Vec::new();
    loop {
        let after = rest.ok_or("must begin with its boundary")?;
        if let Some(end) = after.strip_prefix(b"--") {
            return if end.is_empty() || end == b"\r\n" { Ok(parts) } else { Err("goes on after its end") };
        }
        let after = after.strip_prefix(b"\r\n").ok_or("has a boundary with something behind it")?;
        if parts.len() >= MOST_FIELDS {
            return Err("has too many parts");
        }
        let (head, body) = match after.strip_prefix(b"\r\n") {
            Some(_) => return Err("has a part without a name"),
            None => split(after, b"\r\n\r\n").ok_or("has a part without an end of its head")?,
        };
        // The empty line may be followed by the boundary at once: its line break is then that of the head.
        let at = finder.find(body).ok_or("ends before its last boundary")?;
        let (content, found) = body.split_at_checked(at).ok_or("ends before its last boundary")?;
        parts.push(part(head, content)?);
        rest = found.get(delimiter.len()..);
    }
}

fn split<'t>(text: &'t [u8], at: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let found = memmem::find(text, at)?;
    Some((text.get(..found)?, text.get(found.saturating_add(at.len())..)?))
}

fn part<'t>(head: &[u8], content: &'t [u8]) -> Result<Part<'t>, &'static str> {
    if head.len() > MAX_HEAD {
        return Err("has a part with too large a head");
    }
    // Some parsers end a line there, to others it is part of a value.
    if memchr::memchr_iter(b'\n', head).any(|at| at.checked_sub(1).and_then(|at| head.get(at)) != Some(&b'\r')) {
        return Err("has a part with a malformed head");
    }
    let whole = [head, b"\r\n\r\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = match httparse::parse_headers(&whole, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Ok(httparse::Status::Partial) | Err(_) => return Err("has a part with a malformed head"),
    };
    let only = |name: &str| {
        let mut values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (Some(field), None) => {
                std::str::from_utf8(field.value).map(Some).map_err(|_| "has a head that is not UTF-8")
            }
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err("has a part with a field twice"),
        }
    };
    let disposition = only("content-disposition")?.ok_or("has a part without a name")?;
    if only("content-transfer-encoding")?
        .is_some_and(|coding| !["7bit", "8bit", "binary"].iter().any(|plain| coding.trim().eq_ignore_ascii_case(plain)))
    {
        return Err("has a part with a Content-Transfer-Encoding");
    }
    let (name, is_file) = name(disposition)?;
    Ok(Part { name, content_type: only("content-type")?.map(str::to_owned), is_file, content })
}

/// The name in `form-data; name="x"; filename="y"`, and whether a file's stands beside it.
fn name(disposition: &str) -> Result<(String, bool), &'static str> {
    const NAMELESS: &str = "has a part without a name";
    let parameters = disposition.trim().strip_prefix("form-data").ok_or(NAMELESS)?;
    // Of the same form as those of a media type.
    let text = format!("form/data{parameters}");
    let parsed = MediaType::parse(&text).ok_or(NAMELESS)?;
    let is_file = parsed.parameter("filename").is_some();
    if !is_file && parsed.parameter("filename*").is_some() {
        return Err("has a part with a file's name that only some would see");
    }
    Ok((parsed.parameter("name").ok_or(NAMELESS)?.into_owned(), is_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<Vec<Part<'_>>, &'static str> {
        read(text.as_bytes(), Some("X-1"))
    }

    #[test]
    fn fields_and_files() {
        let text = "--X-1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--X-1\r\n\
                    content-disposition: form-data; name=b; filename=\"x \\\"y\\\".png\"\r\nContent-Type: image/png\r\n\r\n\
                    \r\n--X-2\r\n\0\r\n--X-1--\r\n";
        let expected = [
            Part { name: "a".to_owned(), content_type: None, is_file: false, content: b"one" },
            Part {
                name: "b".to_owned(),
                content_type: Some("image/png".to_owned()),
                is_file: true,
                content: b"\r\n--X-2\r\n\0",
            },
        ];
        assert_eq!(parts(text).unwrap(), expected);
        assert_eq!(parts("--X-1--"), Ok(Vec::new()));
        let empty = parts("--X-1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--X-1--").unwrap();
        assert_eq!(empty[0].content, b"");
    }

    #[test]
    fn what_parsers_could_read_in_two_ways_is_refused() {
        let part = |head: &str| format!("--X-1\r\n{head}\r\n\r\none\r\n--X-1--\r\n");
        assert!(parts(&part("Content-Disposition: form-data; name=\"a\"")).is_ok());
        for head in [
            "Content-Disposition: form-data",
            "Content-Disposition: attachment; name=\"a\"",
            "Content-Disposition: form-data; name*=UTF-8''a",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=\"a",
            "Content-Disposition: form-data; name=\"a\\b\"",
            "Content-Disposition: form-data; name=\"a\"; filename*=utf-8''b",
            "Content-Disposition: form-data; name=\"a\"; name=\"b\"",
            "Content-Disposition: form-data; name=\"a\"; name*0=\"b\"",
            "Content-Disposition: form-data; x=\"\\\\\"; name=\"a\"; y=\"; name=b;\"",
            "Content-Disposition: form-data; name=\"a\"\nX: y; name=\"b\"",
            "X: y\nContent-Disposition: form-data; name=\"a\"",
            "Content-Type: text/plain",
            "no head",
        ] {
            assert!(parts(&part(head)).is_err(), "{head}");
        }
        let good = "Content-Disposition: form-data; name=\"a\"";
        for text in [
            String::new(),
            "--X-1".to_owned(),
            format!("preamble\r\n--X-1\r\n{good}\r\n\r\none\r\n--X-1--"),
            format!("--X-1\r\n{good}\r\n\r\none\r\n--X-1--\r\nmore"),
            format!("--X-1 \r\n{good}\r\n\r\none\r\n--X-1--"),
            format!("--X-1\r\n{good}\r\n\r\none\r\n--X-1"),
            format!("--X-1\n{good}\n\none\n--X-1--"),
            format!("--X-1\r\n{good}\r\n\r\none"),
        ] {
            assert!(parts(&text).is_err(), "{text}");
        }
        assert!(read(b"--\r\n", Some("")).is_err() && read(b"x", None).is_err());
    }
}
