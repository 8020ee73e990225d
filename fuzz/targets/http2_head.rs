//! Heads of requests over HTTP/2: whatever blocks of fields come, what is accepted is within its bounds, and its lines
//! are those of HTTP/1.1 that say the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use passerelle::http1::head::{HeadScan, Kind, Limits, take_request};
use passerelle::http2::frame::{Frame, HEAD, Head};
use passerelle::http2::hpack::decode::Decoder;
use passerelle::http2::request::Reading;
use passerelle::http2::trailers;

const LIMITS: Limits = Limits { bytes: 1024, target: 256, fields: 16 };

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::default();
    let mut rest = bytes;
    // As frames, so that one block may refer to another.
    while let Some(head) = Head::parse(rest) {
        let Some((payload, behind)) = rest[HEAD..].split_at_checked(head.length) else { return };
        rest = behind;
        let Ok(Frame::Headers { block, end_headers, .. }) = Frame::parse(head, payload) else { continue };
        if !end_headers {
            let mut reading = trailers::Reading::new(LIMITS);
            if decoder.decode(block, &mut reading).is_err() {
                return;
            }
            assert!(reading.finish().map_or(0, |fields| fields.len()) <= LIMITS.fields);
            continue;
        }
        let mut reading = Reading::new(LIMITS);
        if decoder.decode(block, &mut reading).is_err() {
            return;
        }
        let Ok(request) = reading.finish() else { continue };
        assert!(request.target.len() <= LIMITS.bytes && request.headers.len() <= LIMITS.fields);
        let mut text = BytesMut::from("GET / HTTP/1.1\r\n");
        request.headers.write_lines(&mut text, |_| true);
        text.extend_from_slice(b"\r\n");
        let limits = Limits { bytes: 4 * LIMITS.bytes, ..LIMITS };
        let length = HeadScan::default().advance(&text, &limits, Kind::Request).unwrap().unwrap();
        assert_eq!(length, text.len());
        let again = take_request(&mut text, length, &limits).unwrap();
        assert!(again.headers == request.headers);
        assert_eq!(again.seen, request.seen);
    }
});
