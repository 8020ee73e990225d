//! `kind = "basic"`

use super::super::super::reader::Table;
use super::super::super::settings::BasicSettings;
use super::super::super::value;
use super::roles_by_name;

pub(super) fn read(table: &Table<'_>) -> Option<BasicSettings> {
    let htpasswd = table.require("htpasswd", "\"ops.htpasswd\"", |node| value::path(node).map(|path| node.at(path)));
    let roles = table.get("roles", roles_by_name);
    if table.has("roles") && roles.is_none() {
        return None;
    }
    Some(BasicSettings { htpasswd: htpasswd?, roles: roles.unwrap_or_default() })
}
