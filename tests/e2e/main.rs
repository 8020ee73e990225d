//! End to end: the real binary, in front of real Python services and of servers made to misbehave, all on loopback.
//!
//! One module a feature. Nothing that matters is mocked, ports are given by the kernel, waiting is polling with a
//! deadline, and every process a test starts ends with it.

// A test that cannot go on says so by panicking; helpers outside of #[test] functions do so too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unreachable_pub)]

mod abuse;
mod answers;
mod app_resources;
mod apps;
mod apps_crashes;
mod apps_deaths;
mod apps_environments;
mod apps_failures;
mod apps_isolation;
mod apps_output;
mod apps_releases;
mod apps_rollbacks;
mod asgi;
mod buffering;
mod combinations;
mod compression;
mod credentials;
mod demo;
mod documentation;
mod errors;
mod examples;
mod explaining;
mod faults;
mod files;
mod forwarding;
mod harness;
mod headers;
mod health;
mod hostile;
mod http2_frames;
mod http2_upstreams;
mod identity;
mod idle;
mod issuer;
mod issuer_keys;
mod jwt;
mod lifecycle;
mod limits;
mod named_files;
mod observed;
mod oidc;
mod opaque_tokens;
mod openapi;
mod overload;
mod packaging;
mod profile;
mod proxy_protocol;
mod python;
mod reloads;
mod serve;
mod slots;
mod slow;
mod slow_clients;
mod soak;
mod store;
mod tls;
mod upstream_tls;
mod uwsgi;
mod validation;
mod websocket;
mod workers;
