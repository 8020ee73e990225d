//! Which operation of a document a request is for: path templates, compiled into a tree of segments.
//!
//! At each segment a literal goes before one with names in it, and that before a name alone. Where the best path has
//! not the method, the next best that has it is taken, as the frameworks do which try one path after the other.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::{percent_decode, percent_decode_str};

/// Segments of one path: so deep is the tree, and whoever looks for a path or drops the tree.
const MOST_SEGMENTS: usize = 100;

/// The paths of a document, each with what stands for it.
#[derive(Default)]
pub(super) struct Paths {
    root: Node,
    templates: Vec<Vec<Segment>>,
}

#[derive(Default)]
struct Node {
    literals: HashMap<Vec<u8>, Node>,
    mixed: Vec<(Vec<Piece>, Node)>,
    named: Option<Box<Node>>,
    /// The templates that end here.
    ends: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Vec<u8>),
    Mixed(Vec<Piece>),
    Named(String),
}

/// A piece of a segment. Two names never follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Named(String),
}

/// What stands in the places of a template's names; `None`: it is not UTF-8.
pub(super) type Captures<'r> = Vec<(&'r str, Option<Cow<'r, str>>)>;

impl Paths {
    /// Adds a template; paths are told apart by their order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn add(&mut self, template: &str) -> Result<(), &'static str> {
        let rest = template.strip_prefix('/').ok_or("a path begins with a slash")?;
        if rest.split('/').nth(MOST_SEGMENTS).is_some() {
            return Err("a path has too many segments");
        }
        let segments: Vec<Segment> = rest.split('/').map(Segment::parse).collect::<Result<_, _>>()?;
        let mut node = &mut self.root;
        for segment in &segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Named(_) => node.named.get_or_insert_default(),
                Segment::Mixed(pieces) => node.mixed(pieces),
            };
        }
        node.ends.push(self.templates.len());
        self.templates.push(segments);
        Ok(())
    }

    /// The first template that fits `path` and that `take` wants, best first; with whatever `take` makes of it. `path` is
    /// decoded first and taken apart then, as the frameworks behind us do it.
    pub(super) fn find<T>(&self, path: &[u8], mut take: impl FnMut(usize) -> Option<T>) -> Option<T> {
        let segments: Vec<&[u8]> = segments(path).collect();
        self.root.find(&segments, &mut take)
    }

    /// Whether a template has no names.
    pub(super) fn is_literal(&self, template: usize) -> bool {
        let segments = self.templates.get(template);
        segments.is_some_and(|segments| segments.iter().all(|segment| matches!(segment, Segment::Literal(_))))
    }

    /// What stands in the places of the names of a template that fits `path`.
    pub(super) fn captures<'r>(&'r self, template: usize, path: &'r [u8]) -> Captures<'r> {
        let mut captures = Captures::new();
        let mut capture = |name: &'r str, text: &'r [u8]| {
            captures.push((name, std::str::from_utf8(text).ok().map(Cow::Borrowed)));
        };
        for (segment, text) in self.templates.get(template).into_iter().flatten().zip(segments(path)) {
            match segment {
                Segment::Literal(_) => {}
                Segment::Named(name) => capture(name, text),
                Segment::Mixed(pieces) => drop(matches(pieces, text, &mut capture)),
            }
        }
        captures
    }
}

/// The path as the frameworks see it.
pub(super) fn decoded(path: &str) -> Cow<'_, [u8]> {
    percent_decode(path.as_bytes()).into()
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").unwrap_or(path).split(|&byte| byte == b'/')
}

