//! `[route.NAME]`

use ::http::{HeaderValue, StatusCode};

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{
    Access, At, HostPattern, PathPattern, PatternSegment, RedirectPart, RedirectSettings, RespondSettings, RouteAction,
    RouteSettings, TimeoutOverrides,
};
use super::super::suggest;
use super::super::value::{http, net, number, pattern};
use super::defaults::{self, Defaults};
use super::{Known, access, files, headers, validate};

pub(super) fn read(table: Table<'_>, defaults: &Defaults, known: Known<'_>) -> Option<RouteSettings> {
    let encoded_slashes = table.or("encoded_slashes", false, Node::boolean);
    let path = table.require("path", "\"/{*rest}\"", |node| pattern::path_pattern(node, encoded_slashes));
    let action = action(&table, path.as_ref());
    let defaults = defaults::read_over(&table, defaults);
    if let Some(node) = table.node("priority") {
        only_for_upstreams(&table, &node);
    }
    let hosts = table.get("host", hosts);
    let methods = table.get("methods", http::methods);
    let allow = table.or("allow", Vec::new(), networks);
    let deny = table.or("deny", Vec::new(), networks);
    let strip_prefix = strip_prefix(&table, path.as_ref(), encoded_slashes);
    let timeouts = table.node("timeouts").map(|node| timeouts(&table, &node)).unwrap_or_default();
    let (request_headers, response_headers) =
        headers::changes(table.get("headers", Node::table), defaults.forward_identity.as_ref());
    // One that could not be read has been told; the rest of the route shall be judged all the same.
    let access = access::read(&table, known).unwrap_or_else(Access::nobody);
    let forward_credential = table.get("forward_credential", Node::boolean);
    let validate = table.node("validate").and_then(|node| {
        only_for_upstreams(&table, &node);
        validate::read(node.table()?)
    });
    let validate_wrong = validate.is_none() && table.has("validate");
    for key in ["buffer", "min_upload_rate"] {
        if let Some(node) = table.node(key) {
            only_for_upstreams(&table, &node);
        }
    }
    let internal_files = files::internal(&table);
    let hosts_wrong = hosts.is_none() && table.has("host");
    let methods_wrong = methods.is_none() && table.has("methods");
    table.finish();
    if hosts_wrong || methods_wrong || validate_wrong {
        return None;
    }
    Some(RouteSettings {
        hosts: hosts.unwrap_or_default(),
        path: path?,
        methods,
        action: action?,
        allow,
        deny,
        access,
        limits: defaults.limits,
        validate,
        forward_identity: defaults.forward_identity,
        forward_credential,
        strip_prefix,
        timeouts,
        priority: defaults.priority,
        request_headers,
        response_headers,
        max_body: defaults.max_body,
        buffer: defaults.buffer,
        min_upload_rate: defaults.min_upload_rate,
        encoded_slashes,
        security_headers: defaults.security_headers,
        hsts: defaults.hsts,
        errors: defaults.errors,
        cors: defaults.cors,
        compress: defaults.compress,
        internal_files,
    })
}

fn hosts(node: &Node<'_>) -> Option<Vec<At<HostPattern>>> {
    let hosts = node.one_or_more(|member| net::host_pattern(member).map(|host| member.at(host)))?;
    for (index, host) in hosts.iter().enumerate() {
        if let Some(earlier) = hosts.iter().take(index).find(|earlier| earlier.value == host.value) {
            let problem = Problem::error(&host.span, "this host is listed twice").also(&earlier.span, "here first");
            node.cx.report(problem);
        }
    }
    Some(hosts)
}

fn networks(node: &Node<'_>) -> Option<Vec<ipnet::IpNet>> {
    let networks = node.list_of("a list of networks such as [\"10.0.0.0/8\"]", net::network)?;
    // An empty `allow` could be read as "nobody" and as "anybody".
    if networks.is_empty() { node.refuse(format!("{} is empty", node.key)) } else { Some(networks) }
}

/// What the route does: exactly one of four keys.
fn action(table: &Table<'_>, path: Option<&At<PathPattern>>) -> Option<RouteAction> {
    let upstream = table.node("upstream");
    let files = table.node("files");
    let redirect = table.node("redirect");
    let respond = table.node("respond");
    let written: Vec<&Node<'_>> = [&upstream, &files, &redirect, &respond].into_iter().flatten().collect();
    if let [first, second, ..] = written.as_slice() {
        let message = format!("a route does one thing: {} or {}", first.key, second.key);
        let problem = Problem::error(&table.cx.span(&second.key_range), message);
        let problem = problem.also(&table.cx.span(&first.key_range), "the other");
        let both = table.has("upstream") && table.has("files");
        let help = "an upstream for what is not among the files is named by `fallback`";
        table.cx.report(if both { problem.help(help) } else { problem });
    }
    let files = files::read(table, files.as_ref());
    if written.is_empty() {
        let meant = ["upstream", "files", "redirect", "respond"].iter().any(|key| table.has_slip_of(key));
        if !meant {
            let problem = Problem::error(&table.span(), "the route does nothing");
            let help = "add upstream = \"NAME\", files = \"DIRECTORY\", redirect = { … } or respond = { … }";
            table.cx.report_missing(problem.help(help));
        }
        return None;
    }
    let upstream = upstream
        .and_then(|node| node.text("the name of an upstream").map(|text| RouteAction::Upstream(node.at(text.text))));
    let redirect = redirect.as_ref().and_then(Node::table).and_then(|table| read_redirect(table, path));
    let respond = respond.as_ref().and_then(Node::table).and_then(read_respond);
    upstream
        .or(files.map(RouteAction::Files))
        .or(redirect.map(RouteAction::Redirect))
        .or(respond.map(RouteAction::Respond))
}

