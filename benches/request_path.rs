//! What each step costs that every request takes: its head, its target, its route, the rules for its fields.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use http::{HeaderValue, Method};
use passerelle::admit::credential::Withheld;
use passerelle::config::settings::{HostPattern, PathPattern, PatternSegment};
use passerelle::config::{Outside, load_text};
use passerelle::gateway::Gateway;
use passerelle::headers::{Headers, Name};
use passerelle::http1::head::{HeadScan, Kind, Limits, take_request};
use passerelle::observe::metrics::Metrics;
use passerelle::request::outgoing::is_reserved;
use passerelle::request::routes::RouteTable;
use passerelle::request::target::Target;

const LIMITS: Limits = Limits { bytes: 32 * 1024, target: 8 * 1024, fields: 100 };

/// A head such as a browser sends.
const HEAD: &str = "GET /orders/42?full=1 HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en,fr;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\
    Connection: keep-alive\r\nReferer: https://api.example.com/orders\r\n\r\n";

fn head(c: &mut Criterion) {
    c.bench_function("head", |b| {
        b.iter(|| {
            let mut buffer = BytesMut::from(HEAD);
            let length = HeadScan::default().advance(&buffer, &LIMITS, Kind::Request).unwrap().unwrap();
            black_box(take_request(&mut buffer, length, &LIMITS).unwrap());
        });
    });
}

fn target(c: &mut Criterion) {
    for (name, text) in [("target/plain", "/orders/42?full=1"), ("target/encoded", "/caf%c3%a9//%7Eme/42")] {
        let raw = Bytes::from_static(text.as_bytes());
        c.bench_function(name, |b| b.iter(|| black_box(Target::parse(&Method::GET, &raw).unwrap())));
    }
}

fn routes(c: &mut Criterion) {
    for count in [10, 10_000] {
        let mut table = RouteTable::default();
        let host = [HostPattern::Exact("api.example.com".into())];
        for index in 0..count {
            let segments = vec![
                PatternSegment::Literal(format!("service{index}")),
                PatternSegment::Parameter("id".into()),
                PatternSegment::Rest("rest".into()),
            ];
            table.add(&host, &PathPattern { segments }, None, index);
        }
        let path = format!("/service{}/42/items", count / 2);
        c.bench_function(&format!("routes/{count}"), |b| {
            b.iter(|| black_box(table.find(Some("api.example.com"), &path, &Method::GET).unwrap()));
        });
    }
}

/// A route without rules of its own beside one that sets and removes two fields on either way.
const RULES: &str = "[listener.http]\naddress = \"127.0.0.1:0\"\n\
    [route.none]\npath = \"/none\"\nrespond = { status = 204 }\n\
    [route.some]\npath = \"/some\"\nrespond = { status = 204 }\n[route.some.headers]\n\
    request = { set = { X-Tenant = \"shop\", X-Stage = \"live\" }, remove = [\"X-Debug\", \"X-Trace\"] }\n\
    response = { set = { Cache-Control = \"no-store\", X-Stage = \"live\" }, remove = [\"Server\", \"X-Powered-By\"] }\n";

/// Which of a browser's fields go on, and what an answer is given.
fn header_rules(c: &mut Criterion) {
    let metrics = Metrics::new(1);
    let loaded = load_text("bench.toml", RULES, Path::new("/"), &Outside::new(&|_| None));
    let (gateway, problems) = loaded.build(|settings, problems| Gateway::build(settings, None, &metrics, problems));
    let routes = gateway.unwrap_or_else(|| panic!("{problems:?}")).routes;
    let mut buffer = BytesMut::from(HEAD);
    let length = HeadScan::default().advance(&buffer, &LIMITS, Kind::Request).unwrap().unwrap();
    let request = take_request(&mut buffer, length, &LIMITS).unwrap().headers;
    let fields = [(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "1024"), (SERVER, "gunicorn")];
    let answer: Headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
    for name in ["none", "some"] {
        let route = routes.find(None, &format!("/{name}"), &Method::GET).ok().unwrap();
        let (changes, identity) = (&route.settings.request_headers, &routes.identity_fields);
        c.bench_function(&format!("header_rules/request/{name}"), |b| {
            let stays = |name: &Name<'_>| is_reserved(*name, changes, identity, Withheld::Nothing);
            b.iter(|| black_box(&request).keys().filter(stays).count());
        });
        c.bench_function(&format!("header_rules/response/{name}"), |b| {
            b.iter_batched_ref(
                || answer.clone(),
                |answer| route.finish_headers(black_box(answer), true),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, head, target, routes, header_rules);
criterion_main!(benches);
