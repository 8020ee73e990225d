//! What apps write: into the log, with app and process, tracebacks as one record.

use serde_json::Value;

use crate::harness::apps::{Plan, wsgi};

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[test]
fn lines_are_records_with_app_and_process() {
    let site = Plan::new(&wsgi("one"), "workers = 1\nserver = \"gunicorn\"").start();
    site.get("/say?hello-from-the-app");
    let line = site.gateway.log_line("what it says", |line| message(line) == "hello-from-the-app");
    assert_eq!((&line["app"], &line["release"]), (&"shop".into(), &1.into()), "{line}");
    let pid = site.pids("shop").first().copied().unwrap();
    assert_eq!(line["pid"], pid, "{line}");
    // What looks like a record of the gateway is one of the app.
    site.get("/say?{\"level\":\"ERROR\",\"message\":\"forged\"}");
    let line = site.gateway.log_line("it is quoted", |line| message(line).contains("forged"));
    assert_eq!(line["app"], "shop", "{line}");
}

#[test]
fn a_traceback_is_one_record() {
    let site = Plan::new(&wsgi("one"), "workers = 1\nserver = \"gunicorn\"").start();
    assert_eq!(site.get("/raise").status, 500);
    let line = site.gateway.log_line("the traceback", |line| message(line).contains("RuntimeError: outer"));
    let text = message(&line);
    assert!(text.starts_with("Traceback (most recent call last):"), "{text}");
    for words in ["KeyError: 'inner'", "During handling of the above exception", "in app", "RuntimeError: outer"] {
        assert!(text.contains(words), "{text}");
    }
}
