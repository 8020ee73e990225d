//! The route table: host, then path, then method, each decided before the next is looked at.
//!
//! Paths are kept in a trie of segments. Each of its nodes lies at one depth, so a look-up visits a node at most
//! once, whatever the path.

use std::collections::HashMap;
use std::fmt::Write;

use http::{HeaderValue, Method};

use crate::config::settings::{HostPattern, PathPattern, PatternSegment};

/// The number of a route in its table's order of building.
pub type RouteIndex = usize;

/// Where a request goes by host, path and method.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, Trie>,
    /// By what follows `*.`.
    suffixes: HashMap<Box<str>, Trie>,
    any: Trie,
}

/// Why nothing was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmatched {
    Path,
    Method {
        /// The path's `Allow`.
        allow: HeaderValue,
        /// One of the path's routes.
        beside: RouteIndex,
    },
}

/// Hosts and paths that a host name selects.
#[derive(Debug, Default)]
struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    parameter: Option<Box<Node>>,
    rest: Option<Methods>,
    here: Option<Methods>,
}

/// The routes of one path.
#[derive(Debug, Default)]
struct Methods {
    named: Vec<(Method, RouteIndex)>,
    any: Option<RouteIndex>,
}

impl RouteTable {
    /// Adds a route. Duplicates were refused when the configuration was read; a later one would not be reached.
    pub fn add(&mut self, hosts: &[HostPattern], path: &PathPattern, methods: Option<&[Method]>, route: RouteIndex) {
        if hosts.is_empty() {
            self.any.add(path, methods, route);
        }
        for host in hosts {
            let trie = match host {
                HostPattern::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
                HostPattern::Suffix(name) => self.suffixes.entry(name.as_str().into()).or_default(),
            };
            trie.add(path, methods, route);
        }
    }

    /// `host` without port, in any case; `path` in its one form.
    ///
    /// # Errors
    /// What did not match: the host and path (404), or only the method (405).
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Result<RouteIndex, Unmatched> {
        let methods = self.trie(host).and_then(|trie| trie.find(path)).ok_or(Unmatched::Path)?;
        methods.find(method).ok_or_else(|| methods.unmatched())
    }

    /// Whether a route names this host, for redirects that must not serve made-up hosts.
    pub fn names_host(&self, host: &str) -> bool {
        !std::ptr::eq(self.trie(Some(host)).unwrap_or(&self.any), &self.any)
    }

    fn trie(&self, host: Option<&str>) -> Option<&Trie> {
        let Some(host) = host else { return Some(&self.any) };
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return Some(&self.any);
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let lowered;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = host.to_ascii_lowercase();
            lowered.as_str()
        } else {
            host
        };
        if let Some(trie) = self.exact.get(host) {
            return Some(trie);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(trie) = self.suffixes.get(suffix) {
                return Some(trie);
            }
            rest = suffix;
        }
        Some(&self.any)
    }
}

impl Trie {
    fn add(&mut self, path: &PathPattern, methods: Option<&[Method]>, route: RouteIndex) {
        let mut node = &mut self.root;
        for segment in &path.segments {
            match segment {
                PatternSegment::Literal(text) => node = node.literals.entry(text.as_str().into()).or_default(),
                PatternSegment::Parameter(_) => node = node.parameter.get_or_insert_default(),
                PatternSegment::Rest(_) => return node.rest.get_or_insert_default().add(methods, route),
            }
        }
        node.here.get_or_insert_default().add(methods, route);
    }

    fn find(&self, path: &str) -> Option<&Methods> {
        self.root.find(path.strip_prefix('/').map(|rest| rest.split('/')))
    }
}

impl Node {
    /// The best match for the segments that are left: literal before parameter before rest, from the left.
    fn find(&self, segments: Option<std::str::Split<'_, char>>) -> Option<&Methods> {
        let mut left = segments?;
        let Some(segment) = left.next() else { return self.here.as_ref().or(self.rest.as_ref()) };
        let literal = self.literals.get(segment).and_then(|node| node.find(Some(left.clone())));
        let parameter = || {
            let node = self.parameter.as_ref().filter(|_| !segment.is_empty())?;
            node.find(Some(left))
        };
        literal.or_else(parameter).or(self.rest.as_ref())
    }
}

impl Methods {
    fn add(&mut self, methods: Option<&[Method]>, route: RouteIndex) {
        match methods {
            None => self.any = Some(route),
            Some(methods) => self.named.extend(methods.iter().map(|method| (method.clone(), route))),
        }
    }

    fn find(&self, method: &Method) -> Option<RouteIndex> {
        let named = |wanted: &Method| self.named.iter().find(|(name, _)| name == wanted).map(|(_, route)| *route);
        named(method).or_else(|| (method == Method::HEAD).then(|| named(&Method::GET)).flatten()).or(self.any)
    }

    fn unmatched(&self) -> Unmatched {
        match self.named.first() {
            Some((_, beside)) => Unmatched::Method { allow: self.allow(), beside: *beside },
            // Methods are never empty.
            None => Unmatched::Path,
        }
    }

    fn allow(&self) -> HeaderValue {
        let mut text = String::new();
        let has_head = self.named.iter().any(|(method, _)| method == Method::HEAD);
        for (method, _) in &self.named {
            let comma = if text.is_empty() { "" } else { ", " };
            let head = if method == Method::GET && !has_head { ", HEAD" } else { "" };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{method}{head}");
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("GET"))
    }
}

