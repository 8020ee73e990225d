//! `kind = "basic"`

use super::super::super::reader::Table;
use super::super::super::settings::BasicSettings;

pub(super) fn read(table: &Table<'_>) -> Option<BasicSettings> {
    table.not_yet(&["kind"]);
    None
}
