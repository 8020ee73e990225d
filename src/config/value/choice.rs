//! One of a closed set of words.

use super::super::hints;
use super::super::node::{Node, Text};
use super::super::problem::Problem;
use super::super::suggest;

/// The value that the word stands for.
pub(in super::super) fn choice<T: Copy>(node: &Node<'_>, words: &[(&'static str, T)]) -> Option<T> {
    let text = node.text(&one_of(&names(words)))?;
    match words.iter().find(|(word, _)| *word == text.text) {
        Some((_, value)) => Some(*value),
        None => unknown(node, &text, &names(words)),
    }
}

/// Refuses a word that is none of `words`.
pub(in super::super) fn unknown<T>(node: &Node<'_>, text: &Text, words: &[&str]) -> Option<T> {
    let message = format!("{} takes {}, not {}", node.key, one_of(words), text.quoted());
    // What is close to a secret says something about it.
    let meant = hints::of_word(&text.text).filter(|word| words.contains(word));
    let meant = meant.or_else(|| suggest::closest(&text.text, words.iter().copied()));
    match meant.filter(|_| !text.secret) {
        Some(word) => node.refuse_with(message, format!("did you mean \"{word}\"?")),
        None => node.refuse(message),
    }
}

/// Warns where a free value is all but one of the words that mean something else.
pub(in super::super) fn warn_of_slip(node: &Node<'_>, value: &str, words: &[&str]) {
    let span = node.span();
    if let Some(word) = words.iter().find(|word| suggest::is_slip(value, word)).filter(|_| !span.is_secret()) {
        let problem = Problem::warning(&span, format!("{} takes this as it stands", node.key));
        node.cx.report(problem.help(format!("did you mean \"{word}\"?")));
    }
}

fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// `"a", "b" or "c"`
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
