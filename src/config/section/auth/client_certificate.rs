//! `kind = "client_certificate"`

use std::collections::BTreeMap;

use super::super::super::node::Node;
use super::super::super::problem::Problem;
use super::super::super::reader::Table;
use super::super::super::settings::{CertificateSubject, ClientCertificateSettings};
use super::super::super::value::choice::choice;
use super::names;
use crate::certificate_name::normal;

const SUBJECTS: [(&str, CertificateSubject); 2] =
    [("subject", CertificateSubject::Subject), ("san", CertificateSubject::San)];

pub(super) fn read(table: &Table<'_>) -> Option<ClientCertificateSettings> {
    let subject = table.get("subject", |node| choice(node, &SUBJECTS));
    let roles = table.get("roles", roles);
    if (table.has("subject") && subject.is_none()) || (table.has("roles") && roles.is_none()) {
        return None;
    }
    Some(ClientCertificateSettings { roles: roles.unwrap_or_default(), subject: subject.unwrap_or_default() })
}

/// `{ "CN=batch" = ["batch"] }`, each name in its one form.
fn roles(node: &Node<'_>) -> Option<BTreeMap<String, Vec<String>>> {
    let mut roles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut whole = true;
    for (written, node) in node.table()?.entries() {
        let of_name = names(&node, "a list of roles such as [\"batch\"]");
        let key = node.cx.span(&node.key_range);
        let shown = written.escape_debug();
        match normal(written) {
            None => {
                let problem = Problem::error(&key, format!("`{shown}` cannot be a name in a certificate"));
                node.cx.report(problem.help(
                    "write \"CN=batch\" or the whole subject, \"DNS:batch.internal\", \"URI:...\", \"EMAIL:...\" or \
                     \"IP:...\"; what has a meaning in a value, such as a comma, stands behind a backslash",
                ));
                whole = false;
            }
            Some(name) if roles.contains_key(&name) => {
                node.cx.report(Problem::error(&key, format!("`{shown}` is the same name as another")));
                whole = false;
            }
            Some(name) => match of_name {
                Some(of_name) => {
                    roles.insert(name, of_name);
                }
                None => whole = false,
            },
        }
    }
    whole.then_some(roles)
}
