//! What holds between the sections: names that must exist, addresses and routes that must not meet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ::http::Method;

use super::problem::{Problem, any_error};
use super::reader::Context;
use super::section::Draft;
use super::settings::{Access, At, ListenAddress, OpenApiSource, RouteAction, RouteSettings, Settings, SlotSettings};
use super::source::Span;
use super::{admission, routes, suggest};

/// Judges the file as a whole.
pub(super) fn check(cx: &Context<'_>, draft: &Draft) {
    let settings = &draft.settings;
    addresses(cx, settings);
    upstream_names(cx, draft);
    admission::check(cx, draft);
    for route in settings.routes.values() {
        documents_can_be_asked(cx, route);
    }
    if draft.complete {
        something_to_do(cx, settings);
    }
    routes::duplicates(cx, &settings.routes);
    // A warning says that what is written may not be what was meant: that must have been read without errors.
    if !any_error(&cx.problems.borrow()) {
        routes::surprises(cx, &settings.routes);
        routes::hosts_come_first(cx, &settings.routes);
        redirects_lead_somewhere(cx, settings);
        unused_upstreams(cx, settings);
        bodies_can_be_held(cx, settings);
        internal_files_stay_internal(cx, settings);
        effective(cx, settings);
        admission::surprises(cx, settings);
    }
}

/// A body that `max_body` lets in should not be refused because it cannot be held.
fn bodies_can_be_held(cx: &Context<'_>, settings: &Settings) {
    for (name, route) in &settings.routes {
        if route.action.upstream().is_none() {
            continue;
        }
        let most = route.validate.as_ref().and_then(|validate| validate.max_body).unwrap_or(route.max_body);
        let held = route.buffer.disk.saturating_add(route.buffer.memory as u64);
        let temp = settings.server.temp.limit;
        if route.buffer.request && most > held {
            let message = format!(
                "route `{name}` takes larger bodies than it can hold: max_body is above memory and disk of `buffer`"
            );
            let help = "raise disk in buffer, lower max_body, or set request = false in buffer";
            cx.report(Problem::warning(&route.path.span, message).help(help));
        } else if route.buffer.request && most > temp.saturating_add(route.buffer.memory as u64) {
            let message = format!("route `{name}` takes larger bodies than temp_limit of [server] leaves room for");
            cx.report(Problem::warning(&route.path.span, message).help("raise temp_limit, or lower max_body"));
        }
    }
}

fn something_to_do(cx: &Context<'_>, settings: &Settings) {
    let file = Span::whole_file(&cx.file);
    if settings.listeners.is_empty() {
        let problem = Problem::error(&file, "there is no listener");
        cx.report_missing(problem.help("add [listener.http] with address = \"0.0.0.0:8080\""));
    }
    if settings.routes.is_empty() {
        let problem = Problem::error(&file, "there is no route");
        cx.report_missing(problem.help("add [route.all] with path = \"/{*rest}\" and upstream = \"NAME\""));
    }
}

/// Every address that will be bound, each against all before it.
fn addresses(cx: &Context<'_>, settings: &Settings) {
    let mut bound: Vec<(ListenAddress, &Span, String)> = Vec::new();
    let mut add = |address: ListenAddress, span, owner: String| {
        if let Some((_, earlier, other)) = bound.iter().find(|(earlier, _, _)| clash(earlier, &address)) {
            let shown = match &address {
                ListenAddress::Socket(address) => address.to_string(),
                ListenAddress::Systemd(name) => format!("systemd:{name}"),
            };
            let problem = Problem::error(span, format!("`{shown}` clashes with an address of `{other}`"));
            let problem = if *earlier == span { problem } else { problem.also(earlier, "bound here") };
            let help = match earlier.is_whole_file() {
                true => "by default [admin] has address = \"127.0.0.1:9600\": give one of them another port",
                false => "give each its own port, or leave one out",
            };
            cx.report(problem.help(help));
        }
        bound.push((address, span, owner));
    };
    // First the admin listener: its address may be the default, which stands nowhere.
    let admin = &settings.admin;
    add(ListenAddress::Socket(admin.address.value), &admin.address.span, "admin".into());
    if let Some(At { value, span }) = &admin.probe_address {
        add(ListenAddress::Socket(*value), span, "admin".into());
    }
    for (name, listener) in &settings.listeners {
        for At { value, span } in &listener.addresses {
            add(value.clone(), span, format!("listener.{name}"));
        }
    }
}

fn clash(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Socket(one), ListenAddress::Socket(other)) => sockets_clash(one, other),
        (ListenAddress::Systemd(one), ListenAddress::Systemd(other)) => one == other,
        (ListenAddress::Socket(_), ListenAddress::Systemd(_))
        | (ListenAddress::Systemd(_), ListenAddress::Socket(_)) => false,
    }
}

