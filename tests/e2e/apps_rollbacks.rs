//! What belongs to a release, and comes back with it; and what does not.

use crate::apps_environments::wheels;
use crate::harness::apps::{Plan, is_root, wsgi};
use crate::harness::eventually;

/// What it finds while it is only looked at is what it finds in a worker.
const CHECKS: &str = "\n\nassert int(os.environ['PASSERELLE_RELEASE']) > 0 and os.environ['PASSERELLE_APP'] == 'shop'\n\
    assert os.path.isdir(os.environ['PASSERELLE_PLACE'])\nassert os.stat(os.environ['XDG_RUNTIME_DIR']).st_mode & 0o777 == 0o700\n";

/// Neither the entry that the configuration names now, nor packages that are gone by now, keep a release from being run
/// again as it was.
#[test]
fn a_release_runs_again_as_it_ran_whatever_the_configuration_says() {
    let wheels = wheels(&["gunicorn", "packaging"]);
    let requirements = format!("--no-index\n--find-links {}\ngunicorn\npackaging\n", wheels.path().display());
    let plan = Plan::new(&(wsgi("one") + CHECKS), "workers = 1\nenv = { COLOUR = \"red\" }")
        .environment("requirements = \"requirements.txt\"")
        .user(if is_root() { "user = \"nobody\"" } else { "" })
        .file("requirements.txt", &requirements);
    let mut site = plan.start();
    for file in ["lock", "current", "releases/1/release.json"] {
        let found = std::fs::metadata(site.place().join(file)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777, 0o600, "{file}");
    }

    // The code that serves has no such entry: it serves on, and is started again.
    site.gateway.write_config(&plan.clone().entry("main:app").text());
    assert!(site.gateway.reload().0.success());
    let is_told = |site: &crate::harness::Site| {
        eventually("it is told", || {
            let app = site.app("shop");
            app["trouble"].as_str()?.contains("there is no module main").then_some(())
        });
    };
    is_told(&site);
    assert_eq!(site.get("/version").text(), "one");
    site.gateway.kill();
    site.gateway.start_again();
    is_told(&site);
    site.serves();
    assert_eq!((site.get("/version").text().as_str(), site.serving()), ("one", 1));

    // Code that has it is released, and taken back when nothing is left of what the old environment was made of.
    site.write("shop/main.py", &wsgi("two"));
    std::fs::remove_file(site.path().join("shop/app.py")).unwrap();
    site.release();
    assert_eq!(site.get("/version").text(), "two");
    let two = site.serving();
    drop(wheels);
    let (status, told) = site.command("rollback", &["shop"]);
    assert!(status.success(), "{told}");
    assert!(!told.contains("environment"), "{told}");
    assert_eq!((site.get("/version").text().as_str(), site.serving()), ("one", 1));

    // A start and a reload leave it at that.
    site.gateway.kill();
    site.gateway.start_again();
    site.serves();
    assert!(site.gateway.reload().0.success());
    assert_eq!((site.get("/version").text().as_str(), site.serving()), ("one", 1));
    assert_eq!(site.app("shop")["trouble"], serde_json::Value::Null);
    assert!(two > 1);
}

/// What was changed while no gateway ran takes effect like what is changed while one does: the release that served last
/// serves, and then one of the same code under the new settings.
#[test]
fn a_server_that_was_changed_while_no_gateway_ran_is_taken() {
    let plan = Plan::new(&wsgi("one"), "workers = 1");
    let mut site = plan.start();
    site.gateway.kill();
    site.write("shop/app.py", &wsgi("two"));
    site.gateway.write_config(&plan.clone().lines("server = \"uwsgi\"").text());
    site.gateway.start_again();
    eventually("a release of its own makes it take effect", || (site.app("shop")["release"] == 2).then_some(()));
    site.serves();
    assert_eq!(site.get("/version").text(), "one");
    assert!(site.processes().iter().any(|(_, command)| command.contains("uwsgi")), "{:?}", site.processes());
    // With the old server, nobody needs to go back to it.
    let (status, told) = site.command("rollback", &["shop"]);
    assert!(!status.success() && told.contains("no release before this one"), "{told}");
}

/// Of values that are part of others too, wherever they may be told.
#[test]
fn secrets_of_hooks_and_paths_are_not_told() {
    const HOOK: &str = "hook-secret-horse-battery";
    const PATH: &str = "path-secret-horse-battery";
    const PASSWORD: &str = "password-of-the-database";
    // Short ones are words of no meaning, but they are not repeated where they are configured.
    const PIN: &str = "7295";
    let plan = Plan::new(&wsgi("one"), "workers = 1");
    let mut site = plan.start();
    for (name, text) in [("hook", HOOK), ("path", PATH), ("password", PASSWORD), ("pin", PIN)] {
        site.write(name, text);
    }
    let env = "env = { DSN = \"host=db password=${file:password}\" }";
    let config = |exit: u8, path: &str| {
        let hook = format!(
            "[\"sh\", \"-c\", \"echo began ${{file:hook}}; echo only $(echo $DSN | cut -d= -f3); exit {exit}\", \"x${{file:pin}}x\"]"
        );
        plan.clone().lines(&format!("{env}\npre_release = {hook}\nwarm_up = [\"/{path}?t=${{file:path}}\"]")).text()
    };
    let mut told = Vec::new();
    site.write(
        "shop/app.py",
        &wsgi("two")
            .replace("if path == \"/pid\"", "print(environ['QUERY_STRING'], flush=True)\n    if path == \"/pid\""),
    );
    for (config, release) in [(config(0, "version"), true), (config(3, "version"), false), (config(0, "raise"), false)]
    {
        site.gateway.write_config(&config);
        let (status, output) = site.command("check", &[]);
        assert!(status.success() && output.contains("is a secret that every user of the machine can see"), "{output}");
        assert!(site.gateway.reload().0.success());
        told.push(if release { site.release() } else { site.no_release() });
    }
    assert!(told[0].contains("sh -c (secret) (secret)"), "{}", told[0]);
    assert!(told[0].contains("began (secret)") && told[0].contains("only (secret)"), "{}", told[0]);
    assert!(told[1].contains("`sh -c (secret) (secret)` of pre_release failed"), "{}", told[1]);
    assert!(told[2].contains("(secret) of warm_up failed"), "{}", told[2]);
    // With what the worker had to say.
    assert!(told[2].contains("RuntimeError: outer"), "{}", told[2]);
    told.extend([site.command("apps", &[]).1, site.gateway.status().to_string(), site.gateway.output()]);
    for (index, told) in told.iter().enumerate() {
        for secret in [HOOK, PATH, PASSWORD, &format!("x{PIN}x")] {
            assert!(!told.contains(secret), "{secret} is in {index}: {told}");
        }
    }
}
