//! Heads of responses: whatever is accepted is written so that it is read as the same again.
#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use passerelle::http1::head::{HeadScan, Kind, Limits, take_response};
use passerelle::http1::{at_once, encode, framing};

const LIMITS: Limits = Limits { bytes: 1024, target: 0, fields: 16 };

fuzz_target!(|text: &[u8]| {
    let Ok(Some(length)) = HeadScan::default().advance(text, &LIMITS, Kind::Response) else { return };
    let Ok(head) = take_response(&mut BytesMut::from(text), length, &LIMITS) else { return };
    if let Some(at_once) = at_once::response(&mut BytesMut::from(text), &LIMITS) {
        assert_eq!((at_once.status, &at_once.headers, at_once.seen), (head.status, &head.headers, head.seen));
    }
    for method in [Method::GET, Method::HEAD] {
        // Ambiguous or not: it is decided without a panic.
        let _ = framing::of_response(&method, head.status, head.version, &head.headers, head.seen);
    }
    let mut out = BytesMut::new();
    encode::status_line(&mut out, head.status);
    head.headers.write_lines(&mut out, |_| true);
    out.extend_from_slice(b"\r\n");
    let limits = Limits { bytes: 4096, ..LIMITS };
    let length = HeadScan::default().advance(&out, &limits, Kind::Response);
    assert_eq!(length, Ok(Some(out.len())));
    let length = out.len();
    let again = take_response(&mut out, length, &limits).expect("what is written can be read");
    assert_eq!((again.status, again.headers, again.seen), (head.status, head.headers, head.seen));
});
