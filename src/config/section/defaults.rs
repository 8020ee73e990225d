//! `[defaults]`: what every route starts from.

use std::num::NonZeroU64;
use std::time::Duration;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{
    AnswerSettings, At, BufferSettings, CorsSettings, ErrorFormat, IdentityHeaders, Priority,
};
use super::super::value::choice::choice;
use super::super::value::number;
use super::{buffer, cors, headers};

/// More than any disk holds, and far from where sums overflow.
const MAX_BODY: u64 = 1 << 50;

/// The keys that `[defaults]` and a route have in common, with what holds when neither has them.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) max_body: u64,
    pub(super) buffer: BufferSettings,
    pub(super) min_upload_rate: Option<NonZeroU64>,
    pub(super) security_headers: bool,
    pub(super) hsts: Option<Duration>,
    pub(super) errors: ErrorFormat,
    pub(super) cors: Option<CorsSettings>,
    pub(super) limits: Vec<At<String>>,
    pub(super) forward_identity: Option<IdentityHeaders>,
    pub(super) priority: Priority,
    pub(super) compress: bool,
}

impl Defaults {
    pub(super) fn answers(&self) -> AnswerSettings {
        AnswerSettings { errors: self.errors, security_headers: self.security_headers, hsts: self.hsts }
    }
}

pub(super) fn read(table: Option<Table<'_>>) -> Defaults {
    let defaults = Defaults {
        max_body: 10 * 1024 * 1024,
        buffer: BufferSettings::default(),
        min_upload_rate: None,
        security_headers: true,
        hsts: None,
        errors: ErrorFormat::Problem,
        cors: None,
        limits: Vec::new(),
        forward_identity: Some(IdentityHeaders::default()),
        priority: Priority::Normal,
        compress: true,
    };
    let Some(table) = table else {
        return defaults;
    };
    let defaults = read_over(&table, &defaults);
    table.finish();
    defaults
}

/// What `table` says, over `defaults`. Each key is replaced as a whole: a route's `cors` inherits nothing.
/// Of `buffer` each key of it.
pub(super) fn read_over(table: &Table<'_>, defaults: &Defaults) -> Defaults {
    Defaults {
        max_body: table.or("max_body", defaults.max_body, |node| number::size(node, 0..=MAX_BODY)),
        buffer: table.or("buffer", defaults.buffer, |node| buffer::read(node, &defaults.buffer)),
        min_upload_rate: table.or("min_upload_rate", defaults.min_upload_rate, buffer::min_upload_rate),
        security_headers: table.or("security_headers", defaults.security_headers, Node::boolean),
        hsts: table.or("hsts", defaults.hsts, hsts),
        errors: table.or("errors", defaults.errors, errors),
        cors: table.get("cors", cors::read).unwrap_or_else(|| defaults.cors.clone()),
        limits: table.get("limits", limits).unwrap_or_else(|| defaults.limits.clone()),
        forward_identity: table
            .get("forward_identity", |node| forward_identity(node, defaults))
            .unwrap_or_else(|| defaults.forward_identity.clone()),
        priority: table.or("priority", defaults.priority, priority),
        compress: table.or("compress", defaults.compress, Node::boolean),
    }
}

/// Empty: none.
fn limits(node: &Node<'_>) -> Option<Vec<At<String>>> {
    let names = node.list_of("a list of names such as [\"per_client\"]", |member| {
        member.text("the name of a [limit.NAME]").map(|text| member.at(text.text))
    })?;
    for (index, name) in names.iter().enumerate() {
        if let Some(earlier) = names.iter().take(index).find(|earlier| earlier.value == name.value) {
            let problem = Problem::error(&name.span, "this limit is listed twice").also(&earlier.span, "here first");
            node.cx.report(problem);
        }
    }
    Some(names)
}

/// `true`, `false`, or the names of the fields.
fn forward_identity(node: &Node<'_>, defaults: &Defaults) -> Option<Option<IdentityHeaders>> {
    if !node.is_table() {
        let names = || defaults.forward_identity.clone().unwrap_or_default();
        return node.boolean().map(|wanted| wanted.then(names));
    }
    let table = node.table()?;
    let usual = IdentityHeaders::default();
    let names = IdentityHeaders {
        subject: table.or("subject", usual.subject, headers::identity),
        roles: table.or("roles", usual.roles, headers::identity),
        scopes: table.or("scopes", usual.scopes, headers::identity),
        method: table.or("method", usual.method, headers::identity),
    };
    table.finish();
    let all = [&names.subject, &names.roles, &names.scopes, &names.method];
    if all.iter().enumerate().any(|(index, name)| all.iter().take(index).any(|earlier| earlier == name)) {
        return node.refuse(format!("{} gives two of its fields the same name", node.key));
    }
    Some(Some(names))
}

fn hsts(node: &Node<'_>) -> Option<Option<Duration>> {
    let takes = "\"off\" or a duration such as \"365d\"";
    if node.is_string() && node.text(takes)?.text == "off" {
        return Some(None);
    }
    number::duration_as(node, takes).map(Some)
}

fn priority(node: &Node<'_>) -> Option<Priority> {
    choice(node, &[("normal", Priority::Normal), ("high", Priority::High), ("low", Priority::Low)])
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
