//! What stood on the command line: as it is written again, and as it is spoken of where something is wrong with it.

use crate::cli::print_error;
use crate::config::problem::{Problem, Severity};

/// Options that do not belong to what is kept.
const NOT_KEPT: [&str; 2] = ["--watch", "--print-config"];

/// As a shell takes it for one word.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The words behind `serve`, ready to be written again.
pub(super) fn asked(words: impl Iterator<Item = String>) -> String {
    let kept = words.filter(|word| !NOT_KEPT.contains(&word.as_str()));
    kept.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// What is wrong with the configuration that the command line amounts to, `text`, is told of the option that it is from:
/// there is no file that anybody could look into.
pub(super) fn tell(problems: &[Problem], text: &str) {
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
        print_error(&told(problem, text));
    }
}

fn told(problem: &Problem, text: &str) -> String {
    let (line, _) = problem.span.file.position(problem.span.start);
    let about = option_at(text, line).map_or(String::new(), |option| format!("{option}: "));
    let help = problem.help.as_ref().map_or(String::new(), |help| format!("  {help}\n"));
    format!("passerelle: {about}{}\n{help}", problem.message)
}

/// The option that line `number` of the text is from, beginning with 1.
fn option_at(text: &str, number: usize) -> Option<&'static str> {
    let lines: Vec<&str> = text.lines().take(number).collect();
    let section = lines.iter().rev().find(|line| line.starts_with('['))?.trim_matches(['[', ']']);
    let key = lines.last()?.split(" = ").next()?.trim();
    match (section.split('.').next()?, key) {
        ("listener", "address") => Some("--address"),
        ("listener", "certificates") => Some("--certificate, --key"),
        ("app", "directory" | "entry") => Some("TARGET"),
        ("app", "server") => Some("--server"),
        ("app", "workers") => Some("--workers"),
        ("app", "threads") => Some("--threads"),
        ("app", "requirements") => Some("--requirements"),
        ("app", "python") => Some("--python"),
        ("app", "env") => Some("--env"),
        ("app", "env_file") => Some("--env-file"),
        ("app", "path") => Some("--health"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Outside};

    #[test]
    fn words_are_written_as_a_shell_reads_them() {
        let words = ["my shop/app.py:app", "--env", "A=it's $HOME", "--watch", "--workers", "2-4", ""];
        let expected = r"'my shop/app.py:app' --env 'A=it'\''s $HOME' --workers 2-4 ''";
        assert_eq!(asked(words.iter().map(|word| (*word).to_owned())), expected);
    }

    #[test]
    fn what_is_wrong_is_told_of_the_option() {
        let text = "[listener.http]\naddress = \"127.0.0.1:80\"\n\n[app.shop]\ndirectory = \".\"\nentry = \"app:app\"\n\
                    threads = 0\nrequirements = \"x.zip\"\nenv_file = \"none.env\"\n\n[app.shop.health]\npath = \"nowhere\"\n";
        let loaded = config::load_text("passerelle.toml", text, Path::new("/"), &Outside::new(&|_| None));
        let (_, problems) = loaded.build(|_, _| Some(()));
        let told = problems.iter().map(|problem| told(problem, text)).collect::<String>();
        for option in ["--threads: ", "--requirements: ", "--env-file: ", "--health: "] {
            assert!(told.contains(&format!("passerelle: {option}")), "{option} {told}");
        }
        assert!(!told.contains("passerelle.toml"), "{told}");
    }
}