fn read_redirect(table: Table<'_>, path: Option<&At<PathPattern>>) -> Option<RedirectSettings> {
    let to = table.require("to", "\"https://example.com/{rest}\"", |node| {
        let parts = pattern::redirect_target(node)?;
        let known = path.map(|path| path.value.segments.iter().filter_map(PatternSegment::name).collect::<Vec<_>>());
        known.is_none_or(|known| check_parameters(node, &parts, &known)).then(|| node.at(parts))
    });
    let status = table.or("status", StatusCode::PERMANENT_REDIRECT, |node| {
        let status = http::status(node)?;
        if [301, 302, 303, 307, 308].contains(&status.as_u16()) {
            return Some(status);
        }
        node.refuse_with(format!("{} is not a redirect", status.as_u16()), "use 301, 302, 303, 307 or 308")
    });
    table.finish();
    let At { value: to, span } = to?;
    Some(RedirectSettings { to, to_is_secret: span.is_secret(), status })
}

fn check_parameters(node: &Node<'_>, parts: &[RedirectPart], known: &[&str]) -> bool {
    let mut fine = true;
    for part in parts {
        match part {
            RedirectPart::Parameter(name) if !known.contains(&name.as_str()) => {
                let span = node.span();
                let shown = if span.is_secret() { String::new() } else { format!(" `{{{name}}}`") };
                let problem = Problem::error(&span, format!("the route's path has no such parameter{shown}"));
                node.cx.report(match suggest::help(name, known, "parameters") {
                    Some(help) => problem.help(help),
                    None => problem,
                });
                fine = false;
            }
            RedirectPart::Parameter(_) | RedirectPart::Text(_) => {}
        }
    }
    fine
}

fn read_respond(table: Table<'_>) -> Option<RespondSettings> {
    let body = table.node("body");
    let settings = RespondSettings {
        status: table.or("status", StatusCode::OK, http::status),
        body: body.as_ref().and_then(|node| node.text("a string")).map(|text| text.text).unwrap_or_default(),
        content_type: table.or(
            "content_type",
            HeaderValue::from_static("text/plain; charset=utf-8"),
            http::header_value,
        ),
        headers: table.or("headers", Vec::new(), |node| headers::values(node, headers::Where::Respond)),
    };
    if let Some(node) = body.filter(|_| !settings.body.is_empty() && [204, 304].contains(&settings.status.as_u16())) {
        node.refuse::<()>(format!("an answer with status {} has no body", settings.status.as_u16()));
    }
    table.finish();
    Some(settings)
}

/// Whole segments from the front of the route's path.
fn strip_prefix(table: &Table<'_>, path: Option<&At<PathPattern>>, encoded_slashes: bool) -> Option<String> {
    let node = table.node("strip_prefix")?;
    only_for_upstreams(table, &node);
    let (prefix, segments) = pattern::prefix(&node, encoded_slashes)?;
    if path.is_some_and(|path| !path.value.segments.starts_with(&segments)) {
        return node.refuse_with(
            format!("`{prefix}` is not the beginning of the route's path"),
            "write whole segments from the front of `path`",
        );
    }
    Some(prefix)
}

fn timeouts(route: &Table<'_>, node: &Node<'_>) -> TimeoutOverrides {
    only_for_upstreams(route, node);
    let Some(table) = node.table() else {
        return TimeoutOverrides::default();
    };
    let timeouts = TimeoutOverrides {
        connect: table.get("connect", number::timeout),
        response: table.get("response", number::timeout),
        between_bytes: table.get("between_bytes", number::timeout),
        upgraded: table.get("upgraded", number::timeout),
    };
    table.finish();
    timeouts
}

/// Refuses a key that would have no effect where no request goes to an upstream.
pub(super) fn only_for_upstreams(table: &Table<'_>, node: &Node<'_>) {
    let goes = table.has("upstream") || table.has("fallback");
    if !goes && (table.has("redirect") || table.has("respond") || table.has("files")) {
        let message = format!("{} has no effect on a route without `upstream`", node.key);
        table.cx.report(Problem::error(&table.cx.span(&node.key_range), message));
    }
}
