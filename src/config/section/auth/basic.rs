//! `kind = "basic"`

use super::super::super::node::Node;
use super::super::super::reader::Table;
use super::super::super::settings::{At, BasicSettings};
use super::super::super::value;
use super::roles_by_name;

pub(super) fn read(table: &Table<'_>) -> Option<BasicSettings> {
    let htpasswd = table.require("htpasswd", "\"ops.htpasswd\"", |node| value::path(node).map(|path| node.at(path)));
    let roles = table.get("roles", roles_by_name);
    if table.has("roles") && roles.is_none() {
        return None;
    }
    let users = table.node("roles").filter(Node::is_table).and_then(|node| node.table());
    let named = users
        .iter()
        .flat_map(|users| users.entries())
        .map(|(name, node)| At { value: name.to_owned(), span: node.cx.span(&node.key_range) });
    Some(BasicSettings { htpasswd: htpasswd?, roles: roles.unwrap_or_default(), named: named.collect() })
}
