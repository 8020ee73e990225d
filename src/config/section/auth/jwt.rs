//! `kind = "jwt"`

use super::super::super::reader::Table;
use super::super::super::settings::JwtSettings;

pub(super) fn read(table: &Table<'_>) -> Option<JwtSettings> {
    table.not_yet(&["kind"]);
    None
}
