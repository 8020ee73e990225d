//! Passerelle: a reverse-proxy gateway for Python web services.
//!
//! The tree follows the way of a configuration (`config` to `gateway`) and of a request (`server` to `request` to
//! `upstream`). ARCHITECTURE.md shows both on one page. Dependencies point one way:
//! `cli` → `control` → `admin` → `server` → `request` → `worker` → `upstream` → `http1`, `body`; all of them may use
//! `gateway` (the snapshot), `config`, `observe` and the table of rejections.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admit;
pub mod body;
pub mod certificate_name;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod fetch;
pub mod gateway;
pub mod http1;
pub mod observe;
pub mod request;
pub mod server;
pub mod upstream;
pub mod validate;
pub mod worker;
