//! Where packages come from. pip finds out by itself; uv has variables of its own and reads nothing of pip's, so what is
//! said to pip (in its variables, in the system's `pip.conf`) is said to uv in its words, unless it was told itself.

use std::collections::BTreeMap;
use std::path::Path;

use crate::app::environ::Environ;

/// The files that pip reads for everybody. What is in a user's home is not the app's.
const PIP_CONF: [&str; 2] = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf"];

/// pip's option, and the variables of uv that mean the same; the first is set.
const SAME: [(&str, &[&str]); 6] = [
    ("index-url", &["UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
    ("extra-index-url", &["UV_INDEX", "UV_EXTRA_INDEX_URL"]),
    ("find-links", &["UV_FIND_LINKS"]),
    ("cert", &["SSL_CERT_FILE"]),
    ("trusted-host", &["UV_INSECURE_HOST"]),
    ("default-timeout", &["UV_HTTP_TIMEOUT"]),
];

/// What pip is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index(BTreeMap<String, String>);

impl Index {
    /// From the variables of `environ`, else from pip's files. Reads files.
    pub(super) fn of(environ: &Environ) -> Index {
        let mut options = BTreeMap::new();
        let named = environ.get("PIP_CONFIG_FILE").and_then(|file| file.to_str());
        // pip reads none at all when this one is named.
        if named != Some("/dev/null") {
            for file in PIP_CONF.into_iter().chain(named) {
                options.extend(read_conf(Path::new(file)));
            }
        }
        for (name, value) in environ.variables() {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if let Some(option) = name.strip_prefix("PIP_") {
                options.insert(option.to_ascii_lowercase().replace('_', "-"), value.to_owned());
            }
        }
        Index(options)
    }

    fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn is_on(&self, option: &str) -> bool {
        self.get(option).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }

    /// No index is to be asked.
    pub(super) fn is_offline(&self) -> bool {
        self.is_on("no-index")
    }

    /// Hashes are demanded of everything.
    pub(super) fn demands_hashes(&self) -> bool {
        self.is_on("require-hashes")
    }

    /// Says it to uv. `directory`: where it runs.
    pub(super) fn tell_uv(&self, environ: &mut Environ, directory: &Path) {
        for (option, variables) in SAME {
            let (Some(value), Some(first)) = (self.get(option), variables.first()) else { continue };
            if variables.iter().any(|name| environ.get(name).is_some()) {
                continue;
            }
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            let value = match option {
                // pip passes over directories that are not there; uv does not.
                "find-links" => {
                    let is_there = |link: &&str| link.contains("://") || directory.join(link).exists();
                    words.into_iter().filter(is_there).collect::<Vec<_>>().join(",")
                }
                _ => words.join(" "),
            };
            if !value.is_empty() {
                environ.set(*first, value);
            }
        }
    }
}

/// `[global]`, then `[install]`, which wins.
fn read_conf(path: &Path) -> BTreeMap<String, String> {
    let bytes = super::digest::read(path).unwrap_or_default();
    parse_conf(&String::from_utf8_lossy(&bytes))
}

/// The part of an INI file that matters: a value goes on in lines that are indented.
fn parse_conf(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
            last = None;
            continue;
        }
        let options = sections.entry(section.clone()).or_default();
        if line.starts_with([' ', '\t']) {
            if let Some(value) = last.as_ref().and_then(|key| options.get_mut(key)) {
                value.push(' ');
                value.push_str(trimmed);
            }
            continue;
        }
        if let Some((key, value)) = trimmed.split_once(['=', ':']) {
            let key = key.trim().to_ascii_lowercase().replace('_', "-");
            options.insert(key.clone(), value.trim().to_owned());
            last = Some(key);
        }
    }
    let mut options = sections.remove("global").unwrap_or_default();
    options.extend(sections.remove("install").unwrap_or_default());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(options: &[(&str, &str)]) -> Index {
        Index(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_pip_conf_is_read_as_pip_does() {
        let text = "# ours\n[global]\nindex-url = https://a.example/simple\nfind_links =\n  /wheels\n  ./more\n\
                    [install]\nindex-url: https://b.example/simple\n[list]\nformat = columns\n";
        let options = parse_conf(text);
        assert_eq!(options["index-url"], "https://b.example/simple");
        assert_eq!(options["find-links"].split_whitespace().collect::<Vec<_>>(), ["/wheels", "./more"]);
        assert!(!options.contains_key("format"));
    }

    #[test]
    fn what_pip_is_told_is_told_to_uv_unless_it_was_told_itself() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("wheels")).unwrap();
        let told = index(&[
            ("index-url", "https://a.example/simple"),
            ("extra-index-url", "https://b.example https://c.example"),
            ("find-links", "wheels /nowhere https://d.example"),
            ("no-index", "1"),
        ]);
        let mut environ = Environ::default();
        environ.set("UV_INDEX_URL", "https://own.example");
        told.tell_uv(&mut environ, directory.path());
        let get = |name: &str| environ.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(get("UV_DEFAULT_INDEX"), None);
        assert_eq!(get("UV_INDEX").as_deref(), Some("https://b.example https://c.example"));
        assert_eq!(get("UV_FIND_LINKS").as_deref(), Some("wheels,https://d.example"));
        assert!(told.is_offline());
        assert!(!index(&[("no-index", "0")]).is_offline());
    }
}
