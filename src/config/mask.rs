//! Hides the secrets that stand in the file itself, before anything else gets hold of its text.
//!
//! Masked are values in secret positions, values beside keys that look like one, strings that a file or a credential
//! is part of (their literal part), and URLs with a user name and password. References themselves stay readable:
//! `${file:/run/secrets/db}` is what the operator has to see. Masking replaces byte for byte, so that every place in
//! the file stays where it is. When the file does not parse, lines are judged by their look.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggest;

/// What the keys begin with that `passerelle key new` makes: scanners for leaked secrets know them by it, and so does
/// whoever reads a configuration into which one was pasted.
pub const KEY_PREFIX: &str = "psk_";

/// The keys of the configuration language whose values are secret.
const SECRET_KEYS: [&str; 3] = ["token", "secret", "client_secret"];

/// Parts of keys and of header names that give a secret away.
const SECRET_PARTS: [&str; 9] =
    ["token", "secret", "passw", "passphrase", "api_key", "apikey", "authorization", "cookie", "private_key"];

/// Keys of the configuration language that look secret and are not.
const NOT_SECRET: [&str; 3] = ["htpasswd", "token_from", "token_type"];

/// `text` with its secrets replaced by asterisks.
pub(super) fn masked(text: &str, table: &DeTable<'_>, incomplete: bool) -> String {
    let mut search = Search { text, path: Vec::new(), looks: HashMap::new(), hidden: Vec::new() };
    search.table(table, false);
    let mut hidden = search.hidden;
    if incomplete {
        by_look(text, &mut hidden);
    }
    let mut bytes = text.as_bytes().to_vec();
    for range in hidden {
        for byte in bytes.get_mut(range).unwrap_or_default() {
            if !matches!(*byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The way through the parsed file.
struct Search<'t> {
    text: &'t str,
    path: Vec<&'t str>,
    /// Which keys look secret, of those that were met: a file of many routes has the same few in each.
    looks: HashMap<&'t str, bool>,
    hidden: Vec<Range<usize>>,
}

impl<'t> Search<'t> {
    fn table(&mut self, table: &'t DeTable<'_>, secret: bool) {
        for (key, value) in table {
            self.path.push(key.get_ref());
            // What stands in `[route.tokens]` is as open as in any other route.
            let named = self.path.len() == 2 && value.get_ref().is_table();
            let secret = (secret || !named && self.is_secret_position()) && !is_open_position(&self.path);
            self.value(value, secret);
            self.path.pop();
        }
    }

    fn value(&mut self, value: &'t Spanned<DeValue<'_>>, secret: bool) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, secret),
            DeValue::Array(members) => members.iter().for_each(|member| self.value(member, secret)),
            DeValue::String(string) => {
                if secret || draws_secret(string) || has_userinfo(string) || string.contains(KEY_PREFIX) {
                    hide_literal(self.text, value.span(), &mut self.hidden);
                }
            }
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                if secret {
                    self.hidden.push(value.span());
                }
            }
        }
    }

    fn is_secret_position(&mut self) -> bool {
        match *self.path {
            ["store", _, "url"] | ["app", _, "env", ..] | ["auth", _, "keys" | "hash" | "key" | "users"] => true,
            [.., key] => *self.looks.entry(key).or_insert_with(|| looks_secret(key)),
            [] => false,
        }
    }
}

/// What stands beside the digest of an API key.
fn is_open_position(path: &[&str]) -> bool {
    matches!(path, ["auth", _, "keys", "name" | "roles" | "scopes"])
}

/// Whether what stands beside a key or a header name of this kind is a secret by its look.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    !NOT_SECRET.contains(&key.as_str())
        && (SECRET_PARTS.iter().any(|part| key.contains(part))
            || SECRET_KEYS.iter().any(|known| suggest::is_slip(&key, known)))
}

/// Whether a file or a credential is part of the string.
pub(super) fn draws_secret(string: &str) -> bool {
    string.contains("${file:") || string.contains("${credential:")
}

