//! Releases, rollbacks and reloads of apps: nobody who asks notices.

use std::time::Instant;

use rustix::process::Signal;

use crate::harness::apps::{Load, Plan, asgi, kill, own_user, test_python, wsgi};
use crate::harness::http::get;
use crate::harness::{Site, eventually};
use crate::websocket::WebSocket;

/// `PASSERELLE_TEST_RELEASES` says how many are made one after the other.
fn releases(usually: usize) -> usize {
    std::env::var("PASSERELLE_TEST_RELEASES").ok().and_then(|count| count.parse().ok()).unwrap_or(usually)
}

fn released_under_load(site: &Site, usually: usize, code: impl Fn(&str) -> String) {
    let releases = releases(usually);
    let load = Load::of_all_kinds(site.port());
    let began = Instant::now();
    for number in 0..releases {
        let version = format!("of release {number}");
        site.write("shop/app.py", &code(&version));
        site.release();
        // From the moment that it is said to serve, nothing else does.
        assert_eq!(site.get("/version").text(), version);
        assert_eq!(site.get("/version").text(), version);
    }
    let seconds = began.elapsed().as_secs_f64();
    let requests = load.end_well();
    println!("{releases} releases under {requests} requests in {seconds:.1} s, none failed");
    site.serves();
    assert_eq!(site.there("run").len(), 2, "{:?}", site.there("run"));
}

#[test]
fn releases_of_gunicorn_lose_no_request() {
    let site = Plan::new(&wsgi("one"), "server = \"gunicorn\"\nworkers = 2").start();
    released_under_load(&site, 5, wsgi);
}

#[test]
fn releases_of_threads_lose_no_request() {
    let site = Plan::new(&wsgi("one"), "server = \"gunicorn\"\nworkers = 2\nthreads = 4").start();
    released_under_load(&site, 2, wsgi);
}

#[test]
fn releases_of_uvicorn_lose_no_request() {
    let site = Plan::new(&asgi("one"), "server = \"uvicorn\"\nworkers = 2").start();
    released_under_load(&site, 5, asgi);
}

#[test]
fn releases_of_uwsgi_lose_no_request() {
    let site = Plan::new(&wsgi("one"), "server = \"uwsgi\"\nworkers = 2").start();
    released_under_load(&site, 2, wsgi);
}

#[test]
fn releases_of_granian_lose_no_request() {
    let site = Plan::new(&asgi("one"), "server = \"granian\"\nworkers = 2").start();
    released_under_load(&site, 2, asgi);
}

#[test]
fn rollbacks_lead_back_one_by_one_and_lose_no_request() {
    let site = Plan::new(&wsgi("one"), "workers = 2").start();
    for version in ["two", "three"] {
        site.write("shop/app.py", &wsgi(version));
        site.release();
    }
    let load = Load::of_all_kinds(site.port());
    for version in ["two", "one"] {
        let (status, output) = site.command("rollback", &["shop"]);
        assert!(status.success(), "{output}");
        assert_eq!(site.get("/version").text(), version);
    }
    load.end_well();
    let (status, output) = site.command("rollback", &["shop"]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("there is no release before this one"), "{output}");
    assert_eq!(site.get("/version").text(), "one");
    // The code that is in place is released after a rollback as ever.
    site.release();
    assert_eq!(site.get("/version").text(), "three");
}

/// Code from another folder, which is not where the next release is from.
#[test]
fn a_release_may_be_of_another_directory() {
    let site = Plan::new(&wsgi("one"), "workers = 1").start();
    site.write("other/app.py", &wsgi("other"));
    let other = site.path().join("other");
    let (status, output) = site.command("release", &["--directory", other.to_str().unwrap(), "shop"]);
    assert!(status.success(), "{output}");
    assert_eq!(site.get("/version").text(), "other");
    let app = site.app("shop");
    assert_eq!(app["releases"][1]["directory"], other.to_str().unwrap(), "{app}");
    site.release();
    assert_eq!(site.get("/version").text(), "one");
}

/// Requests end where they began, whatever is released meanwhile, and however few releases are kept.
#[test]
fn what_an_old_release_runs_it_finishes() {
    let late = wsgi("one").replace("import time", "import late, time").replace(
        "return answer(start, VERSION)\n    if path == \"/say\"",
        "import later\n        return answer(start, VERSION + later.word)\n    if path == \"/say\"",
    );
    let plan = Plan::new(&late, "workers = 2\nkeep = 1").file("late.py", "").file("later.py", "word = ' to the end'\n");
    let site = plan.start();
    let flag = site.path().join("flag");
    let (port, target) = (site.port(), format!("/held?{}", flag.display()));
    let held = std::thread::spawn(move || get(port, &target));
    eventually("the request runs", || flag.with_extension("began").exists().then_some(()));
    site.write("shop/app.py", &wsgi("two"));
    site.release();
    assert_eq!(site.get("/version").text(), "two");
    // Its code is there for as long as it runs.
    assert_eq!(site.there("releases"), ["1", "2"].map(str::to_owned).into());
    std::fs::write(&flag, "").unwrap();
    let answer = held.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "one to the end"));
    eventually("the old release is removed", || (site.there("releases").len() == 1).then_some(()));
    site.serves();
}

