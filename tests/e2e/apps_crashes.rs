//! Workers that crash again and again: recognised, reported, tried again more and more slowly, and well once they are.

use crate::harness::apps::{Plan, wsgi};
use crate::harness::eventually;

/// Workers that a file keeps from starting, which is made once the module was looked at.
fn crashes_while(flag: &str) -> String {
    wsgi("one")
        + &format!(
            "\n\nif os.path.exists(os.environ['HOME'] + '/{flag}'):\n    \
         raise OSError('the disk is full')\n"
        )
}

#[test]
fn a_crash_loop_is_told_and_ends_when_its_cause_does() {
    let site = Plan::new(&crashes_while("full"), "workers = 2\nserver = \"gunicorn\"").start();
    let flag = site.place().join("home/full");
    std::fs::write(&flag, "").unwrap();
    for _ in 0..2 {
        let pid = *site.pids("shop").first().unwrap();
        crate::harness::apps::kill(pid);
        eventually("it is gone", || (!site.pids("shop").contains(&pid)).then_some(()));
    }
    let told = site.gateway.log_line("a crash loop is told", |line| line["message"] == "app crashes again and again");
    assert!(told["reason"].as_str().unwrap().contains("the disk is full"), "{told}");
    let app = site.app("shop");
    assert_eq!(app["crashing"], true, "{app}");
    assert!(app["trouble"].as_str().unwrap().contains("the disk is full"), "{app}");
    let (_, shown) = site.command("apps", &[]);
    assert!(shown.contains("0 of 2 workers serve, crashing"), "{shown}");
    assert!(shown.contains("the disk is full"), "{shown}");
    // Nobody is kept waiting.
    let answer = site.get("/version");
    assert_eq!((answer.status, answer.cause().as_str()), (503, "app_not_running"));
    std::fs::remove_file(&flag).unwrap();
    eventually("it serves again", || (site.get("/version").status == 200).then_some(()));
    site.serves();
    eventually("it is well", || {
        let app = site.app("shop");
        (app["crashing"] == false && app["trouble"].is_null()).then_some(())
    });
}

/// gunicorn starts its own worker again for as long as that is not an exception of Python's.
#[test]
fn a_server_that_starts_its_own_worker_in_vain_has_failed() {
    let code = crashes_while("broken").replace("raise OSError('the disk is full')", "os._exit(7)");
    let site = Plan::new(&code, "workers = 1\nserver = \"gunicorn\"").start();
    let flag = site.place().join("home/broken");
    std::fs::write(&flag, "").unwrap();
    let server = site.pids("shop");
    let worker = site.get("/pid").text().parse().unwrap();
    assert!(!server.contains(&worker), "gunicorn has a process of its own for the app");
    crate::harness::apps::kill(worker);
    let told = site.gateway.log_line("it is told", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("own worker process ended again and again"))
    });
    assert_eq!(told["app"], "shop", "{told}");
    std::fs::remove_file(&flag).unwrap();
    eventually("it serves again", || (site.get("/version").status == 200).then_some(()));
    assert!(site.pids("shop").is_disjoint(&server));
}

/// Its first start fails: it is told, tried again, and comes.
#[test]
fn an_app_that_cannot_be_started_is_tried_again() {
    let site = Plan::new("import not_there_yet\n", "workers = 1").begin();
    site.gateway.log_line("it is told", |line| {
        line["reason"].as_str().is_some_and(|reason| reason.contains("No module named 'not_there_yet'"))
    });
    let answer = site.get("/version");
    assert_eq!((answer.status, answer.cause().as_str()), (503, "app_not_running"));
    assert!(site.app("shop")["trouble"].as_str().unwrap().contains("not_there_yet"));
    site.write("shop/app.py", &wsgi("one"));
    site.serves();
    assert_eq!(site.get("/version").text(), "one");
    assert_eq!(site.app("shop")["trouble"], serde_json::Value::Null);
}
