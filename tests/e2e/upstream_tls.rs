//! `https://` servers: a real gunicorn behind TLS, its certificate judged by our own authority, ours by its.

use std::path::Path;

use crate::harness::backends::Backend;
use crate::harness::tls::Certificate;
use crate::harness::{Gateway, Response, Setup};

/// A gunicorn that speaks TLS with `orders.internal`'s certificate and demands that of `gateway` from its clients.
fn backend(directory: &Path) -> Backend {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let [chain, key, clients] = [path("server.pem"), path("server.key"), path("client.pem")];
    // 2: a client certificate is required.
    let tls = ["--certfile", &chain, "--keyfile", &key, "--ca-certs", &clients, "--cert-reqs", "2"];
    Backend::gunicorn_with_tls("orders", "app:app", &[&tls[..], &["--threads", "4"]].concat())
}

fn start(server: &Backend, directory: &Path, tls: &str) -> Gateway {
    let setup = Setup::before([format!("https://127.0.0.1:{}", server.port())])
        .rest(&format!("[upstream.app.tls]\n{}", tls.replace("DIR", directory.to_str().unwrap())));
    setup.start()
}

const ALL: &str = "ca = \"DIR/server.pem\"\nserver_name = \"orders.internal\"\n\
                   client = { chain = \"DIR/client.pem\", key = \"DIR/client.key\" }";

#[test]
fn a_server_behind_tls_is_reached_and_judged() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Certificate::new(&["orders.internal"]).write(directory, "server");
    Certificate::new(&["gateway"]).write(directory, "client");
    Certificate::new(&["orders.internal"]).write(directory, "other");
    let server = backend(directory);

    let gateway = start(&server, directory, ALL);
    for _ in 0..5 {
        assert_eq!(gateway.get("/healthz").text(), "ok\n");
    }
    let reused = gateway.metric("passerelle_upstream_connections_total", &["reused=\"true\""]);
    assert!(reused >= 2.0, "connections behind TLS are kept: {reused}");

    // Each way in which either side must not trust the other.
    let failed = |answer: Response| (answer.status, answer.cause());
    let expected = (502, "upstream_tls_failed".to_owned());
    let cases = [
        ("a name that the certificate does not have", ALL.replace("orders.internal", "other.internal")),
        ("an authority that did not sign it", ALL.replace("DIR/server.pem", "DIR/other.pem")),
        ("the system's authorities", ALL.replace("ca = \"DIR/server.pem\"\n", "")),
        ("no client certificate", ALL.split("client =").next().unwrap().to_owned()),
        ("a client certificate that the server does not know", ALL.replace("DIR/client", "DIR/other")),
    ];
    for (what, tls) in cases {
        let (status, cause) = failed(start(&server, directory, &tls).get("/healthz"));
        // In TLS 1.3 a server refuses the client's certificate after the client has begun to speak.
        let late = what.contains("client") && cause == "upstream_closed_early";
        assert!((status, cause.clone()) == expected || (status == 502 && late), "{what}: {status} {cause}");
    }
}
