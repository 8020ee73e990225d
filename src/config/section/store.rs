//! `[store.NAME]`

use super::super::node;
use super::super::reader::Table;
use super::super::settings::StoreSettings;

pub(super) fn read(table: Table<'_>) -> Option<StoreSettings> {
    table.cx.report(node::not_yet(&table.span(), &table.path));
    None
}
