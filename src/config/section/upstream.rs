//! `[upstream.NAME]`

use std::num::NonZeroU32;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::super::mask;
use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{
    At, Balance, HashKey, HealthSettings, HostHeader, Protocol, QueueSettings, RetrySettings, ServerSpec, SlotSettings,
    UpstreamSettings, UpstreamTimeouts, UpstreamTlsSettings, UwsgiParams,
};
use super::super::suggest;
use super::super::value::{self, choice, http, number, server_url};
use super::{TEN_THOUSAND, headers, listener};

const BALANCES: [&str; 6] =
    ["least_requests", "round_robin", "random_two", "hash:client_ip", "hash:header:NAME", "hash:cookie:NAME"];

/// Far more than any Python server runs at once.
const MOST_SLOTS: u32 = 100_000;

/// A request that waits takes some kilobytes.
const MOST_WAITING: u64 = 1_000_000;

/// What the operator's own variables may take of a packet.
const LARGEST_PARAMS: usize = 16 * 1024;

pub(super) fn read(table: Table<'_>) -> Option<UpstreamSettings> {
    let servers = table.require("servers", "[\"http://127.0.0.1:8001\"]", servers);
    let https = servers.as_ref().is_none_or(|servers| servers.iter().any(|server| server.value.endpoint.is_tls()));
    let settings = UpstreamSettings {
        servers: servers.clone().unwrap_or_default(),
        host: table.or("host", HostHeader::Preserve, host),
        tls: tls(table.node("tls"), https),
        uwsgi_params: uwsgi_params(table.node("uwsgi_params"), servers.as_deref()),
        ..common(&table)
    };
    if let Some(queue) = table.node("queue").filter(|_| !table.has("slots") && !table.has_slip_of("slots")) {
        let message = "`queue` has no effect without `slots`: no request waits where any number may run";
        let problem = Problem::warning(&table.cx.span(&queue.key_range), message);
        table.cx.report(problem.help("add slots = NUMBER (workers times threads of each server), or slots = \"auto\""));
    }
    table.finish();
    // Servers that could not be read have been told; what goes on from here shall be judged all the same.
    Some(settings)
}

/// The upstream that an app is: its workers are the servers, found by whoever runs them.
pub(super) fn of_app(table: &Table<'_>, protocol: Protocol) -> UpstreamSettings {
    UpstreamSettings { workers: Some(protocol), ..common(table) }
}

/// What both have.
fn common(table: &Table<'_>) -> UpstreamSettings {
    UpstreamSettings {
        span: table.span(),
        servers: Vec::new(),
        workers: None,
        balance: table.or("balance", Balance::LeastRequests, balance),
        host: HostHeader::Preserve,
        slots: table.or("slots", SlotSettings::Unlimited, slots),
        queue: queue(table.get("queue", Node::table)),
        max_upgraded: table.or("max_upgraded", TEN_THOUSAND, |node| number::length(node, 10_000_000)),
        health: table.get("health", Node::table).and_then(health),
        timeouts: timeouts(table.get("timeouts", Node::table)),
        retry: retry(table.get("retry", Node::table)),
        tls: UpstreamTlsSettings::default(),
        uwsgi_params: UwsgiParams::new(),
    }
}

fn servers(node: &Node<'_>) -> Option<Vec<At<ServerSpec>>> {
    let servers = node.list_of("a list of servers such as [\"http://127.0.0.1:8001\"]", server)?;
    if servers.is_empty() {
        return node.refuse_with("`servers` is empty", "write servers = [\"http://127.0.0.1:8001\"]");
    }
    for (index, server) in servers.iter().enumerate() {
        let earlier = servers.iter().take(index).find(|earlier| earlier.value.endpoint == server.value.endpoint);
        if let Some(earlier) = earlier {
            let problem = Problem::error(&server.span, "this server is listed twice").also(&earlier.span, "here first");
            node.cx.report(problem.help("to send it more requests, give it a weight: { url = \"…\", weight = 2 }"));
        }
    }
    Some(servers)
}

fn server(node: &Node<'_>) -> Option<At<ServerSpec>> {
    if !node.is_table() {
        return server_url::endpoint(node).map(|endpoint| node.at(ServerSpec { endpoint, weight: NonZeroU32::MIN }));
    }
    let table = node.table()?;
    let endpoint = table.require("url", "\"http://127.0.0.1:8001\"", |node| {
        server_url::endpoint(node).map(|endpoint| node.at(endpoint))
    });
    let weight = table.or("weight", NonZeroU32::MIN, |node| number::count(node, 1000));
    table.finish();
    let At { value: endpoint, span } = endpoint?;
    Some(At { value: ServerSpec { endpoint, weight }, span })
}

