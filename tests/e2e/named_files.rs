//! Files that a service names instead of sending them, by the fields of nginx and of Apache; and Django's collected ones.

use std::path::Path;
use std::process::Command;

use crate::harness::http::Client;
use crate::harness::{Fake, Gateway, Response, backends};

/// A gateway with `internal_files` for `protected` beside its configuration, before a server.
fn before(server: &str, make: impl Fn(&Path)) -> Gateway {
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[upstream.app]\nservers = [\"{server}\"]\n\
         [route.all]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n\
         internal_files = {{ \"/protected\" = \"protected\", \"/receipts\" = \"{}\" }}\n",
        backends::orders_threads().state().join("receipts").display(),
    );
    Gateway::start_with(&text, |directory, _| {
        let directory = directory.join("protected");
        std::fs::create_dir_all(&directory).unwrap();
        make(&directory);
    })
}

fn ask(gateway: &Gateway, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask(method, target, headers)
}

#[test]
fn django_agrees_and_the_gateway_sends() {
    let gateway = before(&backends::invoices().url(), |directory| {
        std::fs::write(directory.join("a b é.pdf"), b"%PDF-invoice").unwrap();
    });
    let target = "/statements/a%20b%20%C3%A9.pdf?may=1";
    let answer = ask(&gateway, "GET", target, &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "%PDF-invoice"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/pdf"));
    assert!(answer.header("content-disposition").unwrap().starts_with("attachment"));
    assert!(answer.header("set-cookie").unwrap().starts_with("seen="));
    assert_eq!(answer.header("x-accel-redirect"), None);
    assert_eq!(answer.header("content-length"), Some("12"));
    let record = gateway.access_record(&answer);
    assert_eq!((record["upstream"].as_str(), record["sent"].as_u64()), (Some("app"), Some(12)));
    let etag = answer.header("etag").unwrap();
    assert_eq!(ask(&gateway, "GET", target, &[("If-None-Match", etag)]).status, 304);
    let part = ask(&gateway, "GET", target, &[("Range", "bytes=5-"), ("If-Range", etag)]);
    assert_eq!(
        (part.status, part.text().as_str(), part.header("content-range")),
        (206, "invoice", Some("bytes 5-11/12"))
    );
    let denied = ask(&gateway, "GET", "/statements/a.pdf", &[]);
    assert_eq!((denied.status, denied.text().as_str()), (403, "no\n"));
}

#[test]
fn flask_names_the_path_on_disk() {
    let receipts = backends::orders_threads().state().join("receipts");
    std::fs::create_dir_all(&receipts).unwrap();
    std::fs::write(receipts.join("1.pdf"), b"%PDF-receipt").unwrap();
    let gateway = before(&backends::orders_threads().url(), |_| {});
    let answer = ask(&gateway, "GET", "/receipts/1.pdf?may=1", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "%PDF-receipt"), "{answer:?}");
    assert_eq!((answer.header("x-sendfile"), answer.header("content-type")), (None, Some("application/pdf")));
    assert!(answer.header("content-disposition").unwrap().contains("1.pdf"));
    let head = ask(&gateway, "HEAD", "/receipts/1.pdf?may=1", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("12")));
    // Flask answers ranges and conditions itself where it can, and leaves the file to whoever sends it all the same.
    let part = ask(&gateway, "GET", "/receipts/1.pdf?may=1", &[("Range", "bytes=0-3")]);
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "%PDF", Some("bytes 0-3/12")));
    let etag = answer.header("etag").unwrap();
    assert_eq!(ask(&gateway, "GET", "/receipts/1.pdf?may=1", &[("If-None-Match", etag)]).status, 304);
    assert_eq!(ask(&gateway, "GET", "/receipts/1.pdf", &[]).status, 403);
}

/// A server that answers with a head and a body of its own.
fn saying(fields: &str) -> Fake {
    Fake::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 4\r\n\r\nbody"))
}

