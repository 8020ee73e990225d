//! One value of the file, and how it is asked for its type.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::DeValue;

use super::mask::KEY_PREFIX;
use super::outside;
use super::problem::Problem;
use super::reader::{Context, Table};
use super::settings::At;
use super::source::Span;

/// A value of the file.
pub(super) struct Node<'a> {
    pub(super) cx: &'a Context<'a>,
    /// How messages call it: "`connect`", "a member of `servers`".
    pub(super) key: String,
    /// Dotted, from the top.
    pub(super) path: String,
    pub(super) key_range: Range<usize>,
    range: Range<usize>,
    value: &'a DeValue<'a>,
}

/// A string value after expansion.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) secret: bool,
}

impl Text {
    /// For messages: quoted, cut, and never a secret.
    pub(super) fn quoted(&self) -> String {
        if self.secret {
            return "this value".into();
        }
        if self.text.is_empty() {
            return "an empty string".into();
        }
        let mut shown: String = self.text.chars().take(60).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        format!("`{}`", shown.escape_debug())
    }
}

/// `text` as messages may show it. Nearly every key is shown as it is, so that is found out first.
fn shown(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if text.bytes().all(plain) { Cow::Borrowed(text) } else { Cow::Owned(text.escape_debug().to_string()) }
}

impl<'a> Node<'a> {
    pub(super) fn of_key(
        cx: &'a Context<'a>,
        path: &str,
        key: &str,
        key_range: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        Node {
            cx,
            key: ["`", &shown(key), "`"].concat(),
            path: shown(path).into_owned(),
            key_range,
            range: value.span(),
            value: value.get_ref(),
        }
    }

