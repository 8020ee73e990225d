//! Which line of the file each key stands in, for whoever explains what the configuration decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::source::SourceFile;

/// The keys of one file, dotted from the top (`route.orders.limits`), each with its line.
#[derive(Clone)]
pub struct Lines {
    file: Arc<SourceFile>,
    lines: Arc<HashMap<String, usize>>,
}

impl Lines {
    pub(super) fn of(file: &Arc<SourceFile>, root: &DeTable<'_>) -> Lines {
        let mut lines = HashMap::new();
        note(file, "", root, &mut lines);
        Lines { file: Arc::clone(file), lines: Arc::new(lines) }
    }

    /// The name that the file is reported under.
    pub fn file(&self) -> &str {
        &self.file.name
    }

    /// The line of a key, from 1; `None` where the file does not have it.
    pub fn find(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// `text` without anything that a value of this file came out as and that is secret.
    pub fn without_secrets(&self, text: &str) -> String {
        self.file.without_any_secret(text)
    }
}

/// Leaves the lines out: they say how the file is written, not what it says.
impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("file", &self.file).finish_non_exhaustive()
    }
}

fn note(file: &SourceFile, above: &str, table: &DeTable<'_>, lines: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if above.is_empty() { name.to_string() } else { [above, ".", name].concat() };
        if let DeValue::Table(table) = value.get_ref() {
            note(file, &path, table, lines);
        }
        lines.insert(path, file.line_at(key.span().start).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line() {
        let text = "[defaults]\nlimits = [\"a\"]\n\n[route.a]\npath = \"/\"\nrespond = { status = 204,\nbody = \"\" }\n\
                    [route.a.headers.request]\nset = { X-A = \"1\" }\n[route.\"b.c\"]\npath = \"/b\"\n";
        let file = Arc::new(SourceFile::new("p.toml", text));
        let lines = Lines::of(&file, DeTable::parse(text).unwrap().get_ref());
        let found = |key: &str| lines.find(key);
        assert_eq!((found("defaults"), found("defaults.limits"), found("route.a")), (Some(1), Some(2), Some(4)));
        assert_eq!((found("route.a.respond.status"), found("route.a.respond.body")), (Some(6), Some(7)));
        assert_eq!((found("route.a.headers"), found("route.a.headers.request.set.X-A")), (Some(8), Some(9)));
        assert_eq!((found("route.b.c"), found("route.b.c.path"), found("route.a.limits")), (Some(10), Some(11), None));
    }
}
