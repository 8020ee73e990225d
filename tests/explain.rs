//! `passerelle explain`, by the file alone: what it says, and what it never does.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain")
}

/// Runs a line of `cases.txt` as a shell would.
fn run(line: &str) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_passerelle"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    Command::new("/bin/sh").args(["-c", line]).current_dir(directory()).env("PATH", path).output().unwrap()
}

/// The commands, each behind `$ `, and comments.
fn cases() -> Vec<String> {
    let text = std::fs::read_to_string(directory().join("cases.txt")).unwrap();
    text.lines().filter(|line| line.starts_with("$ ") || line.starts_with("# ")).map(str::to_owned).collect()
}

/// What is said of each request is what `cases.txt` says. `UPDATE_GOLDEN=1` writes what is said now.
#[test]
fn explanations_are_as_recorded() {
    let mut recorded = String::new();
    for case in cases() {
        recorded.push_str(&case);
        recorded.push('\n');
        let Some(line) = case.strip_prefix("$ ") else { continue };
        let output = run(line);
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        recorded.push_str(&told.replace(&directory().display().to_string(), "tests/explain"));
        match output.status.code().unwrap() {
            0 => {}
            code => recorded.push_str(&format!("(code {code})\n")),
        }
        recorded.push('\n');
    }
    let golden = directory().join("cases.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &recorded).unwrap();
    } else {
        let right = std::fs::read_to_string(&golden).unwrap() == recorded;
        assert!(right, "not as recorded (UPDATE_GOLDEN=1 records anew):\n{recorded}");
    }
    for line in recorded.lines().filter(|line| !line.starts_with("$ ")) {
        assert!(!is_secret(line), "{line}");
    }
}

/// Whatever is secret in the file or in a request begins with one of these.
fn is_secret(text: &str) -> bool {
    text.contains("hidden") || text.contains("eyJ")
}

#[test]
fn no_explanation_in_json_shows_a_secret() {
    let with_a_credential = |case: &String| case.contains("@fields/") || case.contains("hidden");
    for case in cases().into_iter().filter(with_a_credential) {
        let Some(line) = case.strip_prefix("$ ") else { continue };
        let output = run(&format!("{line} --format json"));
        let shown = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(!is_secret(&shown), "{line}: {shown}");
    }
}

/// Whoever explains by program finds the same in JSON.
#[test]
fn an_explanation_is_one_object() {
    let explained = |line: &str| -> serde_json::Value {
        let output = run(&format!("passerelle explain --format json {line}"));
        assert!(output.status.success(), "{line}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let refused = explained("https://api.example.com/orders/42 -H @fields/stranger");
    assert_eq!(refused["outcome"]["outcome"], "refused");
    assert_eq!((&refused["outcome"]["status"], &refused["outcome"]["cause"]), (&403.into(), &"role_missing".into()));
    assert_eq!(refused["provided"][0], "the signature of the token is valid by the keys of [auth.staff]");
    let role = refused["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&role["step"], &role["decision"]), (&"roles".into(), &"refused".into()));
    assert_eq!(role["place"]["key"], "route.orders_read.roles");
    let text = std::fs::read_to_string(directory().join("passerelle.toml")).unwrap();
    let line = usize::try_from(role["place"]["line"]["line"].as_u64().unwrap()).unwrap();
    assert_eq!(text.lines().nth(line - 1), Some("roles = [\"reader\", \"partner\"]"));
    let sent = explained("https://api.example.com/orders/42 -H @fields/reader");
    assert_eq!((&sent["outcome"]["outcome"], &sent["outcome"]["upstream"]), (&"forwarded".into(), &"orders".into()));
    assert_eq!(sent["outcome"]["head"][0], "GET /42 HTTP/1.1");
}

/// A file that cannot be used is told as `check` tells it.
#[test]
fn a_wrong_file_is_told_whole() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("wrong.toml");
    std::fs::write(&file, "[listener.http]\naddress = \"nowhere\"\n[route.all]\npath = \"/\"\nupstrem = \"app\"\n")
        .unwrap();
    let ask = |command: &str| {
        let output = run(&format!("passerelle {command} --config {}", file.display()));
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = ask("explain http://a/");
    assert_eq!(told, ask("check"));
    assert!(told.contains("did you mean `upstream`?"), "{told}");
}

/// The workers of an app run with the gateway: by the file alone there is none.
#[test]
fn a_route_to_an_app_leads_to_its_workers() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("app.toml");
    // Root must say whom an app runs as, and others cannot.
    let user = if rustix::process::geteuid().is_root() { "user = \"nobody\"" } else { "" };
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:8080\"\n[app.billing]\ndirectory = \".\"\nentry = \"billing:app\"\n\
         slots = 4\nworkers = 2\n{user}\n[route.billing]\npath = \"/{{*rest}}\"\nupstream = \"billing\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = run(&format!("passerelle explain --config {} http://a/", file.display()));
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for said in [
        "servers   the app's workers, which run with the gateway; --live tells how they fare",
        "slots     4 at once on each server; up to 1000 more wait, none for more than 2s",
        "app.toml:7]",
        "app.toml:6]",
        "\nForwarded to billing.\n",
    ] {
        assert!(told.contains(said), "{told}");
    }
}
