//! `[admin]`

use std::net::SocketAddr;

use secrecy::SecretString;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{AdminSettings, At};
use super::super::source::Span;
use super::super::value::{self, net};

/// `root` lends its place when there is no section.
pub(super) fn read(table: Option<Table<'_>>, root: &Table<'_>) -> AdminSettings {
    let address = AdminSettings::DEFAULT_ADDRESS;
    let Some(table) = table else {
        let address = At { value: address, span: root.span() };
        return AdminSettings { address, token: None, probe_address: None, control: None, ready_requires: Vec::new() };
    };
    let here = At { value: address, span: table.span() };
    let address = table.or("address", here, |node| net::socket_address(node).map(|address| node.at(address)));
    let with_token = table.has("token");
    let settings = AdminSettings {
        token: table.get("token", token),
        probe_address: table.get("probe_address", |node| net::socket_address(node).map(|address| node.at(address))),
        control: table.get("control", |node| value::socket_path(node).map(|path| node.at(path))),
        ready_requires: table.or("ready_requires", Vec::new(), names),
        address,
    };
    if !with_token && !is_loopback(&settings.address.value) {
        demand_token(&table, &settings.address.span);
    }
    table.finish();
    settings
}

fn demand_token(table: &Table<'_>, span: &Span) {
    let problem = Problem::error(span, "beyond loopback the admin listener demands a token")
        .help("add token = \"${file:/path/to/token}\", or listen on 127.0.0.1");
    table.cx.report_missing(problem);
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn token(node: &Node<'_>) -> Option<SecretString> {
    let text = node.secret_text("a string")?;
    if text.text.is_empty() {
        return node.refuse("the token is empty");
    }
    if !text.text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return node.refuse("the token may hold visible ASCII characters only, without blanks");
    }
    Some(SecretString::from(text.text))
}

fn names(node: &Node<'_>) -> Option<Vec<At<String>>> {
    node.list_of("a list of upstreams", |member| {
        member.text("the name of an upstream").map(|text| member.at(text.text))
    })
}