    pub(super) fn span(&self) -> Span {
        self.cx.span(&self.range)
    }

    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At { value, span: self.span() }
    }

    /// Notes an error at this value. The `None` is for the caller to return.
    pub(super) fn refuse<T>(&self, message: impl Into<Cow<'static, str>>) -> Option<T> {
        self.cx.report(Problem::error(&self.span(), message));
        None
    }

    pub(super) fn refuse_with<T>(
        &self,
        message: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Option<T> {
        self.cx.report(Problem::error(&self.span(), message).help(help));
        None
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    /// Whether it is `true`.
    pub(super) fn is_true(&self) -> bool {
        matches!(self.value, DeValue::Boolean(true))
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// A string as it stands in the file, before anything is drawn.
    pub(super) fn literal(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The text of a number or a boolean, where one is written without quotes.
    pub(super) fn unquoted(&self) -> Option<String> {
        match self.value {
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str().to_owned()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Boolean(boolean) => Some(boolean.to_string()),
            DeValue::Integer(_) | DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                None
            }
        }
    }

    /// A string in a secret position: never shown, wherever it came from.
    pub(super) fn secret_text(&self, takes: &str) -> Option<Text> {
        let text = self.text(takes)?;
        self.cx.file.keep_secret(self.range.clone(), &text.text);
        Some(Text { secret: true, ..text })
    }

    /// A string, expanded. `takes` says what is expected, as in "a duration such as \"30s\"".
    pub(super) fn text(&self, takes: &str) -> Option<Text> {
        if !self.is_string() {
            return self.wrong_type(takes);
        }
        self.expanded().map(|(text, _)| text)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let takes = "true or false";
        if let Some(value) = self.value.as_bool() {
            return Some(value);
        }
        if !self.is_string() {
            return self.wrong_type(takes);
        }
        let (text, drawn) = self.expanded()?;
        match text.text.trim() {
            "true" if drawn => Some(true),
            "false" if drawn => Some(false),
            "true" | "false" => {
                self.refuse_with(format!("{} takes {takes}, not a string", self.key), "write it without quotes")
            }
            _ => self.refuse(format!("{} takes {takes}, not {}", self.key, text.quoted())),
        }
    }

    /// The integer that is written here, if it is one: its value where that is not negative, and its text.
    pub(super) fn plain_integer(&self) -> Option<(Option<u64>, String)> {
        let integer = self.value.as_integer()?;
        Some((u64::from_str_radix(integer.as_str(), integer.radix()).ok(), format!("`{integer}`")))
    }

    /// An integer within `bounds`.
    pub(super) fn integer(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (*bounds.start(), *bounds.end());
        let takes = format!("an integer from {low} to {high}");
        let (value, shown) = if let Some(written) = self.plain_integer() {
            written
        } else if self.is_string() {
            let (text, drawn) = self.expanded()?;
            let number = text.text.trim().parse::<u64>().ok();
            if !drawn {
                let message = format!("{} takes {takes}, not a string", self.key);
                return match number {
                    Some(_) => self.refuse_with(message, "write it without quotes"),
                    None => self.refuse(message),
                };
            }
            (number, text.quoted())
        } else {
            return self.wrong_type(&takes);
        };
        match value.filter(|value| bounds.contains(value)) {
            Some(value) => Some(value),
            None => self.refuse(format!("{} takes {takes}, not {shown}", self.key)),
        }
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        let Some(entries) = self.value.as_table() else {
            // Neither a member of a list nor all sections of a kind can be written so.
            return if self.range == self.key_range || !self.path.contains('.') {
                self.wrong_type("a table")
            } else {
                self.wrong_type_with("a table", format!("write a section [{}], the keys beneath it", self.path))
            };
        };
        // An implicit table (`[a.b]` alone makes `a`) has no place of its own.
        let range = if self.range.is_empty() { self.key_range.clone() } else { self.range.clone() };
        Some(Table::new(self.cx, self.path.clone(), range, entries))
    }

    /// The members of a list. `takes` says what is expected: "a list of methods".
    pub(super) fn list(&self, takes: &str) -> Option<Vec<Node<'a>>> {
        let Some(members) = self.value.as_array() else {
            return self.wrong_type(takes);
        };
        Some(members.iter().map(|member| self.member(member)).collect())
    }

    /// Reads each member of a list; `None` when any is wrong, after all have been looked at.
    pub(super) fn list_of<T>(&self, takes: &str, read: impl FnMut(&Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        let members = self.list(takes)?;
        all(members.iter().map(read))
    }

    /// Likewise, where a single value may stand for a list of one.
    pub(super) fn one_or_more<T>(&self, read: impl FnMut(&Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut read = read;
        if !self.is_list() {
            return read(self).map(|value| vec![value]);
        }
        let values = self.list_of("a list", read)?;
        if values.is_empty() { self.refuse(format!("{} is empty", self.key)) } else { Some(values) }
    }

    pub(super) fn wrong_type<T>(&self, takes: &str) -> Option<T> {
        self.refuse(format!("{} takes {takes}, not {}", self.key, self.kind()))
    }

    pub(super) fn wrong_type_with<T>(&self, takes: &str, help: impl Into<Cow<'static, str>>) -> Option<T> {
        self.refuse_with(format!("{} takes {takes}, not {}", self.key, self.kind()), help)
    }

    fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    fn member(&self, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node {
            cx: self.cx,
            key: format!("a member of {}", self.key),
            path: self.path.clone(),
            key_range: value.span(),
            range: value.span(),
            value: value.get_ref(),
        }
    }

    /// The string with its references replaced, and whether it had any.
    fn expanded(&self) -> Option<(Text, bool)> {
        let DeValue::String(literal) = self.value else {
            return None;
        };
        let files = &mut *self.cx.files.borrow_mut();
        match outside::expand(literal, self.cx.outside, self.cx.base, files) {
            Ok(expanded) => {
                // An API key is one wherever it was pasted.
                let secret = expanded.secret || expanded.text.contains(KEY_PREFIX);
                if secret {
                    self.cx.file.keep_secret(self.range.clone(), &expanded.text);
                    self.cx.file.keep_drawn(expanded.parts);
                }
                Some((Text { text: expanded.text, secret }, expanded.drawn))
            }
            Err(refusal) => {
                let problem = Problem::error(&self.span(), refusal.message);
                self.cx.report(match refusal.help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
                None
            }
        }
    }
}

/// All or nothing, but only after every one has been looked at.
pub(super) fn all<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let values: Vec<Option<T>> = values.collect();
    values.into_iter().collect()
}
