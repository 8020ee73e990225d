//! `[defaults]`: what every route starts from.

use std::time::Duration;

use super::super::node::Node;
use super::super::reader::Table;
use super::super::settings::{AnswerSettings, CorsSettings, ErrorFormat};
use super::super::value::choice::choice;
use super::super::value::number;
use super::cors;

/// More than any disk holds, and far from where sums overflow.
const MAX_BODY: u64 = 1 << 50;

/// The keys that `[defaults]` and a route have in common, with what holds when neither has them.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) max_body: u64,
    pub(super) security_headers: bool,
    pub(super) hsts: Option<Duration>,
    pub(super) errors: ErrorFormat,
    pub(super) cors: Option<CorsSettings>,
}

impl Defaults {
    pub(super) fn answers(&self) -> AnswerSettings {
        AnswerSettings { errors: self.errors, security_headers: self.security_headers, hsts: self.hsts }
    }
}

pub(super) fn read(table: Option<Table<'_>>) -> Defaults {
    let defaults = Defaults {
        max_body: 10 * 1024 * 1024,
        security_headers: true,
        hsts: None,
        errors: ErrorFormat::Problem,
        cors: None,
    };
    let Some(table) = table else {
        return defaults;
    };
    let defaults = read_over(&table, &defaults);
    table.finish();
    defaults
}

/// What `table` says, over `defaults`. Each key is replaced as a whole: a route's `cors` inherits nothing.
pub(super) fn read_over(table: &Table<'_>, defaults: &Defaults) -> Defaults {
    table.not_yet(&["buffer", "compress", "limits"]);
    Defaults {
        max_body: table.or("max_body", defaults.max_body, |node| number::size(node, 0..=MAX_BODY)),
        security_headers: table.or("security_headers", defaults.security_headers, Node::boolean),
        hsts: table.or("hsts", defaults.hsts, hsts),
        errors: table.or("errors", defaults.errors, errors),
        cors: table.get("cors", cors::read).unwrap_or_else(|| defaults.cors.clone()),
    }
}

fn hsts(node: &Node<'_>) -> Option<Option<Duration>> {
    let takes = "\"off\" or a duration such as \"365d\"";
    if node.is_string() && node.text(takes)?.text == "off" {
        return Some(None);
    }
    number::duration_as(node, takes).map(Some)
}

fn errors(node: &Node<'_>) -> Option<ErrorFormat> {
    let formats = [
        ("problem", ErrorFormat::Problem),
        ("fastapi", ErrorFormat::FastApi),
        ("drf", ErrorFormat::Drf),
        ("plain", ErrorFormat::Plain),
    ];
    choice(node, &formats)
}
