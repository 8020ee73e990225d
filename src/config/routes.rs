//! Rules between routes: no two may claim the same request, and what never falls through is said.

use std::collections::BTreeMap;

use ::http::Method;

use super::problem::Problem;
use super::reader::Context;
use super::settings::{At, HostPattern, PathPattern, PatternSegment, RouteSettings};

type Routes = BTreeMap<String, RouteSettings>;

/// Routes that could both take one request: same host, same path but for the names of parameters, a method in common.
pub(super) fn duplicates(cx: &Context<'_>, routes: &Routes) {
    let routes: Vec<(&String, &RouteSettings)> = routes.iter().collect();
    for (index, (name, route)) in routes.iter().enumerate() {
        let same = |earlier: &&(&String, &RouteSettings)| {
            same_shape(&earlier.1.path.value, &route.path.value)
                && share_a_host(&earlier.1.hosts, &route.hosts)
                && share_a_method(earlier.1.methods.as_deref(), route.methods.as_deref())
        };
        if let Some((other, earlier)) = routes.iter().take(index).find(same) {
            let message =
                format!("routes `{other}` and `{name}` take the same requests: host, path and method are alike");
            cx.report(Problem::error(&route.path.span, message).also(&earlier.path.span, format!("path of `{other}`")));
        }
    }
}

fn share_a_host(one: &[At<HostPattern>], other: &[At<HostPattern>]) -> bool {
    if one.is_empty() || other.is_empty() {
        return one.is_empty() && other.is_empty();
    }
    one.iter().any(|host| other.iter().any(|other| other.value == host.value))
}

fn share_a_method(one: Option<&[Method]>, other: Option<&[Method]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.iter().any(|method| other.contains(method)),
        (None, _) | (_, None) => true,
    }
}

fn same_shape(one: &PathPattern, other: &PathPattern) -> bool {
    one.segments.len() == other.segments.len()
        && one.segments.iter().zip(&other.segments).all(|(one, other)| match (one, other) {
            (PatternSegment::Literal(one), PatternSegment::Literal(other)) => one == other,
            (PatternSegment::Parameter(_), PatternSegment::Parameter(_))
            | (PatternSegment::Rest(_), PatternSegment::Rest(_)) => true,
            (PatternSegment::Literal(_) | PatternSegment::Parameter(_) | PatternSegment::Rest(_), _) => false,
        })
}

/// Warns where a narrower path refuses a method that a broader one on the same host would take: the answer is 405.
pub(super) fn surprises(cx: &Context<'_>, routes: &Routes) {
    let routes: Vec<(&String, &RouteSettings)> = routes.iter().collect();
    for (index, (name, narrow)) in routes.iter().enumerate() {
        let alike = |other: &RouteSettings| {
            same_shape(&other.path.value, &narrow.path.value) && share_a_host(&other.hosts, &narrow.hosts)
        };
        // One warning a path: the first of its routes speaks for all.
        if routes.iter().take(index).any(|(_, earlier)| alike(earlier)) {
            continue;
        }
        let together: Vec<&RouteSettings> =
            routes.iter().map(|(_, route)| *route).filter(|route| alike(route)).collect();
        let Some(served) = union(&together) else {
            continue;
        };
        let broader = routes.iter().find(|(_, broad)| {
            covers(&broad.path.value, &narrow.path.value)
                && share_a_host(&broad.hosts, &narrow.hosts)
                && broad.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| !is_served(method, &served)))
        });
        if let Some((broad_name, broad)) = broader {
            warn(cx, (name, narrow), (broad_name, broad), &served);
        }
    }
}

/// Warns where a route of any host does not get what its narrower path says, since a route that names the host comes
/// first: hosts are decided before paths.
pub(super) fn hosts_come_first(cx: &Context<'_>, routes: &Routes) {
    for (name, narrow) in routes.iter().filter(|(_, narrow)| narrow.hosts.is_empty()) {
        let shadow = routes.iter().find_map(|(other, broad)| {
            let host = broad.hosts.iter().find(|host| !serves(routes, host, narrow))?;
            covers(&broad.path.value, &narrow.path.value).then_some((other, broad, host))
        });
        if let Some((other, broad, host)) = shadow {
            let host = host.shown();
            let message = format!(
                "`{name}` gets no request for {host}: hosts are decided before paths, and `{other}` names that one"
            );
            let problem = Problem::warning(&narrow.path.span, message).also(&broad.path.span, "what takes them");
            cx.report(
                problem.help(format!("if they are meant for it, give `{name}` a second route with host = \"{host}\"")),
            );
        }
    }
}

