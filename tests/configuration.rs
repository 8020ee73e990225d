//! The configuration language from outside: the text of every message, the shipped files, the command line, and
//! input that no one would write.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use passerelle::config::problem::any_error;
use passerelle::config::{Loaded, Outside, load_text, render};
use proptest::prelude::*;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn environment(name: &str) -> Option<OsString> {
    match name {
        "WORKERS" => Some("many".into()),
        "COUNT" => Some("0".into()),
        "MAYBE" => Some("maybe".into()),
        "CREDENTIALS_DIRECTORY" => Some(directory("tests/config/drawn").into()),
        _ => None,
    }
}

fn load(name: &str, text: &str) -> Loaded {
    load_text(name, text, &directory("tests/config"), &Outside::new(&environment))
}

/// Each `tests/config/NAME.toml` is reported as `NAME.txt` says. `UPDATE_GOLDEN=1` writes what is reported now.
#[test]
fn messages_are_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(directory("tests/config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    inputs.sort();
    assert!(inputs.len() > 20);
    for input in inputs {
        let name = input.file_name().unwrap().to_str().unwrap();
        let loaded = load(name, &std::fs::read_to_string(&input).unwrap());
        let rendered = render::human(&loaded.problems, false);
        let golden = input.with_extension("txt");
        if update {
            std::fs::write(&golden, &rendered).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != rendered {
            wrong.push(format!("{name}:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "not as recorded (UPDATE_GOLDEN=1 records anew):\n{}", wrong.join("\n"));
}

/// Secrets of the golden files all begin with "hidden".
#[test]
fn no_message_shows_a_secret() {
    for name in ["secrets", "secrets_syntax", "app_env", "auth_jwt", "auth_jwt_secret", "auth_api_key", "auth_slips"] {
        let text = std::fs::read_to_string(directory("tests/config").join(name).with_extension("toml")).unwrap();
        let loaded = load(name, &text);
        // The comment that explains this is the one line that may say so.
        for shown in [render::human(&loaded.problems, false), render::json(&loaded.problems), format!("{loaded:?}")] {
            let line = shown.lines().find(|line| line.contains("hidden"));
            assert_eq!(line, None, "{name}");
        }
    }
}

/// What was drawn from a secret source stays out of the debug prints of settings that are in use.
#[test]
fn no_debug_print_shows_a_secret() {
    let text = r#"
        [admin]
        token = "hidden-token"
        [listener.http]
        address = "127.0.0.1:8080"
        [upstream.app]
        servers = ["http://${file:drawn/secret}.internal:80"]
        health = { path = "/health?token=${file:drawn/secret}" }
        [app.billing]
        directory = "srv"
        entry = "app:app"
        args = ["--key=${file:drawn/secret}"]
        env_file = "drawn/app.env"
        env = { DATABASE_URL = "postgres://shop:hidden-password@db/shop", SHARED = "hidden-of-env", COUNT = 12345678 }
        [route.billing]
        path = "/billing/{*rest}"
        upstream = "billing"
        [route.all]
        path = "/{*rest}"
        upstream = "app"
        headers = { request = { set = { X-Key = "${file:drawn/secret}", Authorization = "hidden-literal" } } }
        [route.closed]
        path = "/closed"
        respond = { body = "${file:drawn/secret}", headers = { X-Key = "${credential:secret}" } }
        [route.old]
        path = "/${file:drawn/secret}"
        redirect = { to = "https://example.com/${file:drawn/secret}" }
    "#;
    let loaded = load("debug.toml", text);
    assert!(loaded.problems.iter().all(|problem| problem.message.contains("every user of the machine can see")));
    let settings = loaded.settings().unwrap();
    let shown = format!("{loaded:?} {settings:?}");
    assert!(shown.contains("RespondSettings"));
    assert!(!shown.contains("hidden"), "{shown}");
    // And what an app is given stays out of what it says itself.
    let app = &settings.apps["billing"];
    assert_eq!(app.env["SHARED"].expose(), "hidden-of-env");
    assert_eq!(app.env["COUNT"].expose(), "12345678");
    assert_eq!(app.secret_values(), ["hidden-password", "hidden-secret", "hidden quoted", "hidden-plain"]);
}

/// The key of RFC 7515 appendix A.3.
const JWKS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// A copy of a shipped configuration with the certificates and keys that it names.
fn shipped(name: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let copy = home.path().join(name);
    let text = std::fs::read_to_string(directory("config").join(name)).unwrap();
    // Only root can choose a user, and must choose one that there is.
    let user = if is_root() { "user = \"nobody\"" } else { "" };
    std::fs::write(&copy, text.replace("user = \"billing\"", user)).unwrap();
    std::fs::create_dir(home.path().join("billing")).unwrap();
    std::fs::write(home.path().join("billing/requirements.txt"), "gunicorn\n").unwrap();
    std::fs::create_dir(home.path().join("certs")).unwrap();
    std::fs::create_dir(home.path().join("keys")).unwrap();
    for files in ["static", "protected"] {
        std::fs::create_dir(home.path().join(files)).unwrap();
    }
    std::fs::write(home.path().join("keys/jwks.json"), JWKS).unwrap();
    // Of "secret".
    let alice = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    std::fs::write(home.path().join("ops.htpasswd"), alice).unwrap();
    for certificate in ["shop", "api", "www", "internal-ca", "gateway", "partners-ca"] {
        let made = rcgen::generate_simple_self_signed([format!("{certificate}.example.com")]).unwrap();
        let path = home.path().join("certs").join(certificate);
        std::fs::write(path.with_extension("pem"), made.cert.pem()).unwrap();
        std::fs::write(path.with_extension("key"), made.signing_key.serialize_pem()).unwrap();
    }
    (home, copy)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn passerelle(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_passerelle")).args(arguments).current_dir(directory).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What any user but root is told of apps.
const SHARES: &str =
    "warning: app `billing` runs as the gateway's own user: whoever breaks into it can read the gateway's keys";

#[test]
fn shipped_configurations_are_valid() {
    for (name, summary) in [
        ("minimal.toml", "minimal.toml: ok, 1 listener, 1 upstream, 1 route\n"),
        ("typical.toml", "typical.toml: ok, 2 listeners, 1 upstream, 3 routes\n"),
        ("full.toml", "full.toml: ok, 2 listeners, 2 upstreams, 1 app, 6 routes\n"),
    ] {
        let (home, _) = shipped(name);
        let output = passerelle(&["check", "--config", name], home.path());
        let told = stderr(&output);
        let shares = !is_root() && name == "full.toml";
        assert_eq!(told.lines().next(), shares.then_some(SHARES), "{name}: {told}");
        assert_eq!(stdout(&output), summary);
        assert_eq!(output.status.code(), Some(0));
    }
}

/// A configuration of benches/ as the runs there fill it in: with a value for each `@NAME@`, and what stands between
/// `>>> N times` and `<<<` as often as it says.
fn filled(template: &Path, work: &Path) -> String {
    let mut text = String::new();
    let mut block: Option<(usize, String)> = None;
    for line in std::fs::read_to_string(template).unwrap().lines() {
        if let Some((_, times)) = line.split_once(">>> ") {
            block = Some((times.split(' ').next().unwrap().parse().unwrap(), String::new()));
        } else if line.contains("<<<") {
            let (times, block) = block.take().unwrap();
            text.extend((0..times).map(|index| block.replace("@I@", &index.to_string())));
        } else {
            let into = block.as_mut().map_or(&mut text, |(_, block)| block);
            into.push_str(line);
            into.push('\n');
        }
    }
    let places =
        [("WORK", work.to_path_buf()), ("PROJECT", directory("")), ("CONF", directory("benches/compare/conf"))];
    for (name, place) in places {
        text = text.replace(&format!("@{name}@"), place.to_str().unwrap().trim_end_matches('/'));
    }
    let numbers = ["WORKERS", "GENERATION", "PORT", "PLAIN_PORT", "TLS_PORT", "ADMIN_PORT", "ORIGIN_PORT"];
    for (name, number) in numbers.iter().zip(1_u16..) {
        text = text.replace(&format!("@{name}@"), &number.to_string());
    }
    text
}

#[test]
fn configurations_of_the_benches_are_valid() {
    let conf = std::fs::read_dir(directory("benches/compare/conf")).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let templates: Vec<PathBuf> =
        conf.filter(is_ours).chain([directory("benches/instructions/passerelle.toml")]).collect();
    assert_eq!(templates.len(), 6);
    let home = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(home.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(home.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    // The public key of RFC 7515 appendix A.2.
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SF\
        d2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2\
        R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9g\
        b54h4FRWyuXpoQ";
    let keys = format!(r#"{{"keys": [{{"kty": "RSA", "alg": "RS256", "e": "AQAB", "n": "{modulus}"}}]}}"#);
    std::fs::write(home.path().join("jwks.json"), keys).unwrap();
    for template in templates {
        let name = template.file_name().unwrap().to_str().unwrap();
        let text = filled(&template, home.path());
        std::fs::write(home.path().join(name), &text).unwrap();
        let output = passerelle(&["check", "--config", name], home.path());
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert!(stdout(&output).starts_with(&format!("{name}: ok, ")), "{}", stdout(&output));
    }
}

/// What full.toml calls a default is one: with such keys taken out, the settings are the same.
#[test]
fn defaults_are_as_documented() {
    let text = std::fs::read_to_string(directory("config/full.toml")).unwrap();
    // On lines that show the default itself the comment begins with it.
    let documented = |line: &&str| {
        let shows = line.split_once('=').and_then(|(_, rest)| rest.split_once('#')).is_some_and(|(value, comment)| {
            let value = value.trim().trim_matches('"');
            let comment = comment.trim();
            comment == "defaults"
                || comment.strip_prefix("default ").is_some_and(|comment| {
                    let comment = comment.trim_start_matches('"');
                    comment.strip_prefix(value).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
                })
        });
        !shows
    };
    let shorter: Vec<&str> = text.lines().filter(documented).collect();
    assert!(shorter.len() + 35 < text.lines().count(), "most keys show their default");
    let (full, short) = (load("full.toml", &text), load("full.toml", &shorter.join("\n")));
    assert_eq!(short.problems, []);
    let settings = |loaded: &Loaded| format!("{:#?}", loaded.settings().unwrap());
    // Spans of whole tables are left out of the comparison: lines have moved.
    let without_spans = |text: String| {
        let position = |line: &&str| !line.trim().starts_with("start: ") && !line.trim().starts_with("end: ");
        text.lines().filter(position).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_spans(settings(&full)), without_spans(settings(&short)));
}

#[test]
fn check_fails_with_code_2_and_shows_every_problem() {
    let home = tempfile::tempdir().unwrap();
    let broken = "[listener.http]\nadress = \"127.0.0.1:8080\"\n[route.all]\npath = \"x\"\nupstream = \"app\"\n";
    std::fs::write(home.path().join("broken.toml"), broken).unwrap();
    let output = passerelle(&["check", "--config", "broken.toml"], home.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    let shown = stderr(&output);
    for part in
        ["broken.toml:2:1", "did you mean `address`?", "broken.toml:4:8", "write \"/x\"", "broken.toml: 2 errors"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours are for terminals");

    let output = passerelle(&["check", "--config", "broken.toml", "--format", "json"], home.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "");
    let first: serde_json::Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!(first["file"], "broken.toml");
    assert_eq!((&first["line"], &first["column"]), (&2.into(), &1.into()));
    assert_eq!(first["severity"], "error");
    assert_eq!(first["message"], "unknown key `adress` in `listener.http`");
    assert_eq!(first["help"], "did you mean `address`?");
}

#[test]
fn warnings_do_not_fail() {
    let home = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(directory("config/minimal.toml")).unwrap();
    let text = format!("{text}\n[upstream.unused]\nservers = [\"http://127.0.0.1:8009\"]\n");
    std::fs::write(home.path().join("passerelle.toml"), text).unwrap();
    // The default name of the file is the one in this directory.
    let output = passerelle(&["check"], home.path());
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: no route leads to upstream `unused`"));
    assert_eq!(stdout(&output), "passerelle.toml: ok, 1 listener, 2 upstreams, 1 route\n");
}

#[test]
fn files_that_are_missing_are_reported_beside_all_else() {
    let (home, path) = shipped("full.toml");
    std::fs::remove_file(home.path().join("certs/internal-ca.pem")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("max_body", "max_bdy")).unwrap();
    let output = passerelle(&["check", "-c", "full.toml"], home.path());
    assert_eq!(output.status.code(), Some(2));
    let shown = stderr(&output);
    assert!(shown.contains("internal-ca.pem") && shown.contains("did you mean `max_body`?"), "{shown}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("binary.toml"), [0x61, 0xff]).unwrap();
    for (name, said) in [
        ("absent.toml", "cannot read the configuration: no such file"),
        (".", "cannot read the configuration: it is a directory"),
        ("binary.toml", "the configuration is not valid UTF-8: see byte 1"),
    ] {
        let output = passerelle(&["check", "--config", name], home.path());
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn usage() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = passerelle(&["--version"], here);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("passerelle {}\n", env!("CARGO_PKG_VERSION")));
    let output = passerelle(&["--help"], here);
    assert_eq!(output.status.code(), Some(0));
    for word in ["run", "check", "reload", "[route.all]", "Exit codes"] {
        assert!(stdout(&output).contains(word), "{word}");
    }
    for wrong in [&["chekc"][..], &[], &["check", "--confg", "x"], &["check", "--format", "xml"]] {
        assert_eq!(passerelle(wrong, here).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn usage_of_the_benches() {
    for (program, words) in [
        ("compare", &["SCENARIO", "--gateway", "--json", "nginx", "guarded", "tails"][..]),
        ("instructions", &["--update", "h2"]),
    ] {
        let run = |arguments: &[&str]| {
            Command::new(directory("benches").join(program).join("run")).args(arguments).output().unwrap()
        };
        let output = run(&["--help"]);
        assert_eq!(output.status.code(), Some(0), "{program}: {}", stderr(&output));
        for word in words {
            assert!(stdout(&output).contains(word), "{program}: {word}");
        }
        assert_eq!(run(&["--no-such-option"]).status.code(), Some(2), "{program}");
    }
    let unknown = Command::new(directory("benches/compare/run")).arg("htpp1").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("no scenario is called htpp1; there are http1, tls"), "{}", stderr(&unknown));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes that are no configuration.
    #[test]
    fn any_text_is_judged(text in "\\PC*") {
        judge(&text);
    }

    /// Lines of the shipped and the golden files, in any order, cut anywhere.
    #[test]
    fn any_mixture_of_lines_is_judged(
        seeds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 0..40),
    ) {
        let lines = known_lines();
        let mut text = String::new();
        for (line, cut, kind) in seeds {
            let line = &lines[line.index(lines.len())];
            let characters: Vec<char> = line.chars().collect();
            let cut = cut.index(characters.len() + 1);
            match kind {
                0 => text.extend(&characters[..cut]),
                1 => text.extend(&characters[cut..]),
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        judge(&text);
    }

    /// Values in places that were made for others.
    #[test]
    fn any_value_is_judged(
        key in any::<prop::sample::Index>(),
        value in prop_oneof![
            "\"[ -~]{0,20}\"", "-?[0-9]{1,20}", "[0-9]\\.[0-9]", Just("true".to_owned()), Just("[]".to_owned()),
            Just("{}".to_owned()), Just("[1, \"a\", {}]".to_owned()), Just("1979-05-27".to_owned()),
            "\"(http|https|http\\+unix)://?[a-z0-9.:@/\\[\\]]{0,20}\"", "\"/[a-z{}*/%.]{0,12}\"", "\"[0-9]{0,20}[a-zA-Z/% ]{0,4}\"",
        ],
    ) {
        let text = std::fs::read_to_string(directory("config/full.toml")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let with_values: Vec<usize> = (0..lines.len()).filter(|index| {
            lines[*index].split_once(" = ").is_some_and(|(key, _)| !key.starts_with('#') && !key.contains('{'))
        }).collect();
        let chosen = with_values[key.index(with_values.len())];
        let changed: Vec<String> = lines.iter().enumerate().map(|(index, line)| {
            let (key, _) = line.split_once(" = ").unwrap_or((line, ""));
            if index == chosen { format!("{key} = {value}") } else { (*line).to_owned() }
        }).collect();
        judge(&changed.join("\n"));
    }
}

fn known_lines() -> Vec<String> {
    let files = ["config/full.toml", "config/typical.toml", "tests/config/app.toml", "tests/config/secrets.toml"];
    files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(directory(file)).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Settings or a reason why not; and whatever is said can be shown.
fn judge(text: &str) {
    let loaded = load("any.toml", text);
    assert_eq!(loaded.settings().is_none(), any_error(&loaded.problems));
    let shown = render::human(&loaded.problems, true);
    assert_eq!(shown.is_empty(), loaded.problems.is_empty());
    assert_eq!(render::json(&loaded.problems).lines().count(), loaded.problems.len());
}
