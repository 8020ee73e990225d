//! `passerelle key new`: a new API key and the line of configuration that lets it in.
//!
//! Standard output has two lines, for scripts: the key, then the entry. What a person needs to know beside goes to
//! standard error.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Exit, print_error};
use crate::admit::digest::digest;
use crate::config::{KEY_PREFIX, wrong_key_name, wrong_scope};

/// What the new key is for.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct NewKey {
    /// Who will hold it: the caller's name in X-Auth-Subject and in logs
    #[arg(long, value_parser = name)]
    name: String,
    /// A role of its holder; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    roles: Vec<String>,
    /// A scope of its holder; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
}

fn name(text: &str) -> Result<String, String> {
    match wrong_key_name(text) {
        Some(why) => Err(format!("the name {why}")),
        None => Ok(text.to_owned()),
    }
}

fn scope(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a scope has a name".to_owned())
    } else if wrong_scope(text) {
        Err("a scope has no blanks: repeat --scope for each".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn new(wanted: &NewKey) -> Exit {
    let mut random = [0; 32];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        print_error("passerelle: the system gives no random bytes\n");
        return Exit::Failed;
    }
    let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let printed = format!("{key}\n{}\n", entry(wanted, &key));
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(printed.as_bytes()).and_then(|()| out.flush()) {
        print_error(&format!("passerelle: cannot write to standard output: {error}\n"));
        return Exit::Failed;
    }
    print_error(
        "\nThe first line is the key: hand it over on a safe way, it is shown nowhere again.\n\
         The second line goes into `keys` of its [auth.NAME], or of its `keys_file`.\n",
    );
    Exit::Fine
}

/// The line to paste. It ends with a comma, as a member of a list.
fn entry(wanted: &NewKey, key: &str) -> String {
    let hash: String = digest([key.as_bytes()]).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut entry = format!("{{ name = {}, hash = \"sha256:{hash}\"", quoted(&wanted.name));
    for (list, values) in [("roles", distinct(&wanted.roles)), ("scopes", distinct(&wanted.scopes))] {
        if !values.is_empty() {
            let quoted: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            entry.push_str(&format!(", {list} = [{}]", quoted.join(", ")));
        }
    }
    entry.push_str(" },");
    entry
}

/// In the order that they were given.
fn distinct(values: &[String]) -> Vec<&str> {
    let mut seen: Vec<&str> = Vec::new();
    for value in values {
        if !seen.contains(&value.as_str()) {
            seen.push(value);
        }
    }
    seen
}

/// As a basic string of TOML; `${` would draw from outside.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_paste_is_toml_whatever_the_name() {
        let wanted = NewKey {
            name: "Größe \"x\" \\ ${env:HOME}".into(),
            roles: vec!["a".into(), "b\t".into(), "a".into()],
            scopes: Vec::new(),
        };
        let line = entry(&wanted, "key");
        assert_eq!(
            line,
            "{ name = \"Größe \\\"x\\\" \\\\ $${env:HOME}\", \
             hash = \"sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\", \
             roles = [\"a\", \"b\\u0009\"] },"
        );
        assert!(toml::de::DeTable::parse(&format!("keys = [\n{line}\n]")).is_ok());
    }
}