#[test]
fn what_may_not_be_sent_is_said_in_the_log_alone() {
    for (field, cause, status, why) in [
        ("X-Accel-Redirect: /elsewhere/a.pdf", "internal_file_refused", 502, "no key of internal_files"),
        ("X-Accel-Redirect: /protected/../a.pdf", "internal_file_refused", 502, "dot segment"),
        ("X-Accel-Redirect: /protected/%2e%2e/passerelle.toml", "internal_file_refused", 502, "dot segment"),
        ("X-Accel-Redirect: /protected/none.pdf", "internal_file_missing", 404, "no such file"),
        ("X-Accel-Redirect: /protected/", "internal_file_missing", 404, "directory"),
        ("X-Accel-Redirect: /protected/out", "internal_file_missing", 404, "leads out"),
        ("X-Accel-Redirect: @named", "internal_file_refused", 502, "no key"),
        ("X-Sendfile: /etc/passwd", "internal_file_refused", 502, "no directory of internal_files"),
        ("X-Sendfile: a.pdf", "internal_file_refused", 502, "not absolute"),
    ] {
        let fake = saying(&format!("{field}\r\n"));
        let gateway = before(&fake.url(), |directory| {
            std::os::unix::fs::symlink("../passerelle.toml", directory.join("out")).unwrap();
        });
        let answer = ask(&gateway, "GET", "/", &[]);
        assert_eq!((answer.status, answer.cause().as_str()), (status, cause), "{field}");
        assert!(!answer.text().contains("protected") && answer.header("x-accel-redirect").is_none(), "{answer:?}");
        let record = gateway.access_record(&answer);
        assert!(record["detail"].as_str().unwrap().contains(why), "{record}");
    }
}

#[test]
fn the_service_s_status_stays_and_its_body_does_not() {
    let not_found = "HTTP/1.1 404 Not Found\r\nX-Accel-Redirect: /protected/404.html\r\nETag: \"app\"\r\n\
                     Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody";
    let fake = Fake::answering(not_found);
    let gateway = before(&fake.url(), |directory| std::fs::write(directory.join("404.html"), "<h1>gone</h1>").unwrap());
    let answer = ask(&gateway, "GET", "/", &[("Range", "bytes=0-1"), ("If-None-Match", "*")]);
    assert_eq!((answer.status, answer.text().as_str()), (404, "<h1>gone</h1>"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("content-encoding"), None);
    assert_ne!(answer.header("etag"), Some("\"app\""));
}

#[test]
fn without_internal_files_the_fields_mean_nothing() {
    let fake = saying("X-Accel-Redirect: /protected/a.pdf\r\n");
    let gateway = crate::harness::Setup::before([fake.url()]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.text().as_str(), answer.header("x-accel-redirect")), ("body", Some("/protected/a.pdf")));
}

#[test]
fn what_django_collected_is_served_for_ever() {
    let invoices = backends::invoices();
    let directory = invoices.state().join("static");
    let collected = Command::new(backends::python_program("python"))
        .args(["invoices.py", "collectstatic", "--noinput"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/invoices"))
        .env("INVOICES_STATIC", &directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    let gateway = Gateway::start(&format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[upstream.app]\nservers = [\"{}\"]\n\
         [route.all]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n\
         [route.assets]\npath = \"/static/{{*rest}}\"\nfiles = \"{}\"\n\
         cache_control = \"public, max-age=31536000, immutable\"\n",
        invoices.url(),
        directory.display(),
    ));
    let page = gateway.get("/page").text();
    let style = page.split("href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(style.starts_with("/static/invoices.") && style != "/static/invoices.css", "{page}");
    let answer = gateway.get(style);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let paper = answer.text().split("url(\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let image = gateway.get(&format!("/static/{paper}"));
    assert_eq!((image.status, image.header("content-type")), (200, Some("image/svg+xml")), "{paper}");
}
