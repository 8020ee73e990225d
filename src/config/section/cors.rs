//! `cors` of a route or of `[defaults]`.

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{CorsOrigins, CorsSettings};
use super::super::value::{http, net, number};

/// A table, or "off": `Some(None)`.
pub(super) fn read(node: &Node<'_>) -> Option<Option<CorsSettings>> {
    if node.is_table() {
        return table(node.table()?).map(Some);
    }
    let takes = "a table or \"off\"";
    let text = node.text(takes)?;
    if text.text == "off" {
        return Some(None);
    }
    node.refuse(format!("{} takes {takes}, not {}", node.key, text.quoted()))
}

fn table(table: Table<'_>) -> Option<CorsSettings> {
    let origins = table.require("origins", "[\"https://shop.example.com\"]", origins);
    let credentials = table.node("credentials");
    let with_credentials = credentials.as_ref().and_then(Node::boolean).unwrap_or(false);
    let settings = CorsSettings {
        origins: origins.clone().unwrap_or(CorsOrigins::List(Vec::new())),
        methods: table.get("methods", http::methods),
        headers: table
            .or("headers", Vec::new(), |node| node.list_of("a list of header fields", http::header_name_value)),
        credentials: with_credentials,
        max_age: table.get("max_age", number::duration),
    };
    if let Some(node) = credentials.filter(|_| with_credentials && origins == Some(CorsOrigins::Any)) {
        let problem =
            Problem::error(&node.span(), "credentials for any origin would let every site act as its visitors");
        node.cx.report(problem.help("list the origins that may send credentials"));
    }
    table.finish();
    origins.and(Some(settings))
}

fn origins(node: &Node<'_>) -> Option<CorsOrigins> {
    let takes = "a list of origins such as [\"https://shop.example.com\"]";
    let origins = node.list_of(takes, origin)?;
    let any = origins.iter().any(|origin| origin == "*");
    match origins.len() {
        0 => node.refuse_with("`origins` is empty", "leave `cors` out to allow none"),
        1 if any => Some(CorsOrigins::Any),
        _ if any => node.refuse("`*` beside other origins: it takes them all"),
        _ => Some(CorsOrigins::List(origins)),
    }
}

/// `*`, or an origin as browsers write it.
fn origin(node: &Node<'_>) -> Option<String> {
    let text = node.text("an origin such as \"https://shop.example.com\"")?;
    if text.text == "*" {
        return Some(text.text);
    }
    let lower = text.text.to_ascii_lowercase();
    let message = format!("{} is not an origin", text.quoted());
    let Some((scheme, authority)) = lower.split_once("://") else {
        return node.refuse_with(message, "write its scheme too, as in \"https://shop.example.com\"");
    };
    let default_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return node.refuse_with(message, "an origin's scheme is http or https"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) || net::parse_host(host).is_none() {
        return node.refuse_with(message, "an origin is a scheme, a host and perhaps a port, without a path");
    }
    if port == Some(default_port) {
        return node.refuse_with(message, "browsers leave the scheme's own port out: do likewise");
    }
    Some(lower)
}
