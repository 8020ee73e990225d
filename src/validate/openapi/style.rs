//! The styles in which OpenAPI writes values into paths, queries, fields and cookies (RFC 6570 and a few more).
//!
//! Values are decoded first and taken apart then, as the frameworks behind us do it: what they see is what is judged.

use std::borrow::Cow;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

impl Style {
    pub(super) fn named(name: &str) -> Option<Style> {
        match name {
            "simple" => Some(Style::Simple),
            "label" => Some(Style::Label),
            "matrix" => Some(Style::Matrix),
            "form" => Some(Style::Form),
            "spaceDelimited" => Some(Style::SpaceDelimited),
            "pipeDelimited" => Some(Style::PipeDelimited),
            "deepObject" => Some(Style::DeepObject),
            _ => None,
        }
    }

    /// What stands between the items where they share one value.
    pub(super) fn delimiter(self) -> char {
        match self {
            Style::Simple | Style::Label | Style::Matrix | Style::Form | Style::DeepObject => ',',
            Style::SpaceDelimited => ' ',
            Style::PipeDelimited => '|',
        }
    }
}

/// What is looked for in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Scalar,
    Array,
    Object,
}

/// A value, taken apart; nothing is typed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw<'t> {
    Scalar(Cow<'t, str>),
    Array(Vec<Cow<'t, str>>),
    /// In the order that they were written.
    Object(Vec<(Cow<'t, str>, Cow<'t, str>)>),
}

/// The text is not written in its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Miswritten;

/// Takes a text apart that holds the whole value: of a path segment, a field, a cookie, or a query parameter that does
/// not come once for each item.
///
/// # Errors
/// It is not in this style.
pub(super) fn read<'t>(
    style: Style,
    explode: bool,
    name: &str,
    text: &'t str,
    want: Want,
) -> Result<Raw<'t>, Miswritten> {
    match style {
        Style::Label => label(explode, text.strip_prefix('.').ok_or(Miswritten)?, want),
        Style::Matrix => matrix(explode, name, text.strip_prefix(';').ok_or(Miswritten)?, want),
        Style::Simple => one(text, ',', explode, want, str::trim),
        Style::Form | Style::SpaceDelimited | Style::PipeDelimited | Style::DeepObject => {
            one(text, style.delimiter(), false, want, |part| part)
        }
    }
}

fn one<'t>(
    text: &'t str,
    delimiter: char,
    explode: bool,
    want: Want,
    tidy: impl Fn(&'t str) -> &'t str,
) -> Result<Raw<'t>, Miswritten> {
    let mut parts = text.split(delimiter).map(tidy);
    match want {
        Want::Scalar => Ok(Raw::Scalar(Cow::Borrowed(text))),
        Want::Array => Ok(Raw::Array(parts.map(Cow::Borrowed).collect())),
        Want::Object if text.is_empty() => Ok(Raw::Object(Vec::new())),
        Want::Object if explode => pairs(parts).map(Raw::Object),
        Want::Object => {
            let mut fields = Vec::new();
            while let Some(name) = parts.next() {
                fields.push((Cow::Borrowed(name), Cow::Borrowed(parts.next().ok_or(Miswritten)?)));
            }
            Ok(Raw::Object(fields))
        }
    }
}

type Pairs<'t> = Vec<(Cow<'t, str>, Cow<'t, str>)>;

/// `R=100`, each.
fn pairs<'t>(parts: impl Iterator<Item = &'t str>) -> Result<Pairs<'t>, Miswritten> {
    let pair = |part: &'t str| part.split_once('=').map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value)));
    parts.map(|part| pair(part).ok_or(Miswritten)).collect()
}

/// `.blue`, `.blue,black` or, as older texts of the standard have it, `.blue.black`; exploded `.R=100.G=200`.
fn label<'t>(explode: bool, text: &'t str, want: Want) -> Result<Raw<'t>, Miswritten> {
    let delimiter = if explode || !text.contains(',') { '.' } else { ',' };
    one(text, delimiter, explode, want, |part| part)
}

