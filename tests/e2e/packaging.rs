//! The Dockerfiles and compose.yaml, held against the tree: no engine runs here, but what they copy must be there, what
//! they build must build from what they copied, and what they run must be a command.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::gateway::passerelle;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The instructions of a Dockerfile: the word, and the rest with line continuations joined.
fn instructions(dockerfile: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(dockerfile).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let whole = joined.lines().filter(|line| !line.trim().is_empty());
    whole
        .map(|line| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).unwrap())
        .collect()
}

/// What the builder is sent of `path`, as a .dockerignore of the form "nothing but these" says.
fn is_sent(context: &Path, path: &str) -> bool {
    let ignore = std::fs::read_to_string(context.join(".dockerignore")).unwrap();
    let mut rules = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(rules.next(), Some("*"), "{}: everything is ignored first", context.display());
    rules.any(|rule| rule == format!("!{path}"))
}

/// What a Dockerfile copies from its context, stage by stage.
fn copied(context: &Path) -> Vec<Vec<String>> {
    let mut stages: Vec<Vec<String>> = Vec::new();
    let mut names = BTreeSet::new();
    for (word, rest) in instructions(&context.join("Dockerfile")) {
        match word.as_str() {
            "FROM" => {
                stages.push(Vec::new());
                if let Some((_, name)) = rest.split_once(" AS ") {
                    names.insert(name.to_owned());
                }
            }
            "COPY" => {
                let mut words: Vec<&str> = rest.split_whitespace().collect();
                words.pop().expect("a destination");
                if let Some(stage) = words[0].strip_prefix("--from=") {
                    assert!(names.contains(stage), "{rest}: no such stage");
                    continue;
                }
                for source in words {
                    let path = source.trim_start_matches("./");
                    assert!(context.join(path).exists(), "{rest}: {path} does not exist");
                    assert!(is_sent(context, path), "{rest}: {path} is ignored by .dockerignore");
                    stages.last_mut().unwrap().push(path.to_owned());
                }
            }
            _ => {}
        }
    }
    stages
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// What cargo would build of a package for its users.
fn targets(directory: &Path) -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap().iter();
    let named = targets.map(|target| (target["kind"][0].as_str().unwrap(), target["name"].as_str().unwrap()));
    let built = named.filter(|(kind, _)| ["lib", "bin", "custom-build"].contains(kind));
    built.map(|(kind, name)| (kind.to_owned(), name.to_owned())).collect()
}

#[test]
fn the_image_is_built_from_what_is_copied() {
    let stages = copied(root());
    let context = tempfile::tempdir().unwrap();
    for path in &stages[0] {
        copy(&root().join(path), &context.path().join(path));
    }
    // Cargo looks for every file that the manifest names, before it builds anything.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let manifest = Command::new(env!("CARGO"))
        .args(["fetch", "--offline", "--locked", "--target", &target])
        .current_dir(context.path())
        .output()
        .unwrap();
    assert!(manifest.status.success(), "{}", String::from_utf8_lossy(&manifest.stderr));
    let built = targets(context.path());
    assert_eq!(built, targets(root()), "the copied tree builds something else than the whole one");
    assert!(built.contains(&("bin".to_owned(), "passerelle".to_owned())));

    let dockerfile = instructions(&root().join("Dockerfile"));
    let run = &dockerfile.iter().find(|(word, _)| word == "RUN").unwrap().1;
    assert!(run.contains("cargo build --release --locked --bin passerelle"), "{run}");
    assert!(run.contains("cp target/release/passerelle /passerelle"), "{run}");
    assert!(dockerfile.iter().any(|(word, rest)| word == "COPY" && rest.starts_with("--from=build /passerelle ")));
}

#[test]
fn the_sources_include_nothing_from_outside_of_them() {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let sources = root().join("src");
    let mut files = Vec::new();
    walk(&sources, &mut files);
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for call in ["include_str!(\"", "include_bytes!(\"", "include!(\""] {
            for after in text.split(call).skip(1) {
                let path = file.parent().unwrap().join(after.split('"').next().unwrap());
                let path = path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert!(path.starts_with(&sources), "{} includes {}", file.display(), path.display());
            }
        }
    }
}

#[test]
fn the_image_runs_commands_that_there_are_and_is_not_root() {
    let dockerfile = instructions(&root().join("Dockerfile"));
    let last = |word: &str| {
        let found = dockerfile.iter().rev().find(|(found, _)| found == word);
        found.unwrap_or_else(|| panic!("no {word}")).1.clone()
    };
    assert_eq!(last("USER"), "nonroot");
    assert_eq!(last("ENTRYPOINT"), r#"["/usr/local/bin/passerelle"]"#);
    let run: Vec<String> = serde_json::from_str(&last("CMD")).unwrap();
    let health = last("HEALTHCHECK");
    let health: Vec<String> = serde_json::from_str(health.split_once(" CMD ").unwrap().1.trim()).unwrap();
    assert_eq!(health[0], "/usr/local/bin/passerelle");
    for command in [&run[..], &health[1..]] {
        let (status, help) = passerelle(&[&command[0], "--help"]);
        assert!(status.success(), "passerelle {} is no command: {help}", command[0]);
        assert!(
            command[1..].iter().filter(|word| word.starts_with("--")).all(|option| help.contains(option)),
            "{help}"
        );
    }
}

#[test]
fn the_service_s_image_copies_what_there_is() {
    let service = root().join("examples/orders");
    assert_eq!(copied(&service), [vec!["requirements.txt".to_owned()], vec!["app.py".to_owned()]]);
}

#[test]
fn compose_names_files_and_services_that_there_are() {
    let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    let values = |key: &str| -> Vec<String> {
        let found =
            compose.lines().filter_map(|line| line.trim().strip_prefix(key).map(|value| value.trim().to_owned()));
        found.collect()
    };
    for directory in values("build:") {
        assert!(root().join(&directory).join("Dockerfile").exists(), "build: {directory}");
    }
    let mounts: Vec<String> = values("- ./").into_iter().collect();
    assert!(!mounts.is_empty());
    for mount in mounts {
        assert!(root().join(mount.split(':').next().unwrap()).is_file(), "{mount}");
    }

    let config = root().join("config/compose.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for server in ["orders-1", "orders-2"] {
        assert!(text.contains(&format!("http://{server}:8000")), "{text}");
        assert!(compose.contains(&format!("\n  {server}:")), "{compose}");
    }
    let (status, output) = passerelle(&["check", "--config", config.to_str().unwrap()]);
    assert!(status.success(), "{output}");
}
