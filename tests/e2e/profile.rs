//! The wrapper that gives the compiler the profile (`.cargo/rustc-with-profile`): when it does, and when it does not.

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
    compile_with(&root().join(".cargo/rustc-with-profile"), version, arguments, |_| {})
}

fn compile_with(wrapper: &Path, version: &str, arguments: &[&str], also: impl Fn(&mut Command)) -> Output {
    let mut command = Command::new("sh");
    command.arg(wrapper).arg(root().join("tests/e2e/telling-rustc")).args(arguments);
    command.env("VERSION", version).env_remove("PASSERELLE_COUNTS");
    also(&mut command);
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
    assert!(
        text(&output.stderr).contains("which would make a faster gateway: it was made by rustc"),
        "{}",
        text(&output.stderr)
    );
    // Once, not for each library.
    assert_eq!(text(&compile("rustc 1.0.0 (another)", &RELEASE).stderr), "");
}

#[test]
fn a_profile_of_other_dependencies_is_told() {
    let output = compile(&made_by().0, &[&library("metadata=0")[..], &RELEASE].concat());
    assert!(text(&output.stderr).contains("other dependencies or settings"), "{}", text(&output.stderr));
}

#[test]
fn without_a_profile_a_release_is_built_and_says_so() {
    let tree = tempfile::Builder::new().prefix("a tree ").tempdir().unwrap();
    std::fs::create_dir(tree.path().join(".cargo")).unwrap();
    let wrapper = tree.path().join(".cargo/rustc-with-profile");
    std::fs::copy(root().join(".cargo/rustc-with-profile"), &wrapper).unwrap();
    let arguments = [&library("metadata=0")[..], &RELEASE].concat();
    let output = compile_with(&wrapper, &made_by().0, &arguments, |_| {});
    assert_eq!(text(&output.stdout).trim_end(), arguments.join("\n"));
    assert_eq!(text(&output.stderr), "note: built without a profile: there is none in benches/profile\n");
}

#[test]
fn what_is_to_be_counted_counts_and_says_who_made_it() {
    let counts = tempfile::tempdir().unwrap();
    let into = counts.path().to_str().unwrap();
    let count = |arguments: &[&str]| {
        let wrapper = root().join(".cargo/rustc-with-profile");
        let output = compile_with(&wrapper, "rustc 1.0.0", arguments, |command| {
            command.env("PASSERELLE_COUNTS", into);
        });
        assert!(text(&output.stdout).ends_with(&format!("-Cprofile-generate={into}\n")), "{output:?}");
        std::fs::read_to_string(counts.path().join("made-by"))
    };
    assert!(count(&RELEASE).is_err(), "another library is none that the profile is told by");
    let made_by = count(&[&library("metadata=7")[..], &RELEASE].concat()).unwrap();
    assert_eq!(made_by, "rustc 1.0.0\nmetadata=7\n");
}

#[test]
fn the_image_is_built_by_the_profile_s_own_compiler() {
    let version = made_by().0.split([' ', '.']).skip(1).take(3).collect::<Vec<_>>().join(".");
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{version}-slim-")), "the profile is of Rust {version}");
}
