//! What processes of apps are given, and what they are kept from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::apps::{Plan, is_root, wsgi};
use crate::harness::gateway::passerelle;
use crate::harness::{Site, eventually};

const SECRET: &str = "correct-horse-battery-staple";

/// What every process has, whatever is configured.
const HANDFUL: [&str; 9] = [
    "HOME",
    "LANG",
    "PASSERELLE_APP",
    "PASSERELLE_PLACE",
    "PASSERELLE_RELEASE",
    "PATH",
    "PYTHONUNBUFFERED",
    "VIRTUAL_ENV",
    "XDG_RUNTIME_DIR",
];

fn environ(site: &Site) -> BTreeMap<String, String> {
    serde_json::from_value(site.get("/environ").json()).unwrap()
}

#[test]
fn a_process_has_the_variables_that_are_promised_and_no_other() {
    let lines = "workers = 1\nserver = \"uwsgi\"\nenv_file = \"shop.env\"\npass_env = [\"CHOSEN\", \"ABSENT\"]\n\
                 env = { COLOUR = \"red\", NUMBER = 5, BOTH = \"of env\" }";
    let site = Plan::new(&wsgi("one"), lines)
        .file("shop.env", "# of the file\nPLAIN=1\nQUOTED=\"a b\"\nBOTH=of-the-file\n")
        .variable("CHOSEN", "passed on")
        .variable("AWS_SECRET_ACCESS_KEY", "the gateway's own")
        .variable("PYTHONPATH", "/nowhere")
        .start();
    let found = environ(&site);
    let expected = [
        ("COLOUR", "red"),
        ("NUMBER", "5"),
        ("BOTH", "of env"),
        ("PLAIN", "1"),
        ("QUOTED", "a b"),
        ("CHOSEN", "passed on"),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    // uWSGI adds two of its own.
    let known: BTreeSet<&str> = HANDFUL
        .into_iter()
        .chain(expected.map(|(name, _)| name))
        .chain(["UWSGI_ORIGINAL_PROC_NAME", "UWSGI_RELOADS"])
        .collect();
    let more: Vec<_> = found.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(found["HOME"], site.place().join("home").to_str().unwrap());
}

/// The app says its secret wherever it can, and nobody hears it.
#[test]
fn secrets_reach_the_process_and_nothing_else() {
    let tells = "import os, sys\nprint('I know', os.environ['DATABASE_URL'], file=sys.stderr, flush=True)\n";
    let lines = "workers = 1\nstart_timeout = \"5s\"\npre_release = [\"sh\", \"-c\", \"echo hook has $DATABASE_URL\"]\n\
                 env = { DATABASE_URL = \"${file:@dir@/shop/secret}\" }";
    let site = Plan::new(&(tells.to_owned() + &wsgi("one")), lines).file("secret", SECRET).start();
    assert_eq!(environ(&site)["DATABASE_URL"], SECRET);
    site.get(&format!("/say?{SECRET}"));
    site.gateway.log_line("it has said it", |line| line["message"] == "(secret)");
    let failing = tells.to_owned() + &format!("raise ValueError('it is {SECRET}')\n") + &wsgi("two");
    let released = site.release();
    assert!(released.contains("hook has "), "{released}");
    site.write("shop/app.py", &failing);
    let failed = site.no_release();
    assert!(failed.contains("ValueError"), "{failed}");
    let config = site.gateway.config_path();
    let told = [
        released,
        failed,
        site.gateway.output(),
        site.gateway.admin("/status").text(),
        site.gateway.admin("/metrics").text(),
        site.command("apps", &[]).1,
        site.command("apps", &["--format", "json"]).1,
        site.command("check", &[]).1,
        passerelle(&["explain", "--config", config.to_str().unwrap(), "http://localhost/"]).1,
        // The arguments of processes are everybody's to read.
        site.processes().into_iter().map(|(_, command)| command).collect(),
    ];
    for text in told {
        assert!(!text.contains(SECRET), "{text}");
    }
    // Of the keeper, nobody else may read the environment either: it is the app's.
    for name in ["releases/1/release.json", "current"] {
        assert!(!std::fs::read_to_string(site.place().join(name)).unwrap_or_default().contains(SECRET));
    }
}

/// What the kernel tells of a process.
/// A keeper is the gateway's user still: a variable that names a library must not reach it.
#[test]
fn a_keeper_has_none_of_an_apps_variables() {
    let lines = "workers = 1\nserver = \"gunicorn\"\nenv = { LD_LIBRARY_PATH = \"/somewhere/of/the/app\" }";
    let site = Plan::new(&wsgi("one"), lines).start();
    assert_eq!(environ(&site)["LD_LIBRARY_PATH"], "/somewhere/of/the/app");
    let keepers = site.keepers();
    assert_eq!(keepers.len(), 1);
    let variables = proc(keepers[0], "environ");
    let names: Vec<&str> = variables.split_terminator('\0').filter_map(|variable| variable.split('=').next()).collect();
    assert_eq!(names, ["PASSERELLE_PLACE"]);
}

fn proc(pid: i32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

#[test]
fn a_process_has_the_limits_that_are_configured() {
    let lines = "workers = 1\nserver = \"gunicorn\"\numask = \"0037\"\nopen_files = 321";
    let site = Plan::new(&wsgi("one"), lines).start();
    let ids = site.get("/ids").json();
    assert_eq!(ids["umask"], 0o037, "{ids}");
    let code = site.place().join("releases/1/code");
    assert_eq!(ids["cwd"], code.to_str().unwrap());
    assert_eq!(ids["home"], site.place().join("home").to_str().unwrap());
    let pid = site.pids("shop").first().copied().unwrap();
    assert_eq!((&ids["parent"], &ids["pgrp"]), (&pid.into(), &pid.into()), "{ids}");
    let (limits, status) = (proc(pid, "limits"), proc(pid, "status"));
    let limit = |name: &str| field(&limits, name).split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(limit("Max open files"), "321 321");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    assert_eq!(mode(&site.place().join("run")), 0o711);
    for directory in ["home", "cache"] {
        let mode = mode(&site.place().join(directory));
        assert_eq!(mode, 0o700, "{directory}");
    }
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}

/// Two apps of two users, neither of which is the gateway's.
#[test]
fn users_are_kept_apart() {
    if !is_root() {
        let text = Plan::new(&wsgi("one"), "workers = 1").user("user = \"nobody\"").text();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passerelle.toml");
        std::fs::create_dir(directory.path().join("shop")).unwrap();
        let text = text.replace("@dir@", directory.path().to_str().unwrap()).replace("@http@", "8080");
        std::fs::write(&path, text).unwrap();
        let (status, output) = passerelle(&["check", "--config", path.to_str().unwrap()]);
        assert!(
            !status.success() && output.contains("only a gateway that runs as root can run an app as `nobody`"),
            "{output}"
        );
        return;
    }
    let environment = crate::apps_environments::for_anybody();
    let python = format!("python = {:?}", environment.path().join("bin/python"));
    let other = "[app.other]\ndirectory = \"@dir@/shop\"\nentry = \"app:app\"\nuser = \"4711\"\nworkers = 1\n\
                 env = { TOKEN = \"not-for-shops-5678\" }\nPYTHON\n\
                 [route.other]\npath = \"/other/{*rest}\"\nstrip_prefix = \"/other\"\nupstream = \"other\"\n";
    let plan = Plan::new(&wsgi("one"), "workers = 1\nenv = { TOKEN = \"not-for-others-1234\" }").environment(&python);
    let plan = plan.user("user = \"nobody\"").rest(&other.replace("PYTHON", &python));
    let site = plan.start();
    site.app_serves("other");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let ids = site.get("/ids").json();
    assert_eq!(ids["uid"], serde_json::json!([uid, uid, uid]), "{ids}");
    assert_eq!(ids["gid"], serde_json::json!([gid, gid, gid]), "{ids}");
    assert_eq!(ids["groups"], serde_json::json!([gid]), "{ids}");
    assert_eq!(site.get("/other/ids").json()["uid"], serde_json::json!([4711, 4711, 4711]));
    // Neither can look into what the other is given or keeps, nor at its socket; itself it can.
    let (shop, others) = (site.pids("shop").first().copied().unwrap(), site.pids("other").first().copied().unwrap());
    let state = site.path().join("state/apps");
    let refused = |path: String| {
        let answer = site.get(&path);
        assert_eq!((answer.status, answer.text().as_str()), (403, "PermissionError"), "{path}");
    };
    assert!(site.get(&format!("/read?/proc/{shop}/environ")).text().contains("not-for-others-1234"));
    refused(format!("/read?/proc/{others}/environ"));
    refused(format!("/other/read?/proc/{shop}/environ"));
    for keeper in site.keepers() {
        refused(format!("/read?/proc/{keeper}/environ"));
    }
    refused(format!("/list?{}/other/run", state.display()));
    refused(format!("/list?{}/other/run/1-1", state.display()));
    assert_eq!(site.get(&format!("/list?{}/shop/run/1-1", state.display())).status, 200);
    for directory in ["home", "cache"] {
        refused(format!("/list?{}/other/{directory}", state.display()));
        refused(format!("/other/list?{}/shop/{directory}", state.display()));
        assert_eq!(site.get(&format!("/list?{}/shop/{directory}", state.display())).status, 200);
    }
    // What is the gateway's is not the app's.
    refused(format!("/list?{}", state.display()));
    refused(format!("/read?/proc/{}/environ", site.gateway.id()));
    let code = state.join("shop/releases/1/code");
    let mode = mode(&code);
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    refused(format!("/other/read?{}/app.py", code.display()));
    assert!(site.get(&format!("/read?{}/app.py", code.display())).text().contains("VERSION"));
    eventually("both are as they were", || {
        (site.pids("shop").contains(&shop) && site.pids("other").contains(&others)).then_some(())
    });
}
