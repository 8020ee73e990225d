//! The access record: one line for each request.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use tracing::Level;

use super::trouble::{self, Trouble};
use crate::request::rejection::Cause;

/// The `tracing` target of access records. They follow `access` in `[log]`, not `level`.
pub const TARGET: &str = "access";

// The longest of what a client chooses, in bytes; the rest is cut off.
pub(super) const LONGEST_DETAIL: usize = 512;
const LONGEST_ID: usize = 128;
const LONGEST_METHOD: usize = 32;
const LONGEST_HOST: usize = 256;
const LONGEST_PATH: usize = 2048;
const LONGEST_SUBJECT: usize = 256;
const LONGEST_USER_AGENT: usize = 256;

/// What is told of one request. The query's values are never part of it.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    pub request_id: &'a str,
    pub client: IpAddr,
    /// The caller behind its auth's name, where callers are to be named.
    pub subject: Option<&'a str>,
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
    /// What the operating system or a library said of the failure.
    pub detail: Option<&'a str>,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
    /// Spent waiting for a slot; zero where one was free.
    pub queued: Duration,
    pub received: u64,
    pub sent: u64,
    pub attempts: u32,
    /// The `traceparent` that came, if it was well formed.
    pub traceparent: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// Whether access records are written at all: asks one flag, so that nobody prepares a record in vain.
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, Level::INFO)
}

/// Whether [`record`] has anything to do for a request that ended so.
pub fn wanted(cause: Option<Cause>) -> bool {
    enabled() || cause.is_some_and(is_trouble)
}

/// Whether the operator must hear of it, access records or not.
fn is_trouble(cause: Cause) -> bool {
    cause.row().status.is_server_error()
}

/// Writes the record through `tracing`. A request that was refused or failed has `cause`, `blame` and `remedy`.
///
/// Without access records, failures that are not the client's are told all the same, though not each of them.
pub fn record(record: &AccessRecord<'_>) {
    if !enabled() {
        if let Some(cause) = record.cause.filter(|cause| is_trouble(*cause)) {
            let AccessRecord { listener, route, upstream, server, detail, .. } = *record;
            let request_id = Some(cut(record.request_id, LONGEST_ID));
            trouble::tell(cause, &Trouble { listener, request_id, route, upstream, server, detail });
        }
        return;
    }
    let row = record.cause.map(Cause::row);
    tracing::event!(
        target: TARGET,
        Level::INFO,
        request_id = cut(record.request_id, LONGEST_ID),
        client = %record.client,
        subject = record.subject.map(|subject| cut(subject, LONGEST_SUBJECT)),
        listener = record.listener,
        route = record.route,
        upstream = record.upstream,
        server = record.server,
        method = cut(record.method, LONGEST_METHOD),
        host = known(record.host).map(|host| cut(host, LONGEST_HOST)),
        // A query cannot slip in, whatever the caller took for the path.
        path = known(record.path.split(['?', '#']).next().unwrap_or_default()).map(|path| cut(path, LONGEST_PATH)),
        protocol = protocol(record.version),
        status = u64::from(record.status),
        cause = row.map(|row| row.cause),
        blame = row.map(|row| row.blame.as_str()),
        detail = record.detail.map(|detail| cut(detail, LONGEST_DETAIL)),
        remedy = row.map(|row| row.remedy),
        duration = seconds(record.duration),
        upstream_duration = record.upstream_duration.map(seconds),
        queue_duration = Some(record.queued).filter(|time| !time.is_zero()).map(seconds),
        received = record.received,
        sent = record.sent,
        attempts = u64::from(record.attempts),
        trace = record.traceparent.and_then(trace_id),
        user_agent = record.user_agent.map(|agent| cut(agent, LONGEST_USER_AGENT)),
    );
}

/// Nothing for what a head that was refused did not get as far as to tell.
fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The longest beginning of `text` that has at most `longest` bytes.
pub(super) fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "other",
    }
}

/// In seconds, to the microsecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The trace's own part of a `traceparent`, the second (W3C Trace Context, 3.2.2.3).
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;

    fn sample() -> AccessRecord<'static> {
        AccessRecord {
            request_id: "r-1",
            client: IpAddr::from([192, 0, 2, 7]),
            subject: None,
            listener: "https",
            route: Some("orders"),
            upstream: None,
            server: None,
            method: "GET",
            host: "api.example.com",
            path: "/orders",
            version: Version::HTTP_11,
            status: 200,
            cause: None,
            detail: None,
            duration: Duration::from_nanos(1_234_567),
            upstream_duration: None,
            queued: Duration::ZERO,
            received: 0,
            sent: 17,
            attempts: 1,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            user_agent: None,
        }
    }

    /// Keeps the fields of the last event.
    #[derive(Clone, Default)]
    struct Last(Arc<Mutex<BTreeMap<&'static str, String>>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Last {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);
            impl Visit for Fields<'_> {
                fn record_str(&mut self, field: &Field, value: &str) {
                    self.0.insert(field.name(), value.to_owned());
                }
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    self.0.insert(field.name(), format!("{value:?}"));
                }
            }
            assert_eq!(event.metadata().target(), "access");
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
    }

    fn fields(record: &AccessRecord<'_>) -> BTreeMap<&'static str, String> {
        let last = Last::default();
        with_default(tracing_subscriber::registry().with(last.clone()), || super::record(record));
        last.0.lock().unwrap().clone()
    }

    #[test]
    fn a_plain_record() {
        let fields = fields(&sample());
        let has = |name: &str| fields.get(name).map(String::as_str);
        assert_eq!(has("client"), Some("192.0.2.7"));
        assert_eq!(has("protocol"), Some("HTTP/1.1"));
        assert_eq!(has("status"), Some("200"));
        assert_eq!(has("duration"), Some("0.001234"));
        assert_eq!(has("trace"), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(has("route"), Some("orders"));
        for absent in
            ["upstream", "server", "cause", "blame", "remedy", "upstream_duration", "queue_duration", "user_agent"]
        {
            assert_eq!(has(absent), None, "{absent}");
        }
    }

    #[test]
    fn every_refusal_has_its_remedy() {
        for cause in Cause::ALL {
            let row = cause.row();
            let fields = fields(&AccessRecord { status: row.status.as_u16(), cause: Some(*cause), ..sample() });
            assert_eq!(fields.get("cause").map(String::as_str), Some(row.cause));
            assert_eq!(fields.get("blame").map(String::as_str), Some(row.blame.as_str()));
            assert_eq!(fields.get("remedy").map(String::as_str), Some(row.remedy), "{cause:?}");
        }
    }

    #[test]
    fn what_a_client_chooses_is_bounded_and_has_no_query() {
        let long = "é".repeat(5000);
        let fields = fields(&AccessRecord {
            path: &long,
            host: &long,
            user_agent: Some(&long),
            request_id: &long,
            method: &long,
            ..sample()
        });
        for (name, bound) in [("path", 2048), ("host", 256), ("user_agent", 256), ("request_id", 128), ("method", 32)] {
            assert_eq!(fields[name].len(), bound, "{name}");
        }
        let refused = self::fields(&AccessRecord { path: "", host: "", ..sample() });
        assert!(!refused.contains_key("path") && !refused.contains_key("host"));
        let secret = self::fields(&AccessRecord { path: "/reset?token=abc", ..sample() });
        assert_eq!(secret["path"], "/reset");
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("é", 0), "");
    }
}
