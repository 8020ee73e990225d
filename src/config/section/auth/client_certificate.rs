//! `kind = "client_certificate"`

use super::super::super::reader::Table;
use super::super::super::settings::ClientCertificateSettings;

pub(super) fn read(table: &Table<'_>) -> Option<ClientCertificateSettings> {
    table.not_yet(&["kind"]);
    None
}
