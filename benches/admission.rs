//! What admission costs: each kind of credential, seen before and not, alone and as a route's whole gate with a role;
//! and the cache of what was seen.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Method};
use passerelle::admit::auth::Kind;
use passerelle::admit::digest::{Digested, Mark};
use passerelle::admit::gate::Asking;
use passerelle::admit::identity::{Identity, Method as How};
use passerelle::admit::verified::{Holds, Prover, Verified};
use passerelle::config::{Outside, load_text};
use passerelle::gateway::Gateway;
use passerelle::observe::metrics::{Metrics, WorkerId};
use passerelle::request::peer::{ClientCertificate, Peer};
use passerelle::worker::Worker;
use serde_json::json;

#[path = "../src/admit/jwt/testing.rs"]
mod testing;

use testing::{Signer, claims, jwks, with};

use passerelle::headers::Headers;

fn worker(keys: &Path, algorithm: &str) -> Worker {
    worker_with(&format!(
        "kind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\n\
         algorithms = [\"{algorithm}\"]\njwks_file = \"{}\"\n",
        keys.display()
    ))
}

/// `auth`: the lines of `[auth.idp]`.
fn worker_with(auth: &str) -> Worker {
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/{{*rest}}\"\nauth = [\"idp\"]\nroles = [\"reader\"]\n\
         respond = {{ status = 204 }}\n[auth.idp]\n{auth}"
    );
    let metrics = Metrics::new(1);
    let loaded = load_text("bench.toml", &text, Path::new("/"), &Outside::new(&|_| None));
    let (gateway, problems) = loaded.build(|settings, problems| Gateway::build(settings, None, &metrics, problems));
    let gateway = gateway.unwrap_or_else(|| panic!("{problems:?}"));
    Worker::new(WorkerId(0), Arc::new(ArcSwap::from_pointee(gateway)), metrics)
}

fn jwt(c: &mut Criterion) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("jwks.json");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let signer = Signer::new(algorithm, "key");
        std::fs::write(&path, jwks([&signer])).unwrap();
        let worker = worker(&path, algorithm);
        let gateway = worker.gateway();
        let auth = gateway.auths.get("idp").unwrap();
        let Kind::Jwt(jwt) = &auth.kind else { panic!("not a jwt") };
        // About 800 bytes, as those of common issuers.
        let padding = 800 - signer.sign(&claims()).len();
        let token = signer.sign(&with(claims(), json!({"azp": "x".repeat(padding * 3 / 4)})));
        c.bench_function(&format!("jwt/judge/{algorithm}"), |b| {
            b.iter(|| runtime.block_on(jwt.judge(&worker, &Digested::new(black_box(token.as_bytes())))).unwrap());
        });
        if algorithm == "RS256" {
            passerelle::clock::keep();
            c.bench_function(&format!("jwt/known/{} bytes", token.len()), |b| {
                b.iter(|| jwt.known(&worker, &Digested::new(black_box(token.as_bytes()))).unwrap());
            });
        }
        let forged = token.replace("eyJhbGciOi", "eyJhbGciOj");
        c.bench_function(&format!("jwt/refuse before the signature/{algorithm}"), |b| {
            b.iter(|| runtime.block_on(jwt.judge(&worker, &Digested::new(black_box(forged.as_bytes())))).unwrap_err());
        });
    }
}