fn balance(node: &Node<'_>) -> Option<Balance> {
    let text = node.text("the name of a balancing")?;
    let hash = match text.text.as_str() {
        "least_requests" => return Some(Balance::LeastRequests),
        "round_robin" => return Some(Balance::RoundRobin),
        "random_two" => return Some(Balance::RandomTwo),
        "hash:client_ip" => return Some(Balance::Hash(HashKey::ClientIp)),
        other => other.strip_prefix("hash:"),
    };
    let name = |name: &str| ::http::HeaderName::from_bytes(name.as_bytes()).ok();
    if let Some(header) = hash.and_then(|hash| hash.strip_prefix("header:")) {
        return match name(header) {
            Some(header) => Some(Balance::Hash(HashKey::Header(header))),
            None => node.refuse(format!("{} names no header field", text.quoted())),
        };
    }
    if let Some(cookie) = hash.and_then(|hash| hash.strip_prefix("cookie:")) {
        // A cookie's name is a token, as a field's is, but its case counts.
        return match name(cookie) {
            Some(_) => Some(Balance::Hash(HashKey::Cookie(cookie.to_owned()))),
            None => node.refuse(format!("{} names no cookie", text.quoted())),
        };
    }
    choice::unknown(node, &text, &BALANCES)
}

fn host(node: &Node<'_>) -> Option<HostHeader> {
    let takes = "\"preserve\", \"server\" or a host";
    match node.text(takes)?.text.as_str() {
        "preserve" => Some(HostHeader::Preserve),
        "server" => Some(HostHeader::Server),
        literal => {
            choice::warn_of_slip(node, literal, &["preserve", "server"]);
            http::host_value(node, takes).map(HostHeader::Literal)
        }
    }
}

fn slots(node: &Node<'_>) -> Option<SlotSettings> {
    let takes = "\"auto\" or an integer from 1 to 100000";
    if !node.is_string() && !node.is_integer() {
        return node.wrong_type(takes);
    }
    if node.is_string() {
        let text = node.text(takes)?;
        if text.text == "auto" {
            return Some(SlotSettings::Auto);
        }
        if suggest::is_slip(&text.text, "auto") && !text.secret {
            let message = format!("{} takes {takes}, not {}", node.key, text.quoted());
            return node.refuse_with(message, "did you mean \"auto\"?");
        }
        if text.text.trim().parse::<u64>().is_err() {
            return node.refuse(format!("{} takes {takes}, not {}", node.key, text.quoted()));
        }
    }
    number::length(node, MOST_SLOTS).map(SlotSettings::Fixed)
}

fn queue(table: Option<Table<'_>>) -> QueueSettings {
    let mut settings = QueueSettings { size: 1000, max_wait: Duration::from_secs(2) };
    if let Some(table) = table {
        settings.size = table.or("size", settings.size, |node| {
            node.integer(0..=MOST_WAITING).and_then(|size| usize::try_from(size).ok())
        });
        settings.max_wait = table.or("max_wait", settings.max_wait, number::timeout);
        table.finish();
    }
    settings
}

fn health(table: Table<'_>) -> Option<HealthSettings> {
    let path = table.require("path", "\"/healthz\"", own_path);
    let settings = HealthSettings {
        path: path.clone().unwrap_or_default(),
        host: table.get("host", |node| http::host_value(node, "a host")),
        headers: table.or("headers", Vec::new(), |node| headers::values(node, headers::Where::Probe)),
        status: table.get("status", http::status_ranges).unwrap_or_else(|| vec![200..=399]),
        interval: table.or("interval", Duration::from_secs(2), number::timeout),
        timeout: table.or("timeout", Duration::from_secs(1), number::timeout),
        fall: table.or("fall", NonZeroU32::MIN.saturating_add(2), |node| number::count(node, 1000)),
        rise: table.or("rise", NonZeroU32::MIN.saturating_add(1), |node| number::count(node, 1000)),
    };
    table.finish();
    path.and(Some(settings))
}

/// A path, perhaps with a query, that can be sent as it stands.
pub(super) fn own_path(node: &Node<'_>) -> Option<String> {
    let text = node.text("a path such as \"/healthz\"")?;
    if !text.text.starts_with('/') {
        return node.refuse(format!("{} must begin with a slash, not be {}", node.key, text.quoted()));
    }
    if !text.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return node.refuse(format!("{} has a character that a path holds only encoded", text.quoted()));
    }
    Some(text.text)
}

fn timeouts(table: Option<Table<'_>>) -> UpstreamTimeouts {
    let mut timeouts = UpstreamTimeouts {
        connect: Duration::from_secs(3),
        response: Duration::from_secs(60),
        between_bytes: Duration::from_secs(60),
        upgraded: Duration::from_secs(60 * 60),
        keep_alive: Duration::from_millis(1500),
    };
    if let Some(table) = table {
        timeouts.connect = table.or("connect", timeouts.connect, number::timeout);
        timeouts.response = table.or("response", timeouts.response, number::timeout);
        timeouts.between_bytes = table.or("between_bytes", timeouts.between_bytes, number::timeout);
        timeouts.upgraded = table.or("upgraded", timeouts.upgraded, number::timeout);
        timeouts.keep_alive = table.or("keep_alive", timeouts.keep_alive, number::duration);
        table.finish();
    }
    timeouts
}

