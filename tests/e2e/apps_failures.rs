//! Releases that do not come about: the old one serves on, by the same processes, and whoever asked is told why.

use crate::harness::apps::{Load, Plan, wsgi};
use crate::harness::{Site, eventually};

/// Whether it runs in a worker, and is not only looked at: the directories of both have names.
const IN_WORKER: &str = "not os.environ['XDG_RUNTIME_DIR'].endswith('-import')";

/// Makes the module do something in a worker alone.
fn in_workers(does: &str) -> String {
    wsgi("two") + &format!("\n\nif {IN_WORKER}:\n    import time\n    {does}\n")
}

/// What is in place fails to be released; what serves is not touched.
#[track_caller]
fn fails(site: &Site, expected: &[&str]) {
    let before = site.pids("shop");
    let serving = site.serving();
    let output = site.no_release();
    for words in expected {
        assert!(output.contains(words), "{words:?} is not in: {output}");
    }
    assert_eq!(site.get("/version").text(), "one");
    assert_eq!((site.pids("shop"), site.serving()), (before, serving));
    eventually("nothing is left of it", || {
        (site.there("releases").len() == 1 && site.there("run").len() == 2).then_some(())
    });
    // It is remembered until something goes well.
    let trouble = site.app("shop")["trouble"].as_str().map(str::to_owned).unwrap_or_default();
    assert!(expected.iter().all(|words| trouble.contains(words)), "{trouble}");
    let (_, shown) = site.command("apps", &[]);
    assert!(shown.contains("trouble: "), "{shown}");
    site.gateway.log_line("the log says why", |line| {
        line["level"] == "error" && line["reason"].as_str().is_some_and(|reason| reason.contains(expected[0]))
    });
}

#[test]
fn a_release_that_does_not_start_changes_nothing() {
    let site = Plan::new(&wsgi("one"), "workers = 2\nserver = \"gunicorn\"\nstart_timeout = \"8s\"").start();
    let load = Load::of_all_kinds(site.port());
    site.write("shop/app.py", "import no_such_module\n");
    fails(&site, &["No module named 'no_such_module'"]);
    site.write("shop/app.py", &wsgi("two").replace("def app(", "def application("));
    fails(&site, &["app has no app"]);
    site.write("shop/app.py", "def app(environ, start)\n    return []\n");
    fails(&site, &["SyntaxError"]);
    site.write("shop/app.py", &in_workers("print('my last words', flush=True); os._exit(3)"));
    fails(&site, &["before it was ready", "my last words"]);
    site.write("shop/app.py", &in_workers("raise LookupError('where is it?')"));
    fails(&site, &["before it was ready", "LookupError: where is it?"]);
    site.write("shop/app.py", &in_workers("print('I take my time', flush=True); time.sleep(600)"));
    fails(&site, &["was not ready within start_timeout, 8s", "I take my time"]);
    site.write(
        "shop/app.py",
        &wsgi("two").replace("return answer(start, \"ok\")", "return answer(start, 'no', '500 No')"),
    );
    fails(&site, &["500", "health"]);
    // What is good is released after all that was not; numbers and names are as if nothing had been.
    site.write("shop/app.py", &wsgi("good"));
    site.release();
    assert_eq!(site.get("/version").text(), "good");
    load.end_well();
    assert_eq!(site.app("shop")["trouble"], serde_json::Value::Null);
    site.serves();
    let highest = site
        .servers()
        .into_iter()
        .map(|server| server["server"].as_str().unwrap().strip_prefix("worker-").unwrap().parse::<u32>().unwrap());
    assert!(highest.max().unwrap() <= 4, "{:?}", site.servers());
}

/// uvicorn imports the service before it listens.
#[test]
fn a_release_that_never_listens_changes_nothing() {
    let code = crate::harness::apps::asgi;
    let site = Plan::new(&code("one"), "workers = 2\nserver = \"uvicorn\"\nstart_timeout = \"8s\"").start();
    let waits = code("two") + &format!("\n\nif {IN_WORKER}:\n    import time\n    time.sleep(600)\n");
    site.write("shop/app.py", &waits);
    fails(&site, &["was not ready within start_timeout, 8s: it does not listen yet"]);
}

#[test]
fn what_health_warm_up_and_hooks_say_counts() {
    let lines = "workers = 2\nhealth = { path = \"/healthz\" }\nwarm_up = [\"/warm\", \"/warmer\"]\nstart_timeout = \"8s\"\n\
                 pre_release = [[\"python\", \"hook.py\"], [\"sh\", \"-c\", \"echo and by the shell; pwd\"]]";
    let site = Plan::new(&wsgi("one"), lines).file("hook.py", "print('the hook runs')").start();
    let output = site.release();
    for words in ["the hook runs", "and by the shell", "releases/2/code", "warming up", "release 2 of shop serves"] {
        assert!(output.contains(words), "{words}: {output}");
    }
    let before = site.there("releases").len();
    assert_eq!(before, 2);
    let (status, _) = site.command("rollback", &["shop"]);
    assert!(status.success());
    eventually("one is left", || (site.there("releases").len() == 1 && site.there("run").len() == 2).then_some(()));
    site.write(
        "shop/app.py",
        &wsgi("two").replace("\"/pid\"", "\"/healthz\"").replace("str(os.getpid())", "'', '503 Not yet'"),
    );
    fails(&site, &["was not ready within start_timeout", "503"]);
    site.write(
        "shop/app.py",
        &wsgi("two").replace("\"/pid\"", "\"/warmer\"").replace("str(os.getpid())", "'', '502 Cold'"),
    );
    fails(&site, &["/warmer of warm_up failed", "502"]);
    site.write("shop/app.py", &wsgi("two"));
    site.write("shop/hook.py", "import sys\nprint('cannot migrate: the table is gone')\nsys.exit(7)");
    fails(
        &site,
        &["`python hook.py` of pre_release failed: it exited with code 7", "cannot migrate: the table is gone"],
    );
    site.write("shop/hook.py", "print('well')");
    site.release();
    assert_eq!(site.get("/version").text(), "two");
}