#[test]
fn websockets_of_an_old_release_live_until_its_drain_ends() {
    let plan = Plan::new(&asgi("one"), "workers = 1").rest("[server]\nshutdown_grace = \"3s\"");
    let site = plan.start();
    let mut old = WebSocket::open(site.port(), "/ws");
    let began = Instant::now();
    site.write("shop/app.py", &asgi("two"));
    site.release();
    let took = began.elapsed();
    assert_eq!(site.get("/version").text(), "two");
    old.echo("I am of the old release");
    let mut new = WebSocket::open(site.port(), "/ws");
    new.echo("and I of the new");
    let leaving = site.app("shop");
    let states: Vec<_> = leaving["workers"].as_array().unwrap().iter().map(|worker| &worker["state"]).collect();
    assert!(states.contains(&&"leaving".into()), "{leaving}");
    old.expect_end();
    assert!(began.elapsed() >= std::time::Duration::from_secs(3) || took.as_secs() > 2, "{:?}", began.elapsed());
    new.echo("it is gone");
    site.serves();
}

/// Only what is kept is there: no more releases than `keep` says.
#[test]
fn releases_that_nobody_can_go_back_to_are_removed() {
    let site = Plan::new(&wsgi("one"), "workers = 1\nkeep = 2").start();
    for version in ["two", "three", "four"] {
        site.write("shop/app.py", &wsgi(version));
        site.release();
    }
    eventually("two are left", || (site.there("releases") == ["3", "4"].map(str::to_owned).into()).then_some(()));
    let (status, output) = site.command("rollback", &["shop"]);
    assert!(status.success(), "{output}");
    assert_eq!(site.get("/version").text(), "three");
    eventually("one is left", || (site.there("releases") == ["3".to_owned()].into()).then_some(()));
    assert!(!site.command("rollback", &["shop"]).0.success());
}

/// Two apps, of which one is changed.
fn two_apps(env: &str, more: &str) -> String {
    let (python, user) = (test_python(), own_user());
    let plan = Plan::new("", &format!("workers = 2\nenv = {{ COLOUR = \"{env}\" }}\n{more}"));
    plan.text()
        + &format!(
            "[app.other]\ndirectory = \"@dir@/shop\"\nentry = \"app:app\"\n{python}\n{user}\nworkers = 1\n\
             [route.other]\npath = \"/other/{{*rest}}\"\nstrip_prefix = \"/other\"\nupstream = \"other\"\n"
        )
}

#[test]
fn a_reload_releases_the_app_whose_settings_changed_and_no_other() {
    let other = two_apps("red", "").split_once("[app.other]").map(|(_, other)| format!("[app.other]{other}")).unwrap();
    let code = wsgi("one") + "\n\nif not os.environ.get('COLOUR', 'red'):\n    raise ValueError('no colour')\n";
    let mut site = Plan::new(&code, "workers = 2\nenv = { COLOUR = \"red\" }").rest(&other).start();
    site.app_serves("other");
    let (shop, others) = (site.pids("shop"), site.pids("other"));
    let load = Load::of_all_kinds(site.port());
    // New code alone is no release; neither is a reload without any change.
    site.write("shop/app.py", &wsgi("two"));
    let (status, output) = site.gateway.reload();
    assert!(status.success(), "{output}");
    assert_eq!(site.get("/environ").json()["COLOUR"], "red");
    assert_eq!((site.pids("shop"), site.pids("other")), (shop.clone(), others.clone()));
    // What the app is as an upstream concerns no process.
    site.gateway.write_config(&two_apps("red", "timeouts = { response = \"20s\" }\nbalance = \"round_robin\""));
    let (status, output) = site.gateway.reload();
    assert!(status.success(), "{output}");
    assert_eq!((site.pids("shop"), site.pids("other")), (shop.clone(), others.clone()));
    // One that fails changes nothing, and is no trouble any more once nobody asks for it.
    site.gateway.write_config(&two_apps("", ""));
    assert!(site.gateway.reload().0.success());
    eventually("it is told", || site.app("shop")["trouble"].is_string().then_some(()));
    site.gateway.write_config(&two_apps("red", ""));
    assert!(site.gateway.reload().0.success());
    eventually("it is forgotten", || site.app("shop")["trouble"].is_null().then_some(()));
    assert_eq!((site.pids("shop"), site.pids("other")), (shop.clone(), others.clone()));
    site.gateway.write_config(&two_apps("green", ""));
    let (status, output) = site.gateway.reload();
    assert!(status.success(), "{output}");
    eventually("the release serves", || (site.get("/environ").json()["COLOUR"] == "green").then_some(()));
    site.serves();
    load.end_well();
    assert!(site.pids("shop").is_disjoint(&shop));
    assert_eq!(site.pids("other"), others);
    // Other settings are no reason for other code.
    assert_eq!(site.get("/version").text(), "one");
    assert_eq!(site.get("/other/version").text(), "one");
}

