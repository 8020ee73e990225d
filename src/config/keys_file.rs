//! Files of API keys beside the configuration: the same entries, read by the same reader. Their problems are told at
//! the key of the main file that names them, with the file's own line in the message.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::mask;
use super::outside::{Outside, read_bounded};
use super::problem::{Problem, any_error};
use super::reader::{Context, Table};
use super::section::api_keys;
use super::settings::{ApiKeyEntry, At};
use super::source::SourceFile;
use super::syntax;

/// Some hundred thousand keys.
const MAX_KEYS_FILE: u64 = 64 * 1024 * 1024;

/// The entries of the file. `None`: `problems` says why.
pub fn read(file: &At<PathBuf>, problems: &mut Vec<Problem>) -> Option<Vec<ApiKeyEntry>> {
    let path = file.value.display();
    let text = read_bounded(&file.value, MAX_KEYS_FILE)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not valid UTF-8".to_owned()));
    let text = match text {
        Ok(text) => text,
        Err(reason) => {
            let problem = Problem::error(&file.span, format!("the keys in `{path}` cannot be read: {reason}"));
            problems.push(problem.help("paths are relative to the configuration file"));
            return None;
        }
    };
    let (keys, found) = parse(&path.to_string(), &text, file.value.parent().unwrap_or(Path::new("/")));
    let fine = !any_error(&found);
    problems.extend(found.into_iter().map(|problem| {
        let line = problem.span.file.position(problem.span.start).0;
        let place = if problem.span.is_whole_file() { String::new() } else { format!(" line {line}") };
        let told = Problem {
            severity: problem.severity,
            ..Problem::error(&file.span, format!("`{path}`{place}: {}", problem.message))
        };
        match problem.help {
            Some(help) => told.help(help),
            None => told,
        }
    }));
    keys.filter(|_| fine)
}

fn parse(name: &str, text: &str, base: &Path) -> (Option<Vec<ApiKeyEntry>>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let incomplete = !errors.is_empty();
    let environment = |name: &str| std::env::var_os(name);
    let cx = Context {
        file: Arc::new(SourceFile::new(name, mask::masked(text, table.get_ref(), incomplete))),
        base,
        outside: &Outside::new(&environment),
        incomplete,
        problems: RefCell::default(),
        files: RefCell::default(),
    };
    let root = Table::root(&cx, table.get_ref());
    let keys = root.require("keys", "[{ name = \"acme\", hash = \"sha256:...\" }]", api_keys);
    root.finish();
    let problems = syntax::with_syntax_errors(&cx, &errors);
    (keys, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        let file = At { value: path, span: crate::upstream::testing::span() };
        let mut problems = Vec::new();
        let read = read(&file, &mut problems);
        assert_eq!(read.is_none(), any_error(&problems));
        let shown = directory.path().display().to_string();
        problems.iter().map(|problem| problem.message.replace(&format!("{shown}/"), "")).collect()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_the_key() {
        let zeros = "0".repeat(64);
        assert_eq!(told(&format!("keys = [{{ name = \"a\", hash = \"sha256:{zeros}\", roles = [\"r\"] }}]")), [""; 0]);
        assert_eq!(told("keys = []"), [""; 0]);
        assert_eq!(told(""), ["`keys.toml`: `keys` is missing"]);
        let pasted = told("\nkeys = [\n  { name = \"a\", hash = \"hidden\" },\n]\nkey = 1\n");
        assert_eq!(
            pasted,
            [
                "`keys.toml` line 3: this is not the digest of a key: \"sha256:\" and 64 hexadecimal digits",
                "`keys.toml` line 5: unknown key `key`",
            ]
        );
        let twice = told(&format!(
            "keys = [{{ name = \"a\", hash = \"sha256:{zeros}\" }},\n{{ name = \"a\", hash = \"sha256:{zeros}\" }}]"
        ));
        assert_eq!(
            twice,
            ["`keys.toml` line 2: two keys have the name `a`", "`keys.toml` line 2: `a` has the same key as another"]
        );
        let broken = told("keys = [{ name = \"a\", hash = \"hidden }]");
        assert!(!broken.is_empty() && broken.iter().all(|line| !line.contains("hidden")), "{broken:?}");
    }

    #[test]
    fn a_file_that_is_not_there() {
        let file = At { value: PathBuf::from("/nowhere/keys.toml"), span: crate::upstream::testing::span() };
        let mut problems = Vec::new();
        assert!(read(&file, &mut problems).is_none());
        assert_eq!(problems[0].message, "the keys in `/nowhere/keys.toml` cannot be read: no such file");
    }
}