/// The values of a pattern's parameters in a path that it matches, in the pattern's order.
pub fn captures<'p>(pattern: &'p PathPattern, path: &'p str) -> impl Iterator<Item = (&'p str, &'p str)> {
    let mut rest = path.strip_prefix('/').unwrap_or_default();
    pattern.segments.iter().filter_map(move |segment| match segment {
        PatternSegment::Rest(name) => Some((name.as_str(), rest)),
        PatternSegment::Literal(_) | PatternSegment::Parameter(_) => {
            let (value, left) = rest.split_once('/').unwrap_or((rest, ""));
            rest = left;
            match segment {
                PatternSegment::Parameter(name) => Some((name.as_str(), value)),
                PatternSegment::Literal(_) | PatternSegment::Rest(_) => None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        let segments = text.split('/').skip(1).map(|segment| {
            let inside = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            match inside {
                Some(name) if name.starts_with('*') => PatternSegment::Rest(name[1..].to_owned()),
                Some(name) => PatternSegment::Parameter(name.to_owned()),
                None => PatternSegment::Literal(segment.to_owned()),
            }
        });
        PathPattern { segments: segments.collect() }
    }

    type Row<'a> = (&'a [HostPattern], &'a str, Option<&'a [Method]>);

    fn table(routes: &[Row<'_>]) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, (hosts, path, methods)) in routes.iter().enumerate() {
            table.add(hosts, &pattern(path), *methods, index);
        }
        table
    }

    fn paths(routes: &[&str]) -> RouteTable {
        table(&routes.iter().map(|path| (&[][..], *path, None)).collect::<Vec<_>>())
    }

    fn find(table: &RouteTable, path: &str) -> Option<RouteIndex> {
        table.find(None, path, &Method::GET).ok()
    }

    #[test]
    fn literals_before_parameters_before_rest_from_the_left() {
        let table = paths(&["/a/b", "/a/{x}", "/{y}/b", "/{*rest}", "/a/{x}/c/{*rest}"]);
        assert_eq!(find(&table, "/a/b"), Some(0));
        assert_eq!(find(&table, "/a/c"), Some(1));
        assert_eq!(find(&table, "/c/b"), Some(2));
        assert_eq!(find(&table, "/c/d"), Some(3));
        assert_eq!(find(&table, "/a/b/c"), Some(4));
        assert_eq!(find(&table, "/a/b/d"), Some(3));
        assert_eq!(find(&table, "/"), Some(3));
        assert_eq!(find(&table, "/a/"), Some(3));
    }

    #[test]
    fn rest_takes_the_place_above_it_unless_an_exact_route_does() {
        let table = paths(&["/orders/{*rest}", "/items/{*rest}", "/items", "/things/", "/things/{*rest}"]);
        for path in ["/orders", "/orders/", "/orders/1", "/orders/1/2"] {
            assert_eq!(find(&table, path), Some(0), "{path}");
        }
        assert_eq!(find(&table, "/ordersx"), None);
        assert_eq!(find(&table, "/items"), Some(2));
        assert_eq!(find(&table, "/items/"), Some(1));
        assert_eq!(find(&table, "/things/"), Some(3));
        assert_eq!(find(&table, "/things"), Some(4));
    }

    #[test]
    fn a_parameter_is_never_empty() {
        let table = paths(&["/a/{x}"]);
        assert_eq!(find(&table, "/a/"), None);
        assert_eq!(find(&table, "/a"), None);
        assert_eq!(find(&table, "/a/b/"), None);
    }

    #[test]
    fn the_host_decides_first() {
        let exact = [HostPattern::Exact("api.example.com".into())];
        let suffix = [HostPattern::Suffix("example.com".into())];
        let deeper = [HostPattern::Suffix("eu.example.com".into())];
        let table = table(&[
            (&exact, "/a", None),
            (&suffix, "/{*rest}", None),
            (&[], "/{*rest}", None),
            (&deeper, "/{*rest}", None),
        ]);
        let find = |host, path| table.find(host, path, &Method::GET).ok();
        assert_eq!(find(Some("api.example.com"), "/a"), Some(0));
        assert_eq!(find(Some("API.Example.COM."), "/a"), Some(0));
        assert_eq!(find(Some("api.example.com"), "/b"), None);
        assert_eq!(find(Some("www.example.com"), "/b"), Some(1));
        assert_eq!(find(Some("a.b.example.com"), "/b"), Some(1));
        assert_eq!(find(Some("a.eu.example.com"), "/b"), Some(3));
        assert_eq!(find(Some("example.com"), "/b"), Some(2));
        assert_eq!(find(None, "/b"), Some(2));
        assert!(table.names_host("x.example.com") && !table.names_host("example.com"));
    }

    #[test]
    fn the_method_decides_last_and_nothing_falls_through() {
        let (get, post) = (&[Method::GET][..], &[Method::POST][..]);
        let table = table(&[(&[], "/a", Some(get)), (&[], "/a", Some(post)), (&[], "/{*rest}", None)]);
        assert_eq!(table.find(None, "/a", &Method::GET), Ok(0));
        assert_eq!(table.find(None, "/a", &Method::HEAD), Ok(0));
        assert_eq!(table.find(None, "/a", &Method::POST), Ok(1));
        let refused = table.find(None, "/a", &Method::DELETE);
        assert_eq!(refused, Err(Unmatched::Method { allow: HeaderValue::from_static("GET, HEAD, POST"), beside: 0 }));
    }

    #[test]
    fn captures_follow_the_pattern() {
        let pattern = pattern("/a/{x}/{*rest}");
        assert_eq!(captures(&pattern, "/a/1/2/3").collect::<Vec<_>>(), [("x", "1"), ("rest", "2/3")]);
        assert_eq!(captures(&pattern, "/a/1").collect::<Vec<_>>(), [("x", "1"), ("rest", "")]);
    }
}
