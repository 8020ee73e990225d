//! Passerelle: a reverse-proxy gateway for Python web services.
//!
//! The tree follows the way of a configuration (`config` to `gateway`) and of a request (`server` to `request` to
//! `upstream`). ARCHITECTURE.md shows both on one page, and which way dependencies point.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admit;
pub mod app;
pub mod aside;
pub mod body;
pub mod certificate_name;
pub mod cli;
pub mod clock;
pub mod coding;
pub mod config;
pub mod control;
pub mod disk;
pub mod explain;
pub mod fetch;
pub mod fields;
pub mod files;
pub mod gateway;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod observe;
pub mod request;
pub mod response;
pub mod server;
pub mod upstream;
pub mod validate;
pub mod worker;
