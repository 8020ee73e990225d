//! The wrapper that gives the compiler the profile (`.cargo/rustc-with-profile`): when it does, and when it does not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const RELEASE: [&str; 4] = ["-C", "opt-level=3", "-C", "codegen-units=1"];

/// What cargo says of the gateway's library, in a build of this name.
fn library(build: &str) -> [&str; 7] {
    ["--crate-name", "passerelle", "--edition=2024", "--crate-type", "lib", "-C", build]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the profile was made by: the compiler's own words, and what cargo called that build of the library.
fn made_by() -> (String, String) {
    let text = std::fs::read_to_string(root().join("benches/profile/made-by")).unwrap();
    let (compiler, build) = text.trim_end().rsplit_once('\n').unwrap();
    (compiler.to_owned(), build.to_owned())
}

/// Runs the wrapper around a compiler that says `version` of itself, and prints what it is given.
fn compile(version: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let compiler = directory.path().join("rustc");
    let text = format!("#!/bin/sh\n[ \"$*\" != -vV ] || exec cat <<'END'\n{version}\nEND\nprintf '%s\\n' \"$@\"\n");
    std::fs::write(&compiler, text).unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(root().join(".cargo/rustc-with-profile"));
    command.arg(&compiler).args(arguments).env_remove("PASSERELLE_COUNTS").current_dir(directory.path());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_release_by_the_profile_s_own_compiler_is_given_it() {
    let (compiler, build) = made_by();
    let arguments = [&library(&build)[..], &RELEASE].concat();
    let output = compile(&compiler, &arguments);
    let given = text(&output.stdout);
    let profile = given.lines().find_map(|line| line.strip_prefix("-Cprofile-use=")).unwrap();
    assert!(Path::new(profile).metadata().unwrap().len() > 100_000, "{profile}");
    assert!(given.starts_with(&arguments.join("\n")), "{given}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn whatever_else_is_compiled_is_left_alone() {
    let (compiler, _) = made_by();
    let several = ["-C", "opt-level=3", "-C", "codegen-units=16"];
    for arguments in [&library("metadata=0")[..], &several, &several[..2], &["-vV"]] {
        let output = compile(&compiler, arguments);
        let expected = if arguments == ["-vV"] { compiler.clone() } else { arguments.join("\n") };
        assert_eq!(text(&output.stdout).trim_end(), expected);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_release_by_another_compiler_does_without_and_says_so() {
    let arguments = [&library("metadata=0")[..], &RELEASE].concat();
    let output = compile("rustc 1.0.0 (another)", &arguments);
    assert_eq!(text(&output.stdout).trim_end(), arguments.join("\n"));
    assert!(text(&output.stderr).contains("would make a faster gateway"), "{}", text(&output.stderr));
    // Once, not for each library.
    assert_eq!(text(&compile("rustc 1.0.0 (another)", &RELEASE).stderr), "");
}

#[test]
fn a_profile_of_other_dependencies_is_told() {
    let output = compile(&made_by().0, &[&library("metadata=0")[..], &RELEASE].concat());
    assert!(text(&output.stderr).contains("other dependencies"), "{}", text(&output.stderr));
}

#[test]
fn the_image_is_built_by_the_profile_s_own_compiler() {
    let version = made_by().0.split([' ', '.']).skip(1).take(2).collect::<Vec<_>>().join(".");
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{version}-slim-")), "the profile is of Rust {version}");
}
