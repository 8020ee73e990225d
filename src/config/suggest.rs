//! "Did you mean …?"

/// The candidate that `word` was most likely meant to be, if any is close.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = normalised(word);
    if word.is_empty() {
        return None;
    }
    let bound = word.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &normalised(candidate)), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether `word` is `known` but for one letter, or two that changed places. It is asked of every key of a file, so it
/// takes nothing but a look along both.
pub(super) fn is_slip(word: &str, known: &str) -> bool {
    let (mut word, mut known) = (word.chars().map(plain), known.chars().map(plain));
    // What both begin and end with decides nothing.
    while let (Some(letter), Some(other)) = (word.clone().next(), known.clone().next())
        && letter == other
    {
        word.next();
        known.next();
    }
    while let (Some(letter), Some(other)) = (word.clone().next_back(), known.clone().next_back())
        && letter == other
    {
        word.next_back();
        known.next_back();
    }
    match ([word.next(), word.next(), word.next()], [known.next(), known.next(), known.next()]) {
        ([_, None, _], [_, None, _]) => true,
        ([first, Some(second), None], [other, Some(last), None]) => first == Some(last) && other == Some(second),
        (_, _) => false,
    }
}

/// Long words are cut: comparing is quadratic.
fn normalised(word: &str) -> String {
    word.chars().take(64).map(plain).collect()
}

/// Case and the choice between dash and underscore are slips, not differences.
fn plain(letter: char) -> char {
    if letter == '-' { '_' } else { letter.to_ascii_lowercase() }
}

/// What to say beside an unknown word: the likely one, else all of them when they are few.
pub(super) fn help(word: &str, candidates: &[&str], plural: &str) -> Option<String> {
    if let Some(candidate) = closest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let few = !candidates.is_empty() && candidates.len() <= 20;
    few.then(|| format!("known {plural}: {}", list(candidates)))
}

/// "`a`, `b`, `c`"
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found() {
        assert_eq!(closest("upstreams", ["upstream", "route"]), Some("upstream"));
        assert_eq!(closest("Least-Requests", ["least_requests"]), Some("least_requests"));
        assert_eq!(closest("tsl", ["tls", "log"]), Some("tls"));
    }

    #[test]
    fn a_slip_is_one_letter() {
        for (word, known) in [
            ("token", "token"),
            ("TOKEN", "token"),
            ("client-secret", "client_secret"),
            ("tken", "token"),
            ("ttoken", "token"),
            ("tokens", "token"),
            ("toxen", "token"),
            ("tkoen", "token"),
            ("otken", "token"),
            ("tokné", "tokne"),
            ("", "a"),
        ] {
            assert!(is_slip(word, known) && is_slip(known, word), "{word} {known}");
        }
        for (word, known) in
            [("tok", "token"), ("tkoenn", "token"), ("nekot", "token"), ("xoken_", "token"), ("", "ab")]
        {
            assert!(!is_slip(word, known) && !is_slip(known, word), "{word} {known}");
        }
    }

    #[test]
    fn far_words_are_not() {
        assert_eq!(closest("banana", ["upstream", "route"]), None);
        assert_eq!(closest("", ["a"]), None);
    }
}
