//! What admission costs: a token that was seen before, and one that was not.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use passerelle::admit::auth::Kind;
use passerelle::config::{Outside, load_text};
use passerelle::gateway::Gateway;
use passerelle::observe::metrics::{Metrics, WorkerId};
use passerelle::worker::Worker;
use serde_json::json;

#[path = "../src/admit/jwt/testing.rs"]
mod testing;

use testing::{Signer, claims, jwks, with};

fn worker(keys: &Path, algorithm: &str) -> Worker {
    let text = format!(
        "[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/{{*rest}}\"\nauth = [\"idp\"]\n\
         respond = {{ status = 204 }}\n[auth.idp]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\n\
         audience = [\"orders\"]\nalgorithms = [\"{algorithm}\"]\njwks_file = \"{}\"\n",
        keys.display()
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
            b.iter(|| runtime.block_on(jwt.judge(&worker, black_box(token.as_bytes()))).unwrap());
        });
        if algorithm == "RS256" {
            passerelle::clock::keep();
            c.bench_function(&format!("jwt/known/{} bytes", token.len()), |b| {
                b.iter(|| jwt.known(&worker, black_box(token.as_bytes())).unwrap());
            });
        }
        let forged = token.replace("eyJhbGciOi", "eyJhbGciOj");
        c.bench_function(&format!("jwt/refuse before the signature/{algorithm}"), |b| {
            b.iter(|| runtime.block_on(jwt.judge(&worker, black_box(forged.as_bytes()))).unwrap_err());
        });
    }
}

criterion_group!(benches, jwt);
criterion_main!(benches);
