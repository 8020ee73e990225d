//! `kind = "api_key"`: keys by their digests. Nothing here shows what stands in the place of a digest: it may be a key
//! that somebody pasted.

use super::super::super::node::Node;
use super::super::super::problem::Problem;
use super::super::super::reader::Table;
use super::super::super::settings::{ApiKeyEntry, ApiKeyPlace, ApiKeySettings, At};
use super::super::super::value;
use super::super::headers;
use super::{names, scopes};

/// SHA-256 of nothing: what is pasted after hashing a variable that was not set.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Names stand in logs and header fields.
const LONGEST_NAME: usize = 200;

const NEW_KEY: &str = "run `passerelle key new --name NAME`: it prints a new key and the line to paste";

pub(super) fn read(table: &Table<'_>) -> Option<ApiKeySettings> {
    let place = place(table);
    let keys = table.get("keys", entries);
    let keys_file = table.get("keys_file", |node| value::path(node).map(|path| node.at(path)));
    if !["keys", "keys_file"].iter().any(|key| table.has(key) || table.has_slip_of(key)) {
        let problem = Problem::error(&table.span(), "there are no keys: `keys` and `keys_file` are missing");
        table.cx.report_missing(problem.help(NEW_KEY));
        return None;
    }
    if (table.has("keys") && keys.is_none()) || (table.has("keys_file") && keys_file.is_none()) {
        return None;
    }
    if let (Some([]), None, Some(node)) = (keys.as_deref(), &keys_file, table.node("keys")) {
        let problem = Problem::warning(&node.span(), format!("{} is empty: nobody has a key", node.key));
        table.cx.report(problem.help(NEW_KEY));
    }
    Some(ApiKeySettings { place: place?, keys: keys.unwrap_or_default(), keys_file })
}

fn place(table: &Table<'_>) -> Option<ApiKeyPlace> {
    match (table.node("header"), table.node("query")) {
        (Some(header), None) => headers::of_key(&header).map(ApiKeyPlace::Header),
        (None, Some(query)) => {
            let text = query.text("the name of a parameter such as \"api_key\"")?;
            if text.text.is_empty() {
                return query.refuse(format!("{} is empty", query.key));
            }
            Some(ApiKeyPlace::Query(text.text))
        }
        (Some(header), Some(query)) => {
            let problem = Problem::error(&table.cx.span(&query.key_range), "a key is in a header or in the query");
            let problem = problem.also(&table.cx.span(&header.key_range), "in a header");
            table.cx.report(problem.help("leave one out; two [auth.NAME] may share a `keys_file`"));
            None
        }
        (None, None) => {
            if !["header", "query"].iter().any(|key| table.has_slip_of(key)) {
                let problem = Problem::error(&table.span(), "where is the key? `header` and `query` are missing");
                table.cx.report_missing(problem.help("add header = \"X-API-Key\""));
            }
            None
        }
    }
}

/// `[{ name = "acme", hash = "sha256:…" }, …]`: no name and no digest twice.
pub(in super::super::super) fn entries(node: &Node<'_>) -> Option<Vec<ApiKeyEntry>> {
    let entries = node.list_of("a list of keys such as [{ name = \"acme\", hash = \"sha256:...\" }]", entry)?;
    for (index, At { value: entry, span }) in entries.iter().enumerate() {
        let mut earlier = entries.iter().take(index);
        if let Some(other) = earlier.clone().find(|other| other.value.name == entry.name) {
            let message = format!("two keys have the name `{}`", entry.name.escape_debug());
            node.cx.report(Problem::error(span, message).also(&other.span, "the first"));
        }
        if let Some(other) = earlier.find(|other| other.value.hash == entry.hash) {
            let message = format!("`{}` has the same key as another", entry.name.escape_debug());
            node.cx.report(Problem::error(span, message).also(&other.span, "this one").help(NEW_KEY));
        }
    }
    Some(entries.into_iter().map(|entry| entry.value).collect())
}

fn entry(node: &Node<'_>) -> Option<At<ApiKeyEntry>> {
    let table = node.table()?;
    if let Some(key) = table.node("key") {
        let problem = Problem::error(&table.cx.span(&key.key_range), "keys do not stand here, only their digests");
        node.cx.report(problem.help(NEW_KEY));
        return None;
    }
    let name = table.require("name", "\"acme\"", name);
    let hash = table.require("hash", "\"sha256:...\"", hash);
    let roles = table.get("roles", |node| names(node, "a list of roles such as [\"partner\"]"));
    let scopes = table.get("scopes", scopes);
    let broken = (table.has("roles") && roles.is_none()) || (table.has("scopes") && scopes.is_none());
    table.finish();
    let entry =
        ApiKeyEntry { name: name?, hash: hash?, roles: roles.unwrap_or_default(), scopes: scopes.unwrap_or_default() };
    (!broken).then(|| node.at(entry))
}

fn name(node: &Node<'_>) -> Option<String> {
    let text = node.text("the name of whoever holds the key")?;
    match wrong_name(&text.text) {
        Some(why) => node.refuse(format!("{} {why}", node.key)),
        None => Some(text.text),
    }
}

/// What keeps a text from being the name of a key.
pub fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > LONGEST_NAME {
        Some("is longer than 200 bytes")
    } else if name.chars().any(char::is_control) {
        Some("holds control characters")
    } else {
        None
    }
}

fn hash(node: &Node<'_>) -> Option<[u8; 32]> {
    let text = node.secret_text("the digest of a key, \"sha256:\" and 64 hexadecimal digits")?.text;
    let Some(digits) = text.strip_prefix("sha256:") else {
        let help = match hexadecimal(&text) {
            Some(_) => "write sha256: in front of the digits",
            None => NEW_KEY,
        };
        return node.refuse_with("this is not the digest of a key: \"sha256:\" and 64 hexadecimal digits", help);
    };
    if digits.eq_ignore_ascii_case(OF_NOTHING) {
        return node.refuse_with("this is the digest of an empty key", NEW_KEY);
    }
    match hexadecimal(digits) {
        Some(hash) => Some(hash),
        None => node.refuse_with("a digest has 64 hexadecimal digits behind \"sha256:\"", NEW_KEY),
    }
}

fn hexadecimal(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let mut nibbles = digits.chars().map(|digit| digit.to_digit(16));
    for byte in &mut hash {
        let (high, low) = (nibbles.next()??, nibbles.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    nibbles.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        assert_eq!(hexadecimal(&"0".repeat(64)), Some([0; 32]));
        assert_eq!(hexadecimal(&"fF".repeat(32)), Some([0xff; 32]));
        for wrong in ["".to_owned(), "0".repeat(63), "0".repeat(65), "g".repeat(64), "é".repeat(32)] {
            assert_eq!(hexadecimal(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_keys() {
        assert_eq!(wrong_name("acme GmbH & Cø"), None);
        for wrong in ["", "a\nb", "\u{7f}", &"a".repeat(201)] {
            assert!(wrong_name(wrong).is_some(), "{wrong:?}");
        }
    }
}
