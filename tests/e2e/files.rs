//! Files from disk: what a browser is answered, ranges, conditions, siblings that were compressed beforehand, and that
//! nothing leads out.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::harness::http::Client;
use crate::harness::{Fake, Gateway, Response};

/// A gateway with `files = "static"` at `/static/`, and what `make` puts in there.
fn serving(lines: &str, make: impl Fn(&Path)) -> Gateway {
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [route.assets]\npath = \"/static/{{*rest}}\"\nfiles = \"static\"\n{lines}\n"
    );
    Gateway::start_with(&text, |directory, _| {
        let directory = directory.join("static");
        std::fs::create_dir(&directory).unwrap();
        make(&directory);
    })
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask("GET", target, headers)
}

#[test]
fn a_file_is_answered_with_all_that_a_cache_needs() {
    let gateway = serving("cache_control = \"public, max-age=60\"", |directory| {
        write(directory, "css/app.css", "body {}\n");
        write(directory, "a b\u{e9}.bin", "x");
    });
    let mut client = Client::connect(gateway.port("http"));
    let answer = client.ask("GET", "/static/css/app.css?v=1", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "body {}\n"));
    assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("content-length"), Some("8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let (etag, modified) = (answer.header("etag").unwrap(), answer.header("last-modified").unwrap());
    assert!(etag.starts_with('"') && modified.ends_with(" GMT"), "{answer:?}");
    let record = gateway.access_record(&answer);
    assert_eq!((record["route"].as_str(), record["sent"].as_u64()), (Some("assets"), Some(8)));

    let head = client.ask("HEAD", "/static/css/app.css", &[]);
    assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, Some("8"), Some(etag)));
    for condition in [("If-None-Match", etag), ("If-Modified-Since", modified)] {
        let same = client.ask("GET", "/static/css/app.css", &[condition]);
        assert_eq!((same.status, same.header("etag"), same.header("content-type")), (304, Some(etag), None));
        assert_eq!(same.header("cache-control"), Some("public, max-age=60"));
    }
    let other = client.ask("GET", "/static/css/app.css", &[("If-Match", "\"other\"")]);
    assert_eq!(
        (other.status, other.cause().as_str(), other.header("cache-control")),
        (412, "precondition_failed", Some("no-store"))
    );
    let strange = client.ask("GET", "/static/a%20b%C3%A9.bin", &[]);
    assert_eq!((strange.status, strange.header("content-type")), (200, Some("application/octet-stream")));
    let post = client.ask("POST", "/static/css/app.css", &[]);
    assert_eq!(
        (post.status, post.header("allow"), post.cause().as_str()),
        (405, Some("GET, HEAD"), "method_not_allowed")
    );
}

#[test]
fn directories_are_their_index_and_nothing_is_listed() {
    let gateway = serving("", |directory| {
        write(directory, "docs/index.html", "<p>docs</p>");
        write(directory, "bare/a.txt", "a");
    });
    assert_eq!(get(&gateway, "/static/docs/", &[]).text(), "<p>docs</p>");
    let redirect = get(&gateway, "/static/docs?a=b", &[]);
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/static/docs/?a=b")));
    for target in ["/static/bare", "/static/bare/", "/static/", "/static", "/static/bare/a.txt/", "/static/none"] {
        let answer = get(&gateway, target, &[]);
        assert_eq!((answer.status, answer.cause().as_str()), (404, "file_not_found"), "{target}");
    }
    let record = gateway.access_record(&get(&gateway, "/static/bare/", &[]));
    assert!(record["detail"].as_str().unwrap().contains("no such file"), "{record}");
    assert!(!get(&gateway, "/static/bare/", &[]).text().contains(gateway.directory().to_str().unwrap()));
}

