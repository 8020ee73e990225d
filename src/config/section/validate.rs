//! `[route.NAME.validate]`

use super::super::node;
use super::super::reader::Table;
use super::super::settings::ValidateSettings;

pub(super) fn read(table: Table<'_>) -> Option<ValidateSettings> {
    table.cx.report(node::not_yet(&table.span(), &table.path));
    None
}
