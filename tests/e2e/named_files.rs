//! Files that a service names instead of sending them, by the fields of nginx and of Apache; and Django's collected ones.

use std::io::Read;
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
    // It knows another tag than the client was given.
    let holds = ask(&gateway, "GET", "/receipts/1.pdf?may=1", &[("If-Match", etag)]);
    assert_eq!((holds.status, holds.text().as_str()), (200, "%PDF-receipt"));
    let fails = ask(&gateway, "GET", "/receipts/1.pdf?may=1", &[("If-Match", "\"other\"")]);
    assert_eq!((fails.status, fails.cause().as_str()), (412, "precondition_failed"));
    // As browsers ask.
    let conditions = [("If-Modified-Since", answer.header("last-modified").unwrap()), ("If-None-Match", etag)];
    let same = ask(&gateway, "GET", "/receipts/1.pdf?may=1", &conditions);
    assert_eq!((same.status, same.header("etag"), same.text().as_str()), (304, Some(etag), ""));
    // WSGI has the path sent as Latin-1.
    std::fs::write(receipts.join("re\u{e7}u.pdf"), b"%PDF-re\xc3\xa7u").unwrap();
    let french = ask(&gateway, "GET", "/receipts/re%C3%A7u.pdf?may=1", &[]);
    assert_eq!((french.status, french.body.as_slice()), (200, &b"%PDF-re\xc3\xa7u"[..]), "{french:?}");
}

#[test]
fn the_service_agrees_to_the_file_and_to_no_sibling_of_it() {
    let fake = saying("X-Accel-Redirect: /protected/a.csv\r\n");
    let content = "a;b\n".repeat(1000);
    let gateway = before(&fake.url(), |directory| {
        std::fs::write(directory.join("a.csv"), &content).unwrap();
        std::fs::write(directory.join("a.csv.gz"), "put there by somebody else").unwrap();
    });
    let plain = ask(&gateway, "GET", "/", &[]);
    assert!(plain.text() == content);
    let coded = ask(&gateway, "GET", "/", &[("Accept-Encoding", "gzip")]);
    let mut decoded = String::new();
    flate2::read::GzDecoder::new(coded.body.as_slice()).read_to_string(&mut decoded).unwrap();
    assert!(decoded == content, "compressed on its way");
}

#[test]
fn conditions_are_judged_by_the_tag_that_clients_were_given() {
    let fake = Fake::start(|mut connection| {
        while let Some(request) = connection.read_request() {
            let status = request.header("x-status").unwrap_or("200 OK");
            let file = "X-Accel-Redirect: /protected/a.txt\r\nETag: \"app\"";
            connection.send(format!("HTTP/1.1 {status}\r\n{file}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let gateway = before(&fake.url(), |directory| std::fs::write(directory.join("a.txt"), "text").unwrap());
    let etag = ask(&gateway, "GET", "/", &[]).header("etag").unwrap().to_owned();
    let failed = ("X-Status", "412 Precondition Failed");
    for (status, condition, expected) in [
        (failed, ("If-Match", etag.as_str()), 200),
        (failed, ("If-Match", "\"app\""), 412),
        (("X-Status", "304 Not Modified"), ("If-None-Match", etag.as_str()), 304),
        (("X-Status", "304 Not Modified"), ("If-None-Match", "\"app\""), 200),
    ] {
        let answer = ask(&gateway, "GET", "/", &[status, condition]);
        assert_eq!(answer.status, expected, "{status:?} {condition:?}");
        assert!(expected == 412 || answer.header("etag") == Some(etag.as_str()), "{answer:?}");
    }
}

#[test]
fn a_path_on_disk_may_be_written_in_any_way() {
    for written in ["protected/a.pdf", "/./protected//a.pdf", "none/../protected/a.pdf", "real/a.pdf", "link/a.pdf"] {
        let gateway = std::sync::Arc::new(std::sync::OnceLock::new());
        let directory = std::sync::Arc::clone(&gateway);
        let fake = Fake::start(move |mut connection| {
            while connection.read_request().is_some() {
                let directory: &std::path::PathBuf = directory.get().unwrap();
                let path = format!("{}/{written}", directory.display());
                connection.send(format!("HTTP/1.1 200 OK\r\nX-Sendfile: {path}\r\nContent-Length: 0\r\n\r\n"));
            }
        });
        let running = before(&fake.url(), |directory| {
            let above = directory.parent().unwrap();
            std::fs::rename(directory, above.join("real")).unwrap();
            std::os::unix::fs::symlink("real", directory).unwrap();
            std::os::unix::fs::symlink("protected", above.join("link")).unwrap();
            std::fs::write(directory.join("a.pdf"), "%PDF").unwrap();
        });
        gateway.set(running.directory().to_owned()).unwrap();
        let answer = ask(&running, "GET", "/", &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "%PDF"), "{written}");
    }
}

#[test]
fn what_told_of_the_empty_body_goes_with_it() {
    let digests = "Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\nRepr-Digest: sha-256=:a:\r\n";
    let fake = saying(&format!("X-Accel-Redirect: /protected/a.txt\r\n{digests}"));
    let gateway = before(&fake.url(), |directory| std::fs::write(directory.join("a.txt"), "x".repeat(5000)).unwrap());
    let answer = ask(&gateway, "GET", "/", &[("Accept-Encoding", "gzip")]);
    assert_eq!((answer.header("content-md5"), answer.header("repr-digest")), (None, None));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let reset = Fake::answering(
        "HTTP/1.1 205 Reset Content\r\nX-Accel-Redirect: /protected/a.txt\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = before(&reset.url(), |directory| std::fs::write(directory.join("a.txt"), "x").unwrap());
    let answer = ask(&gateway, "GET", "/", &[]);
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-accel-redirect")), (205, "", None));
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
fn without_internal_files_no_client_sees_what_was_named() {
    let fake = saying("X-Accel-Redirect: /protected/a.pdf\r\nX-Sendfile: /srv/a.pdf\r\n");
    let gateway = crate::harness::Setup::before([fake.url()]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.text().as_str(), answer.header("x-accel-redirect")), ("body", None));
    assert_eq!(answer.header("x-sendfile"), Some("/srv/a.pdf"));
    let record = gateway.access_record(&answer);
    let detail = record["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("/protected/a.pdf") && detail.contains("internal_files"), "{record}");
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

/// Flask states the length of the file that it names, sends nothing and closes: nobody reads that body, so it is no failure
/// that it is short.
#[test]
fn a_body_that_is_not_sent_with_the_name_is_no_failure() {
    let fake = Fake::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\nX-Accel-Redirect: /protected/a\r\n\r\n",
    );
    let gateway = before(&fake.url(), |directory| std::fs::write(directory.join("a"), b"invoice").unwrap());
    for _ in 0..50 {
        assert_eq!(gateway.get("/").text(), "invoice");
    }
    assert_eq!(gateway.metric("passerelle_upstream_ejections_total", &[]), 0.0);
}
