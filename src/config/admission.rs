//! Rules of who may call, and how often: names that must exist, limits that can count, identity that has one writer.

use std::collections::BTreeSet;

use ::http::HeaderName;
use ::http::header::{AUTHORIZATION, COOKIE};

use super::problem::Problem;
use super::reader::Context;
use super::section::Draft;
use super::settings::{
    Access, ApiKeyPlace, At, AuthKind, AuthSettings, JwtSettings, LimitKey, ListenAddress, RouteSettings, Settings,
    TokenFrom,
};
use super::suggest;

/// What can be said of a file that has other errors too.
pub(super) fn check(cx: &Context<'_>, draft: &Draft) {
    let settings = &draft.settings;
    names(cx, draft);
    for route in settings.routes.values() {
        limits_can_count(cx, settings, route);
        limits_count_what_is_verified(cx, settings, route);
        identity_has_one_writer(cx, settings, route);
    }
    certificates_are_asked_for(cx, settings);
}

/// Warnings, which suppose that all was read without errors.
pub(super) fn surprises(cx: &Context<'_>, settings: &Settings) {
    unused(cx, settings);
    certificates_are_judged(cx, settings);
    settings.routes.values().for_each(|route| one_token_has_one_judge(cx, settings, route));
    passwords_are_not_overheard(cx, settings);
}

/// The names of auths, limits and stores that must exist.
fn names(cx: &Context<'_>, draft: &Draft) {
    draft.default_limits.iter().for_each(|name| must_exist(cx, name, "limit", &draft.limits));
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
        Access::Demands(demands) => {
            demands.auths.is_empty()
                || demands.auths.iter().any(|name| {
                    // One that could not be read may be of any kind.
                    settings.auths.get(&name.value).is_none_or(|auth| matches!(auth.kind, AuthKind::ApiKey(_)))
                })
        }
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

/// Whoever invents credentials would get a bucket of its own for each, where the field that holds them is counted by.
fn limits_count_what_is_verified(cx: &Context<'_>, settings: &Settings, route: &RouteSettings) {
    let Access::Demands(demands) = &route.access else { return };
    for name in &route.limits {
        let Some(limit) = settings.limits.get(&name.value) else { continue };
        let LimitKey::Header(header) = &limit.key else { continue };
        let auths = demands.auths.iter().filter_map(|auth| settings.auths.get_key_value(&auth.value));
        let Some((auth, by)) = auths.into_iter().find_map(|(auth, at)| Some((auth, verified_key(at, header)?))) else {
            continue;
        };
        let message = format!(
            "this limit counts by `{header}`, where `auth.{auth}` looks for a credential that nobody has verified yet"
        );
        let help = format!("write key = \"{by}\": else whoever makes credentials up has a bucket for each of them");
        let problem = Problem::error(&name.span, message).also(&limit.span, "the limit").help(help);
        if !cx.problems.borrow().contains(&problem) {
            cx.report(problem);
        }
    }
}

/// What counts the callers that show their credential in `header`, once they are known.
fn verified_key(auth: &AuthSettings, header: &HeaderName) -> Option<&'static str> {
    match &auth.kind {
        AuthKind::ApiKey(keys) => match &keys.place {
            ApiKeyPlace::Header(name) => (name == header).then_some("api_key"),
            ApiKeyPlace::Query(_) => None,
        },
        AuthKind::Jwt(jwt) => match jwt.token_from {
            TokenFrom::Header => (*header == AUTHORIZATION).then_some("subject"),
            TokenFrom::Cookie(_) => (*header == COOKIE).then_some("subject"),
        },
        AuthKind::Introspection(_) | AuthKind::Basic(_) => (*header == AUTHORIZATION).then_some("subject"),
        AuthKind::ClientCertificate(_) => None,
    }
}

/// The default names are refused where the key is written; these are those that somebody chose.
fn identity_has_one_writer(cx: &Context<'_>, settings: &Settings, route: &RouteSettings) {
    let (Some(names), Access::Demands(demands)) = (&route.forward_identity, &route.access) else { return };
    for (name, auth) in demands.auths.iter().filter_map(|auth| settings.auths.get_key_value(&auth.value)) {
        if let AuthKind::ApiKey(keys) = &auth.kind
            && let ApiKeyPlace::Header(header) = &keys.place
            && names.holds(header.as_str())
        {
            let message = format!("`auth.{name}` looks for keys in `{header}`, which tells services who is calling");
            let problem = Problem::error(&auth.span, message);
            let problem = problem.help("give one of them another name: see `header` and `forward_identity`");
            if !cx.problems.borrow().contains(&problem) {
                cx.report(problem);
            }
        }
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

fn unused(cx: &Context<'_>, settings: &Settings) {
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

/// The first of two that take the same tokens would decide.
fn one_token_has_one_judge(cx: &Context<'_>, settings: &Settings, route: &RouteSettings) {
    let Access::Demands(demands) = &route.access else { return };
    let tokens: Vec<(&At<String>, &JwtSettings)> = demands
        .auths
        .iter()
        .filter_map(|name| match &settings.auths.get(&name.value)?.kind {
            AuthKind::Jwt(jwt) => Some((name, jwt)),
            AuthKind::Introspection(_) | AuthKind::ApiKey(_) | AuthKind::ClientCertificate(_) | AuthKind::Basic(_) => {
                None
            }
        })
        .collect();
    for (index, (name, jwt)) in tokens.iter().enumerate() {
        let same = |(_, other): &&(&At<String>, &JwtSettings)| {
            (&jwt.issuer, &jwt.token_from) == (&other.issuer, &other.token_from)
                && jwt.audience.iter().any(|audience| other.audience.contains(audience))
        };
        if let Some((earlier, _)) = tokens.iter().take(index).find(same) {
            let message = format!(
                "`{}` and `{}` take tokens of one issuer for one audience: whichever verifies one first decides",
                earlier.value, name.value
            );
            let problem = Problem::warning(&name.span, message).also(&earlier.span, "the first");
            cx.report(problem.help("list one of them, or give them audiences of their own"));
        }
    }
}

/// Passwords that go over a network in the clear. What stands in front may speak TLS, where proxies are trusted.
fn passwords_are_not_overheard(cx: &Context<'_>, settings: &Settings) {
    let open = settings.listeners.iter().find_map(|(name, listener)| {
        let served =
            listener.tls.is_none() && listener.redirect_to_https.is_none() && listener.trusted_proxies.is_empty();
        let beyond = listener.addresses.iter().find(|address| match &address.value {
            ListenAddress::Socket(address) => !address.ip().is_loopback(),
            ListenAddress::Systemd(_) => false,
        });
        beyond.filter(|_| served).map(|address| (name, address))
    });
    let Some((listener, address)) = open else { return };
    for (name, auth) in settings.auths.iter().filter(|(name, _)| is_listed(settings, name)) {
        match auth.kind {
            AuthKind::Basic(_) => {
                let message = format!("passwords of `auth.{name}` come in the clear over `listener.{listener}`");
                let problem = Problem::warning(&auth.span, message).also(&address.span, "without `tls`");
                cx.report_missing(problem.help(
                    "serve them over TLS; where something in front of the gateway does, name it in trusted_proxies",
                ));
            }
            AuthKind::Jwt(_) | AuthKind::Introspection(_) | AuthKind::ApiKey(_) | AuthKind::ClientCertificate(_) => {}
        }
    }
}
