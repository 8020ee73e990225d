//! `[limit.NAME]`

use super::super::node;
use super::super::reader::Table;
use super::super::settings::LimitSettings;

pub(super) fn read(table: Table<'_>) -> Option<LimitSettings> {
    table.cx.report(node::not_yet(&table.span(), &table.path));
    None
}
