//! `[limit.NAME]`

use std::num::{NonZeroU32, NonZeroUsize};

use ::http::HeaderName;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{At, LimitKey, LimitRules, LimitSettings, Rate, RateLimit};
use super::super::value::{choice, number};

const KEYS: [&str; 5] = ["client_ip", "subject", "api_key", "header:NAME", "route"];

/// As many as any machine has memory for.
const MOST_KEYS: u32 = 100_000_000;

const MAX_KEYS: NonZeroUsize = match NonZeroUsize::new(100_000) {
    Some(keys) => keys,
    None => NonZeroUsize::MIN,
};

pub(super) fn read(table: Table<'_>) -> Option<LimitSettings> {
    let rules = rules(&table);
    let settings = LimitSettings {
        span: table.span(),
        key: table.or("key", LimitKey::ClientIp, key),
        max_keys: table.or("max_keys", MAX_KEYS, |node| number::length(node, MOST_KEYS)),
        store: table.get("store", store),
        rules: rules.unwrap_or(LimitRules::Concurrent(NonZeroU32::MIN)),
    };
    table.finish();
    rules.map(|_| settings)
}

fn rules(table: &Table<'_>) -> Option<LimitRules> {
    let rate = table.get("rate", number::rate);
    let burst = table.get("burst", |node| number::count(node, 1_000_000_000));
    let concurrent = table.get("concurrent", |node| number::count(node, 1_000_000_000));
    let wrong = |key: &str| table.has(key) || table.has_slip_of(key);
    if let Some(node) = table.node("burst").filter(|_| !wrong("rate")) {
        let problem = Problem::error(&table.cx.span(&node.key_range), "`burst` says nothing without `rate`");
        table.cx.report(problem.help("add rate = \"50/s\""));
        return None;
    }
    match (rate, concurrent) {
        (Some(rate), None) => Some(LimitRules::Rate(limit(rate, burst))),
        (Some(rate), Some(concurrent)) => Some(LimitRules::Both(limit(rate, burst), concurrent)),
        (None, Some(concurrent)) => Some(LimitRules::Concurrent(concurrent)),
        (None, None) => {
            if !wrong("rate") && !wrong("concurrent") {
                let problem = Problem::error(&table.span(), "this limit has neither `rate` nor `concurrent`");
                table.cx.report_missing(problem.help("add rate = \"50/s\", or concurrent = 10, or both"));
            }
            None
        }
    }
}

/// Unless it is said, a second's worth may come at once.
fn limit(rate: Rate, burst: Option<NonZeroU32>) -> RateLimit {
    let second = u64::from(rate.count.get()).div_ceil(rate.per.as_secs().max(1));
    let second = u32::try_from(second).ok().and_then(NonZeroU32::new).unwrap_or(rate.count);
    RateLimit { rate, burst: burst.unwrap_or(second) }
}

fn key(node: &Node<'_>) -> Option<LimitKey> {
    let text = node.text("what is counted by, such as \"client_ip\"")?;
    match text.text.as_str() {
        "client_ip" => Some(LimitKey::ClientIp),
        "subject" => Some(LimitKey::Subject),
        "api_key" => Some(LimitKey::ApiKey),
        "route" => Some(LimitKey::Route),
        other => match other.strip_prefix("header:").map(|name| HeaderName::from_bytes(name.as_bytes())) {
            Some(Ok(name)) => Some(LimitKey::Header(name)),
            Some(Err(_)) => node.refuse(format!("{} names no header field", text.quoted())),
            None => choice::unknown(node, &text, &KEYS),
        },
    }
}

fn store(node: &Node<'_>) -> Option<At<String>> {
    node.text("the name of a [store.NAME]").map(|text| node.at(text.text))
}