/// IPv6 sockets take IPv6 alone, so that `0.0.0.0` and `[::]` go together. Port 0 is a new port each time.
fn sockets_clash(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers =
        |one: IpAddr, other: IpAddr| one == other || (one.is_unspecified() && one.is_ipv4() == other.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

fn upstream_names(cx: &Context<'_>, draft: &Draft) {
    let required = draft.settings.admin.ready_requires.iter();
    let routed = draft.settings.routes.values().filter_map(|route| route.action.upstream());
    for name in required.chain(routed) {
        if draft.upstreams.contains(&name.value) {
            continue;
        }
        let shown = if name.span.is_secret() { String::new() } else { format!(" `{}`", name.value.escape_debug()) };
        let problem = Problem::error(&name.span, format!("there is no upstream{shown}"));
        let known: Vec<&str> = draft.upstreams.iter().map(String::as_str).collect();
        let help = suggest::help(&name.value, &known, "upstreams").filter(|_| !name.span.is_secret());
        let help = help.unwrap_or_else(|| "add [upstream.NAME] with its servers".into());
        cx.report_missing(problem.help(help));
    }
}

fn documents_can_be_asked(cx: &Context<'_>, route: &RouteSettings) {
    let Some(openapi) = route.validate.as_ref().and_then(|validate| validate.openapi.as_ref()) else { return };
    if let OpenApiSource::Upstream(path) = &openapi.source
        && route.action.upstream().is_none()
    {
        let problem = Problem::error(&path.span, "a route without `upstream` has none that publishes a document");
        cx.report(problem.help("name a file"));
    }
    if openapi.security
        && route.access == Access::Public
        && let Some(span) = &openapi.security_span
    {
        let problem = Problem::error(span, "`openapi_security` demands an `auth`: nobody says who calls");
        cx.report_missing(problem.help("add auth = [\"NAME\"] to the route"));
    }
}

fn redirects_lead_somewhere(cx: &Context<'_>, settings: &Settings) {
    let Some((name, listener)) = settings.listeners.iter().find(|(_, listener)| listener.redirect_to_https.is_some())
    else {
        return;
    };
    if settings.listeners.values().all(|listener| listener.tls.is_none())
        && let Some(address) = listener.addresses.first()
    {
        let message = format!("`listener.{name}` sends clients to HTTPS, but no listener here has `tls`");
        cx.report_missing(Problem::warning(&address.span, message));
    }
}

fn unused_upstreams(cx: &Context<'_>, settings: &Settings) {
    let routed = settings.routes.values().filter_map(|route| route.action.upstream());
    let used: BTreeSet<&str> = routed.map(|upstream| upstream.value.as_str()).collect();
    for (name, upstream) in &settings.upstreams {
        if !used.contains(name.as_str()) {
            let kind = if upstream.workers.is_some() { "app" } else { "upstream" };
            cx.report_missing(Problem::warning(&upstream.span, format!("no route leads to {kind} `{name}`")));
        }
    }
}

/// What is written on routes and cannot come to pass.
fn effective(cx: &Context<'_>, settings: &Settings) {
    for (name, route) in &settings.routes {
        let upstream = route.action.upstream().and_then(|upstream| settings.upstreams.get(&upstream.value));
        // What an app's workers run at once may be known only when they run.
        let unlimited =
            upstream.is_some_and(|upstream| upstream.slots == SlotSettings::Unlimited && upstream.workers.is_none());
        if unlimited && settings.lines.find(&format!("route.{name}.priority")).is_some() {
            let message =
                format!("`priority` of route `{name}` has no effect: its upstream has no `slots` to wait for");
            let help = "add slots = NUMBER (workers times threads of each server), or slots = \"auto\"";
            cx.report(Problem::warning(&route.path.span, message).help(help));
        }
        if let RouteAction::Files(files) = &route.action
            && files.fallback.is_none()
            && let Some(methods) = &route.methods
            && !methods.iter().any(|method| matches!(*method, Method::GET | Method::HEAD))
        {
            let message = format!("route `{name}` serves nothing: files are there for GET and HEAD alone");
            let help = "add \"GET\" to methods, or leave methods out";
            cx.report(Problem::warning(&files.path.span, message).help(help));
        }
    }
}

/// Where a path really leads, as far as it exists: links may lead from one of two directories into the other.
fn real(path: &Path) -> PathBuf {
    let resolved = |above: &Path| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    };
    path.ancestors().find_map(resolved).unwrap_or_else(|| path.to_owned())
}

/// What a service agrees to first must not be there for whoever asks.
fn internal_files_stay_internal(cx: &Context<'_>, settings: &Settings) {
    for directory in
        settings.routes.values().flat_map(|route| &route.internal_files).map(|internal| &internal.directory)
    {
        let inside = real(&directory.value);
        let open = settings.routes.iter().find_map(|(name, route)| match &route.action {
            RouteAction::Files(files) if inside.starts_with(real(&files.path.value)) => Some((name, &files.path.span)),
            RouteAction::Files(_) | RouteAction::Upstream(_) | RouteAction::Redirect(_) | RouteAction::Respond(_) => {
                None
            }
        });
        if let Some((name, span)) = open {
            let message = format!("route `{name}` serves these files too, without asking the service");
            let problem = Problem::warning(&directory.span, message).also(span, "they lie within this directory");
            cx.report(problem.help("keep them outside of every directory that `files` names"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_compared_as_what_they_are() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("releases/1")).unwrap();
        std::os::unix::fs::symlink("releases/1", home.join("current")).unwrap();
        assert_eq!(real(&home.join("current/none/yet")), home.join("releases/1/none/yet"));
        assert_eq!(real(&home.join("current/../2")), home.join("releases/2"));
        assert_eq!(real(Path::new("/none/../a")), Path::new("/none/../a"));
    }

    #[test]
    fn which_addresses_clash() {
        let clash = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(sockets_clash(&one, &other), sockets_clash(&other, &one));
            sockets_clash(&one, &other)
        };
        assert!(clash("127.0.0.1:80", "127.0.0.1:80"));
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("[::]:80", "[::1]:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!clash("0.0.0.0:80", "[::]:80"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
    }
}
