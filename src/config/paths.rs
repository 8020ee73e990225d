//! Routes found by their paths, so that a file of many routes is judged without comparing each with all.

use std::collections::{BTreeSet, HashMap};

use super::settings::{HostPattern, PathPattern, PatternSegment, RouteSettings};

/// The routes of a file, in its order, as numbers.
pub(super) struct Paths<'a> {
    /// Those of each host that is named, and those that name none.
    by_host: HashMap<Option<&'a HostPattern>, Node<'a>>,
    /// Those that name a host.
    hosted: Node<'a>,
}

/// What lies beneath the first segments of a path.
#[derive(Default)]
struct Node<'a> {
    literals: HashMap<&'a str, Node<'a>>,
    parameter: Option<Box<Node<'a>>>,
    /// Routes whose path ends here.
    here: Vec<usize>,
    /// Routes that take everything beneath.
    rest: Vec<usize>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(routes: impl Iterator<Item = &'a RouteSettings>) -> Paths<'a> {
        let mut paths = Paths { by_host: HashMap::new(), hosted: Node::default() };
        for (index, route) in routes.enumerate() {
            if route.hosts.is_empty() {
                paths.by_host.entry(None).or_default().add(&route.path.value.segments, index);
            } else {
                paths.hosted.add(&route.path.value.segments, index);
            }
            for host in &route.hosts {
                paths.by_host.entry(Some(&host.value)).or_default().add(&route.path.value.segments, index);
            }
        }
        paths
    }

    /// Those that share a host with `route` and have its path but for the names of parameters; it is among them.
    pub(super) fn alike(&self, route: &RouteSettings) -> BTreeSet<usize> {
        self.of_its_hosts(route).flat_map(|node| node.alike(&route.path.value.segments)).copied().collect()
    }

    /// Those that share a host with `route` and match all that it does, and more.
    pub(super) fn broader(&self, route: &RouteSettings) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.of_its_hosts(route).for_each(|node| node.broader(&route.path.value, &mut found));
        found
    }

    /// Those that name a host, whichever, and match all that `path` does, and more.
    pub(super) fn broader_of_any_host(&self, path: &PathPattern) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.hosted.broader(path, &mut found);
        found
    }

    /// Whether a route that names `host` has this path.
    pub(super) fn serves(&self, host: &HostPattern, path: &PathPattern) -> bool {
        self.by_host.get(&Some(host)).is_some_and(|node| !node.alike(&path.segments).is_empty())
    }

    fn of_its_hosts<'s>(&'s self, route: &'s RouteSettings) -> impl Iterator<Item = &'s Node<'s>> {
        let none = route.hosts.is_empty().then_some(None);
        none.into_iter()
            .chain(route.hosts.iter().map(|host| Some(&host.value)))
            .filter_map(|host| self.by_host.get(&host))
    }
}

impl<'a> Node<'a> {
    fn add(&mut self, path: &'a [PatternSegment], route: usize) {
        let Some((first, beneath)) = path.split_first() else { return self.here.push(route) };
        match first {
            PatternSegment::Literal(literal) => self.literals.entry(literal).or_default().add(beneath, route),
            PatternSegment::Parameter(_) => self.parameter.get_or_insert_default().add(beneath, route),
            PatternSegment::Rest(_) => self.rest.push(route),
        }
    }

    fn alike(&self, path: &[PatternSegment]) -> &[usize] {
        let Some((first, beneath)) = path.split_first() else { return &self.here };
        match first {
            PatternSegment::Literal(literal) => {
                self.literals.get(literal.as_str()).map_or(&[], |node| node.alike(beneath))
            }
            PatternSegment::Parameter(_) => self.parameter.as_ref().map_or(&[], |node| node.alike(beneath)),
            PatternSegment::Rest(_) => &self.rest,
        }
    }

    fn broader(&self, path: &PathPattern, found: &mut BTreeSet<usize>) {
        self.covering(&path.segments, found);
        for same in self.alike(&path.segments) {
            found.remove(same);
        }
    }

    /// Those that match all that `path` does.
    fn covering(&self, path: &[PatternSegment], found: &mut BTreeSet<usize>) {
        found.extend(&self.rest);
        let Some((first, beneath)) = path.split_first() else { return found.extend(&self.here) };
        match first {
            PatternSegment::Literal(literal) => {
                if let Some(node) = self.literals.get(literal.as_str()) {
                    node.covering(beneath, found);
                }
                if let Some(node) = self.parameter.as_ref().filter(|_| !literal.is_empty()) {
                    node.covering(beneath, found);
                }
            }
            PatternSegment::Parameter(_) => {
                if let Some(node) = &self.parameter {
                    node.covering(beneath, found);
                }
            }
            PatternSegment::Rest(_) => {}
        }
    }
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
        let covers = |broad, narrow| {
            let (broad, narrow) = (pattern(broad), pattern(narrow));
            let mut node = Node::default();
            node.add(&broad.segments, 7);
            let mut found = BTreeSet::new();
            node.broader(&narrow, &mut found);
            found.contains(&7)
        };
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
    fn paths_alike() {
        let alike = |one, other| {
            let (one, other) = (pattern(one), pattern(other));
            let mut node = Node::default();
            node.add(&one.segments, 7);
            node.alike(&other.segments) == [7]
        };
        assert!(alike("/{a}/x", "/{b}/x"));
        assert!(alike("/{*a}", "/{*b}"));
        assert!(!alike("/{a}", "/{*a}"));
        assert!(!alike("/x", "/x/"));
    }
}
