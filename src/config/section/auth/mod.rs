//! `[auth.NAME]`, one file a kind.

mod api_key;
mod basic;
mod claims;
mod client_certificate;
mod introspection;
mod jwt;
mod public_key;

use std::collections::BTreeMap;

pub(in super::super) use self::api_key::entries as api_keys;
pub use self::api_key::wrong_name as wrong_key_name;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{AuthKind, AuthSettings};
use super::super::value::choice::choice;

#[derive(Clone, Copy)]
enum Kind {
    Jwt,
    Introspection,
    ApiKey,
    ClientCertificate,
    Basic,
}

const KINDS: [(&str, Kind); 5] = [
    ("jwt", Kind::Jwt),
    ("introspection", Kind::Introspection),
    ("api_key", Kind::ApiKey),
    ("client_certificate", Kind::ClientCertificate),
    ("basic", Kind::Basic),
];

const EXAMPLE: &str = "\"jwt\"; or \"introspection\", \"api_key\", \"client_certificate\", \"basic\"";

pub(super) fn read(table: Table<'_>) -> Option<AuthSettings> {
    let span = table.span();
    if table.path == "auth.public" {
        let problem = Problem::error(&span, "`public` cannot be the name of an auth: auth = \"public\" opens a route");
        table.cx.report(problem.help("give it another name"));
    }
    // Without its kind nobody can say which keys belong here.
    let kind = match table.require("kind", EXAMPLE, |node| choice(node, &KINDS))? {
        Kind::Jwt => jwt::read(&table).map(AuthKind::Jwt),
        Kind::Introspection => introspection::read(&table).map(AuthKind::Introspection),
        Kind::ApiKey => api_key::read(&table).map(AuthKind::ApiKey),
        Kind::ClientCertificate => client_certificate::read(&table).map(AuthKind::ClientCertificate),
        Kind::Basic => basic::read(&table).map(AuthKind::Basic),
    };
    table.finish();
    Some(AuthSettings { span, kind: kind? })
}

/// `{ "NAME" = ["role", …], … }`
fn roles_by_name(node: &Node<'_>) -> Option<BTreeMap<String, Vec<String>>> {
    let table = node.table()?;
    let mut roles = BTreeMap::new();
    let mut whole = true;
    for (name, node) in table.entries() {
        match names(&node, "a list of roles such as [\"reader\"]") {
            Some(names) => {
                roles.insert(name.to_owned(), names);
            }
            None => whole = false,
        }
    }
    whole.then_some(roles)
}

/// A list of scopes: none empty, none twice, and none that would be two (RFC 6749 section 3.3).
pub(super) fn scopes(node: &Node<'_>) -> Option<Vec<String>> {
    let scopes = names(node, "a list of scopes such as [\"orders:read\"]")?;
    if scopes.iter().any(|scope| wrong_scope(scope)) {
        let help = "tokens have blanks between scopes: write each by itself, [\"orders:read\", \"orders:write\"]";
        return node.refuse_with(format!("a member of {} holds a blank", node.key), help);
    }
    Some(scopes)
}

/// Whether no token could hold a scope of this name.
pub fn wrong_scope(scope: &str) -> bool {
    scope.contains(char::is_whitespace)
}

/// A list of roles, of scopes: none empty, none twice. `takes` shows one.
pub(super) fn names(node: &Node<'_>, takes: &str) -> Option<Vec<String>> {
    let names = node.list_of(takes, |member| {
        let text = member.text("a name")?;
        if text.text.is_empty() { member.refuse(format!("{} is empty", member.key)) } else { Some(text.text) }
    })?;
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            return node.refuse(format!("{} names one of its members twice", node.key));
        }
    }
    Some(names)
}