impl Node {
    fn mixed(&mut self, pieces: &[Piece]) -> &mut Node {
        // Names do not tell nodes apart.
        let same = |known: &[Piece]| {
            known.len() == pieces.len()
                && known.iter().zip(pieces).all(|pair| match pair {
                    (Piece::Named(_), Piece::Named(_)) => true,
                    (Piece::Literal(one), Piece::Literal(other)) => one == other,
                    (Piece::Named(_), Piece::Literal(_)) | (Piece::Literal(_), Piece::Named(_)) => false,
                })
        };
        let index = self.mixed.iter().position(|(known, _)| same(known)).unwrap_or(self.mixed.len());
        if index == self.mixed.len() {
            self.mixed.push((pieces.to_vec(), Node::default()));
        }
        match self.mixed.get_mut(index) {
            Some((_, node)) => node,
            // Not reached: it was pushed if it was not there.
            None => self.named.get_or_insert_default(),
        }
    }

    /// Visits each node that fits once at most, so that the work is bounded by the size of the document.
    fn find<T>(&self, segments: &[&[u8]], take: &mut impl FnMut(usize) -> Option<T>) -> Option<T> {
        let Some((segment, rest)) = segments.split_first() else {
            return self.ends.iter().find_map(|&template| take(template));
        };
        if let Some(found) = self.literals.get(*segment).and_then(|node| node.find(rest, take)) {
            return Some(found);
        }
        let fitting = self.mixed.iter().filter(|(pieces, _)| matches(pieces, segment, &mut |_, _| {}));
        if let Some(found) = fitting.into_iter().find_map(|(_, node)| node.find(rest, take)) {
            return Some(found);
        }
        self.named.as_ref().filter(|_| !segment.is_empty()).and_then(|node| node.find(rest, take))
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Segment, &'static str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a brace is not closed")?;
            if name.contains('{') || literal.contains('}') {
                return Err("a brace stands within braces, or is not opened");
            }
            if !literal.is_empty() {
                pieces.push(Piece::literal(literal));
            } else if matches!(pieces.last(), Some(Piece::Named(_))) {
                return Err("two names follow each other");
            }
            pieces.push(Piece::Named(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err("a brace is not opened");
        }
        if !rest.is_empty() {
            pieces.push(Piece::literal(rest));
        }
        Ok(match pieces.as_slice() {
            [] => Segment::Literal(Vec::new()),
            [Piece::Literal(text)] => Segment::Literal(text.clone()),
            [Piece::Named(name)] => Segment::Named(name.clone()),
            [_, _, ..] => Segment::Mixed(pieces),
        })
    }
}

impl Piece {
    fn literal(text: &str) -> Piece {
        Piece::Literal(percent_decode_str(text).collect())
    }
}

/// Whether the pieces make up `text`, each name standing for at least a byte and as few as can be, the last for the rest.
fn matches<'r>(pieces: &'r [Piece], text: &'r [u8], capture: &mut impl FnMut(&'r str, &'r [u8])) -> bool {
    let (mut pieces, mut text) = (pieces, text);
    if let Some((Piece::Literal(last), before)) = pieces.split_last() {
        let Some(rest) = text.strip_suffix(last.as_slice()) else { return false };
        (pieces, text) = (before, rest);
    }
    while let Some((piece, rest)) = pieces.split_first() {
        match piece {
            Piece::Literal(literal) => match text.strip_prefix(literal.as_slice()) {
                Some(after) => text = after,
                None => return false,
            },
            Piece::Named(name) => {
                let end = match rest.first() {
                    None => Some(text.len()),
                    Some(Piece::Literal(next)) => {
                        let behind_first = text.get(1..).unwrap_or_default();
                        memchr::memmem::find(behind_first, next).map(|at| at.saturating_add(1))
                    }
                    Some(Piece::Named(_)) => None,
                };
                let Some((value, after)) = end.and_then(|end| text.split_at_checked(end)) else { return false };
                if value.is_empty() {
                    return false;
                }
                capture(name, value);
                text = after;
            }
        }
        pieces = rest;
    }
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(templates: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for template in templates {
            paths.add(template).unwrap();
        }
        paths
    }

    fn find(paths: &Paths, path: &str) -> Option<usize> {
        paths.find(&decoded(path), Some)
    }

