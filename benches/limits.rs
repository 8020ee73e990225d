//! What counting a request costs, and telling what is left.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderValue;
use passerelle::admit::Caller;
use passerelle::admit::limit::counts::{Counts, SECOND};
use passerelle::admit::limit::key::CountedBy;
use passerelle::admit::limit::places::{self, Places};
use passerelle::admit::limit::{fields, redis};
use passerelle::config::settings::{LimitKey, LimitRules, LimitSettings, Rate, RateLimit};
use passerelle::config::source::{SourceFile, Span};
use tokio::time::Instant;

use passerelle::headers::Headers;

fn counts(rules: LimitRules) -> Arc<Counts> {
    let span = Span::whole_file(&Arc::new(SourceFile::new("limits.toml", String::new())));
    let max_keys = NonZeroUsize::new(100_000).unwrap();
    Arc::new(Counts::new(&LimitSettings { span, rules, key: LimitKey::ClientIp, max_keys, store: None }))
}

fn rate(count: u32) -> RateLimit {
    let count = NonZeroU32::new(count).unwrap();
    RateLimit { rate: Rate { count, per: Duration::from_secs(1) }, burst: count }
}

fn by(client: IpAddr, headers: &Headers) -> CountedBy<'_> {
    CountedBy::new(&LimitKey::ClientIp, client, headers, "orders", &Caller::Anonymous).unwrap()
}

fn counting(c: &mut Criterion) {
    let headers = Headers::new();
    let client: IpAddr = "192.0.2.1".parse().unwrap();
    let now = Instant::now();
    let ample = counts(LimitRules::Rate(rate(1_000_000_000)));
    c.bench_function("limits/admitted", |b| b.iter(|| black_box(ample.count(by(client, &headers), now)).rate));
    let scarce = counts(LimitRules::Rate(rate(1)));
    c.bench_function("limits/refused", |b| b.iter(|| black_box(scarce.count(by(client, &headers), now)).rate));
    let mut next = 0_u32;
    c.bench_function("limits/one_of_50000_keys", |b| {
        b.iter(|| {
            next = (next + 1) % 50_000;
            black_box(ample.count(by(IpAddr::from(next.to_be_bytes()), &headers), now)).rate
        });
    });
    let full = counts(LimitRules::Rate(rate(1)));
    for client in 0..400_000_u32 {
        full.count(by(IpAddr::from(client.to_be_bytes()), &headers), now);
    }
    let mut next = 1_000_000_u32;
    c.bench_function("limits/new_key_of_a_full_table", |b| {
        b.iter(|| {
            next = next.wrapping_add(1);
            black_box(full.count(by(IpAddr::from(next.to_be_bytes()), &headers), now)).rate
        });
    });
    let at_once = counts(LimitRules::Concurrent(NonZeroU32::new(10).unwrap()));
    c.bench_function("limits/concurrent", |b| b.iter(|| black_box(at_once.count(by(client, &headers), now)).at_once));
    let both = counts(LimitRules::Both(rate(1_000_000_000), NonZeroU32::new(10).unwrap()));
    c.bench_function("limits/rate_and_concurrent", |b| {
        b.iter(|| black_box(both.count(by(client, &headers), now)).rate)
    });
}

/// What a worker does for a place in a store, beside asking.
fn holding(c: &mut Criterion) {
    let (mut all, key, now) = (Places::default(), Rc::from("passerelle:{per_client:0}"), Instant::now());
    c.bench_function("limits/store_place", |b| {
        b.iter(|| {
            let place = places::place();
            all.hold(&key, &place, now);
            all.give_back(&place, now);
            black_box(all.to_give_back(8, now)).len()
        });
    });
}

fn telling(c: &mut Criterion) {
    let headers = Headers::new();
    let counts = counts(LimitRules::Rate(rate(1_000_000_000)));
    let room = counts.count(by("192.0.2.1".parse().unwrap(), &headers), Instant::now()).rate.unwrap();
    let policy = HeaderValue::from_static("\"per_client\";q=100;w=2");
    c.bench_function("limits/fields", |b| {
        b.iter(|| {
            let mut value = Vec::new();
            fields::write_rate(&mut value, "per_client", room, SECOND);
            black_box((HeaderValue::from_bytes(&value).unwrap(), policy.clone()))
        });
    });
    c.bench_function("limits/store_key", |b| {
        b.iter(|| black_box(redis::key("per_client", &by("192.0.2.1".parse().unwrap(), &headers))));
    });
}

criterion_group!(benches, counting, holding, telling);
criterion_main!(benches);