/// `;color=blue`, `;color=blue,black`; exploded `;color=blue;color=black` and `;R=100;G=200`.
fn matrix<'t>(explode: bool, name: &str, text: &'t str, want: Want) -> Result<Raw<'t>, Miswritten> {
    let value = |part: &'t str| match part.strip_prefix(name) {
        Some("") => Ok(""),
        Some(rest) => rest.strip_prefix('=').ok_or(Miswritten),
        None => Err(Miswritten),
    };
    match want {
        Want::Array if explode => {
            text.split(';').map(|part| value(part).map(Cow::Borrowed)).collect::<Result<_, _>>().map(Raw::Array)
        }
        Want::Object if explode => pairs(text.split(';')).map(Raw::Object),
        Want::Scalar | Want::Array | Want::Object => one(value(text)?, ',', false, want, |part| part),
    }
}

/// Takes values out of a list of names and values: of a query, a form, or cookies. One for each time that the name
/// comes, unless it comes once for each item or property.
///
/// # Errors
/// One is not in this style.
pub(super) fn read_listed<'t>(
    style: Style,
    explode: bool,
    name: &str,
    list: &'t [(Cow<'_, str>, Cow<'_, str>)],
    want: Want,
    is_property: impl Fn(&str) -> bool,
) -> Result<Vec<Raw<'t>>, Miswritten> {
    if style == Style::DeepObject {
        return deep_object(name, list).map(Vec::from_iter);
    }
    let mut values = list.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref()).peekable();
    match want {
        Want::Array if explode && values.peek().is_none() => Ok(Vec::new()),
        Want::Array if explode => Ok(vec![Raw::Array(values.map(Cow::Borrowed).collect())]),
        Want::Object if explode => {
            let fields = list.iter().filter(|(key, _)| is_property(key));
            let fields: Pairs<'t> =
                fields.map(|(key, value)| (Cow::Borrowed(&**key), Cow::Borrowed(&**value))).collect();
            Ok(if fields.is_empty() { Vec::new() } else { vec![Raw::Object(fields)] })
        }
        Want::Scalar | Want::Array | Want::Object => {
            values.map(|value| read(style, false, name, value, want)).collect()
        }
    }
}

