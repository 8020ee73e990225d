//! Heads of requests: the same end however they arrive, and whatever is accepted has one length and one host.
#![no_main]

use bytes::BytesMut;
use http::Version;
use libfuzzer_sys::fuzz_target;
use passerelle::http1::at_once;
use passerelle::http1::framing::{self, Framing};
use passerelle::http1::head::{HeadScan, Kind, Limits, take_request};

const LIMITS: Limits = Limits { bytes: 1024, target: 256, fields: 16 };

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, text) = input;
    let whole = HeadScan::default().advance(text, &LIMITS, Kind::Request);
    let mut scan = HeadScan::default();
    let first = scan.advance(&text[..usize::from(cut) % (text.len() + 1)], &LIMITS, Kind::Request);
    let parts = match first {
        Ok(None) => scan.advance(text, &LIMITS, Kind::Request),
        done => done,
    };
    assert_eq!(whole.ok(), parts.ok());
    let Ok(Some(length)) = whole else { return };
    let mut buffer = BytesMut::from(text);
    let head = take_request(&mut buffer, length, &LIMITS);
    assert_eq!(&buffer[..], &text[length..]);
    if let Some(at_once) = at_once::request(&mut BytesMut::from(text), &LIMITS) {
        let head = head.as_ref().expect("what is read at once is a head");
        assert_eq!((&at_once.method, &at_once.target), (&head.method, &head.target));
        assert_eq!((&at_once.headers, at_once.seen), (&head.headers, head.seen));
    }
    let Ok(head) = head else { return };
    assert!(head.target.len() <= LIMITS.target && head.headers.len() <= LIMITS.fields);
    for (name, value) in &head.headers {
        assert!(!name.as_str().contains([' ', '\t', ':']));
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    let Ok(framing) = framing::of_request(head.version, &head.headers, head.seen) else { return };
    let coded = head.headers.contains_key("transfer-encoding");
    assert_eq!(framing == Framing::Chunked, coded);
    assert!(!(coded && (head.headers.contains_key("content-length") || head.version == Version::HTTP_10)));
    assert!(head.headers.get_all("content-length").count() <= 1);
});
