//! Problems for people and for tools.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::problem::{Problem, Severity};
use super::source::Span;

/// Every problem with its line and what to write instead, in the order of the file, and how many there are.
pub fn human(problems: &[Problem], colours: bool) -> String {
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for problem in sorted(problems) {
        out.push_str(&renderer.render(&report(problem)));
        out.push_str("\n\n");
    }
    if let Some(first) = problems.first() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}: {}", first.span.file.name, tally(problems));
    }
    out
}

/// One JSON object a line for each problem, in the order of the file.
pub fn json(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in sorted(problems) {
        let file = &problem.span.file;
        let (line, column) = (!file.text.is_empty()).then(|| file.position(problem.span.start)).unzip();
        let record = Record {
            file: &problem.span.file.name,
            line,
            column,
            severity: problem.severity.as_str(),
            message: &problem.message,
            help: problem.help.as_deref(),
        };
        // Strings and numbers always serialise.
        out.push_str(&serde_json::to_string(&record).unwrap_or_default());
        out.push('\n');
    }
    out
}

#[derive(Serialize)]
struct Record<'a> {
    file: &'a str,
    /// From 1; absent when the file could not be read.
    line: Option<usize>,
    column: Option<usize>,
    severity: &'static str,
    message: &'a str,
    help: Option<&'a str>,
}

/// "2 errors, 1 warning"
pub fn tally(problems: &[Problem]) -> String {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let words = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let parts = [words(count(Severity::Error), "error"), words(count(Severity::Warning), "warning")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn sorted(problems: &[Problem]) -> Vec<&Problem> {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by(|one, other| {
        let key = |problem: &Problem| (problem.span.start, problem.span.end, problem.severity == Severity::Warning);
        key(one).cmp(&key(other))
    });
    sorted
}

fn report(problem: &Problem) -> Vec<Group<'_>> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
    group = match line_of(&problem.span) {
        Some(line) => group.element(line.snippet(&problem.span, AnnotationKind::Primary, None)),
        None if problem.span.file.text.is_empty() => group.element(Origin::path(problem.span.file.name.as_str())),
        None => group.element(Origin::path(problem.span.file.name.as_str()).line(1).char_column(1)),
    };
    if let Some((span, label)) = &problem.also
        && let Some(line) = line_of(span)
    {
        group = group.element(line.snippet(span, AnnotationKind::Context, Some(label)));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    vec![group]
}

/// The first line of a span: enough to find the place, and all that is shown of the file.
struct Line<'a> {
    text: &'a str,
    number: usize,
    start: usize,
}

fn line_of(span: &Span) -> Option<Line<'_>> {
    if span.is_whole_file() {
        return None;
    }
    let (number, start) = span.file.line_at(span.start);
    let line = span.file.text.get(start..)?.split('\n').next().unwrap_or("");
    Some(Line { text: line.strip_suffix('\r').unwrap_or(line), number, start })
}

/// What masks a secret is as long as the secret: that is not for showing either.
fn short_masks(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut stars = 0_usize;
    for c in text.chars() {
        stars = if c == '*' { stars.saturating_add(1) } else { 0 };
        if stars <= 3 {
            shown.push(c);
        }
    }
    shown
}

impl<'a> Line<'a> {
    fn snippet(
        &self,
        span: &'a Span,
        kind: AnnotationKind,
        label: Option<&'a String>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let from = span.start.saturating_sub(self.start);
        let to = span.end.saturating_sub(self.start).max(from);
        let shown = |offset| short_masks(self.text.get(..offset).unwrap_or(self.text));
        let (from, to) = (shown(from).len(), shown(to).len());
        Snippet::source(short_masks(self.text))
            .line_start(self.number)
            .path(span.file.name.as_str())
            .annotation(kind.span(from..to).label(label))
    }
}
