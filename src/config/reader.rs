//! A collecting reader over the parsed file: it takes keys from tables, remembers which keys are known, and notes
//! every problem where it is instead of stopping at the first.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::hints;
use super::lines::Lines;
use super::node::Node;
use super::outside::Outside;
use super::problem::Problem;
use super::source::{SourceFile, Span};
use super::suggest;

/// What all parts of one reading share.
pub(super) struct Context<'a> {
    pub(super) file: Arc<SourceFile>,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    pub(super) outside: &'a Outside<'a>,
    /// The text did not parse to its end: what seems absent may only be unreadable.
    pub(super) incomplete: bool,
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Files that values were drawn from.
    pub(super) files: RefCell<BTreeSet<PathBuf>>,
}

impl Context<'_> {
    pub(super) fn span(&self, range: &Range<usize>) -> Span {
        Span { file: Arc::clone(&self.file), start: range.start, end: range.end }
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Reports that something is not there, unless it may be in the part that could not be parsed.
    pub(super) fn report_missing(&self, problem: Problem) {
        if !self.incomplete {
            self.report(problem);
        }
    }
}

/// A table of the file and the keys that have been asked for.
pub(super) struct Table<'a> {
    pub(super) cx: &'a Context<'a>,
    /// Dotted, as in `upstream.orders.health`; empty for the file itself.
    pub(super) path: String,
    pub(super) range: Range<usize>,
    entries: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn root(cx: &'a Context<'a>, entries: &'a DeTable<'a>) -> Self {
        Table::new(cx, String::new(), 0..0, entries)
    }

    pub(super) fn new(cx: &'a Context<'a>, path: String, range: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Table { cx, path, range, entries, known: RefCell::default() }
    }

    pub(super) fn span(&self) -> Span {
        self.cx.span(&self.range)
    }

    /// The line of each key, of this table and beneath.
    pub(super) fn lines(&self) -> Lines {
        Lines::of(&self.cx.file, self.entries)
    }

    /// The value of `key`, which is known from now on.
    pub(super) fn node(&self, key: &'static str) -> Option<Node<'a>> {
        self.known.borrow_mut().push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Node<'a>> {
        self.entries.get_key_value(key).map(|(key, value)| self.child(key.get_ref(), key.span(), value))
    }

    /// The value of `key`, read by `read`; `None` when it is absent or wrong.
    pub(super) fn get<T>(&self, key: &'static str, read: impl FnOnce(&Node<'a>) -> Option<T>) -> Option<T> {
        self.node(key).and_then(|node| read(&node))
    }

    /// The same with a default. A wrong value yields the default too: its problem keeps the settings from being used.
    pub(super) fn or<T>(&self, key: &'static str, default: T, read: impl FnOnce(&Node<'a>) -> Option<T>) -> T {
        self.get(key, read).unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub(super) fn require<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = self.node(key) else {
            if !self.has_slip_of(key) {
                let problem = Problem::error(&self.span(), format!("`{key}` is missing"));
                self.cx.report_missing(problem.help(format!("add {key} = {example}")));
            }
            return None;
        };
        read(&node)
    }

    /// Whether `key` is written here. Does not make it known.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether there is a key that was meant to be `key`: it will be reported as unknown, which is enough.
    pub(super) fn has_slip_of(&self, key: &str) -> bool {
        self.entries.keys().any(|written| written.get_ref() != key && suggest::is_slip(written.get_ref(), key))
    }

    /// Every entry with its name, for tables whose keys the operator chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), self.child(key.get_ref(), key.span(), value)))
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let mut known = self.known.take();
        let is_unknown = |key: &&toml::Spanned<Cow<'_, str>>| !known.contains(&key.get_ref().as_ref());
        let unknown: Vec<_> = self.entries.keys().filter(is_unknown).collect();
        if unknown.is_empty() {
            return;
        }
        known.sort_unstable();
        known.dedup();
        for key in unknown {
            let (key, span) = (key.get_ref(), key.span());
            let place = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let problem = Problem::error(&self.cx.span(&span), format!("unknown key `{}`{place}", key.escape_debug()));
            let slip = suggest::closest(key, known.iter().copied());
            let hint = hints::of_key(&self.path, key).map(str::to_owned);
            let help = hint.or_else(|| slip.map(|slip| format!("did you mean `{slip}`?")));
            self.cx.report(match help.or_else(|| suggest::help(key, &known, "keys")) {
                Some(help) => problem.help(help),
                None => problem,
            });
        }
    }

    fn child(&self, key: &str, key_range: Range<usize>, value: &'a toml::Spanned<DeValue<'a>>) -> Node<'a> {
        let path = if self.path.is_empty() { Cow::Borrowed(key) } else { [&self.path, ".", key].concat().into() };
        Node::of_key(self.cx, &path, key, key_range, value)
    }
}
