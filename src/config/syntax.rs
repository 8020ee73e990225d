//! Syntax errors: the parser's words, made plain where they mislead.

use std::collections::BTreeSet;

use super::problem::Problem;
use super::reader::Context;

/// Syntax errors and what the reader found. On a line that does not parse, the reader's word is worth nothing.
pub(super) fn with_syntax_errors(cx: &Context<'_>, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut syntax: Vec<Problem> = errors.iter().map(|error| problem(cx, error)).collect();
    syntax.sort_by_key(|problem| problem.span.start);
    // What follows on the same line is mostly an echo of the first.
    let mut broken = BTreeSet::new();
    syntax.retain(|problem| broken.insert(cx.file.line_at(problem.span.start).0));
    let read = cx
        .problems
        .take()
        .into_iter()
        .filter(|problem| problem.span.is_whole_file() || !broken.contains(&cx.file.line_at(problem.span.start).0));
    syntax.into_iter().chain(read).collect()
}

fn problem(cx: &Context<'_>, error: &toml::de::Error) -> Problem {
    let range = error.span().unwrap_or(0..0);
    // An empty span at the start would mean the whole file.
    let range = if range.end == 0 { 0..cx.file.text.len().min(1) } else { range };
    let text = cx.file.text.get(range.clone()).unwrap_or("").trim();
    let span = cx.span(&range);
    let message = error.message();
    if message == "duplicate key" {
        let problem = Problem::error(&span, format!("`{}` is written twice", text.escape_debug()));
        return problem.help("write each key and each section once");
    }
    let bare = ["string values must be quoted", "invalid float", "invalid boolean"];
    if !bare.iter().any(|start| message.starts_with(start)) {
        return Problem::error(&span, message.to_owned());
    }
    match text.to_ascii_lowercase().as_str() {
        "" => Problem::error(&span, "the value is missing"),
        "true" => Problem::error(&span, message.to_owned()).help("write true"),
        "false" => Problem::error(&span, message.to_owned()).help("write false"),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ') => {
            Problem::error(&span, message.to_owned())
        }
        _ => Problem::error(&span, "a string must be in quotes"),
    }
}
