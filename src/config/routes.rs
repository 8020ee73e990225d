//! Rules between routes: no two may claim the same request, and what never falls through is said.

use std::collections::BTreeMap;

use ::http::Method;

use super::paths::Paths;
use super::problem::Problem;
use super::reader::Context;
use super::settings::RouteSettings;

type Routes = BTreeMap<String, RouteSettings>;

/// Routes that could both take one request: same host, same path but for the names of parameters, a method in common.
pub(super) fn duplicates(cx: &Context<'_>, routes: &Routes) {
    let paths = Paths::new(routes.values());
    let routes: Vec<(&String, &RouteSettings)> = routes.iter().collect();
    for (index, (name, route)) in routes.iter().enumerate() {
        let earlier = paths.alike(route).into_iter().take_while(|&other| other < index);
        let mut earlier = earlier.filter_map(|other| routes.get(other));
        let share = |other: &RouteSettings| share_a_method(other.methods.as_deref(), route.methods.as_deref());
        if let Some((other, earlier)) = earlier.find(|(_, earlier)| share(earlier)) {
            let message =
                format!("routes `{other}` and `{name}` take the same requests: host, path and method are alike");
            cx.report(Problem::error(&route.path.span, message).also(&earlier.path.span, format!("path of `{other}`")));
        }
    }
}

fn share_a_method(one: Option<&[Method]>, other: Option<&[Method]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.iter().any(|method| other.contains(method)),
        (None, _) | (_, None) => true,
    }
}

/// Warns where a narrower path refuses a method that a broader one on the same host would take: the answer is 405.
pub(super) fn surprises(cx: &Context<'_>, routes: &Routes) {
    let paths = Paths::new(routes.values());
    let routes: Vec<(&String, &RouteSettings)> = routes.iter().collect();
    for (index, (name, narrow)) in routes.iter().enumerate() {
        let alike = paths.alike(narrow);
        // One warning a path: the first of its routes speaks for all.
        if alike.first().is_some_and(|&first| first < index) {
            continue;
        }
        let together: Vec<&RouteSettings> =
            alike.iter().filter_map(|&index| routes.get(index)).map(|(_, route)| *route).collect();
        let Some(served) = union(&together) else {
            continue;
        };
        let mut broader = paths.broader(narrow).into_iter().filter_map(|index| routes.get(index));
        let broader = broader.find(|(_, broad)| {
            broad.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| !is_served(method, &served)))
        });
        if let Some((broad_name, broad)) = broader {
            warn(cx, (name, narrow), (broad_name, broad), &served);
        }
    }
}

/// Warns where a route of any host does not get what its narrower path says, since a route that names the host comes
/// first: hosts are decided before paths.
pub(super) fn hosts_come_first(cx: &Context<'_>, routes: &Routes) {
    let paths = Paths::new(routes.values());
    let in_order: Vec<(&String, &RouteSettings)> = routes.iter().collect();
    for (name, narrow) in routes.iter().filter(|(_, narrow)| narrow.hosts.is_empty()) {
        let broader = paths.broader_of_any_host(&narrow.path.value).into_iter();
        let shadow = broader.filter_map(|index| in_order.get(index)).find_map(|(other, broad)| {
            let host = broad.hosts.iter().find(|host| !paths.serves(&host.value, &narrow.path.value))?;
            Some((other, broad, host))
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
