//! What a token says of roles and scopes, and what that means here.

use std::collections::BTreeMap;

use super::super::super::node::Node;
use super::super::super::reader::Table;
use super::super::super::settings::{ClaimPath, ClaimSettings};
use super::roles_by_name;

pub(super) fn read(table: &Table<'_>) -> ClaimSettings {
    ClaimSettings {
        roles: table.get("roles_claim", path).unwrap_or_else(|| of("roles")),
        scopes: table.get("scopes_claim", path).unwrap_or_else(|| of("scope")),
        roles_map: table.get("roles_map", roles_map),
    }
}

/// What it does not name is no role: where it leads to none, nobody ever has one.
fn roles_map(node: &Node<'_>) -> Option<BTreeMap<String, Vec<String>>> {
    let map = roles_by_name(node)?;
    if map.is_empty() {
        return node.refuse_with(
            format!("{} is empty: nobody would have a role", node.key),
            "leave it out to take the roles as the issuer names them",
        );
    }
    match map.iter().find(|(_, roles)| roles.is_empty()) {
        Some((name, _)) => node.refuse_with(
            format!("{} makes no role of `{}`", node.key, name.escape_debug()),
            "leave it out: what is not there is no role",
        ),
        None => Some(map),
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
