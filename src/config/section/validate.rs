//! `[route.NAME.validate]`

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{At, OpenApiSettings, OpenApiSource, ValidateMode, ValidateSettings};
use super::super::value::{self, choice, number};
use crate::validate::content::MediaType;
use crate::validate::json::DEEPEST;

const MODES: [(&str, ValidateMode); 2] = [("enforce", ValidateMode::Enforce), ("report", ValidateMode::Report)];

pub(super) fn read(table: Table<'_>) -> Option<ValidateSettings> {
    let content_types = table.node("content_types");
    let body_schema = table.node("body_schema");
    let schemas = table.node("schemas");
    let openapi = table.node("openapi");
    let security = table.node("openapi_security");
    let settings = ValidateSettings {
        span: table.span(),
        content_types: content_types.as_ref().and_then(types).unwrap_or_default(),
        max_body: table.get("max_body", |node| number::size(node, 0..=u64::MAX >> 1)),
        body_schema: body_schema.as_ref().and_then(file),
        schemas: schemas.as_ref().and_then(files).unwrap_or_default(),
        max_depth: table.or("max_depth", 64, depth),
        openapi: openapi.as_ref().and_then(source).map(|source| OpenApiSettings {
            source,
            security: security.as_ref().and_then(Node::boolean).unwrap_or(false),
            security_span: security.as_ref().map(|node| node.cx.span(&node.key_range)),
        }),
        mode: table.or("mode", ValidateMode::Enforce, |node| choice::choice(node, &MODES)),
    };
    for (node, needs) in [
        (&schemas, ("body_schema", body_schema.is_some() || openapi.is_some())),
        (&security, ("openapi", openapi.is_some())),
    ] {
        if let (Some(node), (key, false)) = (node, needs)
            && !table.has_slip_of(key)
        {
            let problem = Problem::error(&table.cx.span(&node.key_range), format!("{} is of no use alone", node.key));
            table.cx.report(problem.help(format!("it goes with `{key}`")));
        }
    }
    if let (Some(node), true) = (&content_types, body_schema.is_some()) {
        warn_of_other_types(node, &settings.content_types);
    }
    table.finish();
    Some(settings)
}

fn types(node: &Node<'_>) -> Option<Vec<String>> {
    let list = node.list_of("a list of media types such as [\"application/json\"]", media_type)?;
    if list.is_empty() {
        return node.refuse_with(format!("{} is empty", node.key), "leave it out to take any type");
    }
    for (index, found) in list.iter().enumerate() {
        if list.iter().take(index).any(|earlier| earlier == found) {
            return node.refuse(format!("`{found}` is listed twice"));
        }
    }
    Some(list)
}

fn media_type(node: &Node<'_>) -> Option<String> {
    let text = node.text("a media type such as \"application/json\"")?;
    let Some(parsed) = MediaType::parse(&text.text) else {
        return node.refuse(format!("{} is not a media type", text.quoted()));
    };
    let essence = parsed.essence();
    if text.text.contains(';') {
        let message = format!("{} has parameters, which do not count here", text.quoted());
        return node.refuse_with(message, format!("write \"{essence}\""));
    }
    let (kind, subtype) = essence.split_once('/')?;
    let star = match subtype.split_once('*') {
        None => true,
        Some(("", rest)) => rest.is_empty() || (rest.starts_with('+') && !rest.contains('*')),
        Some(_) => false,
    };
    if kind.contains('*') || !star {
        return node.refuse_with(
            format!("{} is not a media type", text.quoted()),
            "a star stands for a whole subtype (\"image/*\") or for what is before its suffix (\"application/*+json\")",
        );
    }
    Some(essence)
}

/// A schema is one of JSON; bodies of other types would be read as that.
fn warn_of_other_types(node: &Node<'_>, types: &[String]) {
    let span = node.span();
    let other = types.iter().find(|text| MediaType::parse(text).is_some_and(|parsed| !parsed.is_json()));
    if let Some(other) = other.filter(|_| !span.is_secret()) {
        let problem = Problem::warning(&span, format!("bodies of type `{other}` must be JSON too, by `body_schema`"));
        node.cx.report(problem.help("give them a route of their own, or leave the type out"));
    }
}

fn file(node: &Node<'_>) -> Option<At<std::path::PathBuf>> {
    value::path(node).map(|path| node.at(path))
}

fn files(node: &Node<'_>) -> Option<Vec<At<std::path::PathBuf>>> {
    node.list_of("a list of files such as [\"schemas/address.json\"]", file)
}

fn depth(node: &Node<'_>) -> Option<usize> {
    node.integer(1..=DEEPEST as u64).and_then(|depth| usize::try_from(depth).ok())
}

fn source(node: &Node<'_>) -> Option<OpenApiSource> {
    const TAKES: &str = "a file, or a path of the upstream such as \"upstream:/openapi.json\"";
    let text = node.text(TAKES)?;
    if text.text.starts_with("http://") || text.text.starts_with("https://") {
        let message = format!("{} takes {TAKES}, not a URL", node.key);
        return node.refuse_with(message, "write \"upstream:/PATH\" for what the route's own upstream publishes");
    }
    let Some(path) = text.text.strip_prefix("upstream:") else {
        return file(node).map(OpenApiSource::File);
    };
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'));
    if !path.starts_with('/') || path.starts_with("//") || !plain {
        return node
            .refuse_with(format!("{} takes {TAKES}, not {}", node.key, text.quoted()), "write \"upstream:/PATH\"");
    }
    Some(OpenApiSource::Upstream(node.at(path.to_owned())))
}
