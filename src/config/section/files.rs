//! `files` with what goes with it, and `internal_files`.

use ::http::HeaderValue;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{FilesSettings, InternalFilesSettings};
use super::super::value::{self, http, pattern};
use super::route::only_for_upstreams;

/// `files`, `cache_control` and `fallback` of a route.
pub(super) fn read(table: &Table<'_>, files: Option<&Node<'_>>) -> Option<FilesSettings> {
    let fallback = table.node("fallback");
    let cache_control = table.node("cache_control");
    for node in [&fallback, &cache_control].into_iter().flatten() {
        if files.is_none() && !table.has_slip_of("files") {
            let message = format!("{} has no effect on a route without `files`", node.key);
            let problem = Problem::error(&node.cx.span(&node.key_range), message);
            let set = "what a service says is changed by headers = { response = { set = { Cache-Control = \"…\" } } }";
            node.cx.report(if node.key == "`cache_control`" && table.has("upstream") {
                problem.help(set)
            } else {
                problem
            });
        }
    }
    let fallback = fallback.and_then(|node| node.text("the name of an upstream").map(|text| node.at(text.text)));
    let cache_control = cache_control.as_ref().and_then(cache_control_value);
    let files = files?;
    let path = value::path(files).map(|path| files.at(path))?;
    Some(FilesSettings { path, cache_control, fallback })
}

fn cache_control_value(node: &Node<'_>) -> Option<HeaderValue> {
    let value = http::header_value(node)?;
    if value.is_empty() {
        node.refuse_with("`cache_control` is empty", "leave it out to send none")
    } else {
        Some(value)
    }
}

/// `internal_files = { "/protected" = "/srv/protected" }`.
pub(super) fn internal(table: &Table<'_>) -> Vec<InternalFilesSettings> {
    let Some(node) = table.node("internal_files") else { return Vec::new() };
    only_for_upstreams(table, &node);
    let Some(entries) = node.table() else { return Vec::new() };
    let mut list: Vec<InternalFilesSettings> = Vec::new();
    for (key, node) in entries.entries() {
        let key_span = node.cx.span(&node.key_range);
        let directory = value::path(&node).map(|path| node.at(path));
        let prefix = match pattern::internal_prefix(key) {
            Ok(prefix) => prefix,
            Err((what, help)) => {
                let problem = Problem::error(&key_span, format!("`{}` cannot be a path: {what}", key.escape_debug()));
                node.cx.report(match help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
                continue;
            }
        };
        if list.iter().any(|earlier| earlier.prefix == prefix) {
            node.cx.report(Problem::error(&key_span, format!("`{}` is declared twice", prefix.escape_debug())));
            continue;
        }
        if let Some(directory) = directory {
            list.push(InternalFilesSettings { prefix, directory });
        }
    }
    list
}