/// What a worker knows itself, and what only the task that asks the server knows.
fn introspection(c: &mut Criterion) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let good = memchr::memmem::find(request.get(..read).unwrap_or_default(), b"token=good").is_some();
            let body = if good { r#"{"active":true,"sub":"alice","scope":"a b"}"# } else { r#"{"active":false}"# };
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let worker = worker_with(&format!(
        "kind = \"introspection\"\nurl = \"http://127.0.0.1:{port}/\"\nclient_id = \"gateway\"\n\
         client_secret = \"secret\"\ncache = \"1h\"\n"
    ));
    let gateway = worker.gateway();
    let Kind::Introspection(asked) = &gateway.auths.get("idp").unwrap().kind else { panic!("no introspection") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.spawn(asked.task().unwrap());
    runtime.block_on(asked.judge(&worker, &Digested::new(b"good"))).unwrap();
    c.bench_function("introspection/known", |b| {
        b.iter(|| asked.known(&worker, &Digested::new(black_box(b"good"))).unwrap())
    });
    c.bench_function("introspection/refused again", |b| {
        b.iter(|| runtime.block_on(asked.judge(&worker, &Digested::new(black_box(b"bad")))).unwrap_err());
    });
}

/// The gate of a route that demands a role, asked by somebody who was let in before and has it.
fn gate(c: &mut Criterion) {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let signer = Signer::new("ES256", "key");
    let keys = write("jwks.json", &jwks([&signer]));
    let token = signer.sign(&with(claims(), json!({"roles": ["reader"]})));
    let users = write("users", &format!("alice:{}\n", bcrypt::hash("open sesame", 10).unwrap()));
    let digest: String =
        passerelle::admit::digest::digest([b"key".as_slice()]).iter().map(|byte| format!("{byte:02x}")).collect();
    let certificate = ClientCertificate::new(
        "CN=batch".to_owned(),
        vec!["CN=batch".to_owned()],
        1,
        std::time::SystemTime::now() + std::time::Duration::from_secs(3600),
    );
    let jwt =
        format!("kind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\njwks_file = \"{keys}\"\n");
    let api_key = format!(
        "kind = \"api_key\"\nheader = \"X-API-Key\"\n\
         keys = [{{ name = \"acme\", hash = \"sha256:{digest}\", roles = [\"reader\"] }}]\n"
    );
    let basic = format!("kind = \"basic\"\nhtpasswd = \"{users}\"\nroles = {{ alice = [\"reader\"] }}\n");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, private) = (write("cert.pem", &made.cert.pem()), write("key.pem", &made.signing_key.serialize_pem()));
    let machines = format!(
        "kind = \"client_certificate\"\nroles = {{ \"CN=batch\" = [\"reader\"] }}\n\
         [listener.machines]\naddress = \"127.0.0.2:0\"\n[listener.machines.tls]\n\
         certificates = [{{ chain = \"{chain}\", key = \"{private}\" }}]\nclient_ca = \"{chain}\"\n"
    );
    let password = format!("Basic {}", STANDARD.encode("alice:open sesame"));
    let cases = [
        ("jwt", jwt, Some(("authorization", format!("Bearer {token}")))),
        ("api_key", api_key, Some(("x-api-key", "key".to_owned()))),
        ("basic", basic, Some(("authorization", password))),
        ("client_certificate", machines, None),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (kind, auth, field) in cases {
        let worker = worker_with(&auth);
        let gateway = worker.gateway();
        let route = gateway.routes.find(None, "/orders", &Method::GET).ok().unwrap();
        let headers: Headers = field
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::try_from(value).unwrap()))
            .collect();
        let peer = Peer {
            listener: "http".into(),
            remote: "127.0.0.1:50000".parse().unwrap(),
            local: "127.0.0.1:8080".parse().unwrap(),
            trusted: false,
            tls: true,
            certificate: Some(certificate.clone().into()),
            written: Default::default(),
            host: Default::default(),
        };
        let asking = Asking {
            peer: &peer,
            method: &Method::GET,
            host: None,
            headers: &headers,
            query: None,
            upgrade: false,
            cors: None,
            forward_credential: None,
        };
        let admit = || runtime.block_on(route.gate.admit(black_box(&asking), &worker)).is_ok();
        assert!(admit(), "{kind}");
        c.bench_function(&format!("gate/{kind}"), |b| b.iter(admit));
    }
}

/// The cache of one worker, with few tokens in it and as full as it gets.
fn token_cache(c: &mut Criterion) {
    passerelle::clock::keep();
    let prover = Prover::new();
    let holds = Holds { until: None, at_most: Duration::from_secs(3600) };
    let name: Arc<str> = Arc::from("idp");
    let identity =
        |subject: usize| Arc::new(Identity::new(&name, How::Jwt, &format!("user{subject}"), ["reader".to_owned()], []));
    let of = |subject: usize| Mark::of(&subject.to_ne_bytes());
    for count in [100, 30_000] {
        let verified = Verified::default();
        for subject in 0..count {
            verified.put(prover, 1, of(subject), &identity(subject), holds);
        }
        let mut next = 0;
        c.bench_function(&format!("token_cache/known of {count}"), |b| {
            let marks: Vec<_> = (count - 100..count).map(of).collect();
            b.iter(|| {
                next = (next + 1) % marks.len();
                assert!(verified.get(prover, 1, black_box(marks[next])).is_some());
            });
        });
        let unknown = of(count);
        c.bench_function(&format!("token_cache/unknown of {count}"), |b| {
            b.iter(|| assert!(verified.get(prover, 1, black_box(unknown)).is_none()));
        });
    }
    let (verified, identity) = (Verified::default(), identity(0));
    let mut next = 0;
    c.bench_function("token_cache/put", |b| {
        b.iter(|| {
            next += 1;
            verified.put(prover, 1, of(next), &identity, holds);
        });
    });
}

criterion_group!(benches, jwt, introspection, gate, token_cache);
criterion_main!(benches);