fn retry(table: Option<Table<'_>>) -> RetrySettings {
    let mut settings = RetrySettings { attempts: 2, budget_percent: 20 };
    if let Some(table) = table {
        settings.attempts = table.or("attempts", settings.attempts, |node| {
            node.integer(0..=100).and_then(|attempts| u32::try_from(attempts).ok())
        });
        settings.budget_percent = table.or("budget", settings.budget_percent, number::percent);
        table.finish();
    }
    settings
}

fn tls(node: Option<Node<'_>>, https: bool) -> UpstreamTlsSettings {
    let Some(node) = node else {
        return UpstreamTlsSettings::default();
    };
    let Some(table) = node.table() else {
        return UpstreamTlsSettings::default();
    };
    if !https {
        let problem = Problem::error(&table.span(), "`tls` has no effect: no server here is https:// or h2://");
        node.cx.report(problem.help("write the servers as https://HOST:PORT or h2://HOST:PORT, or leave `tls` out"));
    }
    let settings = UpstreamTlsSettings {
        ca: table.get("ca", |node| value::path(node).map(|path| node.at(path))),
        client: table.get("client", listener::certificate),
        server_name: table.get("server_name", server_name),
    };
    table.finish();
    settings
}

/// `servers`: `None` where they could not be read.
fn uwsgi_params(node: Option<Node<'_>>, servers: Option<&[At<ServerSpec>]>) -> UwsgiParams {
    let Some(table) = node.and_then(|node| node.table()) else {
        return UwsgiParams::new();
    };
    let speaks_uwsgi = |server: &At<ServerSpec>| server.value.endpoint.protocol() == Protocol::Uwsgi;
    if servers.is_some_and(|servers| !servers.iter().any(speaks_uwsgi)) {
        let problem = Problem::error(&table.span(), "`uwsgi_params` has no effect: no server here is uwsgi://");
        table.cx.report(problem.help("write the servers as uwsgi://HOST:PORT, or leave `uwsgi_params` out"));
    }
    let mut params = UwsgiParams::new();
    for (name, node) in table.entries() {
        let value = http::value_of(&node, "a uwsgi variable");
        match refused_param(name) {
            Some((message, help)) => {
                node.cx.report(Problem::error(&node.cx.span(&node.key_range), message).help(help));
            }
            None => params.extend(value.map(|mut value| {
                value.set_sensitive(value.is_sensitive() || mask::looks_secret(name));
                (name.to_owned(), value)
            })),
        }
    }
    let taken = params.iter().fold(0, |sum: usize, (name, value)| sum.saturating_add(name.len() + value.len() + 4));
    if taken > LARGEST_PARAMS {
        let message = format!("`uwsgi_params` take {taken} bytes of the 65535 that a request may have");
        table.cx.report(Problem::error(&table.span(), message).help(format!("the bound is {LARGEST_PARAMS}")));
    }
    params
}

/// Why the operator may not set a variable, and what to do instead.
fn refused_param(name: &str) -> Option<(String, &'static str)> {
    // What the request itself says, how it is framed, and who is calling.
    const TOLD: [&str; 9] = [
        "REQUEST_METHOD",
        "REQUEST_URI",
        "PATH_INFO",
        "QUERY_STRING",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REMOTE_USER",
    ];
    let is_word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.starts_with(|first: char| first.is_ascii_uppercase()) || !name.bytes().all(is_word) {
        let message = format!("`{}` is not the name of a uwsgi variable", name.escape_debug());
        return Some((message, "write capitals, digits and underscores, such as UWSGI_SCHEME"));
    }
    if name.starts_with("HTTP_") {
        let message = format!("`{name}` is how a header field arrives");
        return Some((message, "set the field itself: headers = { request = { set = { … } } } of the route"));
    }
    if name == "SERVER_PROTOCOL" {
        let message = format!("`{name}` is not changed");
        return Some((message, "leave it out: uWSGI answers in the version that it names"));
    }
    TOLD.contains(&name).then(|| (format!("`{name}` is written by the gateway for each request"), "leave it out"))
}

fn server_name(node: &Node<'_>) -> Option<At<String>> {
    let text = node.text("a name such as \"media.internal\"")?;
    match ServerName::try_from(text.text.as_str()) {
        Ok(_) => Some(node.at(text.text)),
        Err(_) => node.refuse(format!("{} is not a server's name", text.quoted())),
    }
}
