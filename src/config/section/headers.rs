//! Header fields that the operator sets and removes.

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};

use super::super::mask;
use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{HeaderChanges, IdentityHeaders};
use super::super::value::http;

/// Which message the fields belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Request,
    Response,
    /// A fixed answer.
    Respond,
    /// A health check.
    Probe,
}

/// `headers = { request = …, response = … }`. `identity`: the fields that tell services who is calling.
pub(super) fn changes(table: Option<Table<'_>>, identity: Option<&IdentityHeaders>) -> (HeaderChanges, HeaderChanges) {
    let Some(table) = table else {
        return Default::default();
    };
    let request = changes_of(table.get("request", Node::table), Where::Request, identity);
    let response = changes_of(table.get("response", Node::table), Where::Response, None);
    table.finish();
    (request, response)
}

fn changes_of(table: Option<Table<'_>>, place: Where, identity: Option<&IdentityHeaders>) -> HeaderChanges {
    let Some(table) = table else {
        return HeaderChanges::default();
    };
    let set = table.or("set", Vec::new(), |node| values(node, place));
    let tells = |name: &str| identity.is_some_and(|identity| identity.holds(name));
    for (key, node) in
        table.node("set").filter(Node::is_table).and_then(|node| node.table()).iter().flat_map(Table::entries)
    {
        if tells(key) {
            let message = format!("`{}` tells who is calling: the gateway writes it", key.to_ascii_lowercase());
            let problem = Problem::error(&node.cx.span(&node.key_range), message);
            node.cx.report(problem.help("leave it out, or set forward_identity = false"));
        }
    }
    let remove = table.or("remove", Vec::new(), |node| {
        node.list_of("a list of header fields", |member| {
            let name = http::header_name_value(member)?;
            if let Some((message, help)) = refused(&name, place) {
                return member.refuse_with(message, help);
            }
            if tells(name.as_str()) {
                let help = "what a client sends under this name never goes on; forward_identity = false tells nobody";
                return member.refuse_with(format!("`{name}` tells who is calling: the gateway writes it"), help);
            }
            if place == Where::Response && name == DATE {
                // RFC 9110 section 6.6.1.
                let help = "leave it out: HTTP demands it of whoever has a clock";
                return member.refuse_with(format!("`{name}` is written by the gateway"), help);
            }
            if set.iter().any(|(known, _)| *known == name) {
                return member.refuse(format!("`{name}` is set and removed"));
            }
            Some(name)
        })
    });
    table.finish();
    HeaderChanges { set, remove }
}

/// A table of fields and their values.
pub(super) fn values(node: &Node<'_>, place: Where) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let table = node.table()?;
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut whole = true;
    for (key, node) in table.entries() {
        let (name, value) = (http::header_name(&node, key), http::header_value(&node));
        let (Some(name), Some(mut value)) = (name, value) else {
            whole = false;
            continue;
        };
        // `Authorization` and its like hide themselves in debug prints, wherever their values came from.
        value.set_sensitive(value.is_sensitive() || mask::looks_secret(name.as_str()));
        let key_span = node.cx.span(&node.key_range);
        if let Some((message, help)) = refused(&name, place) {
            node.cx.report(Problem::error(&key_span, message).help(help));
        } else if fields.iter().any(|(known, _)| *known == name) {
            node.cx.report(Problem::error(&key_span, format!("`{name}` is set twice: case does not count")));
        } else {
            fields.push((name, value));
        }
    }
    whole.then_some(fields)
}

/// The name of a field that tells servers who is calling.
pub(super) fn identity(node: &Node<'_>) -> Option<HeaderName> {
    let name = http::header_name_value(node)?;
    if let Some((message, help)) = refused(&name, Where::Request) {
        return node.refuse_with(message, help);
    }
    let standard = [CONTENT_TYPE, DATE, ::http::header::AUTHORIZATION, ::http::header::COOKIE, ::http::header::ORIGIN];
    if standard.contains(&name) || name.as_str().contains('_') {
        let help = "take a name of its own such as \"X-Auth-Subject\", with dashes";
        return node.refuse_with(format!("`{name}` cannot tell who is calling"), help);
    }
    Some(name)
}

/// The name of a field that holds an API key.
pub(super) fn of_key(node: &Node<'_>) -> Option<HeaderName> {
    let name = http::header_name_value(node)?;
    if let Some((message, help)) = refused(&name, Where::Request) {
        return node.refuse_with(message, help);
    }
    let standard = [CONTENT_TYPE, DATE, ::http::header::AUTHORIZATION, ::http::header::COOKIE, ::http::header::ORIGIN];
    if standard.contains(&name) {
        let help = "take a name of its own such as \"X-API-Key\"";
        return node.refuse_with(format!("`{name}` cannot hold a key: it has a meaning already"), help);
    }
    if IdentityHeaders::default().holds(name.as_str()) {
        let help = "take a name of its own such as \"X-API-Key\"";
        return node.refuse_with(format!("`{name}` cannot hold a key: it tells services who is calling"), help);
    }
    Some(name)
}

/// What the gateway itself tells servers of a request: a second opinion beside it would have to be believed or not.
const TOLD: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto"];

/// Why the operator may not touch a field, and what to do instead.
fn refused(name: &HeaderName, place: Where) -> Option<(String, &'static str)> {
    let hop_by_hop = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    if hop_by_hop.contains(name) || ["keep-alive", "proxy-connection"].contains(&name.as_str()) {
        return Some((format!("`{name}` belongs to one connection"), "leave it out: the gateway sets what is needed"));
    }
    if *name == CONTENT_LENGTH {
        return Some((format!("`{name}` frames the message"), "leave it out: the gateway sets what is needed"));
    }
    match place {
        Where::Request if TOLD.contains(&name.as_str()) => Some((
            format!("`{name}` is written by the gateway"),
            "leave it out: trusted_proxies of the listener says whose word is passed on",
        )),
        Where::Request if *name == VIA => {
            Some((format!("`{name}` is written by the gateway"), "leave it out: HTTP demands it of every gateway"))
        }
        Where::Request | Where::Response | Where::Respond if name.as_str() == "x-request-id" => Some((
            format!("`{name}` is written by the gateway"),
            "leave it out: that of a peer in trusted_proxies is kept, any other request gets a new one",
        )),
        Where::Request if *name == HOST => Some((
            format!("`{name}` is not changed here"),
            "set `host` of the upstream: \"preserve\", \"server\" or a literal",
        )),
        Where::Probe if *name == HOST => {
            Some((format!("`{name}` is not set here"), "set `host` beside `headers` instead"))
        }
        Where::Respond if *name == CONTENT_TYPE => {
            Some((format!("`{name}` is not set here"), "set `content_type` beside `headers` instead"))
        }
        Where::Request | Where::Response | Where::Respond | Where::Probe => None,
    }
}
