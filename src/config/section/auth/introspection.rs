//! `kind = "introspection"`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::super::super::node::Node;
use super::super::super::problem::Problem;
use super::super::super::reader::Table;
use super::super::super::settings::{At, ClientProof, IntrospectionSettings, JwtAlgorithm, Secret};
use super::super::super::value::choice::choice;
use super::super::super::value::fetch_url::fetch_url;
use super::super::super::value::{self, number};
use super::claims;
use super::jwt::audience;

const CACHE: Duration = Duration::from_secs(30);
/// A token that was revoked lets its bearer in for as long.
const LONGEST_CACHE: Duration = Duration::from_secs(60 * 60);
const MAX_IN_FLIGHT: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(5);
/// A request waits for the answer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn read(table: &Table<'_>) -> Option<IntrospectionSettings> {
    let url = table.require("url", "\"https://login.example.com/introspect\"", |node| {
        fetch_url(node, "https://login.example.com/introspect")
    });
    let client_id = table.require("client_id", "\"NAME\", as the introspection server knows the gateway", |node| {
        non_empty(node, "a name")
    });
    let client = proof(table);
    let settings = IntrospectionSettings {
        cache: table.or("cache", CACHE, |node| at_most(node, number::duration(node)?, LONGEST_CACHE, "1h")),
        max_in_flight: max_in_flight(table),
        timeout: table.or("timeout", TIMEOUT, |node| at_most(node, number::timeout(node)?, LONGEST_TIMEOUT, "60s")),
        issuer: table.get("issuer", |node| non_empty(node, "what answers carry as `iss`")),
        audience: table.get("audience", audience),
        claims: claims::read(table),
        ca: table.get("ca", |node| value::path(node).map(|path| node.at(path))),
        url: url?,
        client_id: client_id?,
        client: client?,
    };
    Some(settings)
}

/// How the gateway proves who it is: by exactly one of the two.
fn proof(table: &Table<'_>) -> Option<ClientProof> {
    let secret = table.get("client_secret", |node| {
        let text = node.secret_text("a secret such as \"${file:/run/secrets/introspection}\"")?;
        if text.text.is_empty() { node.refuse(format!("{} is empty", node.key)) } else { Some(Secret::new(text.text)) }
    });
    let key: Option<At<PathBuf>> = table.get("private_key", |node| value::path(node).map(|path| node.at(path)));
    let algorithm = table.get("private_key_algorithm", algorithm);
    let key_id = table.get("private_key_id", |node| non_empty(node, "a name"));
    match (table.node("client_secret"), table.node("private_key")) {
        (Some(_), None) => {
            for name in ["private_key_algorithm", "private_key_id"] {
                if let Some(node) = table.node(name) {
                    let problem =
                        Problem::error(&node.cx.span(&node.key_range), format!("{} has no use here", node.key));
                    table.cx.report(problem.help("it belongs to `private_key`: leave it out"));
                }
            }
            secret.map(ClientProof::Secret)
        }
        (None, Some(_)) => key.map(|key| ClientProof::PrivateKey { key, algorithm, key_id }),
        (Some(_), Some(node)) => {
            let problem = Problem::error(&node.cx.span(&node.key_range), "the gateway proves who it is in one way");
            table.cx.report(problem.help("leave client_secret or private_key out"));
            None
        }
        (None, None) => {
            if !table.has_slip_of("client_secret") && !table.has_slip_of("private_key") {
                let problem = Problem::error(&table.span(), "`client_secret` is missing");
                let help = "add client_secret = \"${file:...}\", or private_key = \"FILE\" for private_key_jwt";
                table.cx.report_missing(problem.help(help));
            }
            None
        }
    }
}

fn algorithm(node: &Node<'_>) -> Option<JwtAlgorithm> {
    let algorithm = choice(node, &JwtAlgorithm::ALL)?;
    match algorithm.secret_bytes() {
        None => Some(algorithm),
        Some(_) => node.refuse_with(
            format!("{} signs with a secret, not with a private key", algorithm.as_str()),
            "leave it out: what fits the key is taken",
        ),
    }
}

fn max_in_flight(table: &Table<'_>) -> NonZeroUsize {
    let default = NonZeroUsize::MIN.saturating_add(MAX_IN_FLIGHT - 1);
    table.or("max_in_flight", default, |node| {
        let count = node.integer(1..=10_000)?;
        usize::try_from(count).ok().and_then(NonZeroUsize::new)
    })
}

fn at_most(node: &Node<'_>, duration: Duration, most: Duration, shown: &str) -> Option<Duration> {
    if duration > most { node.refuse(format!("{} takes at most {shown}", node.key)) } else { Some(duration) }
}

fn non_empty(node: &Node<'_>, takes: &str) -> Option<String> {
    let text = node.text(takes)?;
    if text.text.is_empty() { node.refuse(format!("{} is empty", node.key)) } else { Some(text.text) }
}