/// Whether there is an `@` in what follows a scheme.
fn has_userinfo(string: &str) -> bool {
    string.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Hides what is between the quotes of a string and is no reference.
fn hide_literal(text: &str, span: Range<usize>, hidden: &mut Vec<Range<usize>>) {
    let Some(raw) = text.get(span.clone()) else {
        return;
    };
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let (start, end) = (span.start.saturating_add(quotes), span.end.saturating_sub(quotes));
    if start < end {
        hide_but_references(text, start..end, hidden);
    }
}

fn hide_but_references(text: &str, range: Range<usize>, hidden: &mut Vec<Range<usize>>) {
    let mut from = range.start;
    while let Some(reference) = next_reference(text, from..range.end) {
        hidden.push(from..reference.start);
        from = reference.end;
    }
    hidden.push(from..range.end);
}

/// The next `${…}` that says nothing but where a value comes from: a default would be a value itself.
fn next_reference(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let mut from = range.start;
    loop {
        let rest = text.get(from..range.end)?;
        let start = from.saturating_add(rest.find("${")?);
        let end = start.saturating_add(text.get(start..range.end)?.find('}')?).saturating_add(1);
        let inner = text.get(start.saturating_add(2)..end.saturating_sub(1))?;
        let escaped = text.get(..start).is_some_and(|before| before.ends_with('$'));
        let plain = !inner.contains(['\n', '"', '\'', '\\', '{', '$']) && !inner.contains(":-");
        let known = ["env:", "file:", "credential:"].iter().any(|source| inner.starts_with(source));
        if !escaped && plain && known {
            return Some(start..end);
        }
        from = start.saturating_add(2);
    }
}

/// For a file that does not parse: hides what follows a word that looks secret, to the end of its line and through
/// the lines after it that do not look like the next statement.
fn by_look(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut hiding: Option<Hiding> = None;
    let mut start = 0_usize;
    for line in text.split_inclusive('\n') {
        let end = start.saturating_add(line.len());
        hiding = match hiding {
            Some(Hiding::Until(delimiter)) => {
                hidden.push(start..end);
                if line.contains(delimiter) { Some(Hiding::ToStatement) } else { Some(Hiding::Until(delimiter)) }
            }
            Some(Hiding::ToStatement) if !looks_like_statement(line) => {
                hidden.push(start..end);
                Some(Hiding::ToStatement)
            }
            Some(Hiding::ToStatement) | None => match secret_in_line(line) {
                Some(after) => {
                    hide_but_references(text, start.saturating_add(after)..end, hidden);
                    Some(Hiding::after(line.get(after..).unwrap_or("")))
                }
                None => None,
            },
        };
        start = end;
    }
}

enum Hiding {
    /// To the end of a string over several lines.
    Until(&'static str),
    /// To what looks like the next statement.
    ToStatement,
}

impl Hiding {
    fn after(value: &str) -> Hiding {
        let open = ["\"\"\"", "'''"].into_iter().find(|delimiter| value.matches(delimiter).count() == 1);
        open.map_or(Hiding::ToStatement, Hiding::Until)
    }
}

/// Where in the line a secret may begin.
fn secret_in_line(line: &str) -> Option<usize> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut word_start = None;
    let mut found = None;
    for (index, c) in line.char_indices().chain([(line.len(), '\n')]) {
        match (word_start, is_word(c)) {
            (None, true) => word_start = Some(index),
            (Some(start), false) => {
                word_start = None;
                let (word, rest) = (line.get(start..index).unwrap_or(""), line.get(index..).unwrap_or(""));
                // Where a digest should stand a key may have been pasted.
                let digest = matches!(word, "hash" | "keys" | "key" | "users") && rest.trim_start().starts_with('=');
                if digest || word.contains(KEY_PREFIX) {
                    found = Some(if digest { index } else { start });
                    break;
                }
                if looks_secret(word) {
                    found = Some(index);
                    break;
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    let userinfo = has_userinfo(line).then(|| line.find("://")).flatten();
    let drawn = draws_secret(line).then(|| line.find(['=', '"', '\'']).unwrap_or(0));
    [found, userinfo, drawn].into_iter().flatten().min()
}

fn looks_like_statement(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with('[') {
        return line.contains(']');
    }
    let Some((key, value)) = line.split_once('=') else {
        return false;
    };
    let key = key.trim();
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.\"' ".contains(&byte));
    plain && value.trim_start().starts_with(|c: char| c.is_ascii_digit() || "\"'[{tf+-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        let (table, errors) = DeTable::parse_recoverable(text);
        let masked = masked(text, table.get_ref(), !errors.is_empty());
        assert_eq!(masked.len(), text.len());
        masked
    }

    #[test]
    fn secret_positions() {
        assert_eq!(mask("[admin]\ntoken = \"abc\"\n"), "[admin]\ntoken = \"***\"\n");
        assert_eq!(mask("admin.token = 'a\"c'"), "admin.token = '***'");
        assert_eq!(mask("admin = { token = 123 }"), "admin = { token = *** }");
        assert_eq!(mask("admin.token = [\"abc\"]"), "admin.token = [\"***\"]");
        assert_eq!(mask("admin.tokn = \"abc\""), "admin.tokn = \"***\"");
        assert_eq!(mask("a.token = \"\"\"ab\nc\"\"\""), "a.token = \"\"\"**\n*\"\"\"");
        assert_eq!(mask("set = { Authorization = \"Basic é\" }"), "set = { Authorization = \"********\" }");
    }

    #[test]
    fn api_keys() {
        assert_eq!(
            mask("[auth.a]\nkeys = [{ name = \"n\", hash = \"abc\", key = \"k\", roles = [\"r\"] }, \"abc\"]"),
            "[auth.a]\nkeys = [{ name = \"n\", hash = \"***\", key = \"*\", roles = [\"r\"] }, \"***\"]"
        );
        assert_eq!(mask("{ name = \"n\", hash = \"abc }\nx = 1\n"), "{ name = \"n\", hash*********\nx = 1\n");
        assert_eq!(mask("keys = [\"abc\n"), "keys********\n");
    }

    #[test]
    fn what_was_written_a_level_too_high() {
        assert_eq!(mask("[auth.p]\nhash = \"abc\"\nkey = \"abc\"\n"), "[auth.p]\nhash = \"***\"\nkey = \"***\"\n");
        assert_eq!(mask("auth.o.users = { bob = \"abc\" }"), "auth.o.users = { bob = \"***\" }");
        assert_eq!(mask("auth.o.users = [\"bob:abc\"]"), "auth.o.users = [\"*******\"]");
        assert_eq!(mask("auth.o.password = \"abc\""), "auth.o.password = \"***\"");
        assert_eq!(mask("[limit.l]\nkey = \"client_ip\""), "[limit.l]\nkey = \"client_ip\"");
        assert_eq!(mask("x = \"psk_abc\""), "x = \"*******\"");
        assert_eq!(mask("[auth.p]\nkey = \"abc\nx = 1"), "[auth.p]\nkey*******\nx = 1");
        assert_eq!(mask("x = [psk_abc\ny = 1"), "x = [*******\ny = 1");
    }

    #[test]
    fn names_of_sections_say_nothing_of_what_stands_in_them() {
        let text = "[route.tokens]\npath = \"/tokens\"\n[auth.secret]\nissuer = \"shop\"\n";
        assert_eq!(mask(text), text);
        assert_eq!(mask("[auth]\nsecret = \"abc\""), "[auth]\nsecret = \"***\"");
        assert_eq!(mask("[auth.token]\nsecret = \"abc\""), "[auth.token]\nsecret = \"***\"");
    }

    #[test]
    fn references_stay() {
        assert_eq!(mask("token = \"${file:/run/t}\""), "token = \"${file:/run/t}\"");
        assert_eq!(mask("token = \"a${env:T}b\""), "token = \"*${env:T}*\"");
        assert_eq!(mask("token = \"${env:T:-abc}\""), "token = \"*************\"");
        assert_eq!(mask("token = \"$${env:T}\""), "token = \"*********\"");
        assert_eq!(mask("url = \"x${file:p}y\""), "url = \"*${file:p}*\"");
        assert_eq!(mask("url = \"x\\u0024{file:p}y\""), "url = \"****************\"");
        assert_eq!(mask("url = \"x${env:p}y\""), "url = \"x${env:p}y\"");
    }

    #[test]
    fn variables_of_apps() {
        let text =
            "[app.a]\nenv = { A = \"abc\", B = 12, C = \"${file:c}\" }\nenv_file = \".env\"\npass_env = [\"TZ\"]";
        let shown =
            "[app.a]\nenv = { A = \"***\", B = **, C = \"${file:c}\" }\nenv_file = \".env\"\npass_env = [\"TZ\"]";
        assert_eq!(mask(text), shown);
        assert_eq!(mask("app.a.env = [\"A=abc\"]"), "app.a.env = [\"*****\"]");
        assert_eq!(mask("[app.a.env]\nA = \"abc\""), "[app.a.env]\nA = \"***\"");
    }

    #[test]
    fn passwords_in_urls() {
        assert_eq!(mask("servers = [\"http://u:p@h\"]"), "servers = [\"************\"]");
    }

    #[test]
    fn what_does_not_parse() {
        assert_eq!(mask("token = \"abc\n"), "token*******\n");
        assert_eq!(mask("token: abc\nx = 1"), "token*****\nx = 1");
        assert_eq!(mask("token = \"abc\ndef\"\nx = 1\n"), "token*******\n****\nx = 1\n");
        assert_eq!(mask("token = '''abc\nx = 1\n"), "token*********\n*****\n");
        assert_eq!(mask("a = \"http://u:p@h\nb = 1"), "a = \"************\nb = 1");
    }
}