    #[test]
    fn literals_go_before_names() {
        let paths = paths(&["/{a}/{b}", "/pets/{id}", "/pets/mine", "/{a}/mine", "/pets/{id}.json", "/", "/pets/"]);
        for (path, expected) in [
            ("/pets/mine", Some(2)),
            ("/pets/7", Some(1)),
            ("/pets/7.json", Some(4)),
            ("/pets/.json", Some(1)),
            ("/dogs/mine", Some(3)),
            ("/dogs/7", Some(0)),
            ("/p%65ts/min%65", Some(2)),
            ("/", Some(5)),
            ("/pets/", Some(6)),
            ("/pets", None),
            ("/dogs/", None),
            ("/pets/7/8", None),
            // What Python decodes before it looks for a route.
            ("/pets%2Fmine", Some(2)),
        ] {
            assert_eq!(find(&paths, path), expected, "{path}");
        }
    }

    #[test]
    fn captures_are_decoded_once() {
        let paths = paths(&["/files/{name}.{extension}/v{version}", "/a/{b}"]);
        let captured = |template, path: &str| -> Vec<(String, Option<String>)> {
            let decoded = decoded(path);
            let captures = paths.captures(template, &decoded);
            captures.into_iter().map(|(name, text)| (name.to_owned(), text.map(Cow::into_owned))).collect()
        };
        let is = |name: &str, text: &str| (name.to_owned(), Some(text.to_owned()));
        assert_eq!(captured(0, "/files/a.tar.gz/v2"), [is("name", "a"), is("extension", "tar.gz"), is("version", "2")]);
        assert_eq!(captured(1, "/a/%C3%BC%2525"), [is("b", "ü%25")]);
        assert_eq!(captured(1, "/a/%FF"), [("b".to_owned(), None)]);
    }

    #[test]
    fn templates_that_make_no_sense_are_refused() {
        for template in ["a", "/{a", "/a}", "/{a}{b}", "/{{a}", "/a}{b}"] {
            assert!(Paths::default().add(template).is_err(), "{template}");
        }
    }

    #[test]
    fn the_next_best_path_is_asked() {
        let paths = paths(&["/a/b", "/a/{x}", "/a/{y}"]);
        let mut asked = Vec::new();
        assert_eq!(
            paths.find(b"/a/b", |template| {
                asked.push(template);
                None::<()>
            }),
            None
        );
        assert_eq!(asked, [0, 1, 2]);
    }

    /// The template as a list: a literal, or `None` for a name.
    fn naive(templates: &[Vec<Option<String>>], path: &[String]) -> Option<usize> {
        let fits = |template: &[Option<String>]| {
            template.len() == path.len()
                && template.iter().zip(path).all(|(segment, text)| match segment {
                    Some(literal) => literal == text,
                    None => !text.is_empty(),
                })
        };
        let rank = |template: &[Option<String>]| template.iter().map(Option::is_none).collect::<Vec<_>>();
        let fitting = templates.iter().enumerate().filter(|(_, template)| fits(template));
        fitting.min_by_key(|(index, template)| (rank(template), *index)).map(|(index, _)| index)
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_trying_all(
            templates in prop::collection::vec(prop::collection::vec(prop::option::of("[ab]{0,1}"), 1..5), 0..12),
            path in prop::collection::vec("[abc]{0,1}", 1..5),
        ) {
            let mut paths = Paths::default();
            for template in &templates {
                let segments: Vec<_> = template.iter().map(|segment| segment.as_deref().unwrap_or("{x}")).collect();
                paths.add(&format!("/{}", segments.join("/"))).unwrap();
            }
            let found = paths.find(format!("/{}", path.join("/")).as_bytes(), Some);
            prop_assert_eq!(found, naive(&templates, &path));
        }

        #[test]
        fn nothing_panics(template in "/[a{}/.%]{0,12}", path in "/[a./%2F]{0,12}") {
            let mut paths = Paths::default();
            if paths.add(&template).is_ok() {
                let path = decoded(&path);
                if paths.find(&path, Some).is_some() {
                    let names = template.matches('{').count();
                    prop_assert_eq!(paths.captures(0, &path).len(), names);
                }
            }
        }
    }
}
