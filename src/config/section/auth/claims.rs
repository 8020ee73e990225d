//! What a token says of roles and scopes, and what that means here.

use super::super::super::node::Node;
use super::super::super::reader::Table;
use super::super::super::settings::{ClaimPath, ClaimSettings};
use super::roles_by_name;

pub(super) fn read(table: &Table<'_>) -> ClaimSettings {
    ClaimSettings {
        roles: table.get("roles_claim", path).unwrap_or_else(|| of("roles")),
        scopes: table.get("scopes_claim", path).unwrap_or_else(|| of("scope")),
        roles_map: table.get("roles_map", roles_by_name),
    }
}

fn path(node: &Node<'_>) -> Option<ClaimPath> {
    let text = node.text("the name of a claim such as \"realm_access.roles\"")?;
    let path = of(&text.text);
    if path.segments.iter().any(String::is_empty) && !text.text.contains("://") {
        return node.refuse(format!("{} names no claim", text.quoted()));
    }
    Some(path)
}

fn of(text: &str) -> ClaimPath {
    ClaimPath { whole: text.to_owned(), segments: text.split('.').map(str::to_owned).collect() }
}
