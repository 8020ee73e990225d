//! `kind = "introspection"`

use super::super::super::reader::Table;
use super::super::super::settings::IntrospectionSettings;

pub(super) fn read(table: &Table<'_>) -> Option<IntrospectionSettings> {
    table.not_yet(&["kind"]);
    None
}
