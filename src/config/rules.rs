//! What holds between the sections: names that must exist, addresses and routes that must not meet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::problem::{Problem, any_error};
use super::reader::Context;
use super::section::Draft;
use super::settings::{
    Access, At, AuthKind, LimitKey, ListenAddress, OpenApiSource, RouteAction, RouteSettings, Settings,
};
use super::source::Span;
use super::{routes, suggest};

/// Judges the file as a whole.
pub(super) fn check(cx: &Context<'_>, draft: &Draft) {
    let settings = &draft.settings;
    addresses(cx, settings);
    upstream_names(cx, draft);
    admission_names(cx, draft);
    for route in settings.routes.values() {
        limits_can_count(cx, settings, route);
        documents_can_be_asked(cx, route);
        identity_has_one_writer(cx, route);
    }
    certificates_are_asked_for(cx, settings);
    if draft.complete {
        something_to_do(cx, settings);
    }
    routes::duplicates(cx, &settings.routes);
    // A warning says that what is written may not be what was meant: that must have been read without errors.
    if !any_error(&cx.problems.borrow()) {
        routes::surprises(cx, &settings.routes);
        redirects_lead_somewhere(cx, settings);
        unused_upstreams(cx, settings);
        unused_admission(cx, settings);
        certificates_are_judged(cx, settings);
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
            let problem = Problem::error(span, format!("{shown} clashes with an address of `{other}`"));
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
    let routed = draft.settings.routes.values().filter_map(|route| match &route.action {
        RouteAction::Upstream(name) => Some(name),
        RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
    });
    for name in required.chain(routed) {
        if draft.upstreams.contains(&name.value) || draft.apps.contains(&name.value) {
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

/// The names of auths, limits and stores that must exist.
fn admission_names(cx: &Context<'_>, draft: &Draft) {
    for route in draft.settings.routes.values() {
        if let Access::Demands(demands) = &route.access {
            demands.auths.iter().for_each(|name| must_exist(cx, name, "auth", &draft.auths));
        }
        route.limits.iter().for_each(|name| must_exist(cx, name, "limit", &draft.limits));
    }
    for limit in draft.settings.limits.values() {
        limit.store.iter().for_each(|name| must_exist(cx, name, "store", &draft.stores));
    }
}

fn must_exist(cx: &Context<'_>, name: &At<String>, section: &str, known: &BTreeSet<String>) {
    if known.contains(&name.value) {
        return;
    }
    let secret = name.span.is_secret();
    let shown = if secret { String::new() } else { format!(" `{}`", name.value.escape_debug()) };
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let help = suggest::help(&name.value, &known, &format!("{section}s")).filter(|_| !secret);
    let help = help.unwrap_or_else(|| format!("add [{section}.NAME]"));
    let problem = Problem::error(&name.span, format!("there is no {section}{shown}")).help(help);
    // Routes share what [defaults] says: once is enough.
    if !cx.problems.borrow().contains(&problem) {
        cx.report_missing(problem);
    }
}

/// A limit by API key counts nobody where none is taken.
fn limits_can_count(cx: &Context<'_>, settings: &Settings, route: &RouteSettings) {
    let takes_keys = match &route.access {
        Access::Public => false,
        Access::Demands(demands) => demands.auths.iter().any(|name| {
            // One that could not be read may be of any kind.
            settings.auths.get(&name.value).is_none_or(|auth| matches!(auth.kind, AuthKind::ApiKey(_)))
        }),
    };
    for name in &route.limits {
        let by_key = settings.limits.get(&name.value).is_some_and(|limit| limit.key == LimitKey::ApiKey);
        if by_key && !takes_keys {
            let problem = Problem::error(&name.span, "this limit counts by API key, and a route with it takes none");
            let problem = problem.help("add an auth of kind \"api_key\" to the route, or count by \"subject\"");
            if !cx.problems.borrow().contains(&problem) {
                cx.report_missing(problem);
            }
        }
    }
}

fn documents_can_be_asked(cx: &Context<'_>, route: &RouteSettings) {
    let Some(openapi) = route.validate.as_ref().and_then(|validate| validate.openapi.as_ref()) else { return };
    if let OpenApiSource::Upstream(path) = &openapi.source
        && !matches!(route.action, RouteAction::Upstream(_))
    {
        let problem = Problem::error(&path.span, "a route without `upstream` has none that publishes a document");
        cx.report(problem.help("name a file"));
    }
    if openapi.security
        && route.access == Access::Public
        && let Some(validate) = &route.validate
    {
        let problem = Problem::error(&validate.span, "`openapi_security` demands an `auth`: nobody says who calls");
        cx.report_missing(problem.help("add auth = [\"NAME\"] to the route"));
    }
}

fn identity_has_one_writer(cx: &Context<'_>, route: &RouteSettings) {
    let Some(names) = &route.forward_identity else { return };
    let names = [&names.subject, &names.roles, &names.scopes, &names.method];
    if let Some((name, _)) = route.request_headers.set.iter().find(|(name, _)| names.contains(&name)) {
        let problem = Problem::error(&route.path.span, format!("this route sets `{name}`, which tells who is calling"));
        cx.report(problem.help("leave it out of `headers`, or set forward_identity = false"));
    }
}

/// Client certificates come only where a listener asks for them, which matters where a route demands one.
fn certificates_are_asked_for(cx: &Context<'_>, settings: &Settings) {
    let asked = settings.listeners.values().filter_map(|listener| listener.tls.as_ref());
    if asked.into_iter().any(|tls| tls.client_auth.is_some()) {
        return;
    }
    for (name, auth) in settings.auths.iter().filter(|(name, _)| is_listed(settings, name)) {
        match auth.kind {
            AuthKind::ClientCertificate(_) => {
                let message = format!("`auth.{name}` judges client certificates, but no listener asks for any");
                let help = "add client_ca = \"FILE\" to [listener.NAME.tls]";
                cx.report_missing(Problem::error(&auth.span, message).help(help));
            }
            AuthKind::Jwt(_) | AuthKind::Introspection(_) | AuthKind::ApiKey(_) | AuthKind::Basic(_) => {}
        }
    }
}

/// Asking for certificates keeps nobody out by itself.
fn certificates_are_judged(cx: &Context<'_>, settings: &Settings) {
    if settings.auths.values().any(|auth| matches!(auth.kind, AuthKind::ClientCertificate(_))) {
        return;
    }
    let tls = settings.listeners.values().filter_map(|listener| listener.tls.as_ref());
    for client_auth in tls.filter_map(|tls| tls.client_auth.as_ref()) {
        let message = "clients without a certificate are served too: no route demands one";
        let help = "add an [auth.NAME] with kind = \"client_certificate\", and list it in `auth` of routes";
        cx.report_missing(Problem::warning(&client_auth.ca.span, message).help(help));
    }
}

/// Whether a route lists the auth of this name.
fn is_listed(settings: &Settings, name: &str) -> bool {
    settings.routes.values().any(|route| match &route.access {
        Access::Public => false,
        Access::Demands(demands) => demands.auths.iter().any(|used| used.value == *name),
    })
}

fn unused_admission(cx: &Context<'_>, settings: &Settings) {
    let routes = || settings.routes.values();
    for (name, auth) in &settings.auths {
        if !is_listed(settings, name) {
            cx.report_missing(Problem::warning(&auth.span, format!("no route lists auth `{name}`")));
        }
    }
    for (name, limit) in &settings.limits {
        if !routes().any(|route| route.limits.iter().any(|used| used.value == *name)) {
            cx.report_missing(Problem::warning(&limit.span, format!("no route lists limit `{name}`")));
        }
    }
    for (name, store) in &settings.stores {
        if !settings.limits.values().any(|limit| limit.store.as_ref().is_some_and(|used| used.value == *name)) {
            cx.report_missing(Problem::warning(&store.span, format!("no limit counts in store `{name}`")));
        }
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
    for (name, upstream) in &settings.upstreams {
        let used = settings.routes.values().any(|route| match &route.action {
            RouteAction::Upstream(used) => used.value == *name,
            RouteAction::Redirect(_) | RouteAction::Respond(_) => false,
        });
        if !used {
            cx.report_missing(Problem::warning(&upstream.span, format!("no route leads to upstream `{name}`")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