/// It starts, and answers what is asked for with 500.
#[test]
fn a_release_that_answers_500_is_taken_back() {
    let lines = "workers = 2\nwatch = { period = \"60s\", requests = 10, errors = \"20%\" }";
    let site = Plan::new(&wsgi("one"), lines).start();
    let before = site.pids("shop");
    site.write(
        "shop/app.py",
        &wsgi("two").replace(
            "return answer(start, VERSION)\n    if path == \"/pid\"",
            "return answer(start, 'no', '500 No')\n    if path == \"/pid\"",
        ),
    );
    let load = Load::of_gets(site.port());
    let output = site.no_release();
    let tally = load.end();
    assert!(output.contains("release 2 was taken back, release 1 serves again"), "{output}");
    assert!(output.contains("more than 20 % (`errors` of watch)"), "{output}");
    // Whoever asked of it was told 500, and nothing worse.
    assert!(!tally.failures.is_empty());
    assert!(tally.failures.iter().all(|failure| failure.contains(" 500 ")), "{:?}", tally.failures);
    assert_eq!(site.get("/version").text(), "one");
    assert_eq!((site.pids("shop"), site.serving()), (before, 1));
    site.serves();
    assert_eq!(site.there("releases"), ["1".to_owned()].into());
    let before = site.gateway.metric("passerelle_requests_total", &[]);
    let load = Load::of_all_kinds(site.port());
    eventually("some requests", || {
        (site.gateway.metric("passerelle_requests_total", &[]) > before + 200.0).then_some(())
    });
    load.end_well();
}

/// It starts and is healthy, and answers nothing that is asked for: what clients get is the gateway's own.
#[test]
fn a_release_that_hangs_is_taken_back() {
    let lines = "workers = 1\nhealth = { path = \"/pid\" }\ntimeouts = { response = \"500ms\" }\n\
                 queue = { max_wait = \"500ms\" }\nwatch = { period = \"60s\", requests = 20, errors = \"20%\" }";
    let site = Plan::new(&wsgi("one"), lines).start();
    let hung = "import time\n        time.sleep(3600)\n        return answer(start, VERSION)\n    if path == \"/pid\"";
    let code = wsgi("two").replace("return answer(start, VERSION)\n    if path == \"/pid\"", hung);
    site.write("shop/app.py", &code);
    let load = Load::of_gets(site.port());
    let output = site.no_release();
    load.end();
    assert!(output.contains("release 2 was taken back, release 1 serves again"), "{output}");
    assert_eq!(site.get("/version").text(), "one");
}

/// What the release before could not answer any more is not held against the one that mends it.
#[test]
fn a_release_that_mends_one_that_hangs_stays() {
    let lines = "workers = 1\nthreads = 8\nhealth = { path = \"/pid\" }\ntimeouts = { response = \"4s\" }\n\
                 watch = { period = \"6s\", requests = 4, errors = \"20%\" }";
    let slow = "import time\n        time.sleep(3600)\n    if path == \"/pid\"";
    let code = wsgi("one").replace("return answer(start, VERSION)\n    if path == \"/pid\"", slow);
    let site = Plan::new(&code, lines).start();
    let port = site.port();
    let hung: Vec<_> =
        (0..6).map(|_| std::thread::spawn(move || crate::harness::http::get(port, "/version").status)).collect();
    eventually("they hang", || (site.servers()[0]["in_flight"] == 6).then_some(()));
    site.write("shop/app.py", &wsgi("two"));
    site.release();
    assert!(hung.into_iter().all(|hung| hung.join().unwrap() == 504));
    assert_eq!((site.get("/version").text().as_str(), site.serving()), ("two", 2));
}

/// A release that is good is watched, and stays.
#[test]
fn a_release_that_is_good_stays_after_it_was_watched() {
    let lines = "workers = 1\nwatch = { period = \"1s\", requests = 5, errors = \"20%\" }";
    let site = Plan::new(&wsgi("one"), lines).start();
    site.write("shop/app.py", &wsgi("two"));
    let load = Load::of_all_kinds(site.port());
    let output = site.release();
    assert!(output.contains("is watched for 1s"), "{output}");
    load.end_well();
    assert_eq!(site.get("/version").text(), "two");
    site.serves();
}

/// Each worker dies of its first request.
#[test]
fn a_release_whose_workers_die_is_taken_back() {
    let lines = "workers = 1\nwatch = { period = \"60s\", requests = 3, errors = \"50%\" }";
    let site = Plan::new(&wsgi("one"), lines).start();
    let fatal = wsgi("two").replace(
        "return answer(start, VERSION)\n    if path == \"/pid\"",
        "os.kill(os.getppid(), 9)\n    if path == \"/pid\"",
    );
    site.write("shop/app.py", &fatal);
    let load = Load::of_gets(site.port());
    let output = site.no_release();
    load.end();
    assert!(output.contains("release 1 serves again"), "{output}");
    assert_eq!(site.get("/version").text(), "one");
    site.serves();
}