/// An app that is gone from the configuration is gone; one that is new comes.
#[test]
fn a_reload_starts_and_ends_apps() {
    let mut site = Plan::new(&wsgi("one"), "workers = 1").start();
    site.gateway.write_config(&two_apps("red", ""));
    assert!(site.gateway.reload().0.success());
    site.app_serves("other");
    assert_eq!(site.get("/other/version").text(), "one");
    let flag = site.path().join("flag");
    let (port, target) = (site.port(), format!("/held?{}", flag.display()));
    let held = std::thread::spawn(move || get(port, &target));
    eventually("the request runs", || flag.with_extension("began").exists().then_some(()));
    let (python, user) = (test_python(), own_user());
    site.gateway.write_config(&format!(
        "[server]\nstate_directory = \"@dir@/state\"\n[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [app.other]\ndirectory = \"@dir@/shop\"\nentry = \"app:app\"\n{python}\n{user}\nworkers = 1\n\
         [route.other]\npath = \"/{{*rest}}\"\nupstream = \"other\"\n"
    ));
    assert!(site.gateway.reload().0.success());
    // What was asked of it is answered.
    std::fs::write(&flag, "").unwrap();
    let answer = held.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    eventually("the other is gone", || site.there("run").is_empty().then_some(()));
    assert_eq!(site.get("/version").text(), "one");
}

/// The only worker, recycled by its server, told to end, and killed: requests wait for the next.
#[test]
fn workers_that_end_cost_no_request_even_the_only_one() {
    let lines = "workers = 1\nserver = \"uvicorn\"\nargs = [\"--limit-max-requests\", \"200\"]\n\
                 queue = { max_wait = \"30s\" }";
    let site = Plan::new(&asgi("one"), lines).start();
    let load = Load::of_gets(site.port());
    let restarts = |wanted: u64| {
        eventually("another is there", || {
            let app = site.app("shop");
            (app["restarts"].as_u64() >= Some(wanted) && site.pids("shop").len() == 1).then_some(())
        });
    };
    restarts(2);
    for signal in [Signal::TERM, Signal::KILL] {
        let before = site.app("shop")["restarts"].as_u64().unwrap();
        let pid = rustix::process::Pid::from_raw(*site.pids("shop").first().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, signal);
        restarts(before + 1);
    }
    load.end_well();
    assert_eq!(site.app("shop")["crashing"], false);
}

/// A worker that closes its socket and stays gets another beside it.
#[test]
fn a_worker_that_listens_no_more_is_replaced() {
    let code = wsgi("one").replace(
        "if path == \"/exit\":",
        "if path == \"/close\":\n        import glob\n        os.remove(glob.glob(os.environ['XDG_RUNTIME_DIR'] + '/http')[0])\n        \
         return answer(start, 'closed')\n    if path == \"/exit\":",
    );
    let lines = "workers = 1\nserver = \"gunicorn\"\nqueue = { max_wait = \"30s\" }";
    let site = Plan::new(&code, lines).start();
    let before = site.pids("shop");
    assert_eq!(site.get("/close").text(), "closed");
    assert_eq!(site.get("/version").text(), "one");
    assert!(site.pids("shop").is_disjoint(&before));
    site.gateway.log_line("it is told", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("it does not listen any more"))
    });
}

#[test]
fn a_worker_that_is_killed_fails_no_request_that_may_be_repeated() {
    for server in ["gunicorn", "uvicorn"] {
        let code = if server == "gunicorn" { wsgi("one") } else { asgi("one") };
        let site = Plan::new(&code, &format!("workers = 2\nserver = \"{server}\"")).start();
        let load = Load::of_gets(site.port());
        for _ in 0..2 {
            let before = site.pids("shop");
            kill(*before.first().unwrap());
            eventually("another is there", || {
                let now = site.pids("shop");
                (now.len() == 2 && now != before).then_some(())
            });
        }
        load.end_well();
        let app = site.app("shop");
        assert_eq!((&app["restarts"], &app["crashing"]), (&2.into(), &false.into()), "{app}");
    }
}
