//! Files of variables, as `.env` files are written: `NAME=value` lines with comments and quotes. Nothing in them is
//! replaced: what looks like a reference to another variable stays as it is.

/// Why a file cannot be read. Never quotes a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// From 1.
    pub(super) line: usize,
    pub(super) what: &'static str,
}

/// Names and values in the order of the file.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut variables = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1_usize;
    while !rest.is_empty() {
        let wrong = |what| Wrong { line, what };
        let end = rest.find('\n').unwrap_or(rest.len());
        let (this, _) = rest.split_at(end);
        let trimmed = this.trim_start();
        if trimmed.trim_end().is_empty() || trimmed.starts_with('#') {
            rest = rest.get(end..).and_then(|rest| rest.strip_prefix('\n')).unwrap_or_default();
            line = line.saturating_add(1);
            continue;
        }
        let (name, value) =
            rest.trim_start().split_once('=').filter(|(name, _)| !name.contains('\n')).ok_or(wrong("has no `=`"))?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_name(name) {
            return Err(wrong("does not begin with the name of a variable"));
        }
        let (value, after) = value_of(value.trim_start_matches([' ', '\t'])).map_err(wrong)?;
        if value.contains('\0') {
            return Err(wrong("holds a NUL byte"));
        }
        let taken = rest.get(..rest.len().saturating_sub(after.len())).unwrap_or_default();
        line = line.saturating_add(taken.matches('\n').count());
        variables.push((name.to_owned(), value));
        rest = after;
    }
    Ok(variables)
}

/// What can be the name of a variable, in a file and to a shell.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    name.len() <= 256 && name.bytes().all(is_word) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// The value that `text` begins with, and what comes after its line.
fn value_of(text: &str) -> Result<(String, &str), &'static str> {
    let (value, after) = match text.chars().next() {
        Some('\'') => {
            let (value, after) =
                text.get(1..).unwrap_or_default().split_once('\'').ok_or("has a quote without its end")?;
            (value.to_owned(), after)
        }
        Some('"') => double_quoted(text.get(1..).unwrap_or_default())?,
        Some(_) | None => {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            // A comment begins after a space: `a#b` is a value.
            let end = line.find(" #").or(line.find("\t#")).unwrap_or(line.len());
            let value = if line.starts_with('#') { "" } else { line.get(..end).unwrap_or(line) };
            return Ok((value.trim_end().to_owned(), after));
        }
    };
    let (line, rest) = after.split_once('\n').unwrap_or((after, ""));
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') { Ok((value, rest)) } else { Err("goes on after its closing quote") }
}

/// Up to the closing quote, with the escapes of shells and of Python's readers of such files.
fn double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at.saturating_add(1)..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, escaped @ ('"' | '\\' | '$' | '`'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("has a quote without its end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_people_write_is_understood() {
        let text = "# settings\n\nA=1\nexport B = two words  # and why\nC='single # \"$A\"'\nD=\"a\\nb \\\"c\\\"\" # x\nE=\nF=a#b\r\nG=\"two\nlines\"\n  H=1";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "single # \"$A\""),
            ("D", "a\nb \"c\""),
            ("E", ""),
            ("F", "a#b"),
            ("G", "two\nlines"),
            ("H", "1"),
        ];
        assert_eq!(read(text), pairs(&expected));
        assert_eq!(read(""), pairs(&[]));
        assert_eq!(read("A=# nothing"), pairs(&[("A", "")]));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert_eq!(wrong("A=1\nB\nC=2"), Wrong { line: 2, what: "has no `=`" });
        assert_eq!(wrong("A=\"x\ny\"\n1B=1").line, 3);
        assert_eq!(wrong("A='x").what, "has a quote without its end");
        assert_eq!(wrong("A='x' y").what, "goes on after its closing quote");
        assert_eq!(wrong("A=\"x\\").what, "has a quote without its end");
        assert_eq!(wrong("A B=1").line, 1);
    }
}
