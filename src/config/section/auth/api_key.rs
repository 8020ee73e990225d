//! `kind = "api_key"`

use super::super::super::reader::Table;
use super::super::super::settings::ApiKeySettings;

pub(super) fn read(table: &Table<'_>) -> Option<ApiKeySettings> {
    table.not_yet(&["kind"]);
    None
}
