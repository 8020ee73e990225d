//! The pages that users read, held against what there is: links, examples, the table of errors, every key.

use std::path::{Path, PathBuf};

use passerelle::request::rejection::Cause;

use crate::harness::gateway::passerelle;
use crate::harness::tls::Certificate;
use crate::harness::{Gateway, backends};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: impl AsRef<Path>) -> String {
    let path = root().join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page of the project.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).into();
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    pages.extend(docs.map(|name| Path::new("docs").join(name)));
    pages
}

/// The code blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(root().join(&target).exists(), "{}: {link}", page.display());
            if !fragment.is_empty() {
                let found = read(&target).lines().any(|line| line.starts_with('#') && anchor(line) == fragment);
                assert!(found, "{}: {link}", page.display());
            }
        }
    }
}

/// A fragment with what it takes for granted: a listener, the upstream `orders`, a route.
fn completed(fragment: &str) -> String {
    // Only root can choose a user, and must choose one that there is.
    let user = if rustix::process::geteuid().is_root() { "user = \"nobody\"" } else { "" };
    let mut whole = fragment.replace("user = \"billing\"", user);
    for (section, text) in [
        ("[listener.", "[listener.http]\naddress = \"127.0.0.1:8080\"\n"),
        ("[upstream.", "[upstream.orders]\nservers = [\"http://127.0.0.1:8001\"]\n"),
        ("[route.", "[route.orders]\npath = \"/{*rest}\"\nupstream = \"orders\"\n"),
    ] {
        if !whole.contains(section) {
            whole.push('\n');
            whole.push_str(text);
        }
    }
    whole
}

#[test]
fn examples_of_configuration_load() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    let certificate = Certificate::new(&["shop.example.com"]);
    for name in ["shop", "api"] {
        certificate.write(&certs, name);
    }
    for (name, text) in [("tls.crt", &certificate.chain), ("tls-chain", &certificate.chain)] {
        std::fs::write(certs.join(name), text).unwrap();
    }
    for name in ["tls.key", "tls-key"] {
        std::fs::write(certs.join(name), &certificate.key).unwrap();
    }
    std::fs::write(certs.join("partners-ca.pem"), &certificate.chain).unwrap();
    // The password is "secret", as `openssl passwd -6` hashes it.
    let alice = "alice:$6$saltsaltsaltsalt$ph0yGsyjzqdeFaon7.gJZo8eAG5/rj9/JdzOu1Rl7dKzBYg3xgvl7T2VQ2Rt81bc5AXkdA54r0p8QvC1omD6R1\n";
    std::fs::write(directory.path().join("ops.htpasswd"), alice).unwrap();
    std::fs::write(directory.path().join("billing.env"), "DEBUG=0\n").unwrap();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&read(&page), "toml") {
            let path = directory.path().join("passerelle.toml");
            std::fs::write(&path, completed(&block)).unwrap();
            let (status, output) = passerelle(&["check", "--config", path.to_str().unwrap()]);
            assert!(status.success(), "{}:\n{output}\n{block}", page.display());
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} examples were found");
}

#[test]
fn the_shortest_configuration_forwards() {
    let block = blocks(&read("README.md"), "toml").remove(0);
    let config = block
        .replace("127.0.0.1:8080", "127.0.0.1:@http@")
        .replace("http://127.0.0.1:8000", &backends::orders_threads().url());
    assert_eq!(Gateway::start(&config).get("/healthz").text(), "ok\n");
}

#[test]
fn the_commands_of_the_readme_are_there() {
    use std::os::unix::fs::PermissionsExt;
    let readme = read("README.md");
    let commands = blocks(&readme, "sh").concat();
    for script in ["./examples/demo", "./tests/run"] {
        assert!(commands.contains(&format!("{script}\n")), "{commands}");
        let mode = std::fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} can be run");
    }
    for line in commands.lines().filter_map(|line| line.strip_prefix("passerelle ")) {
        let command = line.split(' ').next().unwrap();
        let (status, help) = passerelle(&[command, "--help"]);
        let config = if command == "serve" { "--print-config" } else { "--config" };
        assert!(status.success() && help.contains(config), "passerelle {line}: {help}");
    }
}

#[test]
fn the_page_of_errors_tells_every_cause() {
    let mut table =
        String::from("| cause | status | blame | what the client is told | what to do |\n|---|---|---|---|---|\n");
    for cause in Cause::ALL {
        let row = cause.row();
        let (status, blame) = (row.status.as_u16(), row.blame.as_str());
        table.push_str(&format!("| `{}` | {status} | {blame} | {} | {} |\n", row.cause, row.title, row.remedy));
    }
    let page = read("docs/errors.md");
    // The table is all that follows the comment that speaks of this test.
    let (before, _) = page.split_once(" -->\n").unwrap();
    let right = format!("{before} -->\n\n{table}");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(root().join("docs/errors.md"), right).unwrap();
    } else {
        assert!(
            page == right,
            "docs/errors.md is out of date: UPDATE_PAGES=1 ./tests/run page_of_errors writes it anew"
        );
    }
}

/// The console blocks of the page are what the command says of the configuration on it.
#[test]
fn the_page_of_explanations_shows_what_is_said() {
    let page = read("docs/explain.md");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("passerelle.toml"), blocks(&page, "toml").remove(0)).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_passerelle"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    let mut right = page.clone();
    for block in blocks(&page, "console") {
        let command = block.lines().next().and_then(|line| line.strip_prefix("$ ")).unwrap();
        let mut shell = std::process::Command::new("/bin/sh");
        let output = shell.args(["-c", command]).current_dir(directory.path()).env("PATH", &path).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        right = right.replace(&block, &format!("$ {command}\n{said}"));
    }
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(root().join("docs/explain.md"), right).unwrap();
    } else {
        assert!(
            page == right,
            "docs/explain.md is out of date: UPDATE_PAGES=1 ./tests/run page_of_explanations\n{right}"
        );
    }
}

#[test]
fn the_page_of_configuration_tells_every_key() {
    let page = read("docs/configuration.md");
    for line in read("config/full.toml").lines() {
        let line = line.trim_start_matches("# ");
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            assert!(page.contains(&format!("`{key}`")), "docs/configuration.md does not tell of {key}");
        }
    }
}

#[test]
fn the_units_and_manifests_agree_with_the_program() {
    let page = read("docs/deployment.md");
    let units = blocks(&page, "ini").concat();
    for line in units.lines().filter_map(|line| line.split_once("=/usr/local/bin/passerelle ").map(|(_, rest)| rest)) {
        let command = line.split(' ').next().unwrap();
        assert!(passerelle(&[command, "--help"]).0.success(), "passerelle {line}");
    }
    let name = units.lines().find_map(|line| line.strip_prefix("FileDescriptorName=")).unwrap();
    assert!(page.contains(&format!("address = \"systemd:{name}\"")));
    let yaml = blocks(&page, "yaml").concat();
    for path in ["/live", "/ready"] {
        assert!(yaml.contains(&format!("path: {path},")), "{path}");
    }
}