#[test]
fn one_file_answers_every_path_of_its_route() {
    let gateway = Gateway::start_with(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [route.app]\npath = \"/app/{*rest}\"\nfiles = \"static/index.html\"\n",
        |directory, _| {
            write(directory, "static/index.html", "<p>app</p>");
            write(directory, "static/index.html.br", "as br");
            write(directory, "elsewhere", "not this");
            symlink("../elsewhere", directory.join("static/index.html.gz")).unwrap();
        },
    );
    for target in ["/app/", "/app", "/app/orders/7", "/app/.hidden/z", "/app/users/..foo", "/app/a/"] {
        let answer = get(&gateway, target, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "<p>app</p>"), "{target}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    }
    let coded = get(&gateway, "/app/orders/7", &[("Accept-Encoding", "gzip, br")]);
    assert_eq!((coded.header("content-encoding"), coded.text().as_str()), (Some("br"), "as br"));
    assert_eq!(coded.header("content-type"), Some("text/html; charset=utf-8"));
    let led_away = get(&gateway, "/app/orders/7", &[("Accept-Encoding", "gzip")]);
    assert_eq!((led_away.header("content-encoding"), led_away.text().as_str()), (None, "<p>app</p>"));
}

#[test]
fn a_directory_is_found_again_with_the_client_s_own_query() {
    let gateway = serving(
        "auth = [\"keys\"]\n[auth.keys]\nkind = \"api_key\"\nquery = \"api_key\"\nkeys = [{ name = \"a\", hash = \"sha256:0917b13a9091915d54b6336f45909539cce452b3661b21f386418a257883b30a\" }]",
        |directory| {
            write(directory, "docs/index.html", "<p>docs</p>");
        },
    );
    let redirect = get(&gateway, "/static/docs?api_key=SECRET&a=b", &[]);
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/static/docs/?api_key=SECRET&a=b")));
    assert_eq!(get(&gateway, redirect.header("location").unwrap(), &[]).text(), "<p>docs</p>");
}

#[test]
fn nothing_leads_out_and_nothing_hidden_is_shown() {
    let gateway = serving("encoded_slashes = true", |directory| {
        write(directory.parent().unwrap(), "outside.txt", "secret");
        write(directory, "inside.txt", "inside");
        write(directory, "releases/2/a.txt", "second");
        write(directory, ".env", "secret");
        write(directory, ".git/config", "secret");
        write(directory, ".well-known/security.txt", "contact");
        symlink("releases/2", directory.join("current")).unwrap();
        symlink("../inside.txt", directory.join("releases/up.txt")).unwrap();
        symlink("../outside.txt", directory.join("out.txt")).unwrap();
        symlink("..", directory.join("parent")).unwrap();
        symlink(directory.parent().unwrap(), directory.join("absolute")).unwrap();
        symlink("/etc/passwd", directory.join("passwd")).unwrap();
        symlink("loop", directory.join("loop")).unwrap();
        symlink("/proc/self/root/etc", directory.join("magic")).unwrap();
    });
    assert_eq!(get(&gateway, "/static/current/a.txt", &[]).text(), "second");
    assert_eq!(get(&gateway, "/static/releases/up.txt", &[]).text(), "inside");
    assert_eq!(get(&gateway, "/static/.well-known/security.txt", &[]).text(), "contact");
    for target in [
        "/static/../outside.txt",
        "/static/%2e%2e/outside.txt",
        "/static/..%2foutside.txt",
        "/static/%2e%2e%2foutside.txt",
        "/static/releases/../../outside.txt",
        "/static/..;/outside.txt",
        "/static/..\\outside.txt",
        "/static/..%5coutside.txt",
        "/static/%c0%ae%c0%ae/outside.txt",
        "/static/..%c0%afoutside.txt",
        "/static/.%00./outside.txt",
        "/static/inside.txt%00",
        "/static/%252e%252e/outside.txt",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/./inside.txt",
        "/static/out.txt",
        "/static/parent/outside.txt",
        "/static/absolute/outside.txt",
        "/static/passwd",
        "/static/loop",
        "/static/magic/passwd",
        "/static/.env",
        "/static/%2eenv",
        "/static/.git/config",
        "/static/current/../.env",
        "/static/current%2f..%2f..%2foutside.txt",
    ] {
        let answer = get(&gateway, target, &[]);
        assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
        assert!(!answer.text().contains("secret") && !answer.text().contains("root:"), "{target}");
    }
    let record = gateway.access_record(&get(&gateway, "/static/out.txt", &[]));
    assert!(record["detail"].as_str().unwrap().contains("a symbolic link leads out"), "{record}");
    let long = format!("/static/{}", "a".repeat(5000));
    assert_eq!(get(&gateway, &long, &[]).status, 404);
}

#[test]
fn what_is_no_regular_file_lets_nobody_wait() {
    let gateway = serving("", |directory| {
        assert!(Command::new("mkfifo").arg(directory.join("fifo")).status().unwrap().success());
        std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
    });
    for target in ["/static/fifo", "/static/socket"] {
        let answer = get(&gateway, target, &[]);
        assert_eq!((answer.status, answer.cause().as_str()), (404, "file_not_found"), "{target}");
    }
}

#[test]
fn a_deployment_that_swaps_the_root_is_seen_at_once() {
    let gateway = Gateway::start_with(
        "[listener.http]\naddress = \"127.0.0.1:@http@\"\n\
         [route.assets]\npath = \"/static/{*rest}\"\nfiles = \"current/static\"\n\
         [route.icon]\npath = \"/favicon.ico\"\nfiles = \"current/static/favicon.ico\"",
        |directory, _| {
            for release in ["1", "2"] {
                write(directory, &format!("releases/{release}/static/a.txt"), release);
                write(directory, &format!("releases/{release}/static/favicon.ico"), release);
            }
            symlink("releases/1", directory.join("current")).unwrap();
        },
    );
    let both = || (get(&gateway, "/static/a.txt", &[]).text(), get(&gateway, "/favicon.ico", &[]).text());
    assert_eq!(both(), ("1".into(), "1".into()));
    symlink("releases/2", gateway.directory().join("next")).unwrap();
    std::fs::rename(gateway.directory().join("next"), gateway.directory().join("current")).unwrap();
    assert_eq!(both(), ("2".into(), "2".into()));
    std::fs::remove_file(gateway.directory().join("current")).unwrap();
    assert_eq!(get(&gateway, "/static/a.txt", &[]).status, 404);
}

/// Bytes that differ wherever one looks.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn ranges_are_the_bytes_that_were_asked_for() {
    let content = pattern(300_000);
    let gateway = serving("", |directory| write(directory, "film.mp4", &content));
    let mut client = Client::connect(gateway.port("http"));
    let whole = client.ask("GET", "/static/film.mp4", &[]);
    assert!(whole.status == 200 && whole.body == content);
    let etag = whole.header("etag").unwrap();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 300_000),
        ("bytes=299999-", 299_999, 300_000),
        ("bytes=-10", 299_990, 300_000),
        ("bytes=100000-250000", 100_000, 250_001),
        ("bytes=10-9999999", 10, 300_000),
    ] {
        let part = client.ask("GET", "/static/film.mp4", &[("Range", range), ("If-Range", etag)]);
        let told = format!("bytes {from}-{}/300000", to - 1);
        assert_eq!((part.status, part.header("content-range")), (206, Some(told.as_str())), "{range}");
        assert!(part.body == content[from..to], "{range}");
        assert_eq!((part.header("etag"), part.header("content-type")), (Some(etag), Some("video/mp4")));
    }
    let past = client.ask("GET", "/static/film.mp4", &[("Range", "bytes=300000-")]);
    assert_eq!((past.status, past.header("content-range")), (416, Some("bytes */300000")));
    assert_eq!(past.cause(), "range_not_satisfiable");
    for whole in [("Range", "bytes=5-4"), ("Range", "lines=1-2"), ("Range", "bytes=0-,0-")] {
        let answer = client.ask("GET", "/static/film.mp4", &[whole]);
        assert!(answer.status == 200 && answer.body == content, "{whole:?}");
    }
    let changed = client.ask("GET", "/static/film.mp4", &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")]);
    assert!(changed.status == 200 && changed.body == content);
    let head = client.ask("HEAD", "/static/film.mp4", &[("Range", "bytes=0-9")]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
}

#[test]
fn several_ranges_come_in_one_answer() {
    let content = pattern(200_000);
    let gateway = serving("", |directory| write(directory, "paper.pdf", &content));
    let answer = get(&gateway, "/static/paper.pdf", &[("Range", "bytes=0-9, 150000-199999, -5")]);
    let kind = answer.header("content-type").unwrap().to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!((answer.status, answer.header("content-range")), (206, None));
    let mut expected = Vec::new();
    for (from, to) in [(0, 10), (150_000, 200_000), (199_995, 200_000)] {
        let begin = if expected.is_empty() { "" } else { "\r\n" };
        let head = format!(
            "{begin}--{boundary}\r\ncontent-type: application/pdf\r\ncontent-range: bytes {from}-{}/200000\r\n\r\n",
            to - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content[from..to]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(answer.body == expected, "{} bytes instead of {}", answer.body.len(), expected.len());
}

#[test]
fn a_sibling_that_was_compressed_beforehand_is_what_is_sent() {
    let gateway = serving("compress = false", |directory| {
        write(directory, "app.js", "console.log(1)");
        write(directory, "app.js.br", "as br");
        write(directory, "app.js.gz", "as gzip!");
        write(directory, "app.js.zst", "as zstd");
        write(directory, "photo.jpg", "jpg");
        write(directory, "photo.jpg.gz", "never");
        write(directory, "stale.css", "new");
        write(directory, "stale.css.gz", "old");
        let old = std::fs::File::options().write(true).open(directory.join("stale.css.gz")).unwrap();
        old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
        symlink("../outside", directory.join("app.css.gz")).unwrap();
        write(directory, "app.css", "plain");
        write(directory, "index.html", "plain");
        write(directory, "index.html.gz", "index as gzip");
    });
    let coded = |target: &str, accept: &str| {
        let answer = get(&gateway, target, &[("Accept-Encoding", accept)]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        (answer.header("content-encoding").unwrap_or("none").to_owned(), answer.text())
    };
    let is = |coding: &str, text: &str| (coding.to_owned(), text.to_owned());
    assert_eq!(coded("/static/app.js", "gzip, deflate, br, zstd"), is("br", "as br"));
    assert_eq!(coded("/static/app.js", "gzip, br;q=0.5"), is("gzip", "as gzip!"));
    assert_eq!(coded("/static/app.js", "zstd, gzip;q=0.5"), is("zstd", "as zstd"));
    assert_eq!(coded("/static/app.js", "identity, gzip;q=0.5"), is("none", "console.log(1)"));
    assert_eq!(coded("/static/app.js", "deflate"), is("none", "console.log(1)"));
    assert_eq!(coded("/static/stale.css", "gzip"), is("none", "new"));
    assert_eq!(coded("/static/app.css", "gzip"), is("none", "plain"));
    assert_eq!(coded("/static/", "gzip"), is("gzip", "index as gzip"));
    let photo = get(&gateway, "/static/photo.jpg", &[("Accept-Encoding", "gzip")]);
    assert_eq!((photo.text().as_str(), photo.header("vary")), ("jpg", None));

    let plain = get(&gateway, "/static/app.js", &[]);
    let gzip = get(&gateway, "/static/app.js", &[("Accept-Encoding", "gzip")]);
    let (one, other) = (plain.header("etag").unwrap(), gzip.header("etag").unwrap());
    assert_ne!(one, other, "each representation has its own");
    assert_eq!(gzip.header("content-type"), Some("text/javascript; charset=utf-8"));
    let ask =
        |fields: &[(&str, &str)]| get(&gateway, "/static/app.js", &[&[("Accept-Encoding", "gzip")], fields].concat());
    assert_eq!(ask(&[("If-None-Match", other)]).status, 304);
    assert_eq!(ask(&[("If-None-Match", one)]).status, 200);
    let part = ask(&[("Range", "bytes=3-6"), ("If-Range", other)]);
    assert_eq!((part.status, part.text().as_str(), part.header("content-encoding")), (206, "gzip", Some("gzip")));
    assert_eq!(part.header("content-range"), Some("bytes 3-6/8"));
    assert_eq!(ask(&[("Range", "bytes=3-6"), ("If-Range", one)]).status, 200);
}

#[test]
fn what_is_not_there_goes_to_the_fallback() {
    let fake = Fake::answering("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nservice");
    let gateway = Gateway::start_with(
        &format!(
            "[listener.http]\naddress = \"127.0.0.1:@http@\"\n[upstream.app]\nservers = [\"{}\"]\n\
             [route.all]\npath = \"/{{*rest}}\"\nfiles = \"static\"\nfallback = \"app\"\ncache_control = \"max-age=60\"",
            fake.url()
        ),
        |directory, _| {
            write(directory, "static/a.txt", "file");
            write(directory, "static/.env", "secret");
            std::fs::create_dir(directory.join("static/empty")).unwrap();
        },
    );
    let file = get(&gateway, "/a.txt", &[]);
    assert_eq!((file.text().as_str(), file.header("cache-control")), ("file", Some("max-age=60")));
    assert!(fake.requests().is_empty());
    assert_eq!(gateway.access_record(&file)["upstream"], serde_json::Value::Null);
    for target in ["/", "/orders/7?a=b", "/.env", "/empty", "/a.txt/"] {
        let answer = get(&gateway, target, &[]);
        assert_eq!((answer.text().as_str(), answer.header("cache-control")), ("service", None), "{target}");
        assert_eq!(fake.requests().last().unwrap().target(), target);
        let record = gateway.access_record(&answer);
        assert_eq!((record["upstream"].as_str(), record["attempts"].as_u64()), (Some("app"), Some(1)));
    }
    let post = Client::connect(gateway.port("http")).ask_with("POST", "/a.txt", &[], b"body");
    assert_eq!(post.text(), "service");
    assert_eq!(fake.requests().last().unwrap().body, b"body");
}

#[test]
fn a_large_file_is_sent_piece_by_piece() {
    let content = pattern(40_000_000);
    let gateway = serving("", |directory| write(directory, "large.iso", &content));
    let before = memory(&gateway);
    // Clients that read nothing yet.
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Client::connect(gateway.port("http"));
            client.send("GET /static/large.iso HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_head().unwrap().header("content-length"), Some("40000000"));
            client
        })
        .collect();
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 30_000_000, "20 clients that wait hold {grown} bytes");
    // Another file in its place: those that have begun go on with the one they began with.
    let path = gateway.directory().join("static/large.iso");
    write(path.parent().unwrap(), "next", "short");
    std::fs::rename(path.with_file_name("next"), &path).unwrap();
    let body = waiting.pop().unwrap().read_exactly(content.len()).unwrap();
    assert!(body == content);
    assert_eq!(get(&gateway, "/static/large.iso", &[]).text(), "short");
}

/// Resident bytes.
fn memory(gateway: &Gateway) -> u64 {
    gateway.metric("process_resident_memory_bytes", &[]) as u64
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_off() {
    let content = pattern(20_000_000);
    let gateway = serving("", |directory| write(directory, "large.iso", &content));
    let mut client = Client::connect(gateway.port("http"));
    client.send("GET /static/large.iso HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head().unwrap();
    std::fs::File::options()
        .write(true)
        .open(gateway.directory().join("static/large.iso"))
        .unwrap()
        .set_len(1000)
        .unwrap();
    let mut body = Vec::new();
    while let Ok(piece) = client.read_exactly(10_000) {
        body.extend_from_slice(&piece);
    }
    assert!(body.len() < content.len() && content.starts_with(&body), "{} bytes, never padded", body.len());
    let record = gateway.access_record(&head);
    assert_eq!(record["cause"], "file_changed");
}
