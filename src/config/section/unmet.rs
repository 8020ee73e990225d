//! Demands that nobody meets: roles and scopes that no auth of the route gives to anybody. Warnings: a key may be
//! about to be made.

use std::collections::BTreeSet;

use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{ApiKeyEntry, At, AuthKind, ClaimSettings};
use super::super::suggest;
use super::Known;

/// What callers can have.
struct Given<'a> {
    /// `None`: the issuer says, and nobody knows beforehand.
    roles: Option<BTreeSet<&'a str>>,
    scopes: Option<BTreeSet<&'a str>>,
}

/// Looks at `roles` and `scopes` of a route, which were read without errors.
pub(super) fn warn(route: &Table<'_>, auths: &[At<String>], known: Known<'_>) {
    let given: Option<Vec<Given<'_>>> =
        auths.iter().map(|name| known.auths.get(&name.value).map(|auth| given(&auth.kind))).collect();
    // One that could not be read may give anything.
    let Some(given) = given else { return };
    for (key, singular, all) in [
        ("roles", "role", union(given.iter().map(|given| given.roles.as_ref()))),
        ("scopes", "scope", union(given.iter().map(|given| given.scopes.as_ref()))),
    ] {
        let (Some(node), Some(all)) = (route.node(key), all) else { continue };
        let Some(members) = Some(&node).filter(|node| node.is_list()).and_then(|node| node.list("a list")) else {
            continue;
        };
        for member in members {
            let Some(name) = member.literal().filter(|name| !name.contains("${") && !all.contains(name)) else {
                continue;
            };
            let (shown, span) = (name.escape_debug(), member.span());
            let problem = Problem::warning(&span, format!("no caller of this route can have the {singular} `{shown}`"));
            let candidates: Vec<&str> = all.iter().copied().collect();
            node.cx.report(problem.help(match suggest::help(name, &candidates, key) {
                Some(help) => help,
                None => format!("none of its auths gives {key} to anybody"),
            }));
        }
    }
}

/// `None`: anything.
fn union<'a>(each: impl Iterator<Item = Option<&'a BTreeSet<&'a str>>>) -> Option<BTreeSet<&'a str>> {
    let each: Option<Vec<&BTreeSet<&str>>> = each.collect();
    Some(each?.into_iter().flatten().copied().collect())
}

fn given(kind: &AuthKind) -> Given<'_> {
    match kind {
        AuthKind::Jwt(jwt) => of_claims(&jwt.claims),
        AuthKind::Introspection(introspection) => of_claims(&introspection.claims),
        AuthKind::ApiKey(keys) if keys.keys_file.is_some() => Given { roles: None, scopes: None },
        AuthKind::ApiKey(keys) => {
            let all = |list: fn(&ApiKeyEntry) -> &[String]| Some(texts(keys.keys.iter().flat_map(list)));
            Given { roles: all(|key| &key.roles), scopes: all(|key| &key.scopes) }
        }
        AuthKind::ClientCertificate(certificates) => {
            Given { roles: Some(texts(certificates.roles.values().flatten())), scopes: Some(BTreeSet::new()) }
        }
        AuthKind::Basic(basic) => {
            Given { roles: Some(texts(basic.roles.values().flatten())), scopes: Some(BTreeSet::new()) }
        }
    }
}

fn of_claims(claims: &ClaimSettings) -> Given<'_> {
    Given { roles: claims.roles_map.as_ref().map(|map| texts(map.values().flatten())), scopes: None }
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    texts.map(String::as_str).collect()
}