/// `color[R]=100&color[G]=200`; deeper nesting has no meaning in the standard.
fn deep_object<'t>(name: &str, list: &'t [(Cow<'_, str>, Cow<'_, str>)]) -> Result<Option<Raw<'t>>, Miswritten> {
    let mut fields: Pairs<'t> = Vec::new();
    for (key, value) in list {
        let Some(rest) = key.strip_prefix(name) else { continue };
        if rest.is_empty() {
            return Err(Miswritten);
        }
        let Some(rest) = rest.strip_prefix('[') else { continue };
        let property = rest.strip_suffix(']').filter(|property| !property.contains(['[', ']'])).ok_or(Miswritten)?;
        fields.push((Cow::Borrowed(property), Cow::Borrowed(&**value)));
    }
    Ok(if fields.is_empty() { None } else { Some(Raw::Object(fields)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(items: &[&'static str]) -> Raw<'static> {
        Raw::Array(items.iter().map(|item| Cow::Borrowed(*item)).collect())
    }

    fn rgb() -> Raw<'static> {
        let fields = [("R", "100"), ("G", "200"), ("B", "150")];
        Raw::Object(fields.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))).collect())
    }

    /// The table of style examples in OpenAPI 3.0.4 and 3.1.1.
    #[test]
    fn values_that_stand_alone() {
        let colors = || array(&["blue", "black", "brown"]);
        let blue = || Raw::Scalar(Cow::Borrowed("blue"));
        for (style, explode, text, expected) in [
            (Style::Matrix, false, ";color=blue", blue()),
            (Style::Matrix, false, ";color", Raw::Scalar(Cow::Borrowed(""))),
            (Style::Matrix, false, ";color=blue,black,brown", colors()),
            (Style::Matrix, false, ";color=R,100,G,200,B,150", rgb()),
            (Style::Matrix, true, ";color=blue", blue()),
            (Style::Matrix, true, ";color=blue;color=black;color=brown", colors()),
            (Style::Matrix, true, ";R=100;G=200;B=150", rgb()),
            (Style::Label, false, ".", Raw::Scalar(Cow::Borrowed(""))),
            (Style::Label, false, ".blue", blue()),
            (Style::Label, false, ".blue,black,brown", colors()),
            (Style::Label, false, ".blue.black.brown", colors()),
            (Style::Label, false, ".R,100,G,200,B,150", rgb()),
            (Style::Label, true, ".blue.black.brown", colors()),
            (Style::Label, true, ".R=100.G=200.B=150", rgb()),
            (Style::Simple, false, "blue", blue()),
            (Style::Simple, false, "blue,black,brown", colors()),
            (Style::Simple, false, "blue, black , brown", colors()),
            (Style::Simple, false, "R,100,G,200,B,150", rgb()),
            (Style::Simple, true, "blue,black,brown", colors()),
            (Style::Simple, true, "R=100,G=200,B=150", rgb()),
        ] {
            let want = match expected {
                Raw::Scalar(_) => Want::Scalar,
                Raw::Array(_) => Want::Array,
                Raw::Object(_) => Want::Object,
            };
            assert_eq!(read(style, explode, "color", text, want), Ok(expected), "{style:?} {explode} {text}");
        }
        for (style, explode, text, want) in [
            (Style::Matrix, false, "color=blue", Want::Scalar),
            (Style::Matrix, false, ";colour=blue", Want::Scalar),
            (Style::Matrix, true, ";R=100;G", Want::Object),
            (Style::Label, false, "blue", Want::Scalar),
            (Style::Simple, false, "R,100,G", Want::Object),
            (Style::Simple, true, "R,100", Want::Object),
        ] {
            assert_eq!(read(style, explode, "color", text, want), Err(Miswritten), "{style:?} {explode} {text}");
        }
    }

    fn listed(style: Style, explode: bool, query: &'static str, want: Want) -> Result<Vec<Raw<'static>>, Miswritten> {
        let list: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let list: &'static [_] = Vec::leak(list);
        read_listed(style, explode, "color", list, want, |name| matches!(name, "R" | "G" | "B"))
    }

    #[test]
    fn values_of_queries() {
        let colors = || array(&["blue", "black", "brown"]);
        for (style, explode, query, expected) in [
            (Style::Form, false, "color=", Raw::Scalar(Cow::Borrowed(""))),
            (Style::Form, false, "color=blue", Raw::Scalar(Cow::Borrowed("blue"))),
            (Style::Form, false, "color=blue,black,brown", colors()),
            (Style::Form, false, "color=blue%2Cblack%2Cbrown", colors()),
            (Style::Form, false, "color=R,100,G,200,B,150", rgb()),
            (Style::Form, true, "x=1&color=blue&color=black&color=brown", colors()),
            (Style::Form, true, "R=100&G=200&B=150&x=1", rgb()),
            (Style::SpaceDelimited, false, "color=blue%20black+brown", colors()),
            (Style::SpaceDelimited, false, "color=R%20100%20G%20200%20B%20150", rgb()),
            (Style::PipeDelimited, false, "color=blue%7Cblack|brown", colors()),
            (Style::PipeDelimited, false, "color=R%7C100%7CG%7C200%7CB%7C150", rgb()),
            (Style::DeepObject, true, "color%5BR%5D=100&color[G]=200&colors=1&color[B]=150", rgb()),
        ] {
            let want = match expected {
                Raw::Scalar(_) => Want::Scalar,
                Raw::Array(_) => Want::Array,
                Raw::Object(_) => Want::Object,
            };
            assert_eq!(listed(style, explode, query, want), Ok(vec![expected]), "{style:?} {explode} {query}");
        }
        for (style, explode, want) in [
            (Style::Form, false, Want::Scalar),
            (Style::Form, true, Want::Array),
            (Style::Form, true, Want::Object),
            (Style::PipeDelimited, false, Want::Array),
            (Style::DeepObject, true, Want::Object),
        ] {
            assert_eq!(listed(style, explode, "x=1&colors=2", want), Ok(Vec::new()), "{style:?} {explode}");
        }
        for query in ["color[R][x]=1", "color[R=1", "color=1"] {
            assert_eq!(listed(Style::DeepObject, true, query, Want::Object), Err(Miswritten), "{query}");
        }
    }
}