/// Whether a route of this host has the path of `narrow` as well.
fn serves(routes: &Routes, host: &At<HostPattern>, narrow: &RouteSettings) -> bool {
    routes.values().any(|route| {
        route.hosts.iter().any(|named| named.value == host.value) && same_shape(&route.path.value, &narrow.path.value)
    })
}

fn warn(cx: &Context<'_>, narrow: (&str, &RouteSettings), broad: (&str, &RouteSettings), served: &[&Method]) {
    let served = served.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
    let message = format!(
        "what `{}` matches is served for {served} alone; other methods answer 405 and do not fall through to `{}`",
        narrow.0, broad.0
    );
    let problem = Problem::warning(&narrow.1.path.span, message).also(&broad.1.path.span, "the broader path");
    cx.report(problem.help("give this path a route for the other methods too if they are wanted"));
}

/// All methods of `routes`; `None` when one takes any.
fn union<'a>(routes: &[&'a RouteSettings]) -> Option<Vec<&'a Method>> {
    let lists: Option<Vec<&Vec<Method>>> = routes.iter().map(|route| route.methods.as_ref()).collect();
    Some(lists?.into_iter().flatten().collect())
}

/// GET takes HEAD along.
fn is_served(method: &Method, served: &[&Method]) -> bool {
    served.contains(&method) || (*method == Method::HEAD && served.contains(&&Method::GET))
}

/// Whether `broad` matches all that `narrow` does, and more.
fn covers(broad: &PathPattern, narrow: &PathPattern) -> bool {
    let mut narrower = narrow.segments.iter();
    for segment in &broad.segments {
        match (segment, narrower.next()) {
            (PatternSegment::Rest(_), _) => return !same_shape(broad, narrow),
            (PatternSegment::Literal(one), Some(PatternSegment::Literal(other))) if one == other => {}
            (PatternSegment::Parameter(_), Some(PatternSegment::Literal(literal))) if !literal.is_empty() => {}
            (PatternSegment::Parameter(_), Some(PatternSegment::Parameter(_))) => {}
            (PatternSegment::Literal(_) | PatternSegment::Parameter(_), _) => return false,
        }
    }
    narrower.next().is_none() && !same_shape(broad, narrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        let segment = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(name) => PatternSegment::Rest(name.into()),
                None => PatternSegment::Parameter(name.into()),
            },
            None => PatternSegment::Literal(part.into()),
        };
        PathPattern { segments: text.strip_prefix('/').unwrap().split('/').map(segment).collect() }
    }

    #[test]
    fn broader_paths() {
        let covers = |broad, narrow| covers(&pattern(broad), &pattern(narrow));
        assert!(covers("/{*rest}", "/orders"));
        assert!(covers("/orders/{*rest}", "/orders"));
        assert!(covers("/orders/{*rest}", "/orders/{id}/items"));
        assert!(covers("/orders/{id}", "/orders/new"));
        assert!(!covers("/orders/{id}", "/orders/{other}"));
        assert!(!covers("/orders/{id}", "/orders/"));
        assert!(!covers("/orders", "/orders/{*rest}"));
        assert!(!covers("/orders/{*a}", "/orders/{*b}"));
        assert!(!covers("/orders/{id}", "/orders/{id}/items"));
        assert!(!covers("/a/{*rest}", "/b/c"));
    }

    #[test]
    fn shapes() {
        let same = |one, other| same_shape(&pattern(one), &pattern(other));
        assert!(same("/{a}/x", "/{b}/x"));
        assert!(same("/{*a}", "/{*b}"));
        assert!(!same("/{a}", "/{*a}"));
        assert!(!same("/x", "/x/"));
    }
}
